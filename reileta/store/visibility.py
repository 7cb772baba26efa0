"""The rules of `reileta/rules/visibility.py` as SQL conditions of searches.

Tests compare each condition with its rule.
"""

from __future__ import annotations

from reileta.store.query_builder import Where

_SHARED = "number IN (SELECT number FROM shares WHERE user_id = {})"


def worlds(where: Where, viewer: str | None, *, admin: bool) -> None:
    """Worlds that the viewer can see: `visibility.of_world`. `viewer` None: nobody is logged in."""
    if not admin:
        where.add(f"('avr:private' <> ALL(tags) OR owner = {{}} OR {_SHARED})", viewer, viewer)


def owned(where: Where, viewer: str | None, *, admin: bool) -> None:
    """Resources that the viewer can use: `visibility.of_owned`."""
    if not admin:
        where.add(f"(owner = {{}} OR {_SHARED})", viewer, viewer)


def instances(where: Where, viewer: str | None, *, admin: bool) -> None:
    """Instances that are listed for the viewer: `visibility.instance_news`. The database does not
    know the players inside."""
    if not admin:
        where.add("('avr:public' = ANY(tags) OR owner = {})", viewer)
