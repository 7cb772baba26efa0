"""A host's own type of resources, as docs/sessions.md shows it, in a server that serves it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import trio

from reileta import main
from reileta.rules.resource.types import ResourceTypes
from reileta.settings import Settings
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
    async with httpx.AsyncClient(base_url=server.url) as client:
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
