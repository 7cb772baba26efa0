"""Lists: the query that pages through them, and the answer (PROTOCOL §2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import Field

from reileta.protocol.input_types import DEFAULT_PAGE, Input, Limit, Offset, Reference
from reileta.protocol.views.registry import ListView
from reileta.records import Page

T = TypeVar("T")
V = TypeVar("V")


class Paging(Input):
    """Which part of a list."""

    limit: Limit = DEFAULT_PAGE
    offset: Offset = 0
    server: Reference | None = Field(default=None, description="The server whose objects to list.")


class Search(Paging):
    """Which part of a list, of what matches."""

    query: Reference | None = Field(
        default=None,
        description="What names, titles or descriptions hold, without regard to case.",
    )


def part(paging: Paging, everything: Sequence[T]) -> Page[T]:
    """The part that was asked for, of a list that is there whole."""
    some = tuple(everything[paging.offset : paging.offset + paging.limit])
    return Page(some, len(everything), paging.limit, paging.offset)


def listed(page: Page[T], view: Callable[[T], V]) -> ListView[V]:
    """The page as its answer."""
    return shown(page, tuple(view(item) for item in page.items))


def shown(page: Page[T], views: tuple[V, ...]) -> ListView[V]:
    """The page as its answer, with the views of all that is on it."""
    return ListView(items=views, total=page.total, limit=page.limit, offset=page.offset)


def empty(paging: Paging) -> ListView[V]:
    """The answer when nothing can match."""
    return ListView(items=(), total=0, limit=paging.limit, offset=paging.offset)
