"""The rules of one live instance: players, queue, moderation.

`Instance` is pure. Its methods take an event with the time, change the state, and return events
(`reileta/rules/instance/events.py`) for the caller to carry out. The same calls with the same times
and player ids give the same state and the same events. A call that raises has changed nothing.

Expiry takes effect only in `tick`: the caller calls `tick(now)` whenever `next_deadline() <= now`,
before anything else. A player that returns after its grace period but before the next `tick` keeps
its seat: nobody was notified that it left.

All users are `UserIDAt`s, also in bans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reileta.errors import MessageInvalid, NotAllowed, NotInInstance
from reileta.rules.identity import Visitor
from reileta.rules.instance.administration import Administration
from reileta.rules.instance.events import InstanceEvent, Unbanned, Unmuted
from reileta.rules.instance.retained import KEY_LIMIT
from reileta.rules.instance.seats import Player
from reileta.rules.instance.state import InstanceLimits

__all__ = [
    "DROPPED",
    "TO_ALL",
    "TO_LIMIT",
    "Instance",
    "InstanceLimits",
    "Player",
    "Spoken",
    "Visitor",
]

TO_LIMIT: Final = 64
"""Players that one message can be addressed to."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The receivers of a message: everyone else inside (None), these players, or nobody
    (`dropped`)."""

    to: tuple[str, ...] | None
    dropped: bool


TO_ALL: Final = Spoken(None, False)
DROPPED: Final = Spoken((), True)


class Instance(Administration):
    """One live instance.

    The module's docstring explains its use, and `InstanceState` its constructor. Four classes have
    the rules: `InstanceState` the state and shared steps, `Admission` who enters and leaves,
    `Administration` roles and moderation, and this class messages and time.
    """

    def speak(
        self,
        player_id: str,
        key: str | None,
        at: float | None,
        to: tuple[str, ...] | None,
        data: bytes,
        now: int,
        series: int = 0,
    ) -> Spoken:
        """The receivers of a player's message (docs/protocol.md#data-inside-an-instance).

        With `key` and without `to` the message is retained. Receivers in `to` who are not inside
        are ignored, since they may have left a moment ago. `series` tells the joins of the player's
        sockets apart: only `at`s of the same join are compared.

        Raises:
            NotInInstance: the player is not inside.
            NotAllowed: its user is muted.
            MessageInvalid: `key` or `to` is out of range, or too much data would be retained.
        """
        if key is None and to is None and player_id in self.audible:  # nearly every message
            return TO_ALL
        self.ensure_may_speak(player_id, key, to, now)
        if key is not None:
            if self.values.rolls_back(player_id, key, at, series):
                return DROPPED
            if to is None:
                self.values.keep(player_id, key, at, data, series)
        if to is None:
            return TO_ALL
        inside = self.seats.players
        return Spoken(tuple(one for one in dict.fromkeys(to) if one in inside), False)

    def ensure_may_speak(
        self, player_id: str, key: str | None, to: tuple[str, ...] | None, now: int
    ) -> None:
        """Checks a player's message before it has an effect.

        Raises:
            NotInInstance: the player is not inside.
            NotAllowed: its user is muted.
            MessageInvalid: `key` or `to` is out of range.
        """
        player = self.seats.players.get(player_id)
        if player is None:
            raise NotInInstance
        if player_id not in self.audible and self.moderation.muted(player.user, now):
            raise NotAllowed.field("player", "is muted")
        if key is not None and not 1 <= len(key) <= KEY_LIMIT:
            raise MessageInvalid.field("key", f"must be 1 to {KEY_LIMIT} characters")
        if to is not None and len(to) > TO_LIMIT:
            raise MessageInvalid.field("to", f"must be at most {TO_LIMIT} players")

    def clock_was_set(self, by_ms: int) -> None:
        """The wall clock was set by so many ms, back if negative: every wait of a known length
        lasts as long as before. Bans keep their `until`."""
        self.seats.clock_was_set(by_ms)
        self.candidates.clock_was_set(by_ms)
        self.moderation.clock_was_set(by_ms)
        if self.empty_since is not None:
            self.empty_since += by_ms
        self._made_at += by_ms
        self.reschedule()

    def tick(self, now: int) -> list[InstanceEvent]:
        """Handles everything that has expired: grace periods, held seats, absent candidates, bans,
        mutes, and the instance itself if it has been empty for too long."""
        if self.closed:
            return []
        out: list[InstanceEvent] = []
        for player in self.seats.overdue(now):
            self.vacate(player, "disconnected", None, out)
        for user in self.candidates.overdue(now):
            self.drop_candidate(user, "expired", out)
        unbanned, unmuted = self.moderation.expire(now)
        out.extend(Unbanned(user, None) for user in unbanned)
        for user in unmuted:
            self.audible.update(one.id for one in self.seats.of_user(user))
            out.append(Unmuted(user, None))
        self.apply_consequences(now, out)
        return out + self.end("empty") if self.ended(now) else out
