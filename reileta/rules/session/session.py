"""The rules of one session: sockets, tokens, state, and its resource.

`Session` is pure, like `reileta/rules/instance/instance.py`: its methods take an event with the
time, change the session, and return events for the caller to carry out. A call that raises has
changed nothing. Expiry takes effect only in `tick`, which the caller calls when `next_deadline() <=
now`.

**The state** is stored in the database and changes as in `reileta/rules/session/shared_state.py`:
`save` returns the pending changes, and only `saved` acknowledges them and notifies other sockets.

**The resource** is stored in the database, too: `took` and `dropped` report its changes there. When
the session has been without a WebSocket for `away_ms`, `AbsenceTimedOut` asks the store to take the
resource (`resources.lose`); when no known token is valid any more, `AllTokensExpired` asks it to
end the session (`sessions.expire`). The store decides, since another server may know better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    PermissionDenied,
    ReiletaError,
    SessionNotFound,
)
from reileta.records import HeldResource
from reileta.rules.session.shared_state import (
    LiveState,
    PatchRefused,
    Save,
    State,
    StateChange,
    StateChanged,
    StateEvent,
)
from reileta.settings import Settings

__all__ = [
    "AbsenceTimedOut",
    "AllTokensExpired",
    "Ended",
    "PatchRefused",
    "ResourceChanged",
    "Save",
    "Session",
    "SessionEvent",
    "SessionLimits",
    "SocketClosed",
    "State",
    "StateChanged",
    "StateEvent",
]

CloseReason = Literal["killed", "expired", "ended"]
"""Why a socket is closed: its token was revoked or expired, or the session has ended."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits of a session.

    Attributes:
        away_ms: how long it keeps its resource without a WebSocket.
        state_bytes: the largest state, as canonical JSON.
        waiting: patches that can wait for the database; further ones are refused.
        ack_timeout_ms: how long a client may take to acknowledge an event.
    """

    away_ms: int = 60_000
    state_bytes: int = 64 * 1024
    waiting: int = 1024
    ack_timeout_ms: int = 10_000

    @classmethod
    def from_settings(cls, settings: Settings) -> SessionLimits:
        """The limits of the settings; the others are the defaults."""
        return cls(away_ms=int(settings.away_s * 1000), ack_timeout_ms=settings.ack_timeout_ms)


# Events


@dataclass(frozen=True, slots=True)
class ResourceChanged:
    """The session's resource is new, changed, or gone. Recipients: all sockets."""

    held: HeldResource | None


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """A socket must be closed (4000); the session has removed it."""

    socket: str
    token: bytes
    why: CloseReason


@dataclass(frozen=True, slots=True)
class AbsenceTimedOut:
    """The session had no WebSocket for `away_ms`. Recipient: the store, `resources.lose`."""

    held: HeldResource


@dataclass(frozen=True, slots=True)
class AllTokensExpired:
    """No known token is valid any more. Recipient: the store, `sessions.expire`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session has ended for good."""


SessionEvent: TypeAlias = (
    StateChanged
    | PatchRefused
    | ResourceChanged
    | SocketClosed
    | AbsenceTimedOut
    | AllTokensExpired
    | Ended
)


@dataclass(frozen=True, slots=True)
class _Socket:
    token: bytes
    exclusive: bool


