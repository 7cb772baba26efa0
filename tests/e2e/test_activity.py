"""What a server in a process of its own logs at level info, and how much of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from trio_websocket import open_websocket_url

from reileta.observability.activity_log import SOURCE
from tests.conftest import PATIENCE_S
from tests.e2e.processes import ServerProcess, serving

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery staple"


class LoggedServer:
    """A server, and its log so far."""

    def __init__(self, process: ServerProcess) -> None:
        self.url = process.url
        self.events = process.events
        self._process = process

    async def eventually(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """The events of that name, once there are so many."""
        await self._process.until_logged(name, count)
        return self.events(name)

    @property
    def text(self) -> str:
        return "\n".join(self._process.log)


@asynccontextmanager
async def logging(database_url: str, folder: Path, *options: str) -> AsyncIterator[LoggedServer]:
    where = ["--database", database_url, "--data", str(folder / "data")]
    async with serving(*where, *options) as process:
        yield LoggedServer(process)


async def test_the_log_tells_what_happened(database_url: str, tmp_path: Path) -> None:
    async with (
        logging(database_url, tmp_path, "--rate-limits", "off") as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        tokens, users = {}, {}
        for name in ("ann", "bob"):
            account = {"username": name, "password": PASSWORD}
            data = (await client.post("/api/auth/register", json=account)).json()["data"]
            tokens[name], users[name] = data["token"], data["user"]["id"]
        ann = {"Authorization": f"Bearer {tokens['ann']}"}
        for name in ("bob", "hunter2", PASSWORD):
            wrong = {"username": name, "password": "another password"}
            assert (await client.post("/api/auth/login", json=wrong)).status_code == 401
        world = (await client.put("/api/worlds", json={"title": "Hall"}, headers=ann)).json()
        asked = {"world": world["data"]["id"], "name": "hall"}
        made = await client.put("/api/instances", json=asked, headers=ann)
        room = made.json()["data"]["id"]
        address = server.url.replace("http", "ws") + "/api/ws?authuser="
        async with open_websocket_url(address + tokens["bob"]) as socket:
            join = {"command": "instance-join", "state": 1, "data": {"instance": room}}
            await socket.send_message(json.dumps(join))
            await server.eventually("player.joined")
            order = {"user": "bob", "type": "kick", "reason": "a secret reason"}
            await client.post(f"/api/instances/{room}/moderate", json=order, headers=ann)
        refused = await client.get(
            "/api/ws?authuser=ua_12345678",
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        )
        assert refused.status_code == 401
        await client.delete(f"/api/instances/{room}", headers=ann)
        body = {"current_password": PASSWORD}
        await client.request("DELETE", "/api/users/@me", json=body, headers=ann)
        await server.eventually("account.deleted")
        closed = await server.eventually("socket.closed")
        created = server.events("account.created")
        assert [(one["user"], one["username"]) for one in created] == [
            (users["ann"], "ann"),
            (users["bob"], "bob"),
        ]
        logins = [(one.get("username"), one["error"]) for one in server.events("login.refused")]
        assert logins == [("bob", 23), (None, 23), (None, 23)]
        (opened,) = server.events("instance.opened")
        assert (opened["instance"], opened["username"]) == (room, "ann")
        (joined,), (left,) = server.events("player.joined"), server.events("player.left")
        assert (joined["user"], joined["username"]) == (users["bob"], "bob")
        assert (left["player"], left["reason"]) == (joined["player"], "kicked")
        (moderated,) = server.events("user.moderated")
        assert (moderated["user"], moderated["by_username"]) == (users["bob"], "ann")
        assert moderated["type"] == "kick"
        assert (closed[0]["code"], closed[0]["by"]) == (1000, "client")
        assert closed[0]["username"] == "bob"
        (upgrade,) = server.events("upgrade.refused")
        assert (upgrade["route"], upgrade["status"]) == ("/api/ws", 401)
        assert [one["reason"] for one in server.events("instance.ended")] == ["closed"]
        for secret in (PASSWORD, "hunter2", "secret reason", *tokens.values()):
            assert secret not in server.text
        assert "127.0.0.1" not in server.text.partition("server.ready")[2].partition("\n")[2]


async def test_a_flood_does_not_fill_the_log(database_url: str, tmp_path: Path) -> None:
    flood = 10 * SOURCE.burst
    options = ("--rate-limits", "off", "--log-addresses", "on")
    async with (
        logging(database_url, tmp_path, *options) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        account = {"username": "ann", "password": PASSWORD}
        token = (await client.post("/api/auth/register", json=account)).json()["data"]["token"]
        address = server.url.replace("http", "ws") + "/api/ws"
        for _ in range(flood):
            async with open_websocket_url(f"{address}?authuser={token}"):
                pass
        await server.eventually("socket.closed", SOURCE.burst)
        limited = (await server.eventually("log.limited"))[0]
        assert limited["of"] == "socket.closed"
        assert len(server.events("socket.closed")) < flood / 2
        assert server.events("socket.closed")[0]["address"] == "127.0.0.1"
