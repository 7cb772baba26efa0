from __future__ import annotations

import pytest

from reileta.errors import InstanceNotFound, InvalidInput
from reileta.records import Ban
from reileta.store import Store
from tests.reileta.store.test_instances import make


async def test_bans_are_kept_until_they_are_lifted(store: Store) -> None:
    lobby, other = await make(store, "lobby"), await make(store, "other")
    first = Ban(lobby.id, "u_x", None, None, "u_a", 1)
    second = Ban(lobby.id, "u_y@x.org", 99, "spam", "u_a", 2)
    elsewhere = Ban(other.id, "u_x", None, None, "u_a", 3)
    for ban in (second, first, elsewhere):
        await store.bans.put(ban)
    assert await store.bans.of(lobby.id) == [first, second]
    assert await store.bans.remove(lobby.id, "u_x")
    assert not await store.bans.remove(lobby.id, "u_x")
    assert await store.bans.of(lobby.id) == [second]
    assert await store.bans.of(other.id) == [elsewhere]


async def test_a_new_ban_takes_the_place_of_the_earlier_one(store: Store) -> None:
    lobby = await make(store, "lobby")
    await store.bans.put(Ban(lobby.id, "u_x", None, "first", "u_a", 1))
    later = Ban(lobby.id, "u_x", 50, "second", "u_b", 2)
    await store.bans.put(later)
    assert await store.bans.of(lobby.id) == [later]


async def test_an_instance_that_is_not_there_bans_nobody(store: Store) -> None:
    with pytest.raises(InstanceNotFound):
        await store.bans.put(Ban("i_none", "u_x", None, None, "u_a", 1))
    assert await store.bans.of("i_none") == []


async def test_a_reason_that_can_not_be_kept_is_invalid(store: Store) -> None:
    lobby = await make(store, "lobby")
    with pytest.raises(InvalidInput):
        await store.bans.put(Ban(lobby.id, "u_x", None, "\x00", "u_a", 1))
