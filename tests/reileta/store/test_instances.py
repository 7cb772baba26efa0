from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
import trio

from reileta.errors import InstanceExists, InstanceNotFound, InvalidInput
from reileta.records import Ban, InstanceRecord, Page
from reileta.store import Store
from tests.conftest import ManualClock

PUBLIC = frozenset({"avr:public"})


async def make(
    store: Store,
    name: str,
    *,
    world: str = "w_1",
    owner: str = "u_a",
    tags: frozenset[str] = PUBLIC,
    title: str | None = None,
) -> InstanceRecord:
    return await store.instances.create(
        name=name, title=title, description=None, world=world, owner=owner, capacity=8, tags=tags
    )


async def search(
    store: Store,
    *,
    query: str | None = None,
    world: str | None = None,
    owner: str | None = None,
    tag: str | None = None,
    exclude: Collection[str] = (),
    viewer: str | None = None,
    admin: bool = False,
    limit: int = 50,
    offset: int = 0,
) -> Page[InstanceRecord]:
    return await store.instances.search(
        query=query,
        world=world,
        owner=owner,
        tag=tag,
        exclude=exclude,
        viewer=viewer,
        admin=admin,
        limit=limit,
        offset=offset,
    )


async def names(store: Store, **filters: str) -> list[str]:
    return [instance.name for instance in (await search(store, **filters)).items]  # type: ignore[arg-type]


async def test_a_new_instance_has_what_it_was_made_with(store: Store, clock: ManualClock) -> None:
    instance = await store.instances.create(
        name="lobby",
        title="Lobby",
        description="All come here",
        world="w_1:1.2@x.org",
        owner="u_a",
        capacity=300,
        tags=PUBLIC,
    )
    now = clock.now_ms()
    assert instance == InstanceRecord(
        instance.id,
        "lobby",
        "Lobby",
        "All come here",
        "w_1:1.2@x.org",
        "u_a",
        300,
        PUBLIC,
        now,
        now,
        entered=False,
    )
    assert instance.id.startswith("i_")
    assert await store.instances.get(instance.id) == instance
    assert await store.instances.get("lobby") == instance
    assert await store.instances.get("none") is None
    assert await store.instances.get("i_none") is None


async def test_of_those_who_ask_for_a_name_at_once_one_gets_it(store: Store) -> None:
    made: list[InstanceRecord] = []
    refused: list[InstanceExists] = []

    async def ask() -> None:
        try:
            made.append(await make(store, "lobby"))
        except InstanceExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(ask)
    assert (len(made), len(refused)) == (1, 11)


async def test_a_world_without_a_version_finds_all_versions(store: Store) -> None:
    await make(store, "plain", world="w_1")
    await make(store, "versioned", world="w_1:1.2")
    await make(store, "remote", world="w_1@x.org:80")
    await make(store, "remote-versioned", world="w_1:1.2@x.org:80")
    await make(store, "other", world="w_2:1.2")
    assert await names(store, world="w_1") == ["versioned", "plain"]
    assert await names(store, world="w_1:1.2") == ["versioned"]
    assert await names(store, world="w_1@x.org:80") == ["remote-versioned", "remote"]
    assert await names(store, world="w_1:1.2@x.org:80") == ["remote-versioned"]


async def test_a_search_filters_and_puts_the_newest_first(store: Store) -> None:
    first = await make(store, "first", title="Evening")
    second = await make(store, "second", owner="u_b", tags=PUBLIC | {"avr:permanent"})
    third = await make(store, "third")
    assert await names(store, query="EVENING") == ["first"]
    assert await names(store, query="ir") == ["third", "first"]
    assert await names(store, query="_") == []
    assert await names(store, owner="u_b") == ["second"]
    assert await names(store, tag="avr:permanent") == ["second"]
    page = await search(store, exclude={third.id}, limit=1)
    assert (page.items, page.total) == ((second,), 2)
    assert (await search(store, exclude=[second.id, third.id])).items == (first,)


async def test_what_is_not_public_shows_to_its_owner_and_admins_alone(store: Store) -> None:
    public = await make(store, "public")
    closed = await make(store, "closed", tags=frozenset({"avr:invite_only"}))
    assert await search(store) == Page((public,), 1, 50, 0)
    assert await search(store, viewer="u_b") == Page((public,), 1, 50, 0)
    assert (await search(store, viewer="u_a")).items == (closed, public)
    assert (await search(store, admin=True)).items == (closed, public)


