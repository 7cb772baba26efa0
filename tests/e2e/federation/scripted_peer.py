"""A server that another one asks, and that answers what a test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio

HOST = "127.0.0.9"


@dataclass(frozen=True)
class Received:
    """A request, with the names of its headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class ScriptedPeer:
    """Answers by the path, without the query; else 404. `received` are the requests so far."""

    address: str
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    def answer(self, path: str, data: Any, status: int = 200) -> None:
        """Answers the path with an envelope."""
        self.answers[path] = (status, json.dumps({"message": "OK", "data": data}).encode())

    def refuse(self, path: str, status: int, code: int) -> None:
        """Answers the path with an error."""
        error = {"code": code, "message": "No"}
        self.answers[path] = (status, json.dumps({"message": "No", "error": error}).encode())

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection with one request."""
        head = b""
        while b"\r\n\r\n" not in head:
            part = await stream.receive_some()
            if not part:
                return
            head += part
        first, *lines = head.split(b"\r\n\r\n")[0].decode().split("\r\n")
        method, target, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        self.received.append(
            Received(method, target, {name.lower(): value for name, value in headers.items()})
        )
        nothing = (404, b'{"message": "No", "error": {"code": 2, "message": "No"}}')
        status, body = self.answers.get(target.partition("?")[0], nothing)
        answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        with suppress(trio.BrokenResourceError):  # the server refuses some before their end
            await stream.send_all(answer.encode() + body)
        await stream.aclose()


@asynccontextmanager
async def scripted_peer() -> AsyncIterator[ScriptedPeer]:
    """A server at a port that the system has chosen."""
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    port = listeners[0].socket.getsockname()[1]
    peer = ScriptedPeer(f"{HOST}:{port}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, peer.serve, listeners)
        yield peer
        nursery.cancel_scope.cancel()
