"""How much a player may say while those who hear it can't keep up.

Usually there is no bound here: how often a client may send is its connection's matter. When so much
waits for a receiver that it is about to be closed as too slow, the players with the largest share
of that are held back: for ten seconds each may say no more than a fair rate, which any connection
can take, and whatever is beyond is refused to them. So a player who says much costs itself, and not
those who have less bandwidth. A receiver that can't take the fair rates either is too slow itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

HOLD_MS: Final = 10_000
"""How long a player is held back, from the last time that too much of it waited."""
FAIR_BYTES_PER_S: Final = 32 * 1024
FAIR_BURST_BYTES: Final = 64 * 1024


class DataRate:
    """One player's. `held` says whether `allows` is to be asked at all."""

    __slots__ = ("_counted_at", "_left", "_pressed", "_until", "held")

    def __init__(self) -> None:
        self.held = False
        self._pressed = False
        self._until = 0
        self._left = 0.0
        self._counted_at = 0

    def hold_back(self) -> None:
        """Too much of what the player said waits for somebody."""
        self.held = self._pressed = True

    def allows(self, size: int, now: int) -> bool:
        """Whether the player may say so many bytes now (ms); then they are counted."""
        if self._pressed:
            self._pressed = False
            if self._until <= now:
                # A second's worth: who says no more than is fair is never refused.
                self._left, self._counted_at = float(FAIR_BYTES_PER_S), now
            self._until = now + HOLD_MS
        elif self._until <= now:
            self.held = False
            return True
        elapsed_ms, self._counted_at = max(now - self._counted_at, 0), now
        self._left = min(FAIR_BURST_BYTES, self._left + elapsed_ms * FAIR_BYTES_PER_S / 1000)
        if self._left < size:
            return False
        self._left -= size
        return True


def hold_back_loudest(shares: Iterable[tuple[DataRate, int]]) -> None:
    """Holds those back who have at least an equal share of what waits for somebody.

    `shares` are (player, bytes); a player may come several times.
    """
    waiting: dict[DataRate, int] = {}
    for pace, size in shares:
        waiting[pace] = waiting.get(pace, 0) + size
    total = sum(waiting.values())
    for pace, size in waiting.items():
        if size * len(waiting) >= total:
            pace.hold_back()