async def test_an_update_changes_what_it_names_alone(store: Store, clock: ManualClock) -> None:
    instance = await make(store, "lobby")
    await make(store, "taken")
    clock.advance(4)
    changed = await store.instances.update(
        instance.id, title="T", description="D", capacity=9, tags=frozenset({"avr:private"})
    )
    assert (changed.title, changed.description, changed.capacity) == ("T", "D", 9)
    assert changed.tags == {"avr:private"}
    assert (changed.name, changed.updated_at) == ("lobby", instance.created_at + 4)
    with pytest.raises(InstanceExists):
        await store.instances.update(instance.id, name="taken")
    with pytest.raises(InstanceNotFound):
        await store.instances.update("i_none", title="x")


async def test_a_deleted_instance_takes_its_bans_along(store: Store) -> None:
    instance = await make(store, "lobby")
    await store.bans.put(Ban(instance.id, "u_x", None, None, "u_a", 1))
    assert await store.instances.delete(instance.id)
    assert not await store.instances.delete(instance.id)
    assert await store.instances.get("lobby") is None
    assert await store.bans.of(instance.id) == []


async def test_what_stood_empty_for_long_is_abandoned(store: Store, clock: ManualClock) -> None:
    start = clock.now_ms()
    empty = await make(store, "empty")
    busy = await make(store, "busy")
    await make(store, "permanent", tags=PUBLIC | {"avr:permanent"})
    assert await store.instances.occupied(busy.id, None, entered=True)
    assert await abandoned(store, start) == []
    assert await abandoned(store, start + 1) == [empty.id]
    assert await store.instances.occupied(busy.id, start - 5, entered=True)
    assert await abandoned(store, start + 1) == [busy.id, empty.id]
    assert not await store.instances.occupied("i_none", None, entered=True)


FAR = 2**62
"""All instances were made before."""


async def abandoned(store: Store, before: int, unused_before: int = FAR) -> list[str]:
    return [one.id for one in await store.instances.abandoned(before, unused_before)]


async def test_one_that_nobody_has_entered_is_kept_longer(store: Store, clock: ManualClock) -> None:
    start = clock.now_ms()
    fresh, left = await make(store, "fresh"), await make(store, "left")
    assert not fresh.entered
    await store.instances.occupied(left.id, start, entered=True)
    await store.instances.occupied(left.id, start, entered=False)  # it stays so
    assert (await store.instances.get(left.id)) == replace(left, entered=True)
    assert await abandoned(store, start + 1, start) == [left.id]
    assert not await store.instances.delete_abandoned(fresh.id, start + 1, start)
    assert await abandoned(store, start + 1, start + 1) == [fresh.id, left.id]
    assert await store.instances.delete_abandoned(fresh.id, start + 1, start + 1)


async def test_one_that_is_used_again_is_not_deleted(store: Store, clock: ManualClock) -> None:
    before = clock.now_ms() + 1
    used, kept, empty = [await make(store, name) for name in ("used", "kept", "empty")]
    await store.instances.occupied(used.id, None, entered=True)
    await store.instances.update(kept.id, tags=PUBLIC | {"avr:permanent"})
    assert await store.instances.in_use() == [used.id]
    for one in (used, kept):
        assert not await store.instances.delete_abandoned(one.id, before, FAR)
    assert not await store.instances.delete_abandoned(empty.id, before - 1, FAR)
    assert await store.instances.delete_abandoned(empty.id, before, FAR)
    await store.instances.mark_empty(used.id, 5)
    await store.instances.mark_empty(used.id, 9)
    assert await store.instances.in_use() == []
    assert await abandoned(store, 6) == [used.id]


async def test_at_the_start_nobody_is_inside_anywhere(store: Store, clock: ManualClock) -> None:
    start = clock.now_ms()
    empty = await make(store, "empty")
    busy = await make(store, "busy")
    await store.instances.occupied(busy.id, None, entered=True)
    assert await store.instances.all_empty_from(start + 100) == 1
    assert await abandoned(store, start + 100) == [empty.id]
    assert await abandoned(store, start + 101) == [empty.id, busy.id]
    # The clock was set back: an hour ahead is no time since when anything was empty.
    assert await store.instances.all_empty_from(start - 3_600_000) == 2
    assert await abandoned(store, start - 3_599_999) == [empty.id, busy.id]


@pytest.mark.parametrize("text", ["\x00", "\udc00"])
async def test_text_that_can_not_be_kept_is_invalid(store: Store, text: str) -> None:
    instance = await make(store, "lobby")
    with pytest.raises(InvalidInput):
        await make(store, text)
    with pytest.raises(InvalidInput):
        await store.instances.get(text)
    with pytest.raises(InvalidInput):
        await search(store, exclude=[text])
    with pytest.raises(InvalidInput):
        await store.instances.update(instance.id, title=text)
