"""Rates of actors, from counters that are read now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

READ_S: Final = 1.0
"""The shortest time between two readings: a rate over less would jump."""


@dataclass(frozen=True, slots=True)
class Count:
    """What an actor has handled so far: messages, drains, and the seconds that the oldest message
    of each drain had waited."""

    messages: int = 0
    drains: int = 0
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ActorRate:
    """Messages per second, messages per drain, and how long the oldest of a drain waited."""

    messages_per_s: float
    drain_size: float
    wait_ms: float


class RateBook:
    """The rates of all actors of a node by name, as of the last reading."""

    def __init__(self) -> None:
        self._counts: Mapping[str, Count] = {}
        self._read_at: float | None = None
        self._rates: dict[str, ActorRate] = {}

    def due(self, now_s: float) -> bool:
        """Whether the counters are to be read."""
        return self._read_at is None or now_s >= self._read_at + READ_S

    def read(self, now_s: float, counts: Mapping[str, Count]) -> None:
        """Takes the counters as they are now."""
        if self._read_at is not None:
            span_s = max(now_s - self._read_at, 1e-9)
            before = self._counts
            self._rates = {
                name: _rate(before[name], count, span_s)
                for name, count in counts.items()
                if name in before
            }
        self._counts, self._read_at = counts, now_s

    def of(self, name: str) -> ActorRate | None:
        """The rates of an actor; None: there are not two readings of it yet."""
        return self._rates.get(name)

    def clear(self) -> None:
        """Nobody counts any more."""
        self._counts, self._read_at, self._rates = {}, None, {}


def _rate(before: Count, after: Count, span_s: float) -> ActorRate:
    messages, drains = after.messages - before.messages, after.drains - before.drains
    if messages < 0 or drains < 0:  # another actor of that name
        messages, drains, before = after.messages, after.drains, Count()
    return ActorRate(
        round(messages / span_s, 2),
        round(messages / drains, 2) if drains else 0.0,
        round((after.waited_s - before.waited_s) / drains * 1000, 3) if drains else 0.0,
    )