class Session:
    """One session; the module's docstring explains its use.

    Args:
        autopilot: whether its user is one; then its state is always `{}`, and it has no resource.
        state, version, held: from the database.
        tokens: the valid ones, by their stable id, with their expiry (ms).
        now: ms; it has no socket from here on.
    """

    def __init__(
        self,
        id_: str,
        *,
        autopilot: bool,
        state: State,
        version: int,
        held: HeldResource | None,
        tokens: Mapping[bytes, int],
        limits: SessionLimits,
        now: int,
    ) -> None:
        self.id: Final = id_
        self.autopilot: Final = autopilot
        self.limits: Final = limits
        self.held = held
        self.ended = False
        self._tokens = dict(tokens)
        self._sockets: dict[str, _Socket] = {}
        self._away_until: int | None = now + limits.away_ms
        self._expiry_check_at = now + limits.away_ms
        """When to check (again) whether it should end, while it has no valid known token."""
        self._live = LiveState(
            state, version, limit_bytes=limits.state_bytes, waiting_limit=limits.waiting
        )

    @property
    def tokens(self) -> Mapping[bytes, int]:
        return MappingProxyType(self._tokens)

    @property
    def sockets(self) -> tuple[str, ...]:
        """The open sockets, in the order of their connection."""
        return tuple(self._sockets)

    @property
    def present(self) -> bool:
        """Whether it has a WebSocket."""
        return bool(self._sockets)

    @property
    def state(self) -> State:
        """The state in the database."""
        return self._live.state

    @property
    def version(self) -> int:
        """The version of the state in the database."""
        return self._live.version

    @property
    def saving(self) -> bool:
        """Whether a write of the state is in progress."""
        return self._live.saving

    @property
    def unsaved(self) -> int:
        """The number of changes that are not in the database yet."""
        return self._live.unsaved

    # Tokens and sockets

    def admit(self, token: bytes, expires: int) -> None:
        """A token was issued or refreshed: it is valid until `expires`."""
        if not self.ended:
            self._tokens[token] = expires

    def kill(self, token: bytes, now: int) -> list[SessionEvent]:
        """A token was revoked: its sockets are closed. An unknown token is not an error."""
        out: list[SessionEvent] = []
        if token in self._tokens:
            self._drop_token(token, "killed", now, out)
            self._expire_without_tokens(now, out)
        return out

    def connect(self, socket: str, token: bytes, now: int, *, exclusive: bool) -> None:
        """A WebSocket with that token was opened. The session is present, and keeps its resource.

        There is one session-API WebSocket (`exclusive`) per token, and any number of registry-API
        ones.

        Raises:
            SessionNotFound: the session has ended.
            CredentialInvalid: the token is not the session's, or no longer valid.
            AlreadyConnected: the token has such a WebSocket.
        """
        if self.ended:
            raise SessionNotFound
        if self._tokens.get(token, now) <= now:
            raise CredentialInvalid
        if exclusive and any(
            one.exclusive and one.token == token for one in self._sockets.values()
        ):
            raise AlreadyConnected
        self._sockets[socket] = _Socket(token, exclusive)
        self._away_until = None

    def disconnect(self, socket: str, now: int) -> None:
        """A WebSocket was closed. An unknown one is not an error."""
        if self._sockets.pop(socket, None) is not None and not self._sockets:
            self._away_until = now + self.limits.away_ms

    def _drop_token(
        self, token: bytes, why: CloseReason, now: int, out: list[SessionEvent]
    ) -> None:
        del self._tokens[token]
        for name in [name for name, one in self._sockets.items() if one.token == token]:
            self.disconnect(name, now)
            out.append(SocketClosed(name, token, why))
        self._expiry_check_at = now

    def _expire_without_tokens(self, now: int, out: list[SessionEvent]) -> None:
        if not self._tokens and self._expiry_check_at <= now:
            self._expiry_check_at = now + self.limits.away_ms  # in case the store does not answer
            out.append(AllTokensExpired())

    # State

    def change(self, patch: State, by: str | None, ref: object) -> None:
        """A socket (None: for example an HTTP request) changes the state.

        Raises:
            SessionNotFound: the session has ended.
            PermissionDenied: it belongs to an autopilot.
            PayloadTooLarge: the state would be too large.
            Overloaded: too many changes wait for the database.
        """
        if self.ended:
            raise SessionNotFound
        if self.autopilot:
            raise PermissionDenied.field("state", "of an autopilot is always {}")
        self._live.change(StateEvent(patch, by, ref))

    def save(self) -> Save | None:
        """`LiveState.save`: the state to write now."""
        return self._live.save()

    def saved(self) -> list[StateChange]:
        """`LiveState.saved`: the result of `save` is in the database."""
        return self._live.saved()

    def stale(self, state: State, version: int) -> list[StateChange]:
        """`LiveState.stale`: it is not, because the database has this other version."""
        return self._live.stale(state, version)

    def abandon(self, error: ReiletaError) -> list[StateChange]:
        """`LiveState.abandon`: the database can't be reached."""
        return self._live.abandon(error)

    # The resource

    def took(self, held: HeldResource, now: int) -> list[SessionEvent]:
        """The database reports that the session holds this resource, or that the resource has
        changed.

        A report of an earlier acquisition or an earlier version is ignored.
        """
        mine = self.held
        if self.ended or (
            mine is not None
            and mine.resource.number == held.resource.number
            and (mine.fence, mine.resource.version) > (held.fence, held.resource.version)
        ):
            return []
        self.held = held
        if not self._sockets:
            self._away_until = now + self.limits.away_ms
        return [ResourceChanged(held)]

    def dropped(self, number: int, fence: int) -> list[SessionEvent]:
        """The session no longer holds that resource: it was released, lost, deleted, or unshared.

        A report of another acquisition than the current one is ignored.
        """
        held = self.held
        if held is None or (held.resource.number, held.fence) != (number, fence):
            return []
        self.held = None
        return [ResourceChanged(None)]

    def kept_until(self, until: int) -> None:
        """The database kept the lease: another server's sockets have extended it until then."""
        if self._away_until is not None:
            self._away_until = until
        if self.held is not None:
            self.held = replace(self.held, until=until)

    # Time and end

    def clock_was_set(self, by_ms: int) -> None:
        """The wall clock was set by so many ms, back if negative: the time away lasts as long as
        before. Tokens keep the time at which they expire."""
        if self._away_until is not None:
            self._away_until += by_ms
        self._expiry_check_at += by_ms

    def next_deadline(self) -> int | None:
        """When `tick` must be called next, ms; None: not before something else happens."""
        if self.ended:
            return None
        dues = list(self._tokens.values()) or [self._expiry_check_at]
        if self.held is not None and self._away_until is not None:
            dues.append(self._away_until)
        return min(dues, default=None)

    def tick(self, now: int) -> list[SessionEvent]:
        """Handles everything that has expired: tokens, and the lease of a session that has been
        away."""
        out: list[SessionEvent] = []
        if self.ended:
            return out
        for token in [token for token, expires in self._tokens.items() if expires <= now]:
            self._drop_token(token, "expired", now, out)
        self._expire_without_tokens(now, out)
        away = self._away_until
        if self.held is not None and away is not None and away <= now:
            self._away_until = now + self.limits.away_ms  # in case the store does not answer
            out.append(AbsenceTimedOut(self.held))
        return out

    def end(self) -> list[SessionEvent]:
        """The session has ended in the database: its sockets close, its state and resource are
        gone."""
        if self.ended:
            return []
        self.ended = True
        out: list[SessionEvent] = []
        out.extend(self._live.clear(SessionNotFound()))
        out.extend(SocketClosed(name, one.token, "ended") for name, one in self._sockets.items())
        self.held = None
        self._tokens.clear()
        self._sockets.clear()
        out.append(Ended())
        return out
