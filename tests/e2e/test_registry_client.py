"""A client of the registry API that knows only its documentation.

It is written from the lists of requests, commands, events and objects, on plain httpx and
trio-websocket, and goes through all of them as the published client of these documents does: the
token bare in `Authorization`, the password as a SHA-256, parts left out or null.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from tests.api.pngs import png
from tests.conftest import PATIENCE_S
from tests.e2e.servers import ServerHarness, running

Json = dict[str, Any]

ADDRESS = r"[a-z0-9.\[\]:-]+"
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NUMBER, TEXT = (int, float), str
SERVER = {"id": TEXT, "title": TEXT, "address": TEXT, "secure": bool, "version": TEXT,
          "created_at": NUMBER, "updated_at": NUMBER, "ready_at": NUMBER}  # fmt: skip
USER = {"id": TEXT, "username": TEXT, "displayname": TEXT, "created_at": NUMBER,
        "updated_at": NUMBER}  # fmt: skip
USER_ME = {**USER, "status": TEXT, "following": list}
USER_FRIEND = {**USER, "isFriend": bool, "following_at": NUMBER, "status": TEXT}


def fits(value: Json, interface: dict[str, Any]) -> Json:
    """The value, which has all fields of the documents' interface, with their types."""
    for name, type_ in interface.items():
        assert isinstance(value.get(name), type_), (name, value)
    return value


