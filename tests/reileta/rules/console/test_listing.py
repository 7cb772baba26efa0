"""A page of a list of which each node has a part is that of the whole list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.console.listing import REACH, Part, first, merged


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=4),
    st.booleans(),
    st.integers(1, 10),
    st.integers(0, 20),
)
def test_a_page_of_the_parts_is_one_of_the_whole(
    nodes: list[list[int]], down: bool, limit: int, offset: int
) -> None:
    parts = [
        Part(first(items, lambda one: one, down=down, reach=offset + limit), len(items))
        for items in nodes
    ]
    page = merged(parts, lambda one: one, down=down, limit=limit, offset=offset)
    whole = sorted((item for items in nodes for item in items), reverse=down)
    assert page.items == whole[offset : offset + limit]
    assert page.total == len(whole)


def test_a_node_sends_a_bounded_part() -> None:
    assert len(first(range(REACH * 2), lambda one: one, down=True, reach=REACH * 2)) == REACH
