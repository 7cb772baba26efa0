"""Limits on open connections, in all and per address.

The connections of a trusted proxy carry the requests of many clients, so the limit per address does
not apply to them. It applies to the clients behind: each of their requests in progress, and each
of their WebSockets, counts as a connection of theirs.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from typing import Final

from api.rate_limits import network

REFUSALS: Final = 64
"""Connections at once that get an answer with the reason of their refusal. Others are closed
without one."""
REFUSALS_PER_ADDRESS: Final = 4


class Verdict(enum.Enum):
    """The decision about a new connection."""

    ADMITTED = enum.auto()
    FULL = enum.auto()
    """The server is full. Requests are answered with 503 and `Retry-After`."""
    OVER_SHARE = enum.auto()
    """Its address has too many connections. Requests are answered with 429."""
    DROPPED = enum.auto()
    """Closed at once, because too many refused connections are open already."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The slot of a connection. Give it back with `Admission.leave`."""

    verdict: Verdict
    network: str
    behind: bool = False
    """It is the share of a client in the connection of a trusted proxy."""


class Admission:
    """Counts the open connections.

    Args:
        total: limit of open connections.
        per_address: limit per address, or per /64 of IPv6; None for no limit.
    """

    def __init__(self, total: int, per_address: int | None) -> None:
        self._total = total
        self._per_address = per_address
        self._open: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self.admitted = 0
        """Number of open connections that were admitted."""
        self._refusals = 0

    def __len__(self) -> int:
        """Number of connections with a slot, including refused ones."""
        return self.admitted + self._refusals

    def enter(self, address: str) -> Slot:
        """Gives a new connection a slot, and decides whether it is admitted."""
        key = network(address)
        if self._per_address is not None and self._open[key] >= self._per_address:
            return self._refuse(Verdict.OVER_SHARE, key)
        if self.admitted >= self._total:
            return self._refuse(Verdict.FULL, key)
        self._open[key] += 1
        self.admitted += 1
        return Slot(Verdict.ADMITTED, key)

    def enter_proxy(self, address: str, port: int) -> Slot:
        """As `enter`, for a connection of a trusted proxy. Its key is its own."""
        key = f"{address} {port}"
        if self.admitted >= self._total:
            return self._refuse(Verdict.FULL, key)
        self._open[key] += 1
        self.admitted += 1
        return Slot(Verdict.ADMITTED, key)

    def enter_behind(self, address: str) -> Slot:
        """Counts a request or a WebSocket of a client behind a trusted proxy."""
        key = network(address)
        if self._per_address is not None and self._open[key] >= self._per_address:
            return Slot(Verdict.OVER_SHARE, key, behind=True)
        self._open[key] += 1
        return Slot(Verdict.ADMITTED, key, behind=True)

    def _refuse(self, verdict: Verdict, key: str) -> Slot:
        if self._refusals >= REFUSALS or self._refused[key] >= REFUSALS_PER_ADDRESS:
            return Slot(Verdict.DROPPED, key)
        self._refused[key] += 1
        self._refusals += 1
        return Slot(verdict, key)

    def leave(self, slot: Slot) -> None:
        """Gives the slot back. Call it once for each `enter`."""
        match slot.verdict:
            case Verdict.ADMITTED if slot.behind:
                _decrement(self._open, slot.network)
            case Verdict.OVER_SHARE if slot.behind:
                pass  # nothing was counted
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
