from __future__ import annotations

import pytest

from reileta.errors import UserNotFound
from reileta.ids import new_id
from reileta.store import Store
from reileta.store.owners import check_owner, is_local
from tests.reileta.store.people import a_user, a_world


def test_a_bare_id_is_a_user_of_this_server() -> None:
    id_ = new_id("u")
    assert is_local(id_)
    assert not is_local(f"{id_}@other.example")


async def test_an_owner_of_this_server_must_be_there(store: Store) -> None:
    await check_owner(store.database, (await a_user(store)).id)
    await check_owner(store.database, f"{new_id('u')}@other.example")
    with pytest.raises(UserNotFound):
        await check_owner(store.database, new_id("u"))


async def test_nothing_is_made_for_who_is_not_there(store: Store) -> None:
    nobody = new_id("u")
    with pytest.raises(UserNotFound):
        await a_world(store, nobody)
    with pytest.raises(UserNotFound):
        await store.instances.create(
            name="tea",
            title=None,
            description=None,
            world="w_1",
            owner=nobody,
            capacity=1,
            tags=frozenset(),
        )
    assert (await store.worlds.get("w_1")) is None
    assert (await store.instances.get("tea")) is None
