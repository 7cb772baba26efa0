from __future__ import annotations

import pytest

from reileta.errors import InvalidInput, WorldExists, WorldNotFound
from reileta.records import Page, World
from reileta.store import Store
from tests.conftest import ManualClock


async def make(
    store: Store, title: str = "Home", owner: str = "u_a", tags: frozenset[str] = frozenset()
) -> World:
    return await store.worlds.create(
        title=title, description=None, capacity=16, owner=owner, tags=tags
    )


async def search(
    store: Store,
    *,
    query: str | None = None,
    owner: str | None = None,
    tag: str | None = None,
    viewer: str | None = None,
    admin: bool = False,
    limit: int = 50,
    offset: int = 0,
) -> Page[World]:
    return await store.worlds.search(
        query=query, owner=owner, tag=tag, viewer=viewer, admin=admin, limit=limit, offset=offset
    )


async def test_a_new_world_has_what_it_was_made_with(store: Store, clock: ManualClock) -> None:
    world = await store.worlds.create(
        title="Home", description="Sweet", capacity=1024, owner="u_b@x.org", tags=frozenset({"t"})
    )
    now = clock.now_ms()
    assert world == World(
        world.id, world.number, "Home", "Sweet", 1024, "u_b@x.org", frozenset({"t"}), now, now
    )
    assert world.id.startswith("w_")
    assert await store.worlds.get(world.id) == world
    assert await store.worlds.get("w_none") is None


async def test_numbers_are_unique_over_users_and_worlds(store: Store) -> None:
    user = await store.users.create(username="ada", displayname="Ada", password_hash=None)
    first, second = await make(store), await make(store)
    assert user.number < first.number < second.number


async def test_an_id_can_be_given_once(store: Store) -> None:
    async def with_id() -> World:
        return await store.worlds.create(
            title="x", description=None, capacity=1, owner="u_a", tags=frozenset(), id="w_mine"
        )

    assert (await with_id()).id == "w_mine"
    with pytest.raises(WorldExists):
        await with_id()


async def test_a_search_filters_and_puts_the_newest_first(store: Store) -> None:
    old = await make(store, "The Hall", tags=frozenset({"avr:public"}))
    new = await make(store, "hallway", owner="u_b")
    await make(store, "Kitchen")
    assert (await search(store, query="HALL")).items == (new, old)
    assert (await search(store, query="hall", owner="u_b")).items == (new,)
    assert (await search(store, tag="avr:public")).items == (old,)
    page = await search(store, limit=1, offset=1)
    assert (page.items, page.total) == ((new,), 3)
    assert (await search(store, query="%")).items == ()


async def test_a_private_world_shows_to_its_owner_and_admins_alone(store: Store) -> None:
    public = await make(store, owner="u_a")
    private = await make(store, owner="u_a", tags=frozenset({"avr:private"}))
    assert (await search(store)) == Page((public,), 1, 50, 0)
    assert (await search(store, viewer="u_b")) == Page((public,), 1, 50, 0)
    assert (await search(store, viewer="u_a")).items == (private, public)
    assert (await search(store, viewer="u_b", admin=True)).total == 2


async def test_an_update_changes_what_it_names_alone(store: Store, clock: ManualClock) -> None:
    world = await make(store)
    clock.advance(9)
    changed = await store.worlds.update(world.id, title="New", description="d", capacity=2)
    assert (changed.title, changed.description, changed.capacity) == ("New", "d", 2)
    assert (changed.owner, changed.updated_at) == (world.owner, world.created_at + 9)
    assert (await store.worlds.update(world.id, description=None)).description is None
    assert (await store.worlds.update(world.id, owner="u_z", tags=frozenset({"q"}))).tags == {"q"}
    with pytest.raises(WorldNotFound):
        await store.worlds.update("w_none", title="x")


async def test_a_world_is_deleted_once(store: Store) -> None:
    world = await make(store)
    assert await store.worlds.delete(world.id) == frozenset()
    with pytest.raises(WorldNotFound):
        await store.worlds.delete(world.id)
    assert await store.worlds.get(world.id) is None


@pytest.mark.parametrize("text", ["\x00", "\udc00"])
async def test_text_that_can_not_be_kept_is_invalid(store: Store, text: str) -> None:
    world = await make(store)
    with pytest.raises(InvalidInput):
        await make(store, text)
    with pytest.raises(InvalidInput):
        await store.worlds.get(text)
    with pytest.raises(InvalidInput):
        await search(store, tag=text)
    with pytest.raises(InvalidInput):
        await store.worlds.update(world.id, description=text)
