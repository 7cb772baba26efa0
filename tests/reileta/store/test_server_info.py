from __future__ import annotations

from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.server_info import ServerInfos
from tests.conftest import ManualClock


async def test_the_identity_is_made_once(store: Store, clock: ManualClock) -> None:
    first = await store.identity.get()
    clock.advance(5)
    assert await store.identity.get() == first
    assert await ServerInfos(store.database, clock, "Another title").get() == first


async def test_the_settings_title_is_that_of_a_new_server(
    empty_database_url: str, clock: ManualClock
) -> None:
    settings = Settings(database=empty_database_url, title="Harbour")
    async with open_store(settings, clock) as store:
        identity = await store.identity.get()
    assert (identity.title, identity.description) == ("Harbour", None)
    assert identity.created_at == identity.updated_at == clock.now_ms()


async def test_an_update_changes_what_it_names_alone(store: Store, clock: ManualClock) -> None:
    before = await store.identity.get()
    clock.advance(5)
    changed = await store.identity.update(title="New", description="d")
    assert (changed.id, changed.created_at) == (before.id, before.created_at)
    assert (changed.title, changed.description, changed.updated_at) == ("New", "d", clock.now_ms())
    assert (await store.identity.update(description=None)).title == "New"
    assert (await store.identity.get()).description is None


async def test_an_update_before_the_first_look_makes_it(store: Store) -> None:
    await store.database.execute("DELETE FROM server")
    assert (await store.identity.update(title="New")).title == "New"


async def test_the_key_is_replaced_only_by_who_knows_it(store: Store) -> None:
    assert await store.identity.public_key() is None
    assert not await store.identity.replace_public_key("b", known="a")
    assert await store.identity.replace_public_key("a", known=None)
    assert not await store.identity.replace_public_key("b", known=None)
    assert await store.identity.replace_public_key("b", known="a")
    assert await store.identity.public_key() == "b"
