"""SQL fragments that several tables need."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from reileta.records import Cursor, Page
from reileta.store.database import Queries, Row

T = TypeVar("T")

_TRIGRAM: Final = re.compile(r"[A-Za-z0-9]{3}")
_PLAIN: Final = '(haystack COLLATE "C")'
_FAR: Final = 1000
"""From this offset on, a page is far down the list."""
_WILD: Final = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_"})


def containing(query: str | None) -> str | None:
    """The LIKE pattern for texts that contain the query literally; None matches all."""
    return f"%{query.translate(_WILD)}%" if query else None


def tag_list(tags: Collection[str]) -> list[str]:
    """Tags as they are stored: sorted, without duplicates."""
    return sorted(set(tags))


def assignments(
    changes: Mapping[str, object], columns: Collection[str]
) -> tuple[str, list[object]]:
    """The list of `SET` for the changes, with parameters from $1 on, and these parameters.

    `columns` are the allowed columns. Another name raises ValueError, a defect of the caller, so
    that no external text becomes a column name.
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

    Only filters that are used become conditions. A condition such as "or the filter is null" would
    hide from the planner which index it can use.
    """

    def __init__(self) -> None:
        self.args: list[object] = []
        self.conditions: list[str] = []
        self.searches = False
        """Whether it searches text, so that checking each row can be slow."""
        self.indexed = True
        """Whether an index can find that text."""

    def add(self, condition: str, *args: object) -> None:
        """Adds a condition; each `{}` in it stands for the next argument."""
        first = len(self.args) + 1
        self.args += args
        self.conditions.append(condition.format(*(f"${first + n}" for n in range(len(args)))))

    def contains(self, query: str | None) -> None:
        """Adds: `haystack` contains the query, ignoring case in all alphabets, and in NFC; None
        matches all."""
        pattern = containing(query)
        if pattern is None or query is None:
            return
        self.searches = True
        # A trigram needs three letters, and on a database with the locale C it knows only those of
        # ASCII: for another text, PostgreSQL would read the whole index.
        # In another collation than the index's, the planner does not use it.
        self.indexed = _TRIGRAM.search(query) is not None
        self.add(f"{'haystack' if self.indexed else _PLAIN} LIKE search_text({{}})", pattern)

    def tagged(self, tag: str | None) -> None:
        """Adds: has that tag; None matches all."""
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
    after: Cursor | None = None,
) -> Page[T]:
    """One page of the rows that match the conditions, and how many match in total.

    `order` must be unique, so that pages don't overlap. With `after`, which holds values of these
    columns, the page begins behind them, and `offset` counts from there. The page and the count
    come from one statement and so from one state of the table. If an index decides alone, it is
    faster to ask it twice: once for the page, which stops when it is full, and once to count. A
    search that must check every row does so once, for both; so does one for a page far down the
    list. Complete rows are read for the page only.
    """
    once = where.searches and (not where.indexed or offset > _FAR)
    last = len(where.args)
    keys = ", ".join(order)
    args = [*where.args, max(limit, 0) + 1, max(offset, 0), *(after or ())]
    behind = ""
    if after is not None:
        values = ", ".join(f"${last + 3 + place}" for place in range(len(order)))
        behind = f"WHERE ({keys}) {'<' if newest_first else '>'} ({values}) "
    sorting = ", ".join(f"{column} DESC" for column in order) if newest_first else keys
    sql = (
        f"WITH hits AS {'' if once else 'NOT '}MATERIALIZED "  # noqa: S608 - a noun's own words
        f"(SELECT {keys} FROM {table} WHERE {where}), "
        f"keys AS (SELECT * FROM hits {behind}ORDER BY {sorting} "
        f"LIMIT ${last + 1} OFFSET ${last + 2}) "
        "SELECT (SELECT count(*) FROM hits) AS total, page.* FROM (VALUES (1)) AS one "
        f"LEFT JOIN (SELECT {table}.* FROM keys JOIN {table} USING ({keys})) AS page ON true "
        f"ORDER BY {sorting}"
    )
    if where.searches:
        # Planned for this text: the index for a rare text, a scan for a frequent one. A prepared
        # statement would soon use one plan for all.
        async with queries.transaction() as transaction:
            await transaction.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            rows = await transaction.fetch(sql, *args)
    else:
        rows = await queries.recall(sql, *args)
    found = [row for row in rows if row[order[0]] is not None]
    following = None
    if 0 < limit < len(found):
        following = tuple(found[limit - 1][column] for column in order)
    items = tuple(make(row) for row in found[: max(limit, 0)])
    return Page(items, rows[0]["total"], limit, offset, following)
