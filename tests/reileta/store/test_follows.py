from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from reileta.errors import AlreadyFollowing, UserInvalid, UserNotFound
from reileta.ids import new_id
from reileta.records import Follow
from reileta.settings import Settings
from reileta.store import Store, open_store
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user

AFAR = "u_00000000-0000-4000-8000-0000000000af@other.example:3032"


async def test_a_follow_has_its_time(store: Store, clock: ManualClock) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    follow = await store.follows.put(ada.id, bob.id)
    assert follow == Follow(ada.id, bob.id, clock.now_ms())
    assert await store.follows.of(ada.id) == [follow]
    assert await store.follows.of(bob.id) == []


async def test_whom_one_follows_is_told_in_order(store: Store, clock: ManualClock) -> None:
    ada = await a_user(store)
    others: list[Follow] = []
    for number in range(4):
        clock.advance(-1)
        other = await a_user(store, f"user{number}")
        others.insert(0, await store.follows.put(ada.id, other.id))
    assert await store.follows.of(ada.id) == others


async def test_no_one_is_followed_twice(store: Store) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    await store.follows.put(ada.id, bob.id)
    with pytest.raises(AlreadyFollowing):
        await store.follows.put(ada.id, bob.id)
    assert len(await store.follows.of(ada.id)) == 1


async def test_of_those_that_follow_at_once_one_does(store: Store) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    refused: list[AlreadyFollowing] = []

    async def follow(one: str, other: str) -> None:
        try:
            await store.follows.put(one, other)
        except AlreadyFollowing as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(follow, ada.id, bob.id)
            nursery.start_soon(follow, bob.id, ada.id)
    assert len(refused) == 14
    assert await store.follows.is_friend(ada.id, bob.id)


async def test_a_user_of_another_server_can_be_followed(store: Store) -> None:
    ada = await a_user(store)
    await store.follows.put(ada.id, AFAR)
    assert [follow.followed for follow in await store.follows.of(ada.id)] == [AFAR]
    assert await store.follows.friends(ada.id) == frozenset()
    await store.follows.put(AFAR, ada.id)
    assert await store.follows.friends(ada.id) == {AFAR}


async def test_who_is_not_there_neither_follows_nor_is_followed(store: Store) -> None:
    ada, nobody = await a_user(store), new_id("u")
    with pytest.raises(UserNotFound):
        await store.follows.put(ada.id, nobody)
    with pytest.raises(UserNotFound):
        await store.follows.put(nobody, ada.id)


@pytest.mark.parametrize("other", ["", "ada", "@me", "u_1", "u_1@x", "w_" + "0" * 36, AFAR + "@y"])
async def test_what_is_no_user_is_not_followed(store: Store, other: str) -> None:
    ada = await a_user(store)
    with pytest.raises(UserInvalid):
        await store.follows.put(ada.id, other)
    with pytest.raises(UserInvalid):
        await store.follows.put(ada.id, ada.id)


async def test_a_follow_is_ended_once(store: Store) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    await store.follows.put(ada.id, bob.id)
    assert not await store.follows.remove(bob.id, ada.id)
    assert await store.follows.remove(ada.id, bob.id)
    assert not await store.follows.remove(ada.id, bob.id)
    assert await store.follows.of(ada.id) == []


async def test_friends_follow_each_other(store: Store, clock: ManualClock) -> None:
    ada, bob, eve, dan = [await a_user(store, name) for name in ("ada", "bob", "eve", "dan")]
    mine = await store.follows.put(ada.id, bob.id)
    clock.advance(5)
    await store.follows.put(bob.id, ada.id)
    await store.follows.put(ada.id, eve.id)
    await store.follows.put(dan.id, ada.id)
    follows = store.follows
    assert await follows.friends(ada.id) == {bob.id}
    assert await follows.friends(bob.id) == {ada.id}
    assert await follows.friends(eve.id) == await follows.friends(dan.id) == frozenset()
    assert await follows.is_friend(ada.id, bob.id)
    assert await follows.is_friend(bob.id, ada.id)
    assert not await follows.is_friend(ada.id, eve.id)
    assert not await follows.is_friend(ada.id, dan.id)
    assert not await follows.is_friend(ada.id, ada.id)
    assert await follows.among(ada.id, [bob.id, eve.id, dan.id]) == {bob.id: mine}
    assert await follows.among(ada.id, []) == {}


async def test_followers_come_in_pages(store: Store, clock: ManualClock) -> None:
    ada = await a_user(store)
    expected = []
    for number in range(5):
        clock.advance(1)
        other = await a_user(store, f"user{number}")
        expected.append(await store.follows.put(other.id, ada.id))
    page = await store.follows.followers(ada.id, limit=2, offset=1)
    assert (page.items, page.total) == (tuple(expected[1:3]), 5)
    assert (await store.follows.followers(ada.id, limit=2, offset=9)).total == 5
    assert (await store.follows.followers(AFAR, limit=2, offset=0)).items == ()


@pytest.fixture
async def strict(database_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """A store in which one may follow two."""
    async with open_store(Settings(database=database_url, follows_per_user=2), clock) as store:
        yield store


async def test_no_one_follows_more_than_the_limit(strict: Store) -> None:
    ada = await a_user(strict)
    others = [await a_user(strict, f"user{number}") for number in range(6)]
    refused: list[UserInvalid] = []

    async def follow(other: str) -> None:
        try:
            await strict.follows.put(ada.id, other)
        except UserInvalid as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for other in others:
            nursery.start_soon(follow, other.id)
    assert len(refused) == 4
    (first, _) = await strict.follows.of(ada.id)
    with pytest.raises(AlreadyFollowing):
        await strict.follows.put(ada.id, first.followed)
    await strict.follows.remove(ada.id, first.followed)
    await strict.follows.put(ada.id, first.followed)
