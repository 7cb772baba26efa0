"""The messages of a whole server's sockets are those that its `/asyncapi.json` describes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import jsonschema_rs
import pytest
import trio
from trio_websocket import WebSocketConnection

from api.openapi.asyncapi import CLOSE_CODES, ERROR_CODES, operations_of, payload_of
from api.ws.registry.commands import COMMANDS
from api.ws.registry.events import EVENTS
from benchmarks.killable import event
from reileta.protocol import commands, events
from reileta.security.credentials import digest
from reileta.security.server_key import ServerKey
from tests.api.openapi.test_asyncapi import objects_of
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.test_sessions import another_token, get, line


class DescriptionChecker:
    """A channel of the document, with every object closed to fields that it does not describe.

    `seen` are the messages that were held to it, by their names in the document.
    """

    def __init__(self, document: Json, channel: str) -> None:
        self._document = document
        self.channel = document["channels"][channel]
        self.sent = operations_of(document, channel, "send")
        self.received = operations_of(document, channel, "receive")
        self.seen: set[str] = set()
        for schema in objects_of(document["components"]):
            if "properties" in schema and "allOf" not in schema:
                schema["additionalProperties"] = False

    @property
    def events(self) -> set[str]:
        """The names of the messages of its events."""
        return {name_of(operation["messages"][0]) for operation in self.sent.values()}

    @property
    def answers(self) -> set[str]:
        """The names of the messages that answer its commands."""
        return {name_of(operation["reply"]["messages"][0]) for operation in self.received.values()}

    def hold(self, name: str, message: Json) -> None:
        """Holds a message to the one of that name."""
        payload = payload_of(self._document, self._document["components"]["messages"][name])
        whole = {**payload, "components": self._document["components"]}
        jsonschema_rs.Draft7Validator(whole).validate(message)
        if "error" in message:
            assert message["error"]["code"] in payload["properties"]["error"][ERROR_CODES]
        self.seen.add(name)

    def hold_received(self, message: Json) -> None:
        """Holds a message from `/api/ws` to the answer, the refusal or the event that it is."""
        if "command" not in message:
            self.hold("MessageRefusal", message)
            return
        answers = "state" in message or "error" in message
        operations = self.received if answers else self.sent
        (operation,) = (one for one in operations.values() if one["title"] == message["command"])
        if answers:
            self.hold(name_of(operation["reply"]["messages"]["error" in message]), message)
        else:
            self.hold(name_of(operation["messages"][0]), message)

    def hold_sent(self, message: Json) -> None:
        """Holds a message to `/api/ws` to the command that it is."""
        (operation,) = (one for one in self.received.values() if one["title"] == message["command"])
        self.hold(name_of(operation["messages"][0]), message)

    def hold_event(self, message: Json) -> None:
        """Holds a message of the session API to the event or Ack that it is."""
        if message["type"] == "ack":
            self.hold("SessionAck", message)
        else:
            kind = message["payload"]["kind"].title().replace("-", "")
            self.hold(f"Session{kind}Event", message)


def name_of(reference: Json) -> str:
    name: str = reference["$ref"].rpartition("/")[2]
    return name


class CheckedPlayer(Player):
    """A player whose every message is held against the document."""

    def __init__(self, socket: WebSocketConnection, described: DescriptionChecker) -> None:
        super().__init__(socket)
        self._described = described

    async def receive(self) -> Json:
        message = await super().receive()
        self._described.hold_received(message)
        return message

    async def send(self, command: str, data: object = None, **fields: object) -> None:
        message = {"command": command, **fields} | ({} if data is None else {"data": data})
        self._described.hold_sent(message)
        await super().send(command, data, **fields)


@asynccontextmanager
async def held(
    harness: ServerHarness, account: Account, described: DescriptionChecker
) -> AsyncIterator[CheckedPlayer]:
    async with connected(harness) as bare:
        player = CheckedPlayer(bare.socket, described)
        await player.ask("authenticate", {"token": account.token})
        await player.event("authenticated")
        yield player


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url, rate_limits="off") as harness:
        yield harness


@pytest.fixture
async def web(harness: ServerHarness) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://{harness.host}:{harness.port}", timeout=PATIENCE_S
    ) as web:
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


async def a_known_server(harness: ServerHarness, address: str) -> None:
    """Another server, which has a token of this one."""
    servers = harness.store.servers
    await servers.learn(
        address,
        host=address,
        secure=True,
        public_key=ServerKey.generate().public_base64url,
        key_since=1,
        gateway_http=None,
        gateway_ws=None,
        version=None,
    )
    await servers.issue_token(address, digest("sa_"), harness.server.node.clock.now_ms() + 60_000)


async def test_players_are_told_what_is_described(
    harness: ServerHarness, web: httpx.AsyncClient
) -> None:
    described = DescriptionChecker((await web.get("/asyncapi.json")).json(), "registry")
    ada, bob = await harness.account(admin=True), await harness.account()
    async with held(harness, ada, described) as host, held(harness, bob, described) as guest:
        await host.send("ping")
        await host.event("ping")
        await host.ask("ping", {"time": [1]})
        await host.socket.send_message("[]")
        await host.until(lambda one: "command" not in one)
        assert "error" in await host.ask("instance-join", {"instance": "nowhere"})
        assert "error" in await host.ask("instance-data", 1, subgroup="i_1")
        await host.send("instance-leave", {"instance": "i_1"})
        await host.until(lambda one: "error" in one)
        await host.ask("subscribe", {"event": "all"})
        for method, path, body in (
            ("PUT", "/api/worlds", {"title": "Meadow"}),
            ("PUT", "/api/services", {"id": "com.example.voice", "title": "Voice"}),
            ("PUT", "/api/nodes", {"title": "Attic"}),
            ("POST", "/api/server", {"title": "Harbour"}),
            ("POST", "/api/users/@me", {"description": "Hello"}),
        ):
            await ask(web, ada, method, path, body)
            await host.event(f"update-{path.split('/')[2].rstrip('s').replace('@me', 'user')}")
        await ask(web, ada, "POST", "/api/server/notice", {"text": "Hello"})
        await guest.event("server-notice")
        await a_known_server(harness, "b.example")
        await ask(web, ada, "PUT", "/api/servers/rules", {"pattern": "example", "kind": "block"})
        await host.event("update-peer")
        room = (await harness.instance(ada, capacity=1)).id
        await host.join(room)
        shown = ["nodes", "figures", "instances", "actors", "traces"]
        topics = [{"topic": one} for one in shown]
        topics.append({"topic": "instance", "instance": room})
        assert "error" in await guest.ask("admin-watch", {"topics": topics})
        await host.ask("admin-watch", {"topics": topics, "every_ms": 500})
        figures = (await host.event("admin-figures"))["data"]
        assert figures.keys() == {"at", *shown, "instance"}
        inside = [one["username"] for one in figures["instance"]["players"]]
        assert inside == [ada.username]
        await host.ask("admin-watch", {"topics": []})
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
        await ask(web, bob, "POST", "/api/users/@me", {"displayname": "Bob B."})
        await host.event("player-updated")
        order = {"player": guest.id, "type": "mute", "reason": "hush", "until": 2**52}
        await host.ask("instance-moderate", order, subgroup=room)
        fewer = {"rate": 20, "near": [guest.id], "far_rate": 0.5}
        await host.ask("instance-interest", fewer, subgroup=room)
        await guest.event("instance-moderated")
        kick = {"user": bob.id, "type": "kick", "reason": "enough"}
        await host.ask("instance-moderate", kick, subgroup=room)
        await guest.event("instance-left")
        made = await ask(web, ada, "POST", "/resource/document", {"title": "Front door"})
        path = f"/resource/document/{made['resource']['id']}"
        watched = {"type": "document", "id": made["resource"]["id"]}
        await host.ask("watch", watched)
        await host.ask("unwatch", watched)
        await host.ask("watch", watched)
        await ask(web, ada, "POST", f"{path}/share", {"user": bob.id})
        await ask(web, ada, "POST", f"{path}/acquire")
        await host.event("resource-updated")
        await ask(web, bob, "POST", f"{path}/queue")
        await guest.event("resource-queue")
        await ask(web, ada, "DELETE", path)
        await host.event("resource-unwatched")
        await host.ask("unsubscribe", {"event": "all"})
        await host.event("unsubscribed")
        await ask(web, bob, "DELETE", "/api/auth/logout")
        await guest.event("unauthenticated")
        assert (await guest.closed())[0] == 4000
    # It takes an instance node: tests/api/ws/link/test_direct.py.
    assert described.answers - described.seen == {"InstanceTicketAnswer"}
    # The first takes a crash; its data is that of the answer to `instance-join`. The others take
    # two nodes: tests/actors/cluster/test_faults.py; or
    # an instance node.
    assert described.events - described.seen == {
        "InstanceRestoredEvent",
        "InstanceDirectEvent",
        "InstancePausedEvent",
        "InstanceResumedEvent",
    }
    assert EVENTS[events.INSTANCE_RESTORED].data is COMMANDS.by_name[commands.INSTANCE_JOIN].gives
    assert str(4000) in described.channel[CLOSE_CODES]


async def test_sessions_are_told_what_is_described(
    harness: ServerHarness, web: httpx.AsyncClient
) -> None:
    described = DescriptionChecker((await web.get("/asyncapi.json")).json(), "session")
    ada = await harness.account()
    twin = await another_token(harness, ada)
    admin = await harness.account(admin=True)

    async def until(socket: WebSocketConnection, kind: str) -> None:
        """Reads until something of that kind came, or an Ack."""
        with trio.fail_after(PATIENCE_S):
            while True:
                message = await get(socket)
                described.hold_event(message)
                if kind == message.get("payload", {"kind": "ack"})["kind"]:
                    return

    async with line(harness, ada.token) as one, line(harness, twin) as two:
        await until(one, "hello")
        await until(two, "hello")
        await ask(web, admin, "POST", "/api/server/notice", {"text": "Hello"})
        await until(two, "server-notice")
        change = event({"text": "x" * 40_000})
        described.hold("SessionStateCommand", change)
        await one.send_message(json.dumps(change))
        await until(one, "ack")
        await until(two, "state")
        await one.send_message(json.dumps(event({"more": "x" * 40_000})))
        await until(one, "refused")
        made = await ask(web, ada, "POST", "/resource/document", {"title": "Front door"})
        number = made["resource"]["id"]
        for kind in ("watch", "unwatch", "watch"):
            order = event({})
            order["payload"] = {"kind": kind, "type": "document", "id": number}
            described.hold(f"Session{kind.title()}Command", order)
            await one.send_message(json.dumps(order))
            await until(one, "ack")
        await ask(web, ada, "POST", f"/resource/document/{number}/acquire")
        await until(one, "resource-updated")
        bob = await harness.account()
        name = (await ask(web, bob, "GET", "/session"))["session"]["user"]["username"]
        await ask(web, ada, "POST", f"/resource/document/{number}/share", {"user": name})
        async with line(harness, bob.token) as third:
            await until(third, "hello")
            await ask(web, bob, "POST", f"/resource/document/{number}/queue")
            await until(third, "resource-queue")
            await ask(web, ada, "DELETE", f"/resource/document/{number}")
            await until(third, "resource-queue")
        await until(one, "resource-unwatched")
        # Else an Ack would be under way when the socket closes.
        await until(two, "resource")
        await until(two, "resource")
        await ask(web, ada, "DELETE", "/api/auth/logout")
        await until(two, "closing")
    commands_sent = {"SessionStateCommand", "SessionWatchCommand", "SessionUnwatchCommand"}
    assert described.seen == described.events | commands_sent | {"SessionAck"}
