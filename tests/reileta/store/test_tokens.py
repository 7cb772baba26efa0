from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
import trio

from reileta.errors import LoginInvalid, SessionNotFound
from reileta.records import SessionRecord, User
from reileta.security.credentials import digest
from reileta.store import Store
from reileta.store.tokens import DEAD_KEPT, KEPT_MS, Issued
from tests.conftest import ManualClock

HOUR_MS = 3600 * 1000


async def make_user(store: Store, name: str = "ada") -> User:
    return await store.users.create(username=name, displayname=name, password_hash=None)


async def issue(store: Store, session: SessionRecord, key: bytes, *, limit: int = 32) -> Issued:
    now = session.created_at
    return await store.tokens.issue(
        session_id=session.id,
        user_id=session.user_id,
        access_hash=key,
        refresh_hash=b"refresh " + key,
        access_expires=now + HOUR_MS,
        refresh_expires=now + 2 * HOUR_MS,
        limit=limit,
    )


async def live(store: Store, keys: list[bytes]) -> list[bytes]:
    alive = []
    for key in keys:
        found = await store.tokens.by_access(key)
        if found is not None and found[0].killed_at is None:
            alive.append(key)
    return alive


async def test_a_token_comes_with_its_session_and_user(store: Store, clock: ManualClock) -> None:
    user = await make_user(store)
    clock.advance(3)
    session = await store.sessions.open(user.id)
    clock.advance(3)
    issued = await issue(store, session, digest("ua_1"))
    found = await store.tokens.by_access(digest("ua_1"))
    assert found is not None
    token, of, by = found
    assert (of, by) == (session, user)
    assert token.access_hash == issued.access_hash == digest("ua_1")
    assert token.refresh_hash == b"refresh " + digest("ua_1")
    assert (token.session_id, token.user_id) == (session.id, user.id)
    assert token.created_at == clock.now_ms()
    assert token.access_expires == session.created_at + HOUR_MS
    assert token.refresh_expires == session.created_at + 2 * HOUR_MS
    assert token.killed_at is None
    assert issued.evicted == ()
    assert await store.tokens.by_access(digest("ua_2")) is None


async def test_a_token_is_killed_once(store: Store, clock: ManualClock) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    await issue(store, session, b"1")
    assert await store.tokens.kill(b"1", clock.now_ms())
    assert not await store.tokens.kill(b"1", clock.now_ms() + 1)
    assert not await store.tokens.kill(b"2", clock.now_ms())
    found = await store.tokens.by_access(b"1")
    assert found is not None
    assert found[0].killed_at == clock.now_ms()


async def test_over_the_limit_the_oldest_goes(store: Store) -> None:
    user = await make_user(store)
    session, other = await store.sessions.open(user.id), await store.sessions.open(user.id)
    keys = [b"%d" % number for number in range(33)]
    for key, of in zip(keys[:32], itertools.cycle([session, other]), strict=False):
        assert (await issue(store, of, key)).evicted == ()
    assert (await issue(store, session, keys[32])).evicted == (keys[0],)
    assert await live(store, keys) == keys[1:]


async def test_a_smaller_limit_evicts_all_that_are_over(store: Store) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    for key in (b"1", b"2", b"3"):
        await issue(store, session, key)
    assert set((await issue(store, session, b"4", limit=1)).evicted) == {b"1", b"2", b"3"}
    assert await live(store, [b"1", b"2", b"3", b"4"]) == [b"4"]


async def test_dead_tokens_and_other_users_tokens_do_not_count(
    store: Store, clock: ManualClock
) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    stranger = await store.sessions.open((await make_user(store, "bob")).id)
    await issue(store, session, b"expired")
    await issue(store, stranger, b"stranger")
    clock.advance(2 * HOUR_MS)
    later = await store.sessions.open(session.user_id)
    await issue(store, later, b"killed")
    await store.tokens.kill(b"killed", clock.now_ms())
    await issue(store, later, b"1", limit=2)
    assert (await issue(store, later, b"2", limit=2)).evicted == ()
    assert await live(store, [b"expired", b"stranger", b"1", b"2"]) == [
        b"expired",
        b"stranger",
        b"1",
        b"2",
    ]


