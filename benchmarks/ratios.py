"""Ratios of rounds: how two servers compare, whatever else the machine did meanwhile.

Servers are measured in alternating rounds (A B, B A, A B, …). Only figures of one round are
compared: other work of the machine affects both alike. The median of the rounds' ratios counts, and
their spread says whether to trust it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

UNSTEADY: Final = 1.25
"""A highest ratio over so many times the lowest is marked: the machine disturbed the run."""


def turned(servers: Sequence[T], number: int) -> list[T]:
    """The servers in the order of that round: each round begins with a different one."""
    shift = number % len(servers) if servers else 0
    return [*servers[shift:], *servers[:shift]]


def ratios(mine: Sequence[float | None], its: Sequence[float | None]) -> list[float]:
    """The ratio of each round that has both figures, in order of size."""
    return sorted(one / other for one, other in zip(mine, its, strict=False) if one and other)


def steady(found: Sequence[float]) -> bool:
    """Whether sorted ratios are close enough to one another to be trusted."""
    return not found or found[-1] <= UNSTEADY * found[0]


def spread(found: Sequence[float]) -> str:
    """The median of ratios, with the lowest and the highest; `!` if they differ too much."""
    if not found:
        return "-"
    mark = "" if steady(found) else " !"
    return f"{statistics.median(found):.2f} ({found[0]:.2f}-{found[-1]:.2f}){mark}"
