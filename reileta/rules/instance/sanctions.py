"""Bans and mutes of an instance, and checks of moderation input.

Both are per user, whether it is inside or not, and are stored as long as the instance exists. A ban
can also be of all users of another server. Users are `UserIDAt`s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeGuard, get_args

from reileta.errors import ModerationInvalid
from reileta.ids import banned_server, server_of
from reileta.protocol.input_types import is_clean
from reileta.records import Ban
from reileta.rules.federation.addresses import covers

ModerationAction = Literal["kick", "ban", "unban", "mute", "unmute", "warn"]

_ACTIONS: Final = frozenset(get_args(ModerationAction))
REASON_LIMIT: Final = 500
"""Largest number of characters in a reason."""


def is_moderation_type(text: str) -> TypeGuard[ModerationAction]:
    return text in _ACTIONS


def check(type_: str, reason: str | None, until: int | None, now: int) -> ModerationAction:
    """Checks a moderation request and returns its type.

    Raises:
        ModerationInvalid: the type is unknown, the reason is too long, or `until` is in the past or
            not allowed for the type (only bans and mutes expire).
    """
    if not is_moderation_type(type_):
        raise ModerationInvalid.field(
            "type", f"must be one of {', '.join(get_args(ModerationAction))}"
        )
    if reason is not None:
        if len(reason) > REASON_LIMIT:
            raise ModerationInvalid.field("reason", f"must be at most {REASON_LIMIT} characters")
        if not is_clean(reason, lines=True):
            raise ModerationInvalid.field("reason", "must not contain control characters")
    if until is not None:
        if type_ not in ("ban", "mute"):
            raise ModerationInvalid.field("until", "is only allowed for ban and mute")
        if until <= now:
            raise ModerationInvalid.field("until", "must be in the future")
    return type_


@dataclass(frozen=True, slots=True)
class Mute:
    """A muted user; until when (None: until unmuted), why, by whom and since when.

    `clock_set_ms`: by how much the wall clock was set since, while the instance ran. `by` is empty
    in recordings of earlier versions.
    """

    user: str
    until: int | None
    clock_set_ms: int = 0
    reason: str | None = None
    by: str = ""
    created_at: int = 0

    @property
    def ends_at(self) -> int | None:
        """When it ends: at `until`, but no later than it would if the clock had not been set."""
        return None if self.until is None else self.until + min(self.clock_set_ms, 0)


class Sanctions:
    """The bans and mutes in force in one instance."""

    def __init__(
        self,
        bans: Iterable[Ban],
        mutes: Iterable[Mute] = (),
        *,
        bans_limit: int,
        mutes_limit: int,
    ) -> None:
        self.bans: dict[str, Ban] = {ban.user: ban for ban in bans}
        self._servers: dict[str, str] = {}
        """Banned servers, with the key of each ban."""
        for ban in self.bans.values():
            self._note_server(ban)
        self.mutes: dict[str, Mute] = {mute.user: mute for mute in mutes}
        self._bans_limit = bans_limit
        self._mutes_limit = mutes_limit

    def banned(self, user: str, now: int) -> Ban | None:
        """The ban of the user or of its server, if one is in force."""
        ban = self._in_force(user, now)
        if ban is None and self._servers:
            server = server_of(user)
            for banned, key in self._servers.items():
                if ban is None and server is not None and covers(banned, server):
                    ban = self._in_force(key, now)
        return ban

    def _in_force(self, key: str, now: int) -> Ban | None:
        ban = self.bans.get(key)
        return ban if ban is not None and (ban.until is None or now < ban.until) else None

    def _note_server(self, ban: Ban) -> None:
        server = banned_server(ban.user)
        if server is not None:
            self._servers[server] = ban.user

    def muted(self, user: str, now: int) -> bool:
        mute = self.mutes.get(user)
        return mute is not None and (mute.ends_at is None or now < mute.ends_at)

    def ban(self, ban: Ban) -> None:
        """Adds or replaces a ban.

        Raises:
            ModerationInvalid: there are too many bans.
        """
        if ban.user not in self.bans and len(self.bans) >= self._bans_limit:
            raise ModerationInvalid.field(
                "type", f"exceeds the limit of {self._bans_limit} bans per instance"
            )
        self.bans[ban.user] = ban
        self._note_server(ban)

    def unban(self, user: str) -> bool:
        """Removes the ban of a user or server; whether there was one."""
        self._servers.pop(banned_server(user) or "", None)
        return self.bans.pop(user, None) is not None

    def mute(self, mute: Mute) -> None:
        """Adds or replaces a mute.

        Raises:
            ModerationInvalid: there are too many mutes.
        """
        if mute.user not in self.mutes and len(self.mutes) >= self._mutes_limit:
            raise ModerationInvalid.field(
                "type", f"exceeds the limit of {self._mutes_limit} mutes per instance"
            )
        self.mutes[mute.user] = mute

    @property
    def deadlines(self) -> Iterable[int]:
        for ban in self.bans.values():
            if ban.until is not None:
                yield ban.until
        for mute in self.mutes.values():
            if mute.ends_at is not None:
                yield mute.ends_at

    def clock_was_set(self, by_ms: int) -> None:
        """The wall clock was set: no mute lasts longer for it while the instance runs. Bans end at
        their `until`: it is the time that was named."""
        self.mutes = {
            user: replace(mute, clock_set_ms=mute.clock_set_ms + by_ms)
            for user, mute in self.mutes.items()
        }

    def expire(self, now: int) -> tuple[list[str], list[str]]:
        """Removes expired bans and mutes; returns the users no longer banned, and no longer
        muted."""
        bans = [
            user for user, ban in self.bans.items() if ban.until is not None and ban.until <= now
        ]
        mutes = [
            user
            for user, mute in self.mutes.items()
            if mute.ends_at is not None and mute.ends_at <= now
        ]
        for user in bans:
            self.unban(user)
        for user in mutes:
            del self.mutes[user]
        return bans, mutes
