"""A client that reaches no network: tests say what other servers answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reileta.federation.client import RemoteAnswer


@dataclass(frozen=True)
class Sent:
    """A request as it was sent."""

    method: str
    server: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: Any


Answerer = Callable[[Sent], Awaitable[RemoteAnswer]]


def answered(
    data: object = None, *, status: int = 200, code: int | None = None, **headers: str
) -> RemoteAnswer:
    """An answer in the envelope, with `data` or with an error of that code."""
    envelope: dict[str, object] = {"request": "/", "time": 1, "message": "OK"}
    if code is None:
        envelope["data"] = data
    else:
        envelope["error"] = {"code": code, "message": "no"}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return RemoteAnswer(status, names, json.dumps(envelope).encode())


@dataclass
class FakeClient:
    """Answers with `answer`, and keeps what was asked in `sent`."""

    answer: Answerer
    sent: list[Sent] = field(default_factory=list)
    insecure: frozenset[str] = frozenset()

    def secure(self, server: str) -> bool:
        return server not in self.insecure

    async def request(
        self,
        method: str,
        server: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> RemoteAnswer:
        sent = Sent(
            method,
            server,
            path,
            tuple(query),
            dict(headers or {}),
            None if body is None else json.loads(body),
        )
        self.sent.append(sent)
        return await self.answer(sent)
