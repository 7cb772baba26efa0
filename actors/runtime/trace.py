"""Traces: the chain of messages that an HTTP request or a WebSocket frame causes.

A trace begins at the edge (`Sampler.begin`). Each message carries the trace that was current when
it was sent, its own id, and the id of the message that caused it. The current span is a context
variable, so no function passes it on.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

from msgspec import Struct

next_message_id = itertools.count(1).__next__
"""Ids of messages: unique in this process, growing in the order of sending."""


class Span(Struct, eq=False, gc=False):
    """A place in a trace: its id (64 random bits), and the message that is being handled.

    `id` is 0 at the edge, where no message has been sent yet. Each message of a `sampled` trace is
    logged at level info.
    """

    trace: int
    sampled: bool = False
    id: int = 0

    @property
    def trace_id(self) -> str:
        """The trace's id as logs and headers show it: 16 hexadecimal digits."""
        return f"{self.trace:016x}"


NO_TRACE: Final = Span(0)
"""The span of everything outside of traces: timers, start and stop."""

current: ContextVar[Span] = ContextVar("reileta.trace", default=NO_TRACE)


class Sampler:
    """Begins traces, and chooses a share of them to be logged in full."""

    def __init__(self, share: float = 0.0) -> None:
        self._logged = share
        self._watched = 0.0
        self._share = share
        self._watch: Callable[[int, bool], bool] | None = None
        self.drawn = 0
        """Traces that were drawn for the watch since it was last set to 0."""

    def watch(self, share: float, watch: Callable[[int, bool], bool]) -> None:
        """Draws a share of the traces for the console, too. `watch(trace, logged)` tells whether it
        takes one; a trace that it takes is sampled."""
        self._watched, self._watch = share, watch
        self._share = max(self._logged, share)

    def begin(self, trace: str = "") -> Span:
        """A new trace, at the edge; or the one of that id, which a gateway began."""
        share = self._share
        if share > 0 and random.random() < share:  # noqa: S311
            return self._drawn(share, trace)
        return Span(int(trace, 16) if trace else random.getrandbits(64))

    def _drawn(self, share: float, id_: str) -> Span:
        """A trace of the share that is logged, or watched, or both."""
        trace, place = random.getrandbits(64), random.random() * share  # noqa: S311
        if id_:
            trace = int(id_, 16)
        logged = place < self._logged
        if place < self._watched and self._watch is not None:
            self.drawn += 1
            return Span(trace, self._watch(trace, logged) or logged)
        return Span(trace, logged)


class Traced:
    """Makes the span the current one for the block: `with Traced(span) as span`."""

    # Every request and every job comes here: a class costs half of what a generator does.
    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = current.set(self._span)
        return self._span

    def __exit__(self, *_: object) -> None:
        current.reset(self._token)


def add_trace(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A structlog processor: puts the current trace, and the message handled, into log events."""
    span = current.get()
    if span.trace:
        event.setdefault("trace", span.trace_id)
        if span.id:
            event.setdefault("message", span.id)
    return event
