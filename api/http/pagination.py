"""Pagination: the query of a list, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from msgspec import UNSET, UnsetType
from pydantic import Field

from reileta.protocol.input_types import (
    DEFAULT_PAGE,
    Input,
    Limit,
    NumberCursor,
    Offset,
    Reference,
    TimeCursor,
    cursor_text,
)
from reileta.protocol.views.registry import ListView
from reileta.records import Cursor, Page

AFTER: Final = "`next` of an answer: the page begins behind that one. `offset` counts from there."

T = TypeVar("T")
V = TypeVar("V")


class Paging(Input):
    """Which page of a list to return. Subclasses narrow `after` to the order of their list."""

    limit: Limit = DEFAULT_PAGE
    offset: Offset = 0
    after: NumberCursor | None = Field(
        default=None,
        description=AFTER,
    )
    server: Reference | None = Field(
        default=None, description="Must be the address of this server."
    )


class TimePaging(Paging):
    """Which page of a list by time to return."""

    after: TimeCursor | None = Field(default=None, description=AFTER)


class Search(Paging):
    """Which page of the matches to return."""

    query: Reference | None = Field(
        default=None,
        description="Text to find in names, titles and descriptions. Case is ignored.",
    )


def page_of(paging: Paging, everything: Sequence[T], key: Callable[[T], Cursor]) -> Page[T]:
    """The requested page of a complete list.

    `key` makes the cursor of an item, different for each. The list is sorted by it, except for
    items that came at the same time: so an item that is still there is searched first.
    """
    start = paging.offset
    if paging.after is not None:
        keys = [key(item) for item in everything]
        if paging.after in keys:
            start += keys.index(paging.after) + 1
        else:
            behind = (place for place, one in enumerate(keys) if one > paging.after)
            start += next(behind, len(keys))
    items = tuple(everything[start : start + paging.limit])
    more = bool(items) and start + paging.limit < len(everything)
    following = key(items[-1]) if more else None
    return Page(items, len(everything), paging.limit, paging.offset, following)


def list_view(page: Page[T], view: Callable[[T], V]) -> ListView[V]:
    """The answer for a page. `view` makes the view of one item."""
    return list_of(page, tuple(view(item) for item in page.items))


def list_of(page: Page[T], views: tuple[V, ...]) -> ListView[V]:
    """The answer for a page, from the views of its items."""
    return ListView(
        items=views,
        total=page.total,
        limit=page.limit,
        offset=page.offset,
        next=next_of(page),
    )


def next_of(page: Page[T]) -> str | UnsetType:
    """The field `next` of the answer; left out at the end of the list."""
    return UNSET if page.next is None else cursor_text(page.next)


def empty_list(paging: Paging) -> ListView[V]:
    """The answer if nothing can match."""
    return ListView(items=(), total=0, limit=paging.limit, offset=paging.offset)
