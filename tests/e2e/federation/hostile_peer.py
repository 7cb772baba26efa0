"""A server that says whatever a test wants: a peer that is wrong, slow, or lies.

It has a key of its own, answers `/.well-known/avr` and `/api/challenges/:id` as a good server
would, and lets a test change any field of any answer.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from reileta.rules.federation.signatures import challenge_bytes, encode, key_bytes
from reileta.security.server_key import ServerKey
from tests.e2e.federation.servers import FederatedServer
from tests.ports import free_port

Json = dict[str, Any]
Change = Callable[[Json], Json | bytes | None]


def unchanged(answer: Json) -> Json:
    return answer


@dataclass
class Request:
    """A request that the peer got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HostilePeer:
    """A server at `address`.

    Attributes:
        discovery: changes the data of `/.well-known/avr`; bytes are sent as the whole answer.
        challenge: changes the data of a challenge before it is signed.
        signed: changes it afterwards.
        answers: what it answers to other paths, by method and path: status and data.
        requests: what it was asked.
    """

    host: str
    port: int
    key: ServerKey = field(default_factory=ServerKey.generate)
    discovery: Change = unchanged
    challenge: Callable[[Json], Json] = unchanged
    signed: Change = unchanged
    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    links: list[Json] = field(default_factory=list)
    clock_ms: int = 0
    """How far its clock is ahead."""
    started: dict[str, Json] = field(default_factory=dict)
    repeated: bool = False
    """Whether it serves a challenge more than once; a good server would not."""
    gate: Callable[[Request], Any] | None = None
    """Called with each request, before the answer."""

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def replace_key(self, *, chained: bool) -> None:
        """Has another key from now on, signed by the earlier one or not."""
        old, self.key = self.key, ServerKey.generate()
        if chained:
            since = self.now_ms()
            new = self.key.public_base64url
            by = encode(old.sign(key_bytes(self.address, old.public_base64url, new, since)))
            self.links.insert(0, {"public_key": new, "since": since, "by": by})

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.clock_ms

    def begin(self, server: str) -> Json:
        """Begins a challenge for a server; returns the body to send there."""
        id_, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.started[id_] = {
            "id": id_,
            "server": server,
            "nonce": nonce,
            "expires_at": self.now_ms() + 60_000,
        }
        return {"server": self.address, "id": id_, "nonce": nonce}

    async def known_to(self, server: FederatedServer, /, **changes: object) -> Json:
        """Makes a challenge at a server; the whole envelope of its answer, with `status`."""
        body = {**self.begin(server.address), **changes}
        async with server.ask() as client:
            answer = await client.put("/api/challenges", json=body)
        return {"status": answer.status_code, **answer.json()}

    async def token_of(self, server: FederatedServer) -> str:
        """A token of that server."""
        answer = await self.known_to(server)
        assert answer["status"] == 200, answer
        token: str = answer["data"]["token"]
        return token

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests to a path; `…` at its end stands for any rest."""
        return [
            one
            for one in self.requests
            if one.method == method
            and (
                one.path.startswith(path.removesuffix("…"))
                if path.endswith("…")
                else one.path == path
            )
        ]

    def answer(self, request: Request) -> bytes:
        if request.path == "/.well-known/avr":
            return _http(200, self.discovery(self.described()))
        if request.path.startswith("/api/challenges/") and request.method == "GET":
            id_ = request.path.rpartition("/")[2]
            begun = self.started.get(id_) if self.repeated else self.started.pop(id_, None)
            return _http(404, None) if begun is None else _http(200, self.signed(self.sign(begun)))
        status, data = self.answers.get((request.method, request.path), (404, None))
        return _http(status, data)

    def described(self) -> Json:
        return {
            "address": self.address,
            "secure": False,
            "public_key": self.key.public_base64url,
            "keys": self.links,
            "gateways": {
                "http": f"http://{self.address}",
                "ws": f"ws://{self.address}/api/ws",
            },
            "version": "0.1.0",
        }

    def sign(self, begun: Json) -> Json:
        data = self.challenge(dict(begun))
        signed = challenge_bytes(
            self.address,
            str(data["server"]),
            str(data["id"]),
            str(data["nonce"]),
            int(data["expires_at"]),
        )
        return {**data, "signature": encode(self.key.sign(signed))}

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serves one connection."""
        buffer = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = await stream.receive_some()
                    if not more:
                        return
                    buffer += more
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                line, *rest = head.decode("latin-1").split("\r\n")
                headers = {}
                for one in rest:
                    name, _, value = one.partition(":")
                    headers[name.lower()] = value.strip()
                size = int(headers.get("content-length", "0"))
                while len(buffer) < size:
                    buffer += await stream.receive_some()
                body, buffer = buffer[:size], buffer[size:]
                method, path, _ = line.split(" ")
                request = Request(method, path, headers, body)
                self.requests.append(request)
                if self.gate is not None:
                    await self.gate(request)
                await stream.send_all(self.answer(request))


def _http(status: int, data: Json | bytes | None) -> bytes:
    if isinstance(data, bytes):
        return data
    envelope: Json = {"request": "/", "time": 1, "message": "OK"}
    if status < 400:
        envelope["data"] = data
    else:
        envelope |= {"message": "no", "error": data or {"code": 109, "message": "no"}}
    body = json.dumps(envelope).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def hostile_peer(
    host: str = "127.0.0.9", port: int | None = None
) -> AsyncIterator[HostilePeer]:
    """A peer that runs during the block. Pass its address to the servers as one of `peers`."""
    peer = HostilePeer(host, port or free_port(host))
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handler_nursery=nursery, host=host)
        await nursery.start(serve, _quietly(peer), peer.port)
        yield peer
        nursery.cancel_scope.cancel()


def _quietly(peer: HostilePeer) -> Callable[[trio.SocketStream], Any]:
    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await peer.serve(stream)

    return serve
