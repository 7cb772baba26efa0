"""What the log says of one socket, in traces that are looked at: where traces begin and end.

Traces are looked at when they are sampled, or all of them at level debug; for the others nothing
here is called but `observes`. No payload is logged, and of a command no more than its name.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import structlog
import trio

from actors.runtime.trace import Span
from reileta.observability import log_events
from reileta.protocol import commands

UNKNOWN: Final = "unknown"
"""What a command is called that is none: its text is the client's, and could be anything."""

_KNOWN: Final = frozenset(
    value for name, value in vars(commands).items() if name.isupper() and isinstance(value, str)
)
_log = structlog.get_logger()


class ConnectionLog:
    """The log of one socket. `number` tells the sockets of a process apart."""

    __slots__ = ("_debug", "number")

    def __init__(self, number: int, *, debug: bool) -> None:
        self.number = number
        self._debug = debug

    def observes(self, span: Span) -> bool:
        """Whether the span's trace is looked at."""
        return self._debug or span.sampled

    def opened(self, span: Span) -> None:
        self._note(span, log_events.SOCKET_OPENED)

    def closed(self, span: Span) -> None:
        self._note(span, log_events.SOCKET_CLOSED)

    def received(self, span: Span, command: str | None, size: int) -> None:
        """A message of `size` bytes came; `command` is None if it can't be told."""
        self._note(span, log_events.SOCKET_RECEIVED, command=_named(command), bytes=size)

    def served(self, span: Span, command: str, begun: float, error: int | None) -> None:
        """A command that waited since `begun` (Trio's seconds) is done, or refused with a code."""
        said: dict[str, Any] = {} if error is None else {"error": error}
        us = int((trio.current_time() - begun) * 1e6)
        self._note(span, log_events.SOCKET_SERVED, command=_named(command), us=us, **said)

    def sent(self, span: Span) -> None:
        """The connection itself answered with a frame."""
        self._note(span, log_events.FRAMES_SENT, frames=1, sockets=1)

    def _note(self, span: Span, event: str, **said: Any) -> None:
        level = logging.INFO if span.sampled else logging.DEBUG
        _log.log(level, event, trace=span.trace_id, socket=self.number, **said)


def debugging() -> bool:
    """Whether the log takes events of level debug: asked once, for it does not change."""
    return bool(_log.is_enabled_for(logging.DEBUG))


def _named(command: str | None) -> str:
    return command if command in _KNOWN else UNKNOWN
