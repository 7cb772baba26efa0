"""States in the database: what is acknowledged stays, and no stale writer overwrites it."""

from __future__ import annotations

import pytest
import trio

from reileta.errors import SessionNotFound
from reileta.rules.resource.json_values import Json, encode
from reileta.rules.resource.merge_patch import apply_object
from reileta.settings import Settings
from reileta.store import Store, open_store
from tests.conftest import ManualClock
from tests.reileta.store.sessions import make_session


async def test_a_session_begins_with_an_empty_state(store: Store) -> None:
    session, _ = await make_session(store)
    assert await store.states.load(session.id) == ({}, 0)
    with pytest.raises(SessionNotFound):
        await store.states.load("s_none")


async def test_the_patches_of_one_drain_are_one_statement(store: Store) -> None:
    session, _ = await make_session(store)
    before = store.database.statements
    assert await store.states.apply(session.id, base=0, version=3, text='{"a":1}')
    assert store.database.statements == before + 1
    assert await store.states.load(session.id) == ({"a": 1}, 3)


async def test_a_stale_writer_can_not_overwrite(store: Store) -> None:
    session, _ = await make_session(store)
    assert await store.states.apply(session.id, base=0, version=2, text='{"a":2}')
    for base, version in ((0, 1), (0, 2), (1, 9), (3, 4)):
        assert not await store.states.apply(session.id, base=base, version=version, text="{}")
    assert await store.states.load(session.id) == ({"a": 2}, 2)
    with pytest.raises(ValueError, match="grow"):
        await store.states.apply(session.id, base=2, version=2, text="{}")
    assert not await store.states.apply("s_none", base=0, version=1, text="{}")


async def test_a_state_is_kept_letter_for_letter(store: Store) -> None:
    session, _ = await make_session(store)
    state: dict[str, Json] = {
        "a": "\0é",
        "b": 1e300,
        "c": 1.0,
        "d": [-0.0, {"e": None}],
        "f": 2**70,
    }
    text = encode(state)
    assert await store.states.apply(session.id, base=0, version=1, text=text)
    kept, _ = await store.states.load(session.id)
    assert encode(kept) == text


async def test_two_servers_that_write_one_state_lose_nothing(
    database_url: str, clock: ManualClock
) -> None:
    """Each writes until it is told so; every change that was, is in the state, and has a version
    of its own."""
    settings = Settings(database=database_url)
    conflicts = 0
    async with open_store(settings, clock) as one, open_store(settings, clock) as two:
        session, _ = await make_session(one)

        async def write(store: Store, name: str) -> None:
            nonlocal conflicts
            state, version = await store.states.load(session.id)
            for number in range(20):
                while True:
                    after = apply_object(state, {f"{name}{number}": number})
                    if await store.states.apply(
                        session.id, base=version, version=version + 1, text=encode(after)
                    ):
                        state, version = after, version + 1
                        break
                    conflicts += 1
                    state, version = await store.states.load(session.id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, one, "a")
            nursery.start_soon(write, two, "b")
            nursery.start_soon(write, two, "c")
        assert await two.states.load(session.id) == (
            {f"{name}{number}": number for name in "abc" for number in range(20)},
            60,
        )
    assert conflicts > 0
