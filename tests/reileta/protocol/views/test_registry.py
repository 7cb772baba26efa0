"""Objects of the registry API: their fields, and fields without a value."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

from msgspec.json import encode

from reileta.protocol.views.registry import (
    NothingView,
    asset_view,
    instance_view,
    known,
    service_view,
    user_view,
    world_view,
)
from reileta.records import Asset, InstanceRecord, Profile, Service, User, World
from reileta.site import Site

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
INSTANCE = InstanceRecord(
    id="i_1", name="tea", title=None, description=None, world="w_1:1.2", owner="u_1@other.example",
    capacity=8, tags=frozenset({"avr:public"}), created_at=1, updated_at=2,
)  # fmt: skip


def shown(view: object) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(encode(view))
    return said


PUBLIC = {
    "id": "u_1",
    "username": "ada",
    "displayname": "Ada",
    "tags": ["a", "b"],
    "server": ADDRESS,
    "created_at": 1,
    "updated_at": 2,
}


def user(user: User = USER, status: str = "online", *, secure: bool = False, **how: Any) -> Any:
    return shown(user_view(user, status, Site(ADDRESS, secure), **how))


def test_others_see_a_user_without_what_is_private() -> None:
    for viewer in (None, "u_2", "u_11"):
        assert user(viewer=viewer) == PUBLIC
    assert user(replace(USER, description="x"))["description"] == "x"


def test_friends_see_status_and_since_when() -> None:
    seen = user(viewer="u_2", friend_since=5)
    assert seen == {**PUBLIC, "isFriend": True, "following_at": 5, "status": "online"}
    assert user(status="nonsense", friend_since=0)["status"] == "offline"


def test_a_user_and_admins_see_it_whole() -> None:
    profile = Profile(following=("u_2", "u_3@other.example"), friends={"u_2": 7})
    for who in ({"viewer": "u_1"}, {"viewer": "u_2", "admin": True}, {"admin": True}):
        assert user(**who, friend_since=5, profile=profile) == {
            **PUBLIC,
            "email": "ada@example.org",
            "status": "online",
            "home": f"w_1@{ADDRESS}",
            "following": [f"u_2@{ADDRESS}", "u_3@other.example"],
        }
    bare = user(replace(USER, email=None, home=None), viewer="u_1")
    assert not {"email", "home", "description"} & set(bare)


def test_pictures_are_where_they_are_reached() -> None:
    profile = Profile(frozenset({"thumbnail", "banner"}))
    seen = user(profile=profile)
    assert seen["thumbnail"] == f"http://{ADDRESS}/api/users/u_1/thumbnail"
    assert seen["banner"] == f"http://{ADDRESS}/api/users/u_1/banner"
    assert user(secure=True, profile=profile)["banner"].startswith("https://")


def test_a_world() -> None:
    assert shown(world_view(WORLD, Site(ADDRESS))) == {
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
    assert shown(world_view(replace(WORLD, description="d"), Site(ADDRESS)))["description"] == "d"


class Few(NamedTuple):
    connected: int
    queued: int
    master: str | None


def test_an_instance() -> None:
    view = instance_view(INSTANCE, Few(3, 1, "u_9"), Site(ADDRESS, secure=True))
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
    view = instance_view(INSTANCE, Few(0, 0, None), Site(ADDRESS))
    assert shown(view)["master"] is None


ASSET = Asset(
    id="f_1", world_id="w_1", version="1.2", engine="unity", platform="windows", url=None,
    hash=None, size=None, created_at=1, updated_at=2,
)  # fmt: skip


def test_an_asset_is_empty_here_or_elsewhere() -> None:
    def asset(asset: Asset) -> Any:
        return shown(asset_view(asset, Site(ADDRESS, secure=True)))

    empty = {
        "id": "f_1", "version": "1.2", "engine": "unity", "platform": "windows", "empty": True,
        "created_at": 1, "updated_at": 2,
    }  # fmt: skip
    assert asset(ASSET) == empty
    assert asset(replace(ASSET, url="https://x.example/a")) == {
        **empty, "empty": False, "url": "https://x.example/a",
    }  # fmt: skip
    here = f"https://{ADDRESS}/api/worlds/w_1/assets/f_1/file"
    assert asset(replace(ASSET, hash="ab", size=3)) == {
        **empty, "empty": False, "url": here, "hash": "ab", "size": 3,
    }  # fmt: skip
    world = world_view(WORLD, Site(ADDRESS), assets=[ASSET], pictured=True)
    assert shown(world)["assets"] == [empty]
    assert shown(world)["thumbnail"] == f"http://{ADDRESS}/api/worlds/w_1/thumbnail"


def test_a_service() -> None:
    service = Service("com.example.voice", "Voice", None, None, "u_1", frozenset("b"), 1, 2)
    assert shown(service_view(service, ADDRESS)) == {
        "id": "com.example.voice", "title": "Voice", "owner": f"u_1@{ADDRESS}", "server": ADDRESS,
        "tags": ["b"], "created_at": 1, "updated_at": 2,
    }  # fmt: skip


def test_only_none_is_left_out() -> None:
    assert known("") == ""
    assert known(0) == 0
    assert shown({"a": known(False)}) == {"a": False}
    assert encode(NothingView()) == b"{}"