class DocumentedClient:
    """Sends requests, and reads answers of the documented structure."""

    def __init__(self, url: str) -> None:
        self.web = httpx.AsyncClient(base_url=url, timeout=PATIENCE_S)
        self.token = ""

    async def ask(
        self, method: str, path: str, body: object = None, **more: Any
    ) -> tuple[int, Json]:
        headers = {"Authorization": self.token, "User-Agent": "AVR(User)"} if self.token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
            more["content"] = json.dumps(body)
        response = await self.web.request(method, path, headers=headers, **more)
        answer: Json = response.json()
        assert isinstance(answer["request"], str)
        assert isinstance(answer["time"], int)
        if "error" in answer:
            assert isinstance(answer["error"]["code"], int)
            assert isinstance(answer["error"]["message"], str)
        return response.status_code, answer

    async def data(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        status, answer = await self.ask(method, path, body, **more)
        assert status == 200, answer
        return answer["data"]

    async def error(self, method: str, path: str, body: object = None, **more: Any) -> int:
        status, answer = await self.ask(method, path, body, **more)
        assert status >= 400, answer
        code: int = answer["error"]["code"]
        return code

    async def register(self, username: str) -> Json:
        password = hashlib.sha256(f"{username}'s".encode()).hexdigest()
        account = {"username": username, "password": password, "display": username.title()}
        made: Json = await self.data("POST", "/api/auth/register", account)
        self.token = made["token"]
        return made

    async def login(self, username: str, **more: object) -> Json:
        password = hashlib.sha256(f"{username}'s".encode()).hexdigest()
        made: Json = await self.data(
            "POST", "/api/auth/login", {"username": username, "password": password, **more}
        )
        self.token = made["token"]
        return made


class DocumentedSocket:
    """A WebSocket with requests and answers of the documented structure."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket
        self._state = 0
        self.events: list[Json] = []

    async def receive(self) -> Json:
        with trio.fail_after(PATIENCE_S):
            message: Json = json.loads(await self._socket.get_message())
        return message

    async def request(self, command: str, **more: object) -> Json:
        """The response to a request, which has the same state."""
        self._state += 1
        sent = {"state": f"s{self._state}", "command": command, **more}
        await self._socket.send_message(json.dumps(sent))
        while (response := await self.receive()).get("state") != sent["state"]:
            self.events.append(response)
        assert response["command"] == command
        assert ("data" in response) != ("error" in response)
        return response

    async def say(self, command: str, **more: object) -> None:
        await self._socket.send_message(json.dumps({"command": command, **more}))

    async def event(self, command: str) -> Json:
        """The next event of that name, which may have come already."""
        while True:
            for number, one in enumerate(self.events):
                if one.get("command") == command:
                    return self.events.pop(number)
            message = await self.receive()
            assert message.get("state") is None
            self.events.append(message)


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    # tests/e2e/federation/test_remote_objects.py goes through what it asks of other servers.
    async with running(database_url, federation="off") as harness:
        yield harness


@asynccontextmanager
async def client(harness: ServerHarness, username: str = "") -> AsyncIterator[DocumentedClient]:
    documented = DocumentedClient(harness.server.url)
    async with documented.web:
        if username:
            await documented.register(username)
        yield documented


@asynccontextmanager
async def socket(
    harness: ServerHarness, token: str | None = None
) -> AsyncIterator[DocumentedSocket]:
    address = f"{harness.host}:{harness.port}"
    async with (
        await trio.open_tcp_stream(harness.host, harness.port) as stream,
        trio.open_nursery() as nursery,
    ):
        connection = await trio_websocket.wrap_client_stream(nursery, stream, address, "/api/ws")
        documented = DocumentedSocket(connection)
        if token is not None:
            response = await documented.request(
                "authenticate", subgroup=None, data={"token": token, "integrity": None}
            )
            fits(response["data"]["user"], USER_ME)
            await documented.event("authenticated")
        yield documented
        nursery.cancel_scope.cancel()


async def test_server_and_authentication(harness: ServerHarness) -> None:
    async with client(harness) as anyone:
        server = fits(await anyone.data("GET", "/api/server"), SERVER)
        assert server["address"] == harness.address
        assert isinstance(await anyone.data("GET", "/api/time"), int)
        assert await anyone.error("POST", "/api/server", {"title": "Mine"}) == 3
        assert await anyone.error("GET", "/api/nothing") == 2
        assert await anyone.error("GET", "/api/users/@me") == 3
        assert await anyone.error("GET", "/api/auth/logout") == 3
        made = await anyone.register("ada")
        assert re.fullmatch(rf"u_{UUID}", fits(made["user"], USER_ME)["id"])
        assert made["user"]["displayname"] == "Ada"
        first = anyone.token
        again = await anyone.login("ada", session_id=None)
        assert again["token"] != first
        me = await anyone.web.get("/api/users/@me", params={"authuser": first})
        assert me.json()["data"]["username"] == "ada"
        await anyone.data("GET", "/api/auth/logout")
        assert await anyone.error("GET", "/api/users/@me") == 101
        anyone.token = first
        await anyone.data("DELETE", "/api/auth/logout")
        assert await anyone.error("GET", "/api/users/@me") == 101
        anyone.token = "x"
        assert await anyone.error("GET", "/api/users/@me") == 101


async def test_users_and_their_pictures(harness: ServerHarness) -> None:
    async with client(harness, "ada") as ada, client(harness, "bob") as bob:
        me = fits(await ada.data("GET", "/api/users/@me"), USER_ME)
        for ref in (me["id"], "ada", f"{me['id']}@{harness.address}", "@me"):
            assert (await ada.data("GET", f"/api/users/{ref}"))["id"] == me["id"]
        seen = fits(await bob.data("GET", "/api/users/ada"), USER)
        assert "email" not in seen
        for ref in ("@server", "@admin"):
            fits(await bob.data("GET", f"/api/users/{ref}"), USER)
        changed = await ada.data("POST", "/api/users/@me", {"description": "Hi", "display": "A."})
        assert (changed["description"], changed["displayname"]) == ("Hi", "A.")
        assert await bob.error("POST", "/api/users/ada", {"description": "no"}) == 12
        for picture in ("thumbnail", "banner"):
            path = f"/api/users/@me/{picture}"
            assert await ada.error("GET", path) == 46
            shown = await ada.data("POST", path, files={"file": ("x.png", png(4, 4))})
            image = await ada.web.get(shown[picture])
            assert image.headers["Content-Type"] == "image/png"
            await ada.data("DELETE", path)
        one = await ada.data(
            "PUT", f"/api/users/@me/follows/{(await bob.data('GET', '/api/users/@me'))['id']}"
        )
        assert one["isFriend"] is False
        await bob.data("PUT", "/api/users/@me/follows/ada")
        fits(await bob.data("GET", "/api/users/ada"), USER_FRIEND)
        assert (await bob.data("GET", "/api/users/@me/followers"))["total"] == 1
        password = hashlib.sha256(b"bob's").hexdigest()
        await bob.data("DELETE", "/api/users/@me", {"current_password": password})
        assert await ada.error("GET", "/api/users/bob") == 17


async def test_services(harness: ServerHarness) -> None:
    async with client(harness, "ada") as ada:
        made = await ada.data("PUT", "/api/services", {"id": "com.example.voice", "url": None})
        assert made["title"] == "com.example.voice"
        changed = await ada.data("POST", f"/api/services/{made['id']}", {"title": "Voice"})
        assert (await ada.data("GET", f"/api/services/{made['id']}")) == changed
        await ada.data("DELETE", f"/api/services/{made['id']}")
        assert await ada.error("GET", f"/api/services/{made['id']}") == 106


async def test_worlds_assets_and_the_home(harness: ServerHarness) -> None:
    async with client(harness, "ada") as ada:
        bare = await ada.data("PUT", "/api/worlds", {})
        assert bare["title"]
        tags = ["avr:public", "avr:private", "avr:develepement"]
        sent = {"title": "Harbour", "description": None, "capacity": None, "tags": tags}
        world = await ada.data("PUT", "/api/worlds", sent)
        assert sorted(world["tags"]) == ["avr:development", "avr:private"]
        assert await ada.data("GET", f"/api/worlds/{world['id']}?empty") == world
        found = await ada.data("GET", "/api/worlds?tag=avr:develepement")
        assert [one["id"] for one in found["items"]] == [world["id"]]
        path = f"/api/worlds/{world['id']}@{harness.address}"
        await ada.data("POST", path, {"tags": ["avr:release", "avr:develepement"]})
        shown = await ada.data("POST", f"{path}/thumbnail", files={"file": ("x.png", png(4, 4))})
        assert (await ada.web.get(shown["thumbnail"])).status_code == 200
        await ada.data("DELETE", f"{path}/thumbnail")
        asset = await ada.data("PUT", f"{path}/assets", {})
        assert (asset["engine"], asset["platform"], asset["empty"]) == ("other", "other", True)
        own = f"{path}/assets/{asset['id']}"
        assert await ada.data("GET", own) == asset
        await ada.data("POST", own, {"version": "1.2", "engine": "unity", "platform": "windows"})
        await ada.data("POST", f"{own}/file", files={"file": ("w.bundle", b"a world")})
        assert (await ada.web.get(f"{own}/file")).content == b"a world"
        for assets in (f"{path}/assets", f"/api/worlds/{world['id']}/assets@{harness.address}"):
            assert (await ada.data("GET", assets))["total"] == 1
        assert await ada.error("GET", f"{path}/assets@elsewhere.example") == 5

        home = "/api/users/@me/home"
        assert await ada.error("GET", home) == 43
        for body, world_at in (
            ({"id": world["id"]}, f"{world['id']}@{harness.address}"),
            (
                {"id": world["id"], "server": harness.address, "version": "1.2"},
                f"{world['id']}:1.2@{harness.address}",
            ),
            ({"world": world["id"]}, f"{world['id']}@{harness.address}"),
        ):
            await ada.data("POST", home, body)
            got = await ada.data("GET", home)
            assert got["world"] == world_at
            assert got == {**await ada.data("GET", path), "world": world_at}
            assert (await ada.data("GET", "/api/users/@me"))["home"] == world_at
        await ada.data("DELETE", home)
        await ada.data("DELETE", own)
        await ada.data("DELETE", path)
        assert await ada.error("GET", path) == 25


async def test_every_collection_of_this_server(harness: ServerHarness) -> None:
    async with client(harness, "ada") as ada:
        world = (await ada.data("PUT", f"/api/worlds@{harness.address}", {}))["id"]
        await ada.data("PUT", f"/api/instances@{harness.address}", {"world": world})
        await ada.data("PUT", f"/api/services@{harness.address}", {"id": "com.example.a"})
        for noun in ("users", "worlds", "instances", "services"):
            plain = await ada.data("GET", f"/api/{noun}")
            assert plain["total"] >= 1
            for path in (
                f"/api/{noun}@{harness.address}",
                f"/api/{noun}?server={harness.address}",
                f"/api/{noun}@{harness.address}?server={harness.address}&limit=50",
            ):
                assert await ada.data("GET", path) == plain, path
            for path in (
                f"/api/{noun}@elsewhere.example",
                f"/api/{noun}@[::1]:3032",
                f"/api/{noun}?server=elsewhere.example",
            ):
                assert await ada.error("GET", path) == 135, path
            two = f"/api/{noun}@elsewhere.example?server={harness.address}"
            assert await ada.error("GET", two) == 5
            assert await ada.error("GET", f"/api/{noun}@") == 2
        fits(await ada.data("GET", f"/api/server@{harness.address}"), SERVER)
        assert await ada.error("GET", "/api/server@elsewhere.example") == 135


async def test_instances_over_http(harness: ServerHarness) -> None:
    async with client(harness, "ada") as ada, client(harness, "bob") as bob:
        world = (await ada.data("PUT", "/api/worlds", {}))["id"]
        tags = ["avr:public", "avr:invite_only", "avr:friends_plus"]
        wanted = {"world": world, "name": None, "capacity": 4, "tags": tags}
        made = await ada.data("PUT", "/api/instances", wanted)
        assert made["tags"] == ["avr:invite_only"]
        path = f"/api/instances/{made['id']}@{harness.address}"
        assert (await bob.data("GET", path))["name"] == made["name"]
        entry = await bob.data("POST", f"{path}/candidate")
        assert entry["state"] == "pending"
        assert (await bob.data("GET", f"{path}/queue"))["entry"]["state"] == "pending"
        await bob.data("DELETE", f"{path}/candidate")
        changed = await ada.data("POST", path, {"title": "Tea", "tags": ["avr:public"]})
        assert (changed["title"], changed["tags"]) == ("Tea", ["avr:public"])
        assert await bob.error("DELETE", path) == 4
        await ada.data("DELETE", path)
        assert await bob.error("GET", path) == 36


async def test_the_websocket(harness: ServerHarness) -> None:
    async with (
        client(harness, "ada") as ada,
        client(harness, "bob") as bob,
        socket(harness, ada.token) as first,
        socket(harness, bob.token) as second,
    ):
        for data in ({"data": {"time": 5}}, {"data": None}, {}):
            pong = (await first.request("ping", **data))["data"]
            assert isinstance(pong["server"], int)
        await first.say("ping")
        await first.event("ping")
        for command, event in (("subscribe", "subscribed"), ("unsubscribe", "unsubscribed")):
            await first.request(command, data={"event": "update-world", "target": None})
            await first.event(event)
        for event in ("all", "authentication", "update", "instance", "update-instance"):
            await first.request("subscribe", data={"event": event})
        world = (await ada.data("PUT", "/api/worlds", {"title": "Harbour"}))["id"]
        assert (await first.event("update-world"))["data"]["id"] == world
        place = (await ada.data("PUT", "/api/instances", {"world": world}))["id"]
        assert (await first.event("update-instance"))["subgroup"] == place

        entered = await first.request("instance-join", subgroup=None, data={"instance": place})
        assert entered["subgroup"] == place
        # The instance in `subgroup`, with data that is empty, null or left out
        other: list[Json] = [{"data": {}}, {"data": None}, {}, {"data": {"instance": None}}]
        for more in other:
            entered = await second.request("instance-join", subgroup=place, **more)
        joined = await first.event("instance-joined")
        assert joined["data"]["player"] == entered["data"]["player"]
        await first.say("instance-data", subgroup=place, data={"say": "hello"}, key=None, to=None)
        assert (await second.event("instance-data"))["data"]["data"] == {"say": "hello"}
        await first.say("instance-data", subgroup=place)
        assert (await second.event("instance-data"))["data"]["data"] is None
        sent = await first.request("instance-data", subgroup=place, data=1, key="k", at=None)
        assert sent["data"] == {}
        left = await second.request("instance-leave", subgroup=place, data=None)
        assert left["data"]["instance"] == place
        assert (await first.event("instance-left"))["data"]["reason"] == "left"
        await bob.data("POST", f"/api/instances/{place}/candidate")
        await second.event("instance-candidate")
        assert (await second.request("dance"))["error"]["code"] == 120
        assert (await second.request("subscribe", data={"event": "x"}))["error"]["code"] == 121
        await bob.data("GET", "/api/auth/logout")
        await second.event("unauthenticated")
