from __future__ import annotations

import pytest

from reileta.store import Store
from reileta.store.sql import assignments, containing, page, tag_list


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


async def test_a_page_is_cut_in_order_and_counts_all(store: Store) -> None:
    async def numbers(limit: int, offset: int) -> tuple[tuple[int, ...], int]:
        found = await page(
            store.database,
            "SELECT 'x' AS id, n, -n AS place FROM generate_series(1, $1::int) AS n",
            [5],
            lambda row: int(row["n"]),
            limit=limit,
            offset=offset,
        )
        assert (found.limit, found.offset) == (limit, offset)
        return found.items, found.total

    assert await numbers(2, 0) == ((5, 4), 5)
    assert await numbers(2, 4) == ((1,), 5)
    assert await numbers(2, 5) == ((), 5)
    assert await numbers(-1, -1) == ((), 5)
