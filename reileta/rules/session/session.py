"""The rules of one session: its sockets and tokens, its state, the resource it has (S `Session`).

`Session` is pure, as `reileta/rules/instance/instance.py` is: it is told what happens, with the
time, changes itself, and returns what happened for its caller to carry out. A call that raises has
changed nothing. Time passes in `tick` alone, which the caller calls when `next_deadline() <= now`.

**The state** is the database's, and changes as `reileta/rules/session/shared_state.py` says: `save`
hands over what waits, and only `saved` acknowledges it and tells the other sockets.

**The resource** is the database's, too: `took` and `dropped` say what became of it there. When the
session has been without a WebSocket for `away_ms`, `AbsenceTimedOut` asks the store to take the
resource (`resources.lose`); when no token that is known here is good any more, `AllTokensExpired`
asks it to end the session (`sessions.expire`). Both are questions: another server may know better.
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
    ResourceHeld,
    SessionNotFound,
)
from reileta.records import Held
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
    "Happening",
    "PatchRefused",
    "ResourceChanged",
    "Save",
    "Session",
    "SessionLimits",
    "SocketClosed",
    "State",
    "StateChanged",
    "StateEvent",
]

Why = Literal["killed", "expired", "ended"]
"""Why a socket is closed: its token was killed or ran out, or the session is over."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of a session.

    Attributes:
        away_ms: how long it keeps its resource without a WebSocket.
        state_bytes: how large its state may be, as canonical JSON.
        waiting: patches that may wait for the database; over it they are refused.
        ack_timeout_ms: how long a client may take to acknowledge an event.
    """

    away_ms: int = 60_000
    state_bytes: int = 64 * 1024
    waiting: int = 1024
    ack_timeout_ms: int = 10_000

    @classmethod
    def from_settings(cls, settings: Settings) -> SessionLimits:
        """The limits that the server's settings name; the others are the defaults."""
        return cls(away_ms=int(settings.away_s * 1000), ack_timeout_ms=settings.ack_timeout_ms)


# What happened


@dataclass(frozen=True, slots=True)
class ResourceChanged:
    """The session has got a resource, or another version of it, or none. Concerns all sockets."""

    held: Held | None


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """A socket is to be closed (4000); the session has forgotten it."""

    socket: str
    token: bytes
    why: Why


@dataclass(frozen=True, slots=True)
class AbsenceTimedOut:
    """The session has had no WebSocket for `away_ms`. Concerns the store: `resources.lose`."""

    held: Held


@dataclass(frozen=True, slots=True)
class AllTokensExpired:
    """No token that is known here is good any more. Concerns the store: `sessions.expire`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over, for good."""


