"""A server that another one knows, played by a test: it introduces users, and owns their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from reileta.ids import new_id
from reileta.rules.federation.addresses import host_of
from reileta.security.credentials import digest, new_token
from tests.conftest import PATIENCE_S
from tests.e2e.servers import ServerHarness

Json = dict[str, Any]
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Guest:
    """A user of the played server, with a token of the real one."""

    at: str
    id: str
    token: str
    expires_at: int


@dataclass(frozen=True)
class PlayedServer:
    """The played server; `token` is its own at the real one."""

    harness: ServerHarness
    address: str
    token: str

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        """A client of the real server, by default with the played server's token."""
        url = f"http://{self.harness.host}:{self.harness.port}"
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S)

    async def ask(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> httpx.Response:
        async with self.client(token) as client:
            return await client.request(method, path, json=body)

    async def introduce(self, user: str, **more: object) -> httpx.Response:
        """`PUT /api/integrity`; `user` is a `UserIDAt`."""
        return await self.ask("PUT", "/api/integrity", {"user": user, "displayname": "Ann", **more})

    async def guest(self, user: str | None = None, **more: object) -> Guest:
        """A user of it who is a guest now; by default a new one."""
        name = user or f"{new_id('u')}@{self.address}"
        answer = await self.introduce(name, **more)
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        assert data["user"] == name
        return Guest(name, data["id"], data["token"], data["expires_at"])


async def played_server(harness: ServerHarness, address: str = "far.example:3032") -> PlayedServer:
    """A server that `harness` knows, with a token, as a challenge would give it."""
    store, now = harness.store, harness.server.node.clock.now_ms()
    await store.servers.learn(
        address,
        host=host_of(address),
        secure=True,
        public_key="key",
        key_since=now,
        gateway_http=None,
        gateway_ws=None,
        version=None,
    )
    token = new_token("sa")
    await store.servers.issue_token(address, digest(token), now + HOUR_MS)
    return PlayedServer(harness, address, token)


def code_of(answer: httpx.Response) -> int | None:
    """The code of the answer's error; None for a success."""
    error = answer.json().get("error")
    return None if error is None else error["code"]
