"""Dispatch from method and path to an operation, without Quart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from quart.routing import QuartRule
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, RequestRedirect

from api.http.endpoint import Serve

PATHS: Final = 4096
"""Number of paths whose match is cached."""
PATH_LENGTH: Final = 256
"""Matches of longer paths are not cached."""

Match: TypeAlias = tuple[QuartRule, Serve, Mapping[str, str]]
"""The rule, the function that serves it, and the variable parts of the path."""


class Dispatch:
    """Finds operations by method and path, with the rules of Quart's own map. `serves` holds the
    operations that can be served without Quart, by endpoint name."""

    def __init__(self, rules: Map) -> None:
        self.serves: dict[str, Serve] = {}
        self._rules = rules
        self._cached_known = lru_cache(maxsize=PATHS)(self._known)
        self._cached_match = lru_cache(maxsize=PATHS)(self._match)

    @property
    def cached_paths(self) -> int:
        """How many paths are cached."""
        return self._cached_match.cache_info().currsize

    def find(self, method: str, path: str) -> Match | None:
        """The operation; None if Quart must answer: other endpoints, unknown paths, wrong
        methods."""
        if len(path) > PATH_LENGTH:
            return self._match(method, path)
        return self._cached_match(method, path)

    def knows(self, path: str) -> bool:
        """Whether there is a route for the path, for any method or for an upgrade."""
        return self._known(path) if len(path) > PATH_LENGTH else self._cached_known(path)

    def _known(self, path: str) -> bool:
        try:
            self._rules.bind("").match(path, "GET", websocket=False)
        except NotFound:
            return False
        except (HTTPException, RequestRedirect):
            return True  # another method, or an upgrade
        return True

    def _match(self, method: str, path: str) -> Match | None:
        try:
            rule, args = self._rules.bind("").match(path, method, return_rule=True, websocket=False)
        except (HTTPException, RequestRedirect):
            return None
        assert isinstance(rule, QuartRule)
        serve = self.serves.get(rule.endpoint)
        return None if serve is None else (rule, serve, args)
