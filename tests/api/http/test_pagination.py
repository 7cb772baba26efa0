"""Lists: the query and the answer."""

from __future__ import annotations

from api.http.pagination import Search, empty_list, list_view, page_of
from reileta.errors import UserInvalid
from reileta.protocol.input_types import check
from reileta.protocol.views.registry import ListView
from reileta.records import Page


def test_a_query_has_defaults() -> None:
    search = check(Search, {}, UserInvalid)
    assert (search.limit, search.offset, search.query) == (50, 0, None)


def test_a_page_becomes_its_view() -> None:
    page = Page(items=(1, 2), total=5, limit=2, offset=2)
    assert list_view(page, str) == ListView(items=("1", "2"), total=5, limit=2, offset=2)


def test_a_part_of_a_whole_list_is_a_page_of_it() -> None:
    def pages(limit: int, offset: int) -> Page[int]:
        given = check(Search, {"limit": str(limit), "offset": str(offset)}, UserInvalid)
        return page_of(given, [1, 2, 3])

    assert pages(2, 0) == Page(items=(1, 2), total=3, limit=2, offset=0)
    assert pages(2, 2) == Page(items=(3,), total=3, limit=2, offset=2)
    assert pages(2, 3) == Page(items=(), total=3, limit=2, offset=3)


def test_nothing_keeps_the_paging() -> None:
    search = check(Search, {"limit": "3", "offset": "9"}, UserInvalid)
    assert empty_list(search) == ListView(items=(), total=0, limit=3, offset=9)
