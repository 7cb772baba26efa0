"""What changed is told once, in order, with all there is to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import trio
import trio.testing

import actors.hub.update_feed
from actors.directory import Directory
from actors.hub.messages import Publish, UpdateViewer
from actors.hub.update_feed import AGAIN_S, UpdateFeed
from actors.runtime.background import BackgroundTasks
from actors.server import LiveServer
from reileta.errors import DatabaseUnavailable
from reileta.observability.metrics import Metrics
from reileta.records import Asset, Image, Profile, Service, User, World
from reileta.rules.identity import Viewer
from reileta.rules.visibility import Audience, of_world
from reileta.store import ServerInfo
from tests.actors.node_harness import ADDRESS, account
from tests.actors.probe import full_actor


@dataclass
class Registry:
    """The store, and the hub: what was told stands in `told`."""

    profiles_of: dict[str, Profile] = field(default_factory=dict)
    told: list[Publish] = field(default_factory=list)
    profiled: list[str] = field(default_factory=list)
    course: list[str] = field(default_factory=list)
    """What the hub was told, and signalled."""
    away: bool = False
    tags: tuple[str, ...] = ()
    """Of the world, as the database has it."""

    users_by_id: dict[str, User] = field(default_factory=dict)
    """The users that the database has as they are; the others have been deleted meanwhile."""

    profiles = assets = images = worlds = services = users = property(lambda self: self)

    async def by_id(self, id_: str) -> User | None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise DatabaseUnavailable
        return self.users_by_id.get(id_)

    async def of(self, id_: str) -> Profile | list[Asset]:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise DatabaseUnavailable
        return self.profiles_of.get(id_, Profile()) if id_.startswith("u_") else []

    async def get(self, id_: str, kind: str = "") -> Image | World | Service | None:
        if kind:
            return Image("ab", 1, 1, 1)
        return world(*self.tags) if id_ == "w_1" else None

    async def audience(self, one: World) -> Audience:
        return of_world(one.owner, one.tags, {"u_friend"})

    def tell(self, message: Publish) -> None:
        self.told.append(message)
        self.course.append(f"told of {message.id}")

    def signal(self, message: UpdateViewer) -> None:
        self.course.append(f"revised {message.viewer.user} {sorted(message.viewer.friends)}")

    def user_changed(self, user: User, profile: Profile) -> None:
        self.profiled.append(user.id)

    def heard(self, viewer: Viewer, number: int = -1) -> Any:
        data = self.told[number].render(viewer)
        return None if data is None else json.loads(data)


ANYONE = Viewer("u_x", False)


def world(*tags: str) -> World:
    return World("w_1", 1, "Harbour", None, 8, "u_owner", frozenset(tags), 1, 2)


@asynccontextmanager
async def telling(
    registry: Registry, metrics: Metrics | None = None, hub: Any = None
) -> AsyncIterator[UpdateFeed]:
    updates = UpdateFeed(
        store=cast(Any, registry),
        hub=cast(Any, registry) if hub is None else hub,
        directory=Directory(Metrics()),
        metrics=metrics or Metrics(),
        server=LiveServer(ADDRESS, secure=False, public_key=""),
        users=registry,
    )
    async with trio.open_nursery() as nursery:
        BackgroundTasks().run(nursery, "updates", updates.run)
        yield updates
        nursery.cancel_scope.cancel()


async def test_of_two_changes_the_one_in_the_database_is_told() -> None:
    """The request that changed the user last may be the first to say so."""
    registry = Registry()
    older, newer = (replace(account(1), displayname=name) for name in ("Ann", "Anna"))
    registry.users_by_id[newer.id] = newer
    async with telling(registry) as updates:
        for user in (newer, older):
            updates.changed("user", user)
            await trio.testing.wait_all_tasks_blocked()
            assert registry.heard(ANYONE)["displayname"] == "Anna"


async def test_each_object_once_in_the_order_of_the_first_change() -> None:
    registry = Registry()
    async with telling(registry) as updates:
        one, two = account(1), account(2)
        for user in (one, two, one):
            updates.changed("user", user)
        await trio.testing.wait_all_tasks_blocked()
        assert [message.id for message in registry.told] == [one.id, two.id]
        assert registry.profiled == [one.id, two.id]
        updates.changed("user", one)
        await trio.testing.wait_all_tasks_blocked()
        assert len(registry.told) == 3


async def test_a_user_as_each_may_see_it() -> None:
    user = account(1)
    profile = Profile(frozenset({"banner"}), ("u_2",), {"u_2": 5})
    registry = Registry({user.id: profile})
    async with telling(registry) as updates:
        updates.changed("user", user)
        await trio.testing.wait_all_tasks_blocked()
    public = registry.heard(ANYONE)
    assert public["banner"].endswith(f"/api/users/{user.id}/banner")
    assert "following" not in public
    friend = registry.heard(Viewer("u_2", False, {user.id: 7}))
    assert (friend["isFriend"], friend["following_at"], friend["status"]) == (True, 7, "offline")
    for viewer in (Viewer(user.id, False), Viewer("u_x", True)):
        assert registry.heard(viewer)["following"] == [f"u_2@{ADDRESS}"]


async def test_what_two_see_of_each_other_is_known_before_either_is_told() -> None:
    one, two = account(1), account(2)
    registry = Registry(
        {one.id: Profile(friends={two.id: 5}), two.id: Profile(friends={one.id: 6})}
    )
    async with telling(registry) as updates:
        updates.changed("user", one)
        updates.changed("user", two)
        await trio.testing.wait_all_tasks_blocked()
    assert registry.course == [
        f"revised {one.id} ['{two.id}']",
        f"revised {two.id} ['{one.id}']",
        f"told of {one.id}",
        f"told of {two.id}",
    ]


async def test_what_concerns_a_few_is_told_to_all_once_something_else_has_changed() -> None:
    registry = Registry()
    async with telling(registry) as updates:
        updates.changed("user", account(1), frozenset({"u_2"}))
        updates.changed("user", account(1), frozenset({"u_3"}))
        updates.changed("user", account(2), frozenset())
        updates.changed("user", account(2))
        updates.changed("user", account(2), frozenset())
        await trio.testing.wait_all_tasks_blocked()
    assert [one.among for one in registry.told] == [frozenset({"u_2", "u_3"}), None]


@pytest.mark.parametrize("known", [("avr:private",), ("avr:public",)])
async def test_of_a_private_world_hear_those_who_may_see_it(known: tuple[str, ...]) -> None:
    """Also if it became private after the change that is told: whoever changed its assets may
    know it only as it was."""
    registry = Registry(tags=("avr:private",))
    async with telling(registry) as updates:
        updates.changed("world", world(*known))
        await trio.testing.wait_all_tasks_blocked()
    assert registry.heard(ANYONE) is None
    for viewer in (Viewer("u_owner", False), Viewer("u_x", True), Viewer("u_friend", False)):
        assert registry.heard(viewer)["thumbnail"].endswith("/api/worlds/w_1/thumbnail")


async def test_services_the_server_and_what_moved() -> None:
    registry = Registry()
    async with telling(registry) as updates:
        updates.changed("service", Service("a.b", "Voice", None, None, "u_1", frozenset(), 1, 2))
        updates.changed("server", ServerInfo("x", "Harbour", None, None, 1, 1))
        updates.changed_id("world", "w_1")
        updates.changed_id("service", "gone.meanwhile")
        await trio.testing.wait_all_tasks_blocked()
    assert [message.event for message in registry.told] == [
        "update-service", "update-server", "update-world",
    ]  # fmt: skip
    assert [registry.heard(ANYONE, n)["title"] for n in range(3)] == ["Voice", "Harbour", "Harbour"]


async def test_a_database_that_is_away_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    registry = Registry(away=True)
    async with telling(registry) as updates:
        updates.changed("user", account(1))
        await trio.sleep(AGAIN_S * 2.5)
        assert registry.told == []
        updates.changed("user", account(1), frozenset())
        registry.away = False
        await trio.sleep(AGAIN_S)
        (told,) = registry.told
        assert told.among is None, "the first change concerned all"


async def test_too_much_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.hub.update_feed, "WAITING", 2)
    registry, metrics = Registry(), Metrics()
    async with telling(registry, metrics) as updates:
        users: list[User] = [account(number) for number in range(3)]
        for user in users:
            updates.changed("user", user)
        await trio.testing.wait_all_tasks_blocked()
        assert [message.id for message in registry.told] == [users[1].id, users[2].id]
        assert metrics.mailbox_refused == 1


async def test_a_publication_that_a_full_hub_refuses_is_counted_once() -> None:
    metrics = Metrics()
    async with full_actor(metrics) as hub, telling(Registry(), metrics, hub) as updates:
        updates.changed("user", account(1))
        await trio.testing.wait_all_tasks_blocked()
    assert metrics.mailbox_refused == 1


async def test_a_change_that_can_not_be_loaded_does_not_hold_up_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    registry, bad = Registry(), account(2)
    registry.profiles_of[bad.id] = cast(Any, None)  # it raises AttributeError
    async with telling(registry) as updates:
        for number in (1, 2, 3):
            updates.changed("user", account(number))
        await trio.sleep(60)
        assert [message.id for message in registry.told] == [account(1).id, account(3).id]
        registry.profiles_of.clear()
        updates.changed("user", account(2))
        await trio.sleep(60)
        assert registry.told[-1].id == bad.id
