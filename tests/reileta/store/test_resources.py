"""Resources in the database: made, found, written, shared, deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reileta.errors import (
    PermissionDenied,
    ResourceInvalid,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
    ResourceTypeUnknown,
    UserNotFound,
    VersionConflict,
    WorldInvalid,
)
from reileta.records import ADMIN_TAG
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import DOCUMENT, WORLD, Content
from reileta.store import Store
from tests.conftest import ManualClock
from tests.reileta.store.sessions import FOR_EVER, make_document, make_session


async def test_a_document_is_created_and_kept(store: Store, clock: ManualClock) -> None:
    _, who = await make_session(store)
    made, name = await make_document(store, who, {"a": ["\0", 1e300, 1.0]})
    assert (made.type, made.owner, made.title, made.version) == (DOCUMENT, who.user, "Notes", 1)
    assert made.created_at == made.updated_at == clock.now_ms()
    found = await store.resources.get(name)
    assert found.record == made
    assert repr(found.record.data) == repr(made.data)
    assert found.lease.session is None


async def test_its_number_is_no_other_things(store: Store) -> None:
    _, who = await make_session(store)
    user = await store.users.by_id(who.user)
    world = await store.worlds.create(
        title="Sea", description=None, capacity=4, owner=who.user, tags=frozenset()
    )
    made, _ = await make_document(store, who)
    assert user is not None
    assert len({user.number, world.number, made.number}) == 3


async def test_what_can_not_be_kept_is_not_created(store: Store) -> None:
    _, who = await make_session(store)
    with pytest.raises(ResourceInvalid):
        await store.resources.create(DOCUMENT, who, Content(""))
    with pytest.raises(ResourceTypeUnknown):
        await store.resources.create("song", who, Content("A"))
    with pytest.raises(UserNotFound):
        await store.resources.create(DOCUMENT, replace(who, user="u_none"), Content("A"))


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    _, who = await make_session(store)
    made, _ = await make_document(store, who)
    for name in (ResourceKey(DOCUMENT, made.number + 1), ResourceKey(WORLD, made.number)):
        with pytest.raises(ResourceNotFound):
            await store.resources.get(name)
    with pytest.raises(ResourceTypeUnknown):
        await store.resources.get(ResourceKey("song", made.number))


async def test_write_and_delete_need_the_acquisition(store: Store) -> None:
    _, who = await make_session(store)
    _, name = await make_document(store, who, {"a": 1})
    with pytest.raises(ResourceNotAcquired):
        await store.resources.write(name, who, fence=1, patch={}, if_version=None)
    with pytest.raises(ResourceNotAcquired):
        await store.resources.delete(name, who, fence=None, if_version=None)
    held = await store.leases.acquire(name, who, until=FOR_EVER)
    written = await store.resources.write(
        name, who, fence=held.fence, patch={"title": "Songs", "data": {"b": 2}}, if_version=1
    )
    assert (written.title, written.data, written.version) == ("Songs", {"a": 1, "b": 2}, 2)
    assert (await store.resources.get(name)).record == written
    with pytest.raises(VersionConflict):
        await store.resources.write(name, who, fence=held.fence, patch={}, if_version=1)
    with pytest.raises(VersionConflict):
        await store.resources.delete(name, who, fence=held.fence, if_version=1)
    assert await store.resources.delete(name, who, fence=held.fence, if_version=2) == written
    with pytest.raises(ResourceNotFound):
        await store.resources.get(name)
    assert await store.leases.of_session(who.session) is None
    with pytest.raises(ResourceNotFound):
        await store.resources.write(name, who, fence=held.fence, patch={}, if_version=None)
    with pytest.raises(ResourceNotFound):
        await store.leases.release(name, who)


async def test_a_world_is_a_resource_by_its_number(store: Store) -> None:
    _, who = await make_session(store)
    world = await store.worlds.create(
        title="Sea", description="Deep", capacity=4, owner=who.user, tags=frozenset({"avr:public"})
    )
    name = ResourceKey(WORLD, world.number)
    held = await store.leases.acquire(name, who, until=FOR_EVER)
    assert held.resource.data == {"description": "Deep", "capacity": 4, "tags": ["avr:public"]}
    written = await store.resources.write(
        name,
        who,
        fence=held.fence,
        patch={"title": "Lake", "data": {"description": None, "capacity": 8}},
        if_version=1,
    )
    after = await store.worlds.get(world.id)
    assert after is not None
    assert (after.title, after.description, after.capacity) == ("Lake", None, 8)
    assert after.tags == world.tags
    assert (await store.resources.get(name)).record == written
    await store.worlds.update(world.id, title="Pond")
    with pytest.raises(VersionConflict):
        await store.resources.write(name, who, fence=held.fence, patch={}, if_version=2)
    with pytest.raises(WorldInvalid):
        await store.resources.write(
            name, who, fence=held.fence, patch={"data": {"capacity": 0}}, if_version=None
        )
    await store.resources.delete(name, who, fence=held.fence, if_version=3)
    assert await store.worlds.get(world.id) is None
    assert await store.leases.of_session(who.session) is None


async def test_a_world_is_created_as_a_resource(store: Store) -> None:
    _, who = await make_session(store)
    made = await store.resources.create(WORLD, who, Content("Sea", {"capacity": 9}))
    page = await store.worlds.search(
        query=None, owner=who.user, tag=None, viewer=None, admin=False, limit=9, offset=0
    )
    assert [(one.number, one.capacity) for one in page.items] == [(made.number, 9)]


async def test_the_lease_of_a_world_that_was_deleted_is_gone(store: Store) -> None:
    _, who = await make_session(store)
    made = await store.resources.create(WORLD, who, Content("Sea"))
    await store.leases.acquire(ResourceKey(WORLD, made.number), who, until=FOR_EVER)
    page = await store.worlds.search(
        query=None, owner=None, tag=None, viewer=None, admin=True, limit=9, offset=0
    )
    await store.worlds.delete(page.items[0].id)
    assert await store.leases.of_session(who.session) is None
    _, name = await make_document(store, who)
    await store.leases.acquire(name, who, until=FOR_EVER)


async def test_lists_show_ones_own_what_is_shared_and_public_worlds(store: Store) -> None:
    _, ada = await make_session(store, "ada")
    _, bob = await make_session(store, "bob")
    admin = Claimant("s_admin", "u_admin", admin=True)
    mine, _ = await make_document(store, ada)
    shared, name = await make_document(store, ada)
    songs = await store.resources.create(DOCUMENT, bob, Content("Song_s"))
    await store.resources.share(name, ada, bob.user)
    sea = await store.resources.create(WORLD, ada, Content("Sea"))
    den = await store.resources.create(WORLD, ada, Content("Den", {"tags": ["avr:private"]}))

    async def listed(type_: str, who: Claimant, query: str | None = None) -> list[int]:
        page = await store.resources.search(type_, who, query=query, limit=50, offset=0)
        assert page.total == len(page.items)
        return [one.number for one in page.items]

    assert await listed(DOCUMENT, ada) == [mine.number, shared.number]
    assert await listed(DOCUMENT, bob) == [shared.number, songs.number]
    assert await listed(DOCUMENT, admin) == [mine.number, shared.number, songs.number]
    assert await listed(DOCUMENT, bob, "SONG_") == [songs.number]
    assert await listed(WORLD, ada) == await listed(WORLD, admin) == [sea.number, den.number]
    assert await listed(WORLD, bob) == [sea.number]
    await store.resources.share(ResourceKey(WORLD, den.number), ada, bob.user)
    assert await listed(WORLD, bob) == [sea.number, den.number]
    page = await store.resources.search(DOCUMENT, bob, query=None, limit=1, offset=1)
    assert ([one.number for one in page.items], page.total) == ([songs.number], 2)


async def test_those_it_is_shared_with_may_use_it(store: Store) -> None:
    _, ada = await make_session(store, "ada")
    session, bob = await make_session(store, "bob")
    _, name = await make_document(store, ada)
    with pytest.raises(PermissionDenied):
        await store.leases.acquire(name, bob, until=FOR_EVER)
    with pytest.raises(PermissionDenied):
        await store.resources.share(name, bob, bob.user)
    with pytest.raises(UserNotFound):
        await store.resources.share(name, ada, "u_none")
    for _ in range(2):
        shared = await store.resources.share(name, ada, bob.user)
        assert shared.shares == {bob.user}
    held = await store.leases.acquire(name, bob, until=FOR_EVER)
    assert held.resource.shares == {bob.user}
    record, lost = await store.resources.unshare(name, ada, bob.user)
    assert record is not None
    assert record.shares == frozenset()
    assert lost is not None
    assert (lost.session_id, lost.name, lost.fence) == (session.id, name, held.fence)
    with pytest.raises(PermissionDenied):
        await store.resources.write(name, bob, fence=held.fence, patch={}, if_version=None)
    assert (await store.resources.unshare(name, ada, bob.user))[1] is None


async def test_who_gives_a_share_up_is_shown_nothing_afterwards(store: Store) -> None:
    _, ada = await make_session(store, "ada")
    _, bob = await make_session(store, "bob")
    _, name = await make_document(store, ada)
    await store.resources.share(name, ada, bob.user)
    assert await store.resources.unshare(name, bob, bob.user) == (None, None)
    with pytest.raises(PermissionDenied):
        await store.resources.unshare(name, bob, bob.user)


async def test_an_admin_needs_no_share_and_keeps_what_it_has(store: Store) -> None:
    _, ada = await make_session(store, "ada")
    _, bob = await make_session(store, "bob")
    _, name = await make_document(store, ada)
    await store.resources.share(name, ada, bob.user)
    bob = replace(bob, admin=(await store.users.grant(bob.user, ADMIN_TAG)).admin)
    held = await store.leases.acquire(name, bob, until=FOR_EVER)
    assert (await store.resources.unshare(name, ada, bob.user))[1] is None
    await store.resources.write(name, bob, fence=held.fence, patch={"data": 1}, if_version=None)
    with pytest.raises(ResourceTaken):
        await store.leases.acquire(name, ada, until=FOR_EVER)
