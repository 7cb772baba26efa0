"""The registry by a whole server: what its sockets are told, and files over real connections."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from reileta.store.shared_folder import ID_FILE
from tests.api.pngs import png
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected, until
from tests.e2e.servers import Account, ServerHarness, running

FILE = bytes(range(256)) * 4096


class RegistryClient:
    """Somebody at the HTTP registry."""

    def __init__(self, client: httpx.AsyncClient, account: Account) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {account.token}"}

    async def ask(
        self, method: str, path: str, json: object = None, headers: Any = None, **how: Any
    ) -> httpx.Response:
        headers = {**self.headers, **(headers or {})}
        return await self.client.request(method, path, json=json, headers=headers, **how)

    async def done(self, method: str, path: str, json: object = None, **how: Any) -> Any:
        answer = await self.ask(method, path, json, **how)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url, rate_limits="off") as harness:
        yield harness


@pytest.fixture
async def client(harness: ServerHarness) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as client:
        yield client


def nobody_stored(harness: ServerHarness) -> bool:
    found = harness.settings.files_folder.rglob("*")
    return not any(path.is_file() for path in found if path.name != ID_FILE)


async def updated(player: Player, noun: str) -> Json:
    """The next `update-…` of that noun, as its object."""
    event = await player.event(f"update-{noun}")
    data: Json = event["data"]
    assert event["subgroup"] == data["id"]
    return data


async def test_ones_own_changes_come_unasked(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    ada = await harness.account("ada")
    registry = RegistryClient(client, ada)
    async with connected(harness, ada) as player:
        await updated(player, "user")  # it has come online
        await registry.done("POST", "/api/users/@me", {"displayname": "Ada L."})
        me = await updated(player, "user")
        assert (me["displayname"], me["status"], me["following"]) == ("Ada L.", "online", [])
        png_ = {"content": png(), "headers": {"Content-Type": "image/png"}}
        shown = await registry.done("POST", "/api/users/@me/thumbnail", **png_)
        assert await updated(player, "user") == shown
        world = (await registry.done("PUT", "/api/worlds", {}))["id"]
        await registry.done("POST", "/api/users/@me/home", {"world": world})
        assert (await updated(player, "user"))["home"] == f"{world}@{harness.address}"
        await harness.account("bob")
        await registry.done("PUT", "/api/users/@me/follows/bob")
        assert len((await updated(player, "user"))["following"]) == 1


async def test_each_sees_a_user_as_it_may(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    ada, bob, eve = [await harness.account(name) for name in ("ada", "bob", "eve")]
    root = await harness.account("root", admin=True)
    await harness.store.follows.put(ada.id, bob.id)
    await harness.store.follows.put(bob.id, ada.id)
    async with (
        connected(harness, bob) as friend,
        connected(harness, eve) as stranger,
        connected(harness, root) as admin,
    ):
        for player in (friend, stranger, admin):
            await player.ask("subscribe", {"event": "update-user", "target": ada.id})
        changes = {"email": "ada@example.org", "description": "Engines."}
        me = await RegistryClient(client, ada).done("POST", "/api/users/@me", changes)
        assert await updated(admin, "user") == me
        seen = await updated(friend, "user")
        assert (seen["isFriend"], seen["status"]) == (True, "offline")
        assert "email" not in seen
        public = await updated(stranger, "user")
        assert not {"email", "status", "following", "isFriend"} & set(public)
        assert public["description"] == "Engines."
        # A friend no more: that is seen at once.
        await RegistryClient(client, bob).done("DELETE", f"/api/users/@me/follows/{ada.id}")
        assert "isFriend" not in await updated(friend, "user")


async def test_worlds_services_and_the_server_are_told(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    ada, eve = await harness.account("ada"), await harness.account("eve")
    root = await harness.account("root", admin=True)
    registry = RegistryClient(client, ada)
    async with connected(harness, eve) as player:
        await player.ask("subscribe", {"event": "update"})
        world = await registry.done("PUT", "/api/worlds", {"title": "Harbour"})
        assert await updated(player, "world") == world
        build = {"version": "1.2", "engine": "unity", "platform": "windows"}
        asset = await registry.done("PUT", f"/api/worlds/{world['id']}/assets", build)
        assert (await updated(player, "world"))["assets"] == [asset]
        service = {"id": "com.example.voice", "title": "Voice"}
        service = await registry.done("PUT", "/api/services", service)
        assert await updated(player, "service") == service
        server = await RegistryClient(client, root).done(
            "POST", "/api/server", {"title": "Harbour"}
        )
        assert await updated(player, "server") == server
        await registry.done("POST", f"/api/worlds/{world['id']}", {"tags": ["avr:private"]})
        await registry.done("POST", "/api/services/com.example.voice", {"title": "Louder"})
        told = (await player.receive())["command"]
        assert told == "update-service", "a private world was told to a stranger"


async def test_a_new_password_closes_the_other_sessions_sockets(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    ada = await harness.account("ada")
    other = await harness.login(ada.id)
    async with connected(harness, ada) as kept, connected(harness, other) as closed:
        password = {"password": "another one altogether"}
        await RegistryClient(client, ada).done("POST", "/api/users/@me", password)
        await closed.event("unauthenticated")
        assert (await closed.closed())[0] == 4000
        assert "error" not in await kept.ask("ping")


async def test_a_deleted_users_sockets_close_and_its_instances_are_the_servers(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    ada, bob = await harness.account("ada"), await harness.account("bob")
    room = await harness.instance(ada)
    server = (await client.get("/api/users/@server")).json()["data"]["id"]
    async with connected(harness, ada) as owner, connected(harness, bob) as guest:
        await owner.join(room.id)
        await guest.join(room.id)
        await guest.ask("subscribe", {"event": "update-instance", "target": room.id})
        await RegistryClient(client, ada).done("DELETE", "/api/users/@me")
        assert (await owner.closed())[0] == 4000
        left = await guest.event("instance-left")
        assert left["data"]["player"] == owner.id
        heir = f"{server}@{harness.address}"
        with trio.fail_after(PATIENCE_S):
            while (await updated(guest, "instance"))["owner"] != heir:
                pass
        shown = (await client.get(f"/api/instances/{room.id}")).json()["data"]
        assert shown["owner"] == heir
        gone = await RegistryClient(client, ada).ask("GET", "/api/users/@me")
        assert gone.status_code == 401


@pytest.fixture
async def file(harness: ServerHarness, client: httpx.AsyncClient) -> str:
    """The path of an empty asset's file; everything is Zoe's."""
    registry = RegistryClient(client, await harness.account("zoe"))
    world = await registry.done("PUT", "/api/worlds", {"title": "Harbour"})
    build = {"version": "1.2", "engine": "unity", "platform": "windows"}
    path = f"/api/worlds/{world['id']}/assets"
    asset = await registry.done("PUT", path, build)
    return f"{path}/{asset['id']}/file"


async def zoe(harness: ServerHarness, client: httpx.AsyncClient) -> RegistryClient:
    user = await harness.store.users.by_name("zoe")
    assert user is not None
    return RegistryClient(client, await harness.login(user.id))


async def test_files_over_the_wire(
    harness: ServerHarness, client: httpx.AsyncClient, file: str
) -> None:
    registry = await zoe(harness, client)

    async def slices() -> AsyncIterator[bytes]:
        for at in range(0, len(FILE), 100_000):
            yield FILE[at : at + 100_000]

    asset = await registry.done("POST", file, content=slices())
    assert asset["hash"] == hashlib.sha256(FILE).hexdigest()
    down = await client.get(file)
    assert (down.content, down.headers["content-length"]) == (FILE, str(len(FILE)))
    assert "transfer-encoding" not in down.headers
    part = await client.get(file, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, FILE[5:10])
    head = await client.head(file)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(FILE))
    same = await client.get(file, headers={"If-None-Match": down.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert "content-length" not in same.headers
    assert "content-type" not in same.headers
    # The connection was good for all of it.
    assert (await client.get("/api/time")).status_code == 200


async def test_a_form_over_the_wire(
    harness: ServerHarness, client: httpx.AsyncClient, file: str
) -> None:
    registry = await zoe(harness, client)
    files = {"file": ("../../etc/passwd", FILE, "text/html")}
    asset = await registry.done("POST", file, files=files, data={"note": "hello"})
    assert asset["hash"] == hashlib.sha256(FILE).hexdigest()


async def test_an_upload_that_is_broken_off_leaves_nothing(
    harness: ServerHarness, client: httpx.AsyncClient, file: str
) -> None:
    registry = await zoe(harness, client)
    token = registry.headers["Authorization"]
    head = f"POST {file} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
    for framing in ("Content-Length: 10000000", "Transfer-Encoding: chunked"):
        stream = await trio.open_tcp_stream(harness.host, harness.port)
        await stream.send_all(f"{head}{framing}\r\n\r\n".encode())
        start = b"" if "Length" in framing else b"100000\r\n"
        await stream.send_all(start + b"x" * 1_000_000)
        await until(lambda: not nobody_stored(harness))
        await trio.aclose_forcefully(stream)
        await until(lambda: nobody_stored(harness))
    answer = await client.get(file)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, 46)
    assert (await registry.done("POST", file, content=FILE))["size"] == len(FILE)


async def test_of_two_uploads_at_once_one_fills_the_asset(
    harness: ServerHarness, client: httpx.AsyncClient, file: str
) -> None:
    registry = await zoe(harness, client)
    answers: list[int] = []

    async def send(content: bytes) -> None:
        answers.append((await registry.ask("POST", file, content=content)).status_code)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(send, FILE + bytes([number]))
    assert sorted(answers) == [200, 409, 409, 409]


async def test_parallel_uploads_have_the_right_hashes(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    registry = RegistryClient(client, await harness.account("zoe"))
    world = await registry.done("PUT", "/api/worlds", {"title": "Harbour"})
    path = f"/api/worlds/{world['id']}/assets"
    hashes: dict[str, str] = {}

    async def send(number: int) -> None:
        build = {"version": str(number), "engine": "unity", "platform": "windows"}
        asset = await registry.done("PUT", path, build)
        content = hashlib.sha256(bytes([number])).digest() * 100_000
        answer = await registry.done("POST", f"{path}/{asset['id']}/file", content=content)
        hashes[answer["hash"]] = hashlib.sha256(content).hexdigest()

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(send, number)
    assert len(hashes) == 20
    assert all(said == true for said, true in hashes.items())


async def test_a_body_that_is_too_large_is_refused_before_it_has_come(
    harness: ServerHarness, client: httpx.AsyncClient, file: str
) -> None:
    registry = await zoe(harness, client)
    token = registry.headers["Authorization"]
    stream = await trio.open_tcp_stream(harness.host, harness.port)
    async with stream:
        await stream.send_all(
            f"POST {file} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
            f"Content-Length: {2 * 1024**3}\r\n\r\n".encode()
        )
        with trio.fail_after(PATIENCE_S):
            answer = bytes(await stream.receive_some(65_536))
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert nobody_stored(harness)
