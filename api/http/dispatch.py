"""The operation that a request's path means, found without Quart: it is remembered by path."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from quart.routing import QuartRule
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect

from api.http.endpoint import Serve

PATHS: Final = 4096
"""How many paths are remembered."""
PATH_LENGTH: Final = 256
"""Longer paths are matched each time."""

Found: TypeAlias = tuple[QuartRule, Serve, Mapping[str, str]]
"""The rule, what serves it, and the variable parts of the path."""


class Dispatch:
    """Finds operations by method and path, by the rules of Quart's own map. `serves` are those that
    can be served without Quart, by endpoint."""

    def __init__(self, rules: Map) -> None:
        self.serves: dict[str, Serve] = {}
        self._rules = rules
        self._remembered = lru_cache(maxsize=PATHS)(self._match)

    def find(self, method: str, path: str) -> Found | None:
        """None for what Quart has to answer: other endpoints, unknown paths, other methods."""
        if len(path) > PATH_LENGTH:
            return self._match(method, path)
        return self._remembered(method, path)

    def _match(self, method: str, path: str) -> Found | None:
        try:
            rule, args = self._rules.bind("").match(path, method, return_rule=True, websocket=False)
        except (HTTPException, RequestRedirect):
            return None
        assert isinstance(rule, QuartRule)
        serve = self.serves.get(rule.endpoint)
        return None if serve is None else (rule, serve, args)
