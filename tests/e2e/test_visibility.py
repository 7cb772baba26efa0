"""What one may not see is answered exactly as if it did not exist, over every endpoint and command.

The lists of endpoints and commands are the server's own (`/openapi.json`, `/asyncapi.json`): a new
one needs a row in `tests/e2e/visibility_probes.py`, or the test fails.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from api.openapi.asyncapi import operations_of
from tests.api.pngs import png
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.visibility_probes import (
    BUILD,
    COMMANDS,
    ENDPOINTS,
    RESOURCE,
    SESSION_COMMANDS,
    Body,
)


@dataclass
class PrivateObjects:
    """A server with things that are private, and what stands for things that do not exist."""

    harness: ServerHarness
    http: httpx.AsyncClient
    owner: Account
    private: dict[str, str]
    missing: dict[str, str]
    document: str

    async def ask(self, who: Account | None, method: str, path: str, body: Body) -> httpx.Response:
        headers = {} if who is None else {"Authorization": f"Bearer {who.token}"}
        url = f"http://{self.harness.host}:{self.harness.port}{path}"
        if isinstance(body, bytes):
            headers["Content-Type"] = "image/png" if "thumbnail" in path else "x/y"
            return await self.http.request(method, url, headers=headers, content=body)
        return await self.http.request(method, url, headers=headers, json=body)

    async def data(self, method: str, path: str, body: Body = None) -> Any:
        answer = await self.ask(self.owner, method, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json().get("data", answer.json().get("resource"))

    def pairs(self, who: Account | None) -> list[tuple[dict[str, str], dict[str, str]]]:
        """What each placeholder means: of what is private, and of what is missing; an instance by
        its id and by its name."""
        common = {
            "owner": self.owner.username,
            "principal": "@me" if who is None else who.username,
            "server": self.harness.address,
        }
        return [
            (
                {**self.private, **common, "instance": self.private[by]},
                {**self.missing, **common, "instance": self.missing[by]},
            )
            for by in ("id", "name")
        ]


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """The value with the names in the place of what stands for them."""
    if isinstance(value, dict):
        return {key: filled(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, names) for one in value]
    if isinstance(value, str) and value.startswith("#"):
        return int(value[1:].format_map(names))
    return value.format_map(names) if isinstance(value, str) else value


def blank(text: str, names: Mapping[str, str]) -> str:
    """The text without the ids and names that were asked for; numbers stand in paths alone."""
    for key, name in names.items():
        if key in ("number", "document"):
            text = text.replace(f"/{name}/", f"/<{key}>/").replace(f'/{name}"', f'/<{key}>"')
            text = text.replace(f'"id": {name}', f'"id": <{key}>')
        elif key in ("world", "asset", "id", "name", "title", "session"):
            text = text.replace(name, f"<{key}>")
    return text


def said(answer: httpx.Response, names: Mapping[str, str]) -> tuple[object, ...]:
    """All that an answer says, but for ids that were asked for, times and the trace."""
    passing = {"x-trace-id", "date", "content-length", "connection"}
    headers = sorted(
        (name, value) for name, value in answer.headers.items() if name.lower() not in passing
    )
    body = json.loads(blank(answer.text, names))
    assert "time" in body, "not in the envelope"
    return answer.status_code, headers, {**body, "time": 0}


@asynccontextmanager
async def scene(database_url: str, *, busy: bool) -> AsyncIterator[PrivateObjects]:
    """`busy`: the owner is inside the instance, and has acquired world and document."""
    async with AsyncExitStack() as stack:
        harness = await stack.enter_async_context(running(database_url, rate_limits="off"))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE_S))
        owner = await harness.account("owner")
        it = PrivateObjects(harness, http, owner, {}, {}, "")
        tags = ["avr:private"]
        world = (await it.data("PUT", "/api/worlds", {"title": "lair-1", "tags": tags}))["id"]
        public = (await it.data("PUT", "/api/worlds", {"title": "Open"}))["id"]
        assets = f"/api/worlds/{world}/assets"
        asset = (await it.data("PUT", assets, {**BUILD, "version": "1"}))["id"]
        await it.data("POST", f"{assets}/{asset}/file", b"secret")
        await it.data("POST", f"/api/worlds/{world}/thumbnail", png())
        body = {"world": world, "name": "lair-1x", "capacity": 1, "tags": tags}
        instance = (await it.data("PUT", "/api/instances", body))["id"]
        found = (await it.ask(owner, "GET", "/resource/world?query=lair", None)).json()
        number = str(found["resources"][0]["id"])
        document = await it.data("POST", "/resource/document", {"title": "lair-1"})
        it.document = str(document["id"])
        it.private |= {"world": world, "asset": asset, "id": instance, "name": "lair-1x"}
        it.private |= {"number": number, "document": it.document, "title": "lair-1"}
        it.private |= {"session": owner.session, "public": public}
        nobody = "00000000-0000-4000-8000-000000000000"
        it.missing |= {"world": f"w_{nobody}", "asset": f"f_{nobody}", "id": f"i_{nobody}"}
        it.missing |= {"name": "cave-2y", "number": "987654", "document": "987653"}
        it.missing |= {"title": "cave-2", "session": f"s_{nobody}", "public": public}
        if busy:
            player = await stack.enter_async_context(connected(harness, owner))
            await player.join(instance)
            await it.data("POST", f"/resource/world/{number}/acquire")
            second = await harness.login(owner.id)
            acquire = f"/resource/document/{it.document}/acquire"
            assert (await it.ask(second, "POST", acquire, None)).status_code == 200
        yield it


@pytest.fixture(params=[False, True], ids=["resting", "busy"])
async def here(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[PrivateObjects]:
    async with scene(database_url, busy=request.param) as it:
        yield it


async def strangers(here: PrivateObjects) -> list[Account | None]:
    """Who may see none of it: a stranger, one who is banned, and somebody who is not logged in."""
    banned = await here.harness.account("banned")
    path = f"/api/instances/{here.private['id']}/moderate"
    await here.data("POST", path, {"user": banned.id, "type": "ban"})
    return [await here.harness.account("stranger"), banned, None]


async def test_every_endpoint_and_command_has_a_row(here: PrivateObjects) -> None:
    document = (await here.ask(None, "GET", "/openapi.json", None)).json()
    endpoints = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert endpoints == set(ENDPOINTS)
    sockets = (await here.ask(None, "GET", "/asyncapi.json", None)).json()
    for channel, names in (("registry", set(COMMANDS)), ("session", SESSION_COMMANDS)):
        received = operations_of(sockets, channel, "receive").values()
        assert {operation["title"] for operation in received} == names


async def test_endpoints_tell_nothing_of_what_one_may_not_see(here: PrivateObjects) -> None:
    told: list[object] = []
    for who in await strangers(here):
        for endpoint, probes in ENDPOINTS.items():
            method = endpoint.partition(" ")[0]
            for (path, body), (private, missing) in itertools.product(probes, here.pairs(who)):
                answers = [
                    said(await here.ask(who, method, path.format_map(one), filled(body, one)), one)
                    for one in (private, missing)
                ]
                if answers[0] != answers[1]:
                    told.append((who and who.username, method, path, body, *answers))
    assert told == [], "\n".join(map(repr, told))


async def test_commands_tell_nothing_of_what_one_may_not_see(here: PrivateObjects) -> None:
    told: list[object] = []
    for who in await strangers(here):
        if who is None:
            continue
        async with connected(here.harness, who) as player:
            for command, messages in COMMANDS.items():
                for message, pair in itertools.product(messages, here.pairs(who)):
                    answers = [await answered(player, command, message, one) for one in pair]
                    if answers[0] != answers[1]:
                        told.append((who.username, command, message, *answers))
    assert told == []


async def answered(player: Player, command: str, message: Json, names: Mapping[str, str]) -> object:
    whole = filled(message, names)
    data = whole.pop("data", None)
    answer = await player.ask(command, data, **whole)
    return blank(json.dumps({**answer, "state": 0}), names)


async def test_of_a_document_is_said_that_one_may_not_and_no_more(here: PrivateObjects) -> None:
    for who in [one for one in await strangers(here) if one is not None]:
        for endpoint, probes in ENDPOINTS.items():
            method, _, template = endpoint.partition(" ")
            if not template.startswith("/resource/{type}/{number}"):
                continue
            if endpoint == "DELETE /resource/{type}/{number}/queue":
                continue  # it says only that the session does not wait
            for path, body in probes:
                if RESOURCE not in path or body == {"user": "nobody"}:
                    continue
                private, _ = here.pairs(who)[0]
                at = path.replace(RESOURCE, f"/resource/document/{here.document}")
                answer = await here.ask(who, method, at, filled(body, private))
                if body == {"title": ""}:  # at fault whatever it is about
                    assert answer.json()["error"]["code"] == 126
                    continue
                said = (answer.status_code, answer.json()["error"])
                expected = {"code": 4, "message": "User don't have permission"}
                assert said == (403, expected), (endpoint, body)


async def test_events_tell_nothing_of_what_one_may_not_see(here: PrivateObjects) -> None:
    stranger = await here.harness.account("stranger")
    world, place = f"/api/worlds/{here.private['world']}", f"/api/instances/{here.private['id']}"
    async with (
        connected(here.harness, stranger) as player,
        connected(here.harness, here.owner) as inside,
    ):
        await player.ask("subscribe", {"event": "all"})
        for target in ("world", "id"):
            await player.ask("subscribe", {"event": "all", "target": here.private[target]})
        await inside.join(here.private["id"])
        await inside.say(here.private["id"], "secret")
        await here.data("POST", world, {"title": "lair-1, another"})
        await here.data("POST", place, {"title": "lair-1", "capacity": 5})
        for type_ in ("ban", "unban"):
            await here.data("POST", f"{place}/moderate", {"user": stranger.id, "type": type_})
        await here.data("PUT", f"{place}/moderators/{here.owner.id}")
        await inside.ask("instance-leave", {"instance": here.private["id"]})
        await here.data("DELETE", place)
        public = await here.data("PUT", "/api/worlds", {"title": "the last"})
        seen = await player.until(lambda message: message.get("subgroup") == public["id"])
        told = [one for one in (*player.skipped, seen) if "target" not in one.get("data", {})]
        text = json.dumps(told)
        for name in ("world", "id", "title"):
            assert here.private[name] not in text
