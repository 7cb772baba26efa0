"""R's objects: which fields they have, and how they say what they have not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from msgspec.json import encode

from reileta.records import Instance, User, World
from reileta.views import (
    NothingView,
    UserMeView,
    instance_view,
    known,
    server_view,
    user_view,
    world_view,
)

ADDRESS = "play.example.org:3032"
USER = User(
    id="u_1", number=1, username="ada", displayname="Ada", description=None,
    email="ada@example.org", status="away", tags=frozenset({"b", "a"}), autopilot=False,
    home="w_1", created_at=1, updated_at=2,
)  # fmt: skip
WORLD = World(
    id="w_1", number=2, title="Harbour", description=None, capacity=8, owner="u_1",
    tags=frozenset({"avr:public"}), created_at=1, updated_at=2,
)  # fmt: skip
INSTANCE = Instance(
    id="i_1", name="tea", title=None, description=None, world="w_1:1.2", owner="u_1@other.example",
    capacity=8, tags=frozenset({"avr:public"}), created_at=1, updated_at=2,
)  # fmt: skip


def shown(view: object) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(encode(view))
    return said


def test_others_see_a_user_without_what_is_private() -> None:
    for viewer in (None, replace(USER, id="u_2"), replace(USER, id="u_3", tags=frozenset())):
        assert shown(user_view(USER, "online", viewer, ADDRESS)) == {
            "id": "u_1",
            "username": "ada",
            "displayname": "Ada",
            "tags": ["a", "b"],
            "server": ADDRESS,
            "created_at": 1,
            "updated_at": 2,
        }


def test_a_user_sees_itself_whole() -> None:
    view = user_view(USER, "online", USER, ADDRESS, following=["u_2", "u_3@other.example"])
    assert isinstance(view, UserMeView)
    me = shown(view)
    assert (me["email"], me["status"], me["home"]) == (
        "ada@example.org",
        "online",
        f"w_1@{ADDRESS}",
    )
    assert me["following"] == [f"u_2@{ADDRESS}", "u_3@other.example"]
    bare = shown(user_view(replace(USER, email=None, home=None), "offline", USER, ADDRESS))
    assert not {"email", "home", "description"} & set(bare)
    assert shown(user_view(replace(USER, description="x"), "", None, ADDRESS))["description"] == "x"


def test_a_world() -> None:
    assert shown(world_view(WORLD, ADDRESS)) == {
        "id": "w_1",
        "title": "Harbour",
        "capacity": 8,
        "owner": f"u_1@{ADDRESS}",
        "server": ADDRESS,
        "tags": ["avr:public"],
        "assets": [],
        "created_at": 1,
        "updated_at": 2,
    }
    assert shown(world_view(replace(WORLD, description="d"), ADDRESS))["description"] == "d"


def test_an_instance() -> None:
    view = instance_view(
        INSTANCE, connected=3, queued=1, master="u_9", address=ADDRESS, secure=True
    )
    assert shown(view) == {
        "id": "i_1",
        "name": "tea",
        "world": f"w_1:1.2@{ADDRESS}",
        "owner": "u_1@other.example",
        "master": f"u_9@{ADDRESS}",
        "capacity": 8,
        "connected": 3,
        "queued": 1,
        "tags": ["avr:public"],
        "server": ADDRESS,
        "address": ADDRESS,
        "secure": True,
        "created_at": 1,
        "updated_at": 2,
    }


def test_an_empty_instance_has_no_master_and_says_so() -> None:
    view = instance_view(
        INSTANCE, connected=0, queued=0, master=None, address=ADDRESS, secure=False
    )
    assert shown(view)["master"] is None


def test_a_server() -> None:
    view = server_view(
        id_="x", title="t", description=None, created_at=1, updated_at=2, address=ADDRESS,
        secure=True, public_key="k", ready_at=None,
    )  # fmt: skip
    server = shown(view)
    assert server["gateways"] == {"http": f"https://{ADDRESS}", "ws": f"wss://{ADDRESS}/api/ws"}
    assert not {"description", "ready_at"} & set(server)


def test_only_none_is_left_out() -> None:
    assert known("") == ""
    assert known(0) == 0
    assert shown({"a": known(False)}) == {"a": False}
    assert encode(NothingView()) == b"{}"
