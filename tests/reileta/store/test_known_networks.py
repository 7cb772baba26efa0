"""The networks at which users are known."""

from __future__ import annotations

from reileta.store import Store
from reileta.store.known_networks import KEPT, KEPT_MS
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user


async def test_a_user_is_known_where_it_has_logged_in(store: Store) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    assert not await store.networks.known(ada.id, "192.0.2.1")
    for _ in range(2):
        await store.networks.add(ada.id, "192.0.2.1")
    assert await store.networks.known(ada.id, "192.0.2.1")
    assert not await store.networks.known(ada.id, "192.0.2.2")
    assert not await store.networks.known(bob.id, "192.0.2.1")


async def test_the_network_itself_is_not_kept(store: Store) -> None:
    ada = await a_user(store)
    await store.networks.add(ada.id, "192.0.2.1")
    row = await store.database.fetch_one("SELECT known_networks::text AS all FROM known_networks")
    assert row is not None
    assert "192.0.2.1" not in row["all"]
    assert b"192.0.2.1".hex() not in row["all"]


async def test_so_many_are_known_and_the_longest_unused_goes(
    store: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    for number in range(KEPT):
        await store.networks.add(ada.id, f"192.0.2.{number}")
        clock.advance(1)
    await store.networks.add(ada.id, "192.0.2.0")
    clock.advance(1)
    await store.networks.add(ada.id, "192.0.2.99")
    known = [one for one in range(KEPT) if await store.networks.known(ada.id, f"192.0.2.{one}")]
    assert known == [0, *range(2, KEPT)]


async def test_one_that_was_not_used_for_long_is_known_no_more(
    store: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    await store.networks.add(ada.id, "192.0.2.1")
    clock.advance(KEPT_MS - 1)
    assert await store.networks.known(ada.id, "192.0.2.1")
    clock.advance(1)
    assert not await store.networks.known(ada.id, "192.0.2.1")
    await store.networks.add(ada.id, "192.0.2.2")
    assert await store.database.value("SELECT count(*) FROM known_networks") == 1


async def test_a_user_that_is_gone_leaves_none(store: Store) -> None:
    async def unhashed(password: str) -> str:
        return "hash"

    await store.users.ensure_system_accounts(unhashed)
    ada = await a_user(store)
    await store.networks.add(ada.id, "192.0.2.1")
    await store.users.delete(ada.id)
    await store.networks.add(ada.id, "192.0.2.1")
    assert await store.database.value("SELECT count(*) FROM known_networks") == 0
