"""Pieces of SQL that several nouns need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from reileta.records import Page
from reileta.store.postgres import Queries, Row

T = TypeVar("T")

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


async def page(
    queries: Queries,
    sql: str,
    args: Sequence[object],
    make: Callable[[Row], T],
    *,
    limit: int,
    offset: int,
) -> Page[T]:
    """One page of what `sql` finds, and how much it finds in all, in one statement.

    `sql` is a whole SELECT that orders by the column `place`, the only order there is, and whose
    rows have an `id`; `args` are its parameters.
    """
    last = len(args)
    rows = await queries.fetch(
        f"WITH hits AS ({sql}) "  # noqa: S608 - `sql` is a noun's own text
        "SELECT (SELECT count(*) FROM hits) AS total, page.* FROM (VALUES (1)) AS one "
        f"LEFT JOIN LATERAL (SELECT * FROM hits ORDER BY place LIMIT ${last + 1} "
        f"OFFSET ${last + 2}) AS page ON true ORDER BY place",
        *args,
        max(limit, 0),
        max(offset, 0),
    )
    items = tuple(make(row) for row in rows if row["id"] is not None)
    return Page(items, rows[0]["total"], limit, offset)
