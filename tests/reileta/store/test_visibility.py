"""The conditions of searches find what the rule shows, and nothing else."""

from __future__ import annotations

import pytest

from reileta.records import InstanceRecord, Page, World
from reileta.rules import visibility
from reileta.rules.identity import Claimant
from reileta.rules.instance.access import ACCESS_TAGS, access_of
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import DOCUMENT, WORLD
from reileta.rules.visibility import Audience
from reileta.store import Store
from tests.reileta.store.sessions import make_document, make_session

VIEWERS = ("owner", "shared", "stranger")


@pytest.fixture
async def users(store: Store) -> dict[str, Claimant]:
    return {name: (await make_session(store, name))[1] for name in VIEWERS}


def found(page: Page[World] | Page[InstanceRecord], thing: World | InstanceRecord) -> bool:
    assert page.total == len(page.items)
    return thing in page.items


def expected(audience: Audience, users: dict[str, Claimant]) -> set[tuple[str, bool]]:
    return {
        (name, admin)
        for name in (*VIEWERS, "")
        for admin in (False, True)
        if audience.admits(users[name].user if name else None, admin=admin)
    }


@pytest.mark.parametrize("tag", ["avr:public", "avr:private"])
@pytest.mark.parametrize("shared", [False, True])
async def test_worlds(store: Store, users: dict[str, Claimant], tag: str, shared: bool) -> None:
    owner = users["owner"]
    world = await store.worlds.create(
        title="Sea", description=None, capacity=4, owner=owner.user, tags=frozenset({tag})
    )
    if shared:
        await store.resources.share(ResourceKey(WORLD, world.number), owner, users["shared"].user)
    audience = await store.worlds.audience(world)
    shares = {users["shared"].user} if shared else set()
    rule = visibility.of_world(world.owner, world.tags, shares)
    assert expected(audience, users) == expected(rule, users)
    got = set()
    for viewer in (*VIEWERS, ""):
        for admin in (False, True):
            page = await store.worlds.search(
                query=None,
                owner=None,
                tag=None,
                viewer=users[viewer].user if viewer else None,
                admin=admin,
                limit=9,
                offset=0,
            )
            if found(page, world):
                got.add((viewer, admin))
    assert got == expected(audience, users)


@pytest.mark.parametrize("access", ACCESS_TAGS)
async def test_instances(store: Store, users: dict[str, Claimant], access: str) -> None:
    instance = await store.instances.create(
        name="room",
        title=None,
        description=None,
        world="w_1",
        owner=users["owner"].user,
        capacity=4,
        tags=frozenset({access}),
    )
    audience = visibility.instance_news(access_of(instance.tags), owner=instance.owner, inside=())
    got = set()
    for viewer in (*VIEWERS, ""):
        for admin in (False, True):
            page = await store.instances.search(
                query=None,
                world=None,
                owner=None,
                tag=None,
                exclude=(),
                viewer=users[viewer].user if viewer else None,
                admin=admin,
                limit=9,
                offset=0,
            )
            if found(page, instance):
                got.add((viewer, admin))
    assert got == expected(audience, users)


@pytest.mark.parametrize("shared", [False, True])
async def test_documents(store: Store, users: dict[str, Claimant], shared: bool) -> None:
    owner = users["owner"]
    _, name = await make_document(store, owner)
    if shared:
        await store.resources.share(name, owner, users["shared"].user)
    record = (await store.resources.get(name)).record
    audience = visibility.of_owned(record.owner, record.shares)
    for viewer in VIEWERS:
        for admin in (False, True):
            who = Claimant(users[viewer].session, users[viewer].user, admin)
            page = await store.resources.search(DOCUMENT, who, query=None, limit=9, offset=0)
            assert page.total == audience.admits(who.user, admin=admin)