Happening: TypeAlias = (
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
    """One session; the module's text says how it is to be used.

    Args:
        autopilot: whether its user is one; then its state is always `{}`, and it has no resource.
        state, version, held: as the database has them.
        tokens: those that are good, by their stable id, and until when (ms).
        now: ms; it has no socket from here on.
    """

    def __init__(
        self,
        id_: str,
        *,
        autopilot: bool,
        state: State,
        version: int,
        held: Held | None,
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
        self._forsaken_at = now + limits.away_ms
        """When to ask (again) whether it is forsaken, while no token of it is known to be good."""
        self._live = LiveState(
            state, version, limit_bytes=limits.state_bytes, waiting_limit=limits.waiting
        )

    @property
    def tokens(self) -> Mapping[bytes, int]:
        return MappingProxyType(self._tokens)

    @property
    def sockets(self) -> tuple[str, ...]:
        """Those that are open, in the order in which they came."""
        return tuple(self._sockets)

    @property
    def present(self) -> bool:
        """Whether it has a WebSocket."""
        return bool(self._sockets)

    @property
    def state(self) -> State:
        """As the database has it."""
        return self._live.state

    @property
    def version(self) -> int:
        """Of the state, as the database has it."""
        return self._live.version

    @property
    def unsaved(self) -> int:
        """Changes that are not in the database yet."""
        return self._live.unsaved

    # Tokens and sockets

    def admit(self, token: bytes, expires: int) -> None:
        """A token of it was issued, or refreshed: it is good until then."""
        if not self.ended:
            self._tokens[token] = expires

    def kill(self, token: bytes, now: int) -> list[Happening]:
        """A token is good no longer: its sockets are closed. One that is not known is no error."""
        out: list[Happening] = []
        if token in self._tokens:
            self._drop_token(token, "killed", now, out)
            self._ask_if_forsaken(now, out)
        return out

    def connect(self, socket: str, token: bytes, now: int, *, exclusive: bool) -> None:
        """A WebSocket of that token is open. The session is present, and keeps its resource.

        Of S's WebSockets (`exclusive`) there is one per token; of R's, any number beside it.

        Raises:
            SessionNotFound: it has ended.
            CredentialInvalid: the token is none of its, or good no longer.
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
        """A WebSocket is gone. One that is not known is no error."""
        if self._sockets.pop(socket, None) is not None and not self._sockets:
            self._away_until = now + self.limits.away_ms

    def _drop_token(self, token: bytes, why: Why, now: int, out: list[Happening]) -> None:
        del self._tokens[token]
        for name in [name for name, one in self._sockets.items() if one.token == token]:
            self.disconnect(name, now)
            out.append(SocketClosed(name, token, why))
        self._forsaken_at = now

    def _ask_if_forsaken(self, now: int, out: list[Happening]) -> None:
        if not self._tokens and self._forsaken_at <= now:
            self._forsaken_at = now + self.limits.away_ms  # should the store not answer
            out.append(AllTokensExpired())

    # State

    def change(self, patch: State, by: str | None, ref: object) -> None:
        """A socket (None: something else, such as an HTTP request) changes the state.

        Raises:
            SessionNotFound: it has ended.
            PermissionDenied: it is an autopilot's.
            PayloadTooLarge: the state would be.
            Overloaded: too many changes wait for the database.
        """
        if self.ended:
            raise SessionNotFound
        if self.autopilot:
            raise PermissionDenied.field("state", "of an autopilot is always {}")
        self._live.change(StateEvent(patch, by, ref))

    def save(self) -> Save | None:
        """`LiveState.save`: what is to be written now."""
        return self._live.save()

    def saved(self) -> list[StateChange]:
        """`LiveState.saved`: what `save` returned is in the database."""
        return self._live.saved()

    def stale(self, state: State, version: int) -> list[StateChange]:
        """`LiveState.stale`: it is not, because the database has another version: this."""
        return self._live.stale(state, version)

    def abandon(self, error: ReiletaError) -> list[StateChange]:
        """`LiveState.abandon`: the database can't be reached."""
        return self._live.abandon(error)

    # The resource

    def ensure_may_acquire(self) -> None:
        """What can be said before the database is asked, which has the last word.

        Raises:
            SessionNotFound: it has ended.
            PermissionDenied: it is an autopilot's.
            ResourceHeld: it has a resource.
        """
        if self.ended:
            raise SessionNotFound
        if self.autopilot:
            raise PermissionDenied.field(
                "session", "belongs to an autopilot, which can't acquire resources"
            )
        if self.held is not None:
            held = self.held.resource
            raise ResourceHeld.field("resource", f"{held.type}/{held.number}")

    def took(self, held: Held, now: int) -> list[Happening]:
        """The database says that it has this, or that what it has was changed.

        What is said of the same resource by an earlier acquisition, or in an earlier version, is
        old news.
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

    def dropped(self, number: int, fence: int) -> list[Happening]:
        """It has that resource no more: it was released, lost, deleted, or is no longer shared.

        What is said of another acquisition than its present one is old news.
        """
        held = self.held
        if held is None or (held.resource.number, held.fence) != (number, fence):
            return []
        self.held = None
        return [ResourceChanged(None)]

    def kept_until(self, until: int) -> None:
        """The database would not take its resource: another server's sockets keep it until then."""
        if self._away_until is not None:
            self._away_until = until
        if self.held is not None:
            self.held = replace(self.held, until=until)

    # Time, and the end

    def next_deadline(self) -> int | None:
        """When `tick` must next be called, ms; None: when something else happened."""
        if self.ended:
            return None
        dues = list(self._tokens.values()) or [self._forsaken_at]
        if self.held is not None and self._away_until is not None:
            dues.append(self._away_until)
        return min(dues, default=None)

    def tick(self, now: int) -> list[Happening]:
        """Does everything whose time has come: tokens that ran out, and the resource of one that
        has been away for too long."""
        out: list[Happening] = []
        if self.ended:
            return out
        for token in [token for token, expires in self._tokens.items() if expires <= now]:
            self._drop_token(token, "expired", now, out)
        self._ask_if_forsaken(now, out)
        away = self._away_until
        if self.held is not None and away is not None and away <= now:
            self._away_until = now + self.limits.away_ms  # should the store not answer
            out.append(AbsenceTimedOut(self.held))
        return out

    def end(self) -> list[Happening]:
        """It has ended in the database: its sockets are closed, its state and resource are gone."""
        if self.ended:
            return []
        self.ended = True
        out: list[Happening] = []
        out.extend(self._live.clear(SessionNotFound()))
        out.extend(SocketClosed(name, one.token, "ended") for name, one in self._sockets.items())
        self.held = None
        self._tokens.clear()
        self._sockets.clear()
        out.append(Ended())
        return out
