from __future__ import annotations

import pytest

from reileta.records import Cursor, Page
from reileta.store import Store
from reileta.store.query_builder import Where, assignments, containing, page, tag_list


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        (None, None),
        ("", None),
        ("abc", "%abc%"),
        ("50%", r"%50\%%"),
        ("a_b", r"%a\_b%"),
        ("a\\", "%a\\\\%"),
    ],
)
def test_a_query_is_matched_letter_for_letter(query: str | None, pattern: str | None) -> None:
    assert containing(query) == pattern


def test_tags_are_stored_once_and_sorted() -> None:
    assert tag_list(["b", "a", "b"]) == ["a", "b"]


def test_assignments_number_their_parameters() -> None:
    assert assignments({"title": "x", "tags": frozenset({"b", "a"})}, ["title", "tags"]) == (
        "title = $1, tags = $2",
        ["x", ["a", "b"]],
    )
    assert assignments({}, ["title"]) == ("", [])


def test_assignments_take_known_columns_alone() -> None:
    with pytest.raises(ValueError, match="id = 1"):
        assignments({"id = 1; --": "x"}, ["title"])


def test_conditions_number_their_parameters() -> None:
    where = Where()
    assert str(where) == "true"
    where.add("a = {} AND b < {}", 1, 2)
    where.add("(c = {0} OR d = {0})", 3)
    assert str(where) == "a = $1 AND b < $2 AND (c = $3 OR d = $3)"
    assert where.args == [1, 2, 3]
    assert not where.searches


@pytest.mark.parametrize(
    ("query", "indexed"),
    [
        ("abc", True),
        ("été", False),
        ("xété abc", True),
        ("x 123", True),
        ("ab", False),
        ("a_b", False),
        ("%%%", False),
    ],
)
def test_what_has_no_trigram_does_not_ask_the_index(query: str, indexed: bool) -> None:
    where = Where()
    where.contains(query)
    assert where.searches
    assert str(where).startswith("haystack LIKE") is indexed


def test_nothing_to_look_for_is_no_condition() -> None:
    where = Where()
    where.contains(None)
    where.contains("")
    where.tagged(None)
    assert (str(where), where.args, where.searches) == ("true", [], False)


@pytest.mark.parametrize("searches", [False, True])
async def test_a_page_is_cut_in_order_and_counts_all(store: Store, searches: bool) -> None:
    await store.database.execute(
        "CREATE TABLE things (a, b) AS SELECT n / 3, n FROM generate_series(1, 6) AS n"
    )

    async def cut(limit: int, offset: int, *, newest_first: bool) -> tuple[tuple[int, ...], int]:
        where = Where()
        where.add("b < {}", 6)
        where.searches = searches
        found = await page(
            store.database,
            "things",
            where,
            lambda row: int(row["b"]),
            order=("a", "b"),
            newest_first=newest_first,
            limit=limit,
            offset=offset,
        )
        assert (found.limit, found.offset) == (limit, offset)
        return found.items, found.total

    assert await cut(2, 0, newest_first=True) == ((5, 4), 5)
    assert await cut(2, 4, newest_first=True) == ((1,), 5)
    assert await cut(9, 1, newest_first=False) == ((2, 3, 4, 5), 5)
    assert await cut(2, 5, newest_first=False) == ((), 5)
    assert await cut(-1, -1, newest_first=True) == ((), 5)


@pytest.mark.parametrize("searches", [False, True])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_page_goes_on_behind_a_place(
    store: Store, searches: bool, newest_first: bool
) -> None:
    await store.database.execute(
        "CREATE TABLE things (a, b) AS SELECT n / 3, n::text FROM generate_series(1, 8) AS n"
    )

    async def cut(after: Cursor | None, offset: int = 0) -> Page[int]:
        where = Where()
        where.add("b <> {}", "4")
        where.searches = searches
        return await page(
            store.database,
            "things",
            where,
            lambda row: int(row["b"]),
            order=("a", "b"),
            newest_first=newest_first,
            limit=3,
            offset=offset,
            after=after,
        )

    order = [8, 7, 6, 5, 3, 2, 1] if newest_first else [1, 2, 3, 5, 6, 7, 8]
    first = await cut(None)
    assert (list(first.items), first.total) == (order[:3], 7)
    assert first.next == (order[2] // 3, str(order[2]))
    await store.database.execute("DELETE FROM things WHERE b = $1", str(order[2]))
    await store.database.execute("INSERT INTO things VALUES (0, '0'), (9, '9')")
    second = await cut(first.next)
    assert (list(second.items), second.total) == (order[3:6], 8)
    assert list((await cut(first.next, 1)).items[:2]) == order[4:6]
    third = await cut(second.next)
    assert list(third.items) == [order[6], 0 if newest_first else 9]
    assert third.next is None
