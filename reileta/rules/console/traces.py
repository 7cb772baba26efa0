"""The slowest traces of the last 15 minutes, from the log events of those that are watched.

Bounds: `OPEN` traces are put together at a time, each of at most `EVENTS` events; further ones are
not watched. `KEPT` are kept, the slowest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reileta.diagnostics.trace_reader import LogEvent, TraceStep, tree
from reileta.observability import log_events

OPEN: Final = 64
EVENTS: Final = 200
KEPT: Final = 20
KEPT_S: Final = 900.0
OPEN_S: Final = 2.0
"""How long the events of a trace are waited for."""

OF_TRACES: Final = frozenset(
    {
        log_events.ACTOR_RECEIVED,
        log_events.FRAMES_SENT,
        log_events.REQUEST_SERVED,
        log_events.SOCKET_RECEIVED,
        log_events.SOCKET_SERVED,
        log_events.SOCKET_OPENED,
        log_events.SOCKET_CLOSED,
    }
)
"""Events that are logged only for traces."""


@dataclass(frozen=True, slots=True)
class SlowTrace:
    """A trace: its id, the time of its start in microseconds since 1970, and how long it took."""

    id: str
    at_us: int
    took_us: int
    root: TraceStep
    ended_s: float


@dataclass(slots=True)
class _Open:
    begun_s: float
    logged: bool
    events: list[LogEvent] = field(default_factory=list)


class SlowTraces:
    """The traces that are watched, and the slowest of them. Times `now_s` never go back."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._slow: list[SlowTrace] = []

    @property
    def open(self) -> int:
        return len(self._open)

    def begin(self, id_: str, now_s: float, *, logged: bool) -> bool:
        """Watches a trace, if there is room. `logged`: its events are for the log, too."""
        if len(self._open) >= OPEN:
            return False
        self._open[id_] = _Open(now_s, logged)
        return True

    def watches(self, id_: object) -> bool:
        return id_ in self._open

    def take(self, id_: str, at_us: int, name: str, keys: Mapping[str, Any]) -> bool:
        """Takes an event of a watched trace; returns whether it is for the log, too."""
        entry = self._open[id_]
        if len(entry.events) < EVENTS:
            entry.events.append(LogEvent(at_us, name, dict(keys)))
        return entry.logged or name not in OF_TRACES

    def settle(self, now_s: float) -> None:
        """Puts the traces together that are complete, and drops old ones."""
        for id_, entry in list(self._open.items()):
            if now_s >= entry.begun_s + OPEN_S:
                del self._open[id_]
                if entry.events:
                    self._keep(id_, entry, now_s)
        self._slow = [one for one in self._slow if now_s < one.ended_s + KEPT_S]

    def _keep(self, id_: str, entry: _Open, now_s: float) -> None:
        root = tree(entry.events)
        ends = max(step.ends_us for _, step in steps(root))
        self._slow.append(SlowTrace(id_, root.begins_us, ends - root.begins_us, root, now_s))
        self._slow.sort(key=lambda one: -one.took_us)
        del self._slow[KEPT:]

    @property
    def slowest(self) -> tuple[SlowTrace, ...]:
        """The slowest first."""
        return tuple(self._slow)

    def stop(self) -> None:
        """Nobody watches any more: what is incomplete is dropped."""
        self._open.clear()


def steps(root: TraceStep) -> Iterator[tuple[int, TraceStep]]:
    """All steps of a trace with their depth, each before those that it caused."""
    waiting = [(0, root)]
    while waiting:
        depth, step = waiting.pop()
        yield depth, step
        waiting += [(depth + 1, one) for one in reversed(step.caused)]
