"""A host's own type of resources, as docs/sessions.md shows it, in a server that serves it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import trio

from reileta import main
from reileta.records import ResourceRecord
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.merge_patch import apply_object
from reileta.rules.resource.types import BUILT_IN, ResourceType, ResourceTypes
from reileta.settings import Settings
from tests.conftest import PATIENCE_S
from tests.e2e.clients import connected
from tests.e2e.servers import running
from tests.e2e.test_resources import ask, watched
from tests.e2e.test_sessions import get, line
from tests.test_house import ROOT

ACCOUNT = {"username": "ada", "password": "correct horse battery"}


def shown() -> ResourceTypes:
    """The types of the page's example, which is run as it stands there."""
    section = (ROOT / "docs" / "sessions.md").read_text().partition("### A type of your own")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code[1], "docs/sessions.md", "exec"), names)
    types: ResourceTypes = names["types"]
    return types


async def test_a_host_extends_the_types_with_one_of_its_own(
    database_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    settings = Settings(port=0, data=tmp_path, database=database_url)
    server: main.Server = await nursery.start(main.serve, settings, shown())
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        assert (await client.post("/api/auth/register", json=ACCOUNT)).is_success
        token = (await client.post("/auth/login", json=ACCOUNT)).json()["token"]
        client.headers["Authorization"] = f"Bearer {token['access']}"
        made = await client.post("/resource/playlist", json={"title": "Road", "data": ["One"]})
        path = f"/resource/playlist/{made.json()['resource']['id']}"
        assert (await client.post(f"{path}/acquire")).is_success
        written = await client.patch(path, json={"data": ["One", "Two"]})
        assert written.json()["resource"]["data"] == ["One", "Two"]
        refused = await client.patch(path, json={"data": "Three"})
        assert refused.status_code == 400
        assert refused.json()["error"]["details"] == [
            {"field": "data", "message": "must be a list of strings"}
        ]
        session = (await client.get("/session")).json()["session"]
        assert (session["resource"]["type"], session["resource"]["version"]) == ("playlist", 2)
        listed = (await client.get("/resource/playlist")).json()
        assert [one["title"] for one in listed["resources"]] == ["Road"]
    await server.stop()


async def test_a_type_of_a_host_is_watched_and_waited_for_without_code_of_its_own(
    database_url: str,
) -> None:
    async with running(database_url, types=shown()) as harness:
        ada, bob = await harness.account(), await harness.account()
        made = await ask(harness, ada, "POST", "/resource/playlist", {"title": "Road", "data": []})
        number = made["resource"]["id"]
        path = f"/resource/playlist/{number}"
        named = {"type": "playlist", "id": number}
        name = (await ask(harness, bob, "GET", "/session"))["session"]["user"]["username"]
        async with connected(harness, bob) as player, line(harness, bob.token) as socket:
            assert (await player.ask("watch", named))["error"]["code"] == 4
            await ask(harness, ada, "POST", f"{path}/share", {"user": name})
            copy = (await player.ask("watch", named))["data"]["view"]
            assert (await get(socket))["payload"]["kind"] == "hello"
            await socket.send_message(watched("watch", number, "playlist"))
            assert [(await get(socket))["type"] for _ in range(2)] == ["ack", "event"]
            await ask(harness, ada, "POST", f"{path}/acquire")
            assert (await player.event("resource-updated"))["data"]["type"] == "playlist"
            queued = await ask(harness, bob, "POST", f"{path}/queue")
            assert queued["queue"]["position"] == 1
            refused = await ask(harness, ada, "PATCH", path, {"data": "One"})
            assert refused["error"]["code"] == 126
            await ask(harness, ada, "PATCH", path, {"data": ["One"]})
            told = (await player.event("resource-updated"))["data"]
            copy = apply_object(copy, told["patch"])
            assert (copy["data"], copy["version"]) == (["One"], 2)
            await ask(harness, ada, "POST", f"{path}/release")
            while (await player.event("resource-queue"))["data"]["offered_until"] is None:
                pass
            assert (await ask(harness, ada, "POST", f"{path}/acquire"))["error"]["code"] == 113
            await ask(harness, bob, "POST", f"{path}/acquire")
            kinds: set[str] = set()
            while kinds < {"resource-updated", "resource-queue", "resource"}:
                kinds.add((await get(socket))["payload"]["kind"])
            assert (await ask(harness, ada, "POST", f"{path}/queue"))["queue"]["position"] == 1
            await ask(harness, bob, "POST", f"{path}/release")
            await ask(harness, ada, "DELETE", f"{path}/queue")
            await ask(harness, ada, "POST", f"{path}/acquire")
            await ask(harness, ada, "DELETE", path)
            ended = (await player.event("resource-unwatched"))["data"]
            assert ended == {**named, "reason": "deleted"}


class Poster(ResourceType):
    """A type that everybody may see, with more in its preview, and that can be hidden."""

    name = "poster"
    public = True

    def hides(self, resource: ResourceRecord) -> bool:
        return resource.title == "secret"

    def shows(self, resource: ResourceRecord) -> bool:
        return not self.hides(resource)

    def preview(self, resource: ResourceRecord) -> dict[str, Json]:
        return {**super().preview(resource), "size": len(str(resource.data))}


async def test_watchers_see_what_the_type_shows(database_url: str) -> None:
    types = BUILT_IN.extended(Poster())
    async with running(database_url, types=types) as harness:
        ada, bob = await harness.account(), await harness.account()
        made = await ask(harness, ada, "POST", "/resource/poster", {"title": "Sea", "data": "blue"})
        path = f"/resource/poster/{made['resource']['id']}"
        named = {"type": "poster", "id": made["resource"]["id"]}
        async with connected(harness, bob) as player:
            seen = (await player.ask("watch", named))["data"]
            assert (seen["access"], seen["size"]) == ("preview", 4)
            await ask(harness, ada, "POST", f"{path}/acquire")
            await ask(harness, ada, "PATCH", path, {"data": "deep blue"})
            while (seen := (await player.event("resource-updated"))["data"])["version"] < 2:
                pass
            assert seen["size"] == 9
            assert not {"data", "view", "patch"} & set(seen)
            await ask(harness, ada, "PATCH", path, {"title": "secret"})
            ended = (await player.event("resource-unwatched"))["data"]
            assert ended == {**named, "reason": "hidden"}
            assert (await player.ask("watch", named))["error"]["code"] == 111
            assert (await ask(harness, bob, "POST", f"{path}/queue"))["error"]["code"] == 111
