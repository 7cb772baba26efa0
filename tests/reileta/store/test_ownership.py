from __future__ import annotations

import pytest

from reileta.errors import UserNotFound
from reileta.ids import new_id
from reileta.records import ADMIN_TAG
from reileta.store import Store
from reileta.store.ownership import is_local, lock_owner
from tests.reileta.store.records import a_user, a_world


def test_a_bare_id_is_a_user_of_this_server() -> None:
    id_ = new_id("u")
    assert is_local(id_)
    assert not is_local(f"{id_}@other.example")


async def test_an_owner_of_this_server_must_be_there(store: Store) -> None:
    async with store.database.transaction() as transaction:
        assert await lock_owner(transaction, (await a_user(store)).id)
        assert await lock_owner(transaction, f"{new_id('u')}@other.example")
        with pytest.raises(UserNotFound):
            await lock_owner(transaction, new_id("u"))


async def test_admins_and_the_servers_own_accounts_have_no_quota(store: Store) -> None:
    async def unhashed(password: str) -> str:
        return "hash"

    await store.users.ensure_system_accounts(unhashed)
    ada = await store.users.grant((await a_user(store)).id, ADMIN_TAG)
    async with store.database.transaction() as transaction:
        for one in (await store.users.server_account(), await store.users.main_admin(), ada):
            assert not await lock_owner(transaction, one.id)


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
