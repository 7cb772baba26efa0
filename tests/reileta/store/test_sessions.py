from __future__ import annotations

import pytest

from reileta.errors import UserNotFound
from reileta.store import Store
from reileta.store.sessions import BIRTH_MS, ENDED_KEPT, SEEN_EVERY_MS
from tests.conftest import ManualClock
from tests.reileta.store.test_tokens import HOUR_MS, issue, make_user


async def test_a_session_is_opened_and_kept(store: Store, clock: ManualClock) -> None:
    user = await make_user(store)
    session = await store.sessions.open(user.id)
    assert session.id.startswith("s_")
    assert (session.user_id, session.ended_at) == (user.id, None)
    assert session.created_at == clock.now_ms()
    assert await store.sessions.get(session.id) == session
    assert await store.sessions.get("s_none") is None


async def test_nobody_has_no_session(store: Store) -> None:
    with pytest.raises(UserNotFound):
        await store.sessions.open("u_none")


async def test_the_end_of_a_session_kills_its_tokens_alone(
    store: Store, clock: ManualClock
) -> None:
    user = await make_user(store)
    session, other = await store.sessions.open(user.id), await store.sessions.open(user.id)
    first = await issue(store, session, b"1")
    second = await issue(store, session, b"2")
    elsewhere = await issue(store, other, b"3")
    clock.advance(7)

    assert await store.sessions.end(session.id)

    ended = await store.sessions.get(session.id)
    assert ended is not None
    assert ended.ended_at == clock.now_ms()
    for token in (first, second):
        found = await store.tokens.by_access(token.access_hash)
        assert found is not None
        assert found[0].killed_at == clock.now_ms()
        assert found[1] == ended
    found = await store.tokens.by_access(elsewhere.access_hash)
    assert found is not None
    assert found[0].killed_at is None


async def test_a_session_ends_once(store: Store) -> None:
    user = await make_user(store)
    session = await store.sessions.open(user.id)
    assert await store.sessions.end(session.id)
    assert not await store.sessions.end(session.id)
    assert not await store.sessions.end("s_none")


async def test_a_session_whose_tokens_are_all_gone_ends(store: Store, clock: ManualClock) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    issued = await issue(store, session, b"1")
    clock.advance(BIRTH_MS)
    assert not await store.sessions.expire(session.id)
    assert await store.sessions.expire_all() == []
    await store.tokens.kill(issued.access_hash, clock.now_ms())
    assert await store.sessions.expire(session.id)
    assert not await store.sessions.expire(session.id)
    ended = await store.sessions.get(session.id)
    assert ended is not None
    assert ended.ended_at == clock.now_ms()


async def test_sessions_end_when_their_tokens_have_run_out(
    store: Store, clock: ManualClock
) -> None:
    user = await make_user(store)
    first, second = await store.sessions.open(user.id), await store.sessions.open(user.id)
    await issue(store, first, b"1")
    await issue(store, second, b"2")
    clock.advance(2 * HOUR_MS - 1)
    assert await store.sessions.expire_all() == []
    fresh = await store.sessions.open(user.id)
    clock.advance(1)
    assert await store.sessions.expire_all(limit=1) != []
    assert len(await store.sessions.expire_all()) == 1
    assert not await store.sessions.expire(fresh.id), "its first token is to come"
    clock.advance(BIRTH_MS)
    assert await store.sessions.expire_all() == [fresh.id]


async def test_the_sessions_of_a_user_are_listed_newest_first(
    store: Store, clock: ManualClock
) -> None:
    user, other = await make_user(store), await make_user(store, "bob")
    await store.sessions.open(other.id)
    opened = []
    for _ in range(3):
        opened.append(await store.sessions.open(user.id))
        clock.advance(1)
    await store.sessions.end(opened[1].id)
    page = await store.sessions.of_user(user.id, limit=50, offset=0)
    assert (page.items, page.total) == ((opened[2], opened[0]), 2)
    page = await store.sessions.of_user(user.id, limit=1, offset=1)
    assert (page.items, page.total) == ((opened[0],), 2)


async def test_so_many_that_have_ended_are_kept(store: Store, clock: ManualClock) -> None:
    user = await make_user(store)
    opened = []
    for _ in range(ENDED_KEPT + 3):
        opened.append(await store.sessions.open(user.id))
        await store.sessions.end(opened[-1].id)
        clock.advance(1)
    alive = await store.sessions.open(user.id)
    left = [one.id for one in opened if await store.sessions.get(one.id) is not None]
    assert left == [one.id for one in opened[-ENDED_KEPT:]]
    assert await store.sessions.get(alive.id) == alive


async def test_that_a_session_is_in_use_is_written_down_now_and_then(
    store: Store, clock: ManualClock
) -> None:
    user = await make_user(store)
    session, other = await store.sessions.open(user.id), await store.sessions.open(user.id)

    async def last_seen(id_: str) -> int:
        return int(await store.database.value("SELECT last_seen FROM sessions WHERE id = $1", id_))

    opened_at = clock.now_ms()
    clock.advance(SEEN_EVERY_MS - 1)
    await store.sessions.seen([session.id])
    assert await last_seen(session.id) == opened_at
    clock.advance(1)
    await store.sessions.seen([session.id])
    assert await last_seen(session.id) == clock.now_ms()
    assert await last_seen(other.id) == opened_at
    await issue(store, other, b"1")
    assert await last_seen(other.id) == clock.now_ms()
