"""Lists: the query and the answer."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from api.http.pagination import Search, TimePaging, empty_list, list_view, page_of
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
        return page_of(given, [1, 2, 3], lambda item: (item,))

    assert pages(2, 0) == Page(items=(1, 2), total=3, limit=2, offset=0, next=(2,))
    assert pages(2, 1) == Page(items=(2, 3), total=3, limit=2, offset=1)
    assert pages(2, 2) == Page(items=(3,), total=3, limit=2, offset=2)
    assert pages(2, 3) == Page(items=(), total=3, limit=2, offset=3)


def after(cursor: str, everything: list[tuple[int, str]], **more: str) -> Page[tuple[int, str]]:
    given = check(TimePaging, {"limit": "2", "after": cursor, **more}, UserInvalid)
    return page_of(given, everything, lambda item: item)


def test_a_page_goes_on_where_the_last_one_ended() -> None:
    everything = [(1, "u"), (2, "w"), (2, "v"), (3, "x")]
    first = after("0~a", everything)
    assert (first.items, first.next) == (((1, "u"), (2, "w")), (2, "w"))
    # Two that came at the same time stay in their order.
    assert after("2~w", everything).items == ((2, "v"), (3, "x"))
    assert after("2~w", everything).next is None
    # Items that left or came before do not matter.
    assert after("2~w", everything[1:]).items == ((2, "v"), (3, "x"))
    assert after("2~w", [(0, "n"), *everything]).items == ((2, "v"), (3, "x"))
    # Nor does it if the last one left.
    assert after("1~u", everything[1:]).items == ((2, "w"), (2, "v"))
    assert after("2~w", everything[3:]).items == ((3, "x"),)
    assert after("3~x", everything).items == ()
    assert after("0~a", everything, offset="3").items == ((3, "x"),)


def test_next_is_what_after_takes() -> None:
    page = Page(items=((1, "u_1@a.b:1"),), total=2, limit=1, offset=0, next=(1, "u_1@a.b:1"))
    cursor = list_view(page, str).next
    assert cursor == "1~u_1@a.b:1"
    assert check(TimePaging, {"after": cursor}, UserInvalid).after == page.next
    assert list_view(Page(items=(), total=0, limit=1, offset=0), str).next is UNSET


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "1", "~", "1~", "~a", "-1~a", "1~a~b", "1~a b", "1~\0", "1" * 19 + "~a", "\uff11~a"],
)
def test_another_list_s_place_is_refused(cursor: str) -> None:
    with pytest.raises(UserInvalid) as refused:
        check(TimePaging, {"after": cursor}, UserInvalid)
    assert [detail.field for detail in refused.value.details] == ["after"]


def test_nothing_keeps_the_paging() -> None:
    search = check(Search, {"limit": "3", "offset": "9"}, UserInvalid)
    assert empty_list(search) == ListView(items=(), total=0, limit=3, offset=9)
