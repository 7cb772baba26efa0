"""What the sockets of a whole server say is what its `/openapi.json` says of them, to the field."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jsonschema_rs
import pytest
import trio
from trio_websocket import WebSocketConnection

from benchmarks.killable import event
from reileta.protocol import commands, events
from tests.e2e.clients import PATIENCE_S, Json, Player, connected
from tests.e2e.servers import Account, House, running
from tests.e2e.test_sessions import another_token, get, line


class Described:
    """A socket's part of the document, with every object closed to what it does not describe.

    `seen` are the answers and events that were held against it.
    """

    def __init__(self, document: Json, path: str) -> None:
        self._components = document["components"]
        for schema in self._components["schemas"].values():
            if "properties" in schema:
                schema["additionalProperties"] = False
        self.socket = document["x-websockets"][path]
        self.seen: set[str] = set()

    def _hold(self, schema: Json, value: Any) -> None:
        whole = {**schema, "components": self._components}
        jsonschema_rs.Draft202012Validator(whole).validate(value)

    def hold(self, message: Json) -> None:
        """Holds a message of `/api/ws` against it."""
        self._hold(self.socket["receives"], message)
        name = message["command"]
        if "state" in message:
            self._hold(self.socket["commands"][name]["answer"], message["data"])
            self.seen.add(f"answer to {name}")
        else:
            described = self.socket["events"][name]
            self._hold(described["data"], message["data"])
            assert ("subgroup" in message) == ("subgroup" in described), message
            self.seen.add(name)

    def hold_event(self, message: Json) -> None:
        """Holds a message of the session API against it."""
        self._hold(self.socket["receives"], message)
        if message["type"] == "event":
            kind = message["payload"]["kind"]
            self._hold(self.socket["events"][kind]["data"], message["payload"])
            self.seen.add(kind)
        else:
            self._hold(self.socket["commands"]["state"]["answer"], message)
            self.seen.add("ack")


class Held(Player):
    """A player whose every message is held against the document."""

    def __init__(self, socket: WebSocketConnection, described: Described) -> None:
        super().__init__(socket)
        self._described = described

    async def receive(self) -> Json:
        message = await super().receive()
        self._described.hold(message)
        return message


@asynccontextmanager
async def held(house: House, account: Account, described: Described) -> AsyncIterator[Held]:
    async with connected(house) as bare:
        player = Held(bare.socket, described)
        await player.ask("authenticate", {"token": account.token})
        await player.event("authenticated")
        yield player


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with running(database_url, rate_limits="off") as house:
        yield house


@pytest.fixture
async def web(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{house.host}:{house.port}") as web:
        yield web


async def ask(
    web: httpx.AsyncClient, who: Account, method: str, path: str, body: object = None
) -> Json:
    """What stands in the envelope."""
    headers = {"Authorization": f"Bearer {who.token}"}
    answer = await web.request(method, path, headers=headers, json=body)
    assert answer.status_code == 200, answer.text
    envelope: Json = answer.json()
    return envelope


async def test_players_are_told_what_is_described(house: House, web: httpx.AsyncClient) -> None:
    described = Described((await web.get("/openapi.json")).json(), "/api/ws")
    ada, bob = await house.account(admin=True), await house.account()
    async with held(house, ada, described) as host, held(house, bob, described) as guest:
        await host.send("ping")
        await host.event("ping")
        await host.ask("ping", {"time": [1]})
        await host.ask("subscribe", {"event": "all"})
        for method, path, body in (
            ("PUT", "/api/worlds", {"title": "Meadow"}),
            ("PUT", "/api/services", {"id": "com.example.voice", "title": "Voice"}),
            ("POST", "/api/server", {"title": "Harbour"}),
            ("POST", "/api/users/@me", {"description": "Hello"}),
        ):
            await ask(web, ada, method, path, body)
            await host.event(f"update-{path.split('/')[2].rstrip('s').replace('@me', 'user')}")
        room = (await house.instance(ada, capacity=1)).id
        await host.join(room)
        await ask(web, bob, "POST", f"/api/instances/{room}/candidate")
        await guest.event("instance-queue")
        await host.ask("instance-leave", {"instance": room})
        await guest.until(lambda one: one.get("data", {}).get("reason") == "admitted")
        await guest.join(room)
        await guest.say(room, {"x": 1}, key="pose", at=1.5)
        await ask(web, ada, "POST", f"/api/instances/{room}", {"capacity": 2})
        await host.join(room)
        await guest.event("instance-joined")
        await guest.ask("instance-data", [2], subgroup=room, key="pose")
        await guest.say(room, "psst", to=[host.id])
        await host.until(lambda one: one.get("data", {}).get("data") == "psst")
        await ask(web, ada, "PUT", f"/api/instances/{room}/moderators/{bob.id}")
        await guest.event("instance-role")
        order = {"player": guest.id, "type": "mute", "reason": "hush", "until": 2**52}
        await host.ask("instance-moderate", order, subgroup=room)
        await guest.event("instance-moderated")
        kick = {"user": bob.id, "type": "kick", "reason": "enough"}
        await host.ask("instance-moderate", kick, subgroup=room)
        await guest.event("instance-left")
        await host.ask("unsubscribe", {"event": "all"})
        await host.event("unsubscribed")
        await ask(web, bob, "DELETE", "/api/auth/logout")
        await guest.event("unauthenticated")
        assert (await guest.closed())[0] == 4000
    answers = {f"answer to {name}" for name in described.socket["commands"]}
    assert answers <= described.seen
    # A crash would be needed for it; its data is that of the answer to `instance-join`.
    restored = described.socket["events"][events.INSTANCE_RESTORED]
    assert restored["data"] == described.socket["commands"][commands.INSTANCE_JOIN]["answer"]
    assert events.EVENTS - described.seen == {events.INSTANCE_RESTORED}
    assert str(4000) in described.socket["closeCodes"]


async def test_sessions_are_told_what_is_described(house: House, web: httpx.AsyncClient) -> None:
    described = Described((await web.get("/openapi.json")).json(), "/ws/user")
    ada = await house.account()
    twin = await another_token(house, ada)

    async def until(socket: WebSocketConnection, kind: str) -> None:
        """Reads until something of that kind came, or an Ack."""
        with trio.fail_after(PATIENCE_S):
            while True:
                message = await get(socket)
                described.hold_event(message)
                if kind == message.get("payload", {"kind": "ack"})["kind"]:
                    return

    async with line(house, ada.token) as one, line(house, twin) as two:
        await until(one, "hello")
        await until(two, "hello")
        await one.send_message(json.dumps(event({"text": "x" * 40_000})))
        await until(one, "ack")
        await until(two, "state")
        await one.send_message(json.dumps(event({"more": "x" * 40_000})))
        await until(one, "refused")
        made = await ask(web, ada, "POST", "/resource/document", {"title": "Front door"})
        number = made["resource"]["id"]
        await ask(web, ada, "POST", f"/resource/document/{number}/acquire")
        await until(one, "resource")
        await until(two, "resource")  # or its Ack would be under way when the socket closes
        await ask(web, ada, "DELETE", "/api/auth/logout")
        await until(two, "closing")
    assert described.seen == {*described.socket["events"], "ack"}
