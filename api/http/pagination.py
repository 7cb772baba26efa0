"""Pagination: the query of a list, and its answer."""

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
    """Which page of a list to return."""

    limit: Limit = DEFAULT_PAGE
    offset: Offset = 0
    server: Reference | None = Field(
        default=None, description="Must be the address of this server."
    )


class Search(Paging):
    """Which page of the matches to return."""

    query: Reference | None = Field(
        default=None,
        description="Text to find in names, titles and descriptions. Case is ignored.",
    )


def page_of(paging: Paging, everything: Sequence[T]) -> Page[T]:
    """The requested page of a complete list."""
    items = tuple(everything[paging.offset : paging.offset + paging.limit])
    return Page(items, len(everything), paging.limit, paging.offset)


def list_view(page: Page[T], view: Callable[[T], V]) -> ListView[V]:
    """The answer for a page. `view` makes the view of one item."""
    return list_of(page, tuple(view(item) for item in page.items))


def list_of(page: Page[T], views: tuple[V, ...]) -> ListView[V]:
    """The answer for a page, from the views of its items."""
    return ListView(items=views, total=page.total, limit=page.limit, offset=page.offset)


def empty_list(paging: Paging) -> ListView[V]:
    """The answer if nothing can match."""
    return ListView(items=(), total=0, limit=paging.limit, offset=paging.offset)