async def test_logins_at_once_stay_within_the_limit(store: Store) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    keys = [b"%d" % number for number in range(20)]
    evicted: list[bytes] = []

    async def login(key: bytes) -> None:
        evicted.extend((await issue(store, session, key, limit=4)).evicted)

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(login, key)
    alive = await live(store, keys)
    assert len(alive) == 4
    assert sorted(evicted + alive) == sorted(keys)


async def test_logins_and_the_end_of_the_session_do_not_lock_each_other_out(store: Store) -> None:
    user = await make_user(store)
    sessions = [await store.sessions.open(user.id) for _ in range(8)]
    keys = [b"%d" % number for number in range(8)]

    async def login(session: SessionRecord, key: bytes) -> None:
        with suppress(SessionNotFound):
            await issue(store, session, key, limit=2)

    async with trio.open_nursery() as nursery:
        for session, key in zip(sessions, keys, strict=True):
            nursery.start_soon(login, session, key)
            nursery.start_soon(store.sessions.end, session.id)
    assert await live(store, keys) == []


async def test_no_token_for_a_session_that_ended_or_is_anothers(store: Store) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    stranger = await make_user(store, "bob")
    with pytest.raises(SessionNotFound):
        await issue(store, SessionRecord(session.id, stranger.id, 0, None), b"1")
    await store.sessions.end(session.id)
    with pytest.raises(SessionNotFound):
        await issue(store, session, b"2")
    assert await store.tokens.by_access(b"1") is None
    assert await store.tokens.by_access(b"2") is None


async def test_a_token_dead_for_long_is_swept_out_by_the_next(
    store: Store, clock: ManualClock
) -> None:
    user = await make_user(store)
    session = await store.sessions.open(user.id)
    await issue(store, session, b"old")
    clock.advance(KEPT_MS + 2 * HOUR_MS)
    await issue(store, await store.sessions.open(user.id), b"next")
    assert await store.tokens.by_access(b"old") is not None
    clock.advance(1)
    await issue(store, await store.sessions.open(user.id), b"after")
    assert await store.tokens.by_access(b"old") is None
    assert await store.tokens.by_access(b"next") is not None


async def test_a_token_can_do_without_a_refresh_key(store: Store) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    for key in (b"1", b"2"):
        issued = await store.tokens.issue(
            session_id=session.id,
            user_id=session.user_id,
            access_hash=key,
            refresh_hash=None,
            access_expires=session.created_at + 1,
            refresh_expires=session.created_at + 1,
            limit=32,
        )
        assert issued.refresh_hash is None


async def test_so_many_that_are_good_for_nothing_are_kept(store: Store, clock: ManualClock) -> None:
    session = await store.sessions.open((await make_user(store)).id)
    keys = [b"%d" % number for number in range(DEAD_KEPT + 5)]
    for key in keys:
        await issue(store, session, key, limit=1)
    for key in keys:
        await store.tokens.kill(key, clock.now_ms())
    await issue(store, session, b"next")
    left = [key for key in keys if await store.tokens.by_access(key) is not None]
    assert left == keys[-DEAD_KEPT:]
    assert await live(store, [b"next"]) == [b"next"]


async def test_a_token_is_issued_for_the_password_that_was_proven(
    store: Store, clock: ManualClock
) -> None:
    user = await store.users.create(username="ada", displayname="Ada", password_hash="hash")
    session = await store.sessions.open(user.id)

    async def issue_for(proof: str, key: bytes) -> None:
        await store.tokens.issue(
            session_id=session.id,
            user_id=user.id,
            access_hash=key,
            refresh_hash=None,
            access_expires=clock.now_ms() + 1,
            refresh_expires=clock.now_ms() + 1,
            limit=32,
            proof=proof,
        )

    await issue_for("hash", b"1")
    await store.users.change_password(user.id, "other", keep=session.id)
    with pytest.raises(LoginInvalid):
        await issue_for("hash", b"2")
    assert await store.tokens.by_access(b"2") is None
