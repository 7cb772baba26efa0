"""Other servers that answer what a test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from reileta.errors import ReiletaError, ServerBlocked
from reileta.federation.peers import Method, PeerAnswer, PeerError
from reileta.rules.federation.remote_objects import Source


@dataclass(frozen=True)
class Asked:
    """A request that reached the other server."""

    server: str
    path: str
    query: tuple[tuple[str, str], ...]


def found(data: object) -> PeerAnswer:
    """An answer with data."""
    return PeerAnswer(200, msgspec.Raw(json.dumps(data).encode()))


def refused(status: int, code: int) -> PeerAnswer:
    """An answer with an error."""
    return PeerAnswer(status, None, PeerError(code, "No"))


@dataclass
class FakePeers:
    """`Peers` that answer from `answers`, by path; `gate` holds answers back while it is set."""

    answers: dict[str, PeerAnswer | ReiletaError | Callable[[Asked], PeerAnswer]] = field(
        default_factory=dict
    )
    asked: list[Asked] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    sources: dict[str, Source] = field(default_factory=dict)
    gate: trio.Event | None = None
    askers: list[str] = field(default_factory=list)

    async def ask(
        self,
        method: Method,
        server: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        via: bool = False,
    ) -> PeerAnswer:
        self.ensure_allowed(server)
        assert method == "GET"
        assert via, "requests on behalf of users say so"
        self.asked.append(Asked(server, path, tuple(query)))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.get(path, refused(404, 2))
        if isinstance(answer, ReiletaError):
            raise answer
        return answer if isinstance(answer, PeerAnswer) else answer(self.asked[-1])

    @asynccontextmanager
    async def asking(self, user: str) -> AsyncIterator[None]:
        self.askers.append(user)
        yield

    def ensure_allowed(self, server: str) -> None:
        if server in self.blocked:
            raise ServerBlocked

    async def source(self, server: str) -> Source:
        return self.sources.get(server, Source(server))
