"""Other servers that answer what a test says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import trio

from reileta.errors import ReiletaError, ServerBlocked
from reileta.rules.federation.remote_objects import Source


@dataclass(frozen=True)
class FakeError:
    code: int
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FakeReply:
    status: int = 200
    data: msgspec.Raw | None = None
    error: FakeError | None = None


@dataclass(frozen=True)
class Asked:
    """A request that reached the other server."""

    server: str
    path: str
    query: tuple[tuple[str, str], ...]


def found(data: object) -> FakeReply:
    """An answer with data."""
    return FakeReply(data=msgspec.Raw(json.dumps(data).encode()))


def refused(status: int, code: int, *details: tuple[str, str]) -> FakeReply:
    """An answer with an error."""
    return FakeReply(status, error=FakeError(code, details))


@dataclass
class FakePeers:
    """`Peers` that answer from `answers`, by path; `gate` holds answers back while it is set."""

    answers: dict[str, FakeReply | ReiletaError | Callable[[Asked], FakeReply]] = field(
        default_factory=dict
    )
    asked: list[Asked] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    sources: dict[str, Source] = field(default_factory=dict)
    gate: trio.Event | None = None

    async def ask(
        self,
        method: Literal["GET"],
        server: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        via: bool = False,
    ) -> FakeReply:
        self.ensure_allowed(server)
        assert method == "GET"
        assert via, "requests on behalf of users say so"
        self.asked.append(Asked(server, path, tuple(query)))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.get(path, refused(404, 2))
        if isinstance(answer, ReiletaError):
            raise answer
        return answer if isinstance(answer, FakeReply) else answer(self.asked[-1])

    def ensure_allowed(self, server: str) -> None:
        if server in self.blocked:
            raise ServerBlocked

    async def source(self, server: str) -> Source:
        return self.sources.get(server, Source(server))
