"""Sorted pages of lists that several nodes have a part of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from typing import Final, Generic, TypeVar

T = TypeVar("T")

REACH: Final = 1000
"""How far into a list a page may reach: so much each node sends at most."""


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """The first items of one node's list, and how many there are."""

    items: Sequence[T]
    total: int


def first(items: Iterable[T], key: Callable[[T], object], *, down: bool, reach: int) -> list[T]:
    """The first `reach` items in the order of the key."""
    take = nlargest if down else nsmallest
    return take(min(reach, REACH), items, key=key)  # type: ignore[arg-type]  # keys of one kind


def merged(
    parts: Iterable[Part[T]],
    key: Callable[[T], object],
    *,
    down: bool,
    limit: int,
    offset: int,
) -> Part[T]:
    """The page of all parts together."""
    lists = list(parts)
    every = (item for part in lists for item in part.items)
    page = first(every, key, down=down, reach=offset + limit)[offset:]
    return Part(page, sum(part.total for part in lists))
