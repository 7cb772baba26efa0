"""Pieces of SQL that several nouns need."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from reileta.records import Page
from reileta.store.database import Queries, Row

T = TypeVar("T")

_TRIGRAM: Final = re.compile(r"[^\W_]{3}")
_PLAIN: Final = '(haystack COLLATE "C")'
_FAR: Final = 1000
"""From here on, a page of a search is far down the list."""
_WILD: Final = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_"})


def containing(query: str | None) -> str | None:
    """The LIKE pattern for texts that contain the query, letter for letter; None asks for all."""
    return f"%{query.translate(_WILD)}%" if query else None


def tag_list(tags: Collection[str]) -> list[str]:
    """Tags as they are stored: each once, sorted."""
    return sorted(set(tags))


def assignments(
    changes: Mapping[str, object], columns: Collection[str]
) -> tuple[str, list[object]]:
    """`SET`'s list for the changes, from parameter $1 on, and its parameters.

    `columns` are those that may change; anything else is a defect of the caller (ValueError), so
    that no text from outside ever becomes a column's name.
    """
    unknown = changes.keys() - set(columns)
    if unknown:
        raise ValueError(f"not to be changed: {sorted(unknown)}")
    names = [f"{name} = ${index}" for index, name in enumerate(changes, 1)]
    values = [
        tag_list(value) if isinstance(value, (set, frozenset)) else value
        for value in changes.values()
    ]
    return ", ".join(names), values


class Where:
    """The conditions of a search, and their parameters.

    Only what was asked for becomes a condition: the planner then knows which index serves it, where
    "this filter, unless it is null" would hide that from it.
    """

    def __init__(self) -> None:
        self.args: list[object] = []
        self.conditions: list[str] = []
        self.searches = False
        """Whether it looks for text, so that each row may cost much to decide."""
        self.indexed = True
        """Whether an index can find that text."""

    def add(self, condition: str, *args: object) -> None:
        """A condition that must hold; each `{}` in it stands for the next of the arguments."""
        first = len(self.args) + 1
        self.args += args
        self.conditions.append(condition.format(*(f"${first + n}" for n in range(len(args)))))

    def contains(self, query: str | None) -> None:
        """Whose `haystack` contains the query, whatever its letters' case; None asks for all."""
        pattern = containing(query)
        if pattern is None or query is None:
            return
        self.searches = True
        # Less than three letters in a row are no trigram: the index would be read from end to end
        # to no avail. In another collation than its own, the planner does not think of it.
        self.indexed = _TRIGRAM.search(query) is not None
        self.add(f"{'haystack' if self.indexed else _PLAIN} LIKE lower({{}})", pattern)

    def tagged(self, tag: str | None) -> None:
        """With that tag; None asks for all."""
        if tag is not None:
            self.add("tags @> {}::text[]", [tag])

    def __str__(self) -> str:
        return " AND ".join(self.conditions) or "true"


async def page(
    queries: Queries,
    table: str,
    where: Where,
    make: Callable[[Row], T],
    *,
    order: Sequence[str],
    newest_first: bool = False,
    limit: int,
    offset: int,
) -> Page[T]:
    """One page of the table's rows that the conditions hold for, and how many these are in all.

    `order` are columns that no two rows have equal, so that there is one order, and pages don't
    overlap. It is one statement, and so one state of the table. What an index decides alone is
    cheaper asked twice: once for the page, which stops when it is full, and once to count. A search
    that must look at every row does so once, for both answers, and so does one for a page far down
    the list. Whole rows are read for the page alone.
    """
    once = where.searches and (not where.indexed or offset > _FAR)
    last = len(where.args)
    keys = ", ".join(order)
    sorting = ", ".join(f"{column} DESC" for column in order) if newest_first else keys
    sql = (
        f"WITH hits AS {'' if once else 'NOT '}MATERIALIZED "  # noqa: S608 - a noun's own words
        f"(SELECT {keys} FROM {table} WHERE {where}), "
        f"keys AS (SELECT * FROM hits ORDER BY {sorting} LIMIT ${last + 1} OFFSET ${last + 2}) "
        "SELECT (SELECT count(*) FROM hits) AS total, page.* FROM (VALUES (1)) AS one "
        f"LEFT JOIN (SELECT {table}.* FROM keys JOIN {table} USING ({keys})) AS page ON true "
        f"ORDER BY {sorting}"
    )
    args = (*where.args, max(limit, 0), max(offset, 0))
    if where.searches:
        # Planned for this very text: the index for what is rare, a scan for what is everywhere.
        # PostgreSQL would soon settle for one plan for all.
        async with queries.transaction() as transaction:
            await transaction.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            rows = await transaction.fetch(sql, *args)
    else:
        rows = await queries.recall(sql, *args)
    items = tuple(make(row) for row in rows if row[order[0]] is not None)
    return Page(items, rows[0]["total"], limit, offset)
