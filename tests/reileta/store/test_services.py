from __future__ import annotations

import pytest
import trio

from reileta.errors import InvalidInput, ServiceExists, ServiceNotFound, UserNotFound
from reileta.ids import new_id
from reileta.records import Page, Service
from reileta.store import Store
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user


async def make(
    store: Store,
    id_: str = "com.example.voice",
    *,
    owner: str = "u_x@other.example",
    title: str = "Voice",
    tags: frozenset[str] = frozenset(),
) -> Service:
    return await store.services.create(
        id=id_, title=title, description=None, url="https://v.example", owner=owner, tags=tags
    )


async def search(
    store: Store, *, query: str | None = None, owner: str | None = None, tag: str | None = None
) -> Page[Service]:
    return await store.services.search(query=query, owner=owner, tag=tag, limit=50, offset=0)


async def test_a_new_service_has_what_it_was_made_with(store: Store, clock: ManualClock) -> None:
    ada = await a_user(store)
    service = await make(store, owner=ada.id, tags=frozenset({"avr:official"}))
    now = clock.now_ms()
    assert service == Service(
        "com.example.voice", "Voice", None, "https://v.example", ada.id,
        frozenset({"avr:official"}), now, now,
    )  # fmt: skip
    assert await store.services.get("com.example.voice") == service
    assert await store.services.get("com.example.other") is None


async def test_an_id_is_given_once(store: Store) -> None:
    made: list[Service] = []
    refused: list[ServiceExists] = []

    async def ask() -> None:
        try:
            made.append(await make(store))
        except ServiceExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask)
    assert (len(made), len(refused)) == (1, 7)


async def test_a_service_needs_an_owner_that_is_there(store: Store) -> None:
    with pytest.raises(UserNotFound):
        await make(store, owner=new_id("u"))
    assert (await search(store)).total == 0


async def test_a_search_filters_and_puts_the_newest_first(store: Store) -> None:
    ada = await a_user(store)
    voice = await make(store, tags=frozenset({"avr:official"}))
    text = await make(store, "org.example.text", owner=ada.id, title="Text 100%")
    assert (await search(store)).items == (text, voice)
    assert (await search(store, query="EXAMPLE.VOICE")).items == (voice,)
    assert (await search(store, query="100%")).items == (text,)
    assert (await search(store, owner=ada.id)).items == (text,)
    assert (await search(store, tag="avr:official")).items == (voice,)
    assert (await search(store, tag="' OR 1=1 --")).items == ()
    with pytest.raises(InvalidInput):
        await search(store, query="\x00")


async def test_an_update_changes_what_it_names_alone(store: Store, clock: ManualClock) -> None:
    before = await make(store)
    clock.advance(5)
    after = await store.services.update(before.id, title="New", url=None, tags=frozenset({"x"}))
    assert (after.title, after.url, after.tags) == ("New", None, frozenset({"x"}))
    assert (after.owner, after.created_at) == (before.owner, before.created_at)
    assert after.updated_at == before.updated_at + 5
    assert (await store.services.update(before.id)).title == "New"
    with pytest.raises(ServiceNotFound):
        await store.services.update("com.example.other", title="x")
    with pytest.raises(ValueError, match="not to be changed"):
        await store.services.update(before.id, id="x")  # type: ignore[call-arg]


async def test_a_service_is_deleted_once(store: Store) -> None:
    await make(store)
    assert await store.services.delete("com.example.voice")
    assert not await store.services.delete("com.example.voice")
    await make(store)
