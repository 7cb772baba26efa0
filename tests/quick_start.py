"""Makes servers start in a fraction of the time, with the same behaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import pytest
from argon2 import PasswordHasher
from werkzeug.routing import Rule

from api.http.endpoint import Operation
from api.openapi import page
from reileta.security import passwords
from reileta.site import Site
from tests.known_databases import expect_no_pooler


def cheap_hasher() -> PasswordHasher:
    """The cheapest hash there is. Tests of `Passwords` test what the default costs."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class DocumentsWhenAsked:
    """The documents of a server, made when somebody reads them: few tests do."""

    def __init__(self, make: Callable[[], page.Documents]) -> None:
        self._make = cache(make)

    def __getattr__(self, name: str) -> bytes:
        made: bytes = getattr(self._make(), name)
        return made


def describe_when_asked(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, operations are described when somebody asks, and equal ones
    once."""
    known: dict[tuple[str, Site, str], page.Documents] = {}
    describe = page.documents

    def late(operations: Sequence[Operation], site: Site, cookie: str) -> DocumentsWhenAsked:
        def make() -> page.Documents:
            key = (repr(operations), site, cookie)
            if key not in known:
                known[key] = describe(operations, site, cookie)
            return known[key]

        return DocumentsWhenAsked(make)

    patch.setattr(page, "documents", late)


def build_urls_when_asked(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, werkzeug compiles what builds the URLs of a rule when somebody
    asks for one, which nobody does. It takes most of the time in which an application is made."""
    name = "_compile_builder"
    compile_builder = getattr(Rule, name)

    def late(_: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        def build(rule: Rule, **values: object) -> tuple[str, str]:
            url: tuple[str, str] = compile_builder(rule, append_unknown)(rule, **values)
            return url

        return build

    patch.setattr(Rule, name, late)


def start_quickly(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, servers of this process do so, and hash passwords cheaply."""
    describe_when_asked(patch)
    build_urls_when_asked(patch)
    expect_no_pooler(patch)
    patch.setattr(passwords, "default_hasher", cheap_hasher)


@contextmanager
def quick_start() -> Iterator[None]:
    """Meanwhile, servers of this process do so."""
    with pytest.MonkeyPatch.context() as patch:
        start_quickly(patch)
        yield
