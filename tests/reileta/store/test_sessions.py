from __future__ import annotations

import pytest

from reileta.errors import UserNotFound
from reileta.store import Store
from tests.conftest import ManualClock
from tests.reileta.store.test_tokens import issue, make_user


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
