"""Who gets a connection: so many in all, and so many from one address."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from typing import Final

from api.rate_limits import network

REFUSALS: Final = 64
"""Connections that are told why they are refused, at once; more are closed without a word."""
REFUSALS_PER_ADDRESS: Final = 4


class Verdict(enum.Enum):
    """What becomes of a new connection."""

    ADMITTED = enum.auto()
    FULL = enum.auto()
    """The server has as many as it takes. The client is told to come back."""
    OVER_SHARE = enum.auto()
    """Its address has as many as one may have. The client is told so."""
    DROPPED = enum.auto()
    """It is closed at once: too many are being told already."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place that a connection takes until it is given back with `Admission.leave`."""

    verdict: Verdict
    network: str


class Admission:
    """Counts the open connections.

    Args:
        total: how many may be open at once.
        per_address: how many of those from one address, or one /64 of IPv6; None for any number.
    """

    def __init__(self, total: int, per_address: int | None) -> None:
        self._total = total
        self._per_address = per_address
        self._open: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self.admitted = 0
        """Connections that were admitted and are open."""
        self._refusals = 0

    def __len__(self) -> int:
        """How many connections hold a place, refused ones with them."""
        return self.admitted + self._refusals

    def enter(self, address: str) -> Slot:
        """Gives a new connection its place."""
        key = network(address)
        if self._per_address is not None and self._open[key] >= self._per_address:
            return self._refuse(Verdict.OVER_SHARE, key)
        if self.admitted >= self._total:
            return self._refuse(Verdict.FULL, key)
        self._open[key] += 1
        self.admitted += 1
        return Slot(Verdict.ADMITTED, key)

    def _refuse(self, verdict: Verdict, key: str) -> Slot:
        if self._refusals >= REFUSALS or self._refused[key] >= REFUSALS_PER_ADDRESS:
            return Slot(Verdict.DROPPED, key)
        self._refused[key] += 1
        self._refusals += 1
        return Slot(verdict, key)

    def leave(self, slot: Slot) -> None:
        """Takes the place back. Once for each `enter`."""
        match slot.verdict:
            case Verdict.ADMITTED:
                self.admitted -= 1
                _decrement(self._open, slot.network)
            case Verdict.FULL | Verdict.OVER_SHARE:
                self._refusals -= 1
                _decrement(self._refused, slot.network)
            case Verdict.DROPPED:
                pass


def _decrement(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
