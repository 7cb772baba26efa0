"""The log of one WebSocket: where its traces begin and end.

Only observed traces are logged: those that are sampled, or all of them at level debug. For the
others only `observes` is called, and `closed` at the socket's end. The log holds no payload, and no
more of a command than its name.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import structlog
import trio

from actors.runtime.trace import Span
from api.ws.transport.base import Transport
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.rules.identity import Principal

UNKNOWN: Final = "unknown"
"""The name of an unknown command in the log: the client's own text could be anything."""

_log = structlog.get_logger()


class ConnectionLog:
    """The log of one socket. `number` tells the sockets of a process apart; `names` are the names
    of commands that may be logged."""

    __slots__ = ("_activity", "_names", "debug", "number")

    def __init__(
        self, number: int, names: frozenset[str], activity: ActivityLog, *, debug: bool
    ) -> None:
        self.number = number
        self._names = names
        self._activity = activity
        self.debug = debug

    def observes(self, span: Span) -> bool:
        """Whether the span's trace is logged."""
        return self.debug or span.sampled

    def opened(self, span: Span) -> None:
        self._note(span, log_events.SOCKET_OPENED)

    def closed(self, span: Span, transport: Transport, principal: Principal | None) -> None:
        """The socket has ended. This is logged in any case, within the rate of such events."""
        code, by = transport.ended_with
        fields: dict[str, Any] = {"code": code, "by": by}
        if principal is not None:
            fields["user"] = principal.user.id
            fields["username"] = principal.user.username
            fields["session"] = principal.session_id
        if self.observes(span):
            self._note(span, log_events.SOCKET_CLOSED, **fields)
            return
        self._activity.note(
            log_events.SOCKET_CLOSED,
            fields.get("user", transport.remote),
            address=transport.remote,
            socket=self.number,
            **fields,
        )

    def received(self, span: Span, command: str | None, size: int) -> None:
        """A message of `size` bytes came; `command` is None if it can't be read."""
        self._note(span, log_events.SOCKET_RECEIVED, command=self._named(command), bytes=size)

    def served(self, span: Span, command: str, begun: float, error: int | None) -> None:
        """A command that began at `begun` (Trio's seconds) is done, or refused with a code."""
        fields: dict[str, Any] = {} if error is None else {"error": error}
        us = int((trio.current_time() - begun) * 1e6)
        self._note(span, log_events.SOCKET_SERVED, command=self._named(command), us=us, **fields)

    def sent(self, span: Span) -> None:
        """The connection itself answered with a frame."""
        self._note(span, log_events.FRAMES_SENT, frames=1, sockets=1)

    def _named(self, command: str | None) -> str:
        return command if command in self._names else UNKNOWN

    def _note(self, span: Span, event: str, **fields: Any) -> None:
        level = logging.INFO if span.sampled else logging.DEBUG
        _log.log(level, event, trace=span.trace_id, socket=self.number, **fields)


def debugging() -> bool:
    """Whether the log takes events of level debug. It doesn't change, so ask once."""
    return bool(_log.is_enabled_for(logging.DEBUG))
