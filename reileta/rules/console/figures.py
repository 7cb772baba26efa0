"""The figures of the last 15 minutes, in fixed memory.

A sample holds counters as they are at a moment. Two samples give a row of `NAMES`: rates per
second, and states at the later moment.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

NAMES: Final = (
    "sockets",
    "players",
    "instances",
    "messages_in_per_s",
    "deliveries_per_s",
    "bytes_in_per_s",
    "bytes_out_per_s",
    "requests_per_s",
    "statements_per_s",
    "backlog_bytes",
    "cpu",
    "memory_bytes",
    "lag_ms",
    "drain_size",
    "wait_ms",
    "too_slow",
    "crashes",
)
EVERY_S: Final = 5.0
KEPT: Final = 180
"""How many rows are kept: 15 minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at a moment (`at_s`, in seconds of a clock that is never set).

    `lag`: how often the event loop was late, by bucket; `lag_bounds`: the buckets' upper bounds in
    seconds. `cpu_s`: seconds of one core that the process has used.
    """

    at_s: float
    sockets: int = 0
    players: int = 0
    instances: int = 0
    messages_in: int = 0
    deliveries: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    requests: int = 0
    statements: int = 0
    backlog_bytes: int = 0
    cpu_s: float = 0.0
    memory_bytes: int = 0
    drains: int = 0
    drained: float = 0.0
    waited_s: float = 0.0
    too_slow: int = 0
    crashes: int = 0
    lag: tuple[int, ...] = ()
    lag_bounds: tuple[float, ...] = ()


def between(before: Sample, after: Sample) -> tuple[float, ...]:
    """The row of figures, in the order of `NAMES`."""
    span_s = max(after.at_s - before.at_s, 1e-9)
    drains = after.drains - before.drains
    return (
        after.sockets,
        after.players,
        after.instances,
        (after.messages_in - before.messages_in) / span_s,
        (after.deliveries - before.deliveries) / span_s,
        (after.bytes_in - before.bytes_in) / span_s,
        (after.bytes_out - before.bytes_out) / span_s,
        (after.requests - before.requests) / span_s,
        (after.statements - before.statements) / span_s,
        after.backlog_bytes,
        (after.cpu_s - before.cpu_s) / span_s,
        after.memory_bytes,
        _late_ms(before, after),
        (after.drained - before.drained) / drains if drains else 0.0,
        (after.waited_s - before.waited_s) / drains * 1000 if drains else 0.0,
        after.too_slow - before.too_slow,
        after.crashes - before.crashes,
    )


def _late_ms(before: Sample, after: Sample) -> float:
    """The upper bound of the highest bucket in which the event loop was late meanwhile."""
    earlier = before.lag or (0,) * len(after.lag)
    for place in range(len(after.lag) - 1, -1, -1):
        if after.lag[place] > earlier[place]:
            return after.lag_bounds[min(place, len(after.lag_bounds) - 1)] * 1000
    return 0.0


class FigureRing:
    """The newest `kept` rows, each with its time (ms)."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._times = array("q", [0] * kept)
        self._values = array("d", [0.0] * (kept * len(NAMES)))
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, self._kept)

    @property
    def size_bytes(self) -> int:
        """The memory of the rows, which never changes."""
        return sum(one.itemsize * len(one) for one in (self._times, self._values))

    def add(self, at_ms: int, row: Sequence[float]) -> None:
        """Adds a row; the oldest one gives way."""
        place = self._written % self._kept
        self._times[place] = at_ms
        width = len(NAMES)
        self._values[place * width : (place + 1) * width] = array("d", row)
        self._written += 1

    def rows(self, after_ms: int = -1) -> FigureColumns:
        """The rows that are newer, oldest first."""
        width = len(NAMES)
        places = [
            place
            for number in range(self._written - len(self), self._written)
            if self._times[place := number % self._kept] > after_ms
        ]
        return FigureColumns(
            [self._times[place] for place in places],
            {
                name: [round(self._values[place * width + column], 3) for place in places]
                for column, name in enumerate(NAMES)
            },
        )


@dataclass(frozen=True, slots=True)
class FigureColumns:
    """Times (ms), and the values of each figure at them."""

    at: list[int] = field(default_factory=list)
    series: Mapping[str, list[float]] = field(default_factory=dict)
