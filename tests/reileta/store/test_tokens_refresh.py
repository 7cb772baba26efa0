"""Refreshing tokens in the database: who comes first, who comes too late, and who steals."""

from __future__ import annotations

import itertools

import pytest
import trio

from reileta.records import SessionRecord, Token
from reileta.rules.session.tokens import REPEAT_MS, Lifetimes
from reileta.store import Store
from reileta.store.tokens import SPENT_KEPT, Refreshed, Theft, Tokens
from tests.conftest import ManualClock, lease_time
from tests.reileta.store.sessions import make_session, make_user

MINUTE_MS = 60_000
LIFETIMES = Lifetimes(access_ms=15 * MINUTE_MS, refresh_ms=60 * MINUTE_MS)


async def log_in(store: Store, clock: ManualClock) -> SessionRecord:
    """A token with the keys a1 and r1."""
    session, who = await make_session(store)
    pair = LIFETIMES.pair(b"a1", b"r1", clock.now_ms())
    await store.tokens.issue(
        session_id=session.id,
        user_id=who.user,
        access_hash=b"a1",
        refresh_hash=b"r1",
        access_expires=pair.access_expires,
        refresh_expires=pair.refresh_expires,
        limit=32,
    )
    return session


async def refresh(store: Store, key: bytes, number: int) -> Refreshed | Theft | None:
    return await store.tokens.rotate(
        key,
        access_hash=b"a%d" % number,
        new_refresh_hash=b"r%d" % number,
        seed=b"s%d" % number,
        lifetimes=LIFETIMES,
    )


async def later(store: Store, clock: ManualClock, key: bytes, number: int) -> object:
    """Refreshes when a refresh before is not repeated any more."""
    clock.advance(REPEAT_MS)
    return await refresh(store, key, number)


async def token(store: Store, key: bytes) -> Token:
    found = await store.tokens.by_access(key)
    assert found is not None
    return found[0]


async def test_refresh_rotates_both_keys(store: Store, clock: ManualClock) -> None:
    session = await log_in(store, clock)
    clock.advance(MINUTE_MS)
    got = await refresh(store, b"r1", 2)
    assert isinstance(got, Refreshed)
    assert (got.token.access_hash, got.token.refresh_hash) == (b"a2", b"r2")
    assert got.token.access_expires == clock.now_ms() + 15 * MINUTE_MS
    assert got.token.refresh_expires == clock.now_ms() + 60 * MINUTE_MS
    assert (got.token.id, got.token.unused) == (b"a1", True)
    assert (got.session, got.user.id, got.superseded) == (session, session.user_id, ())
    assert await token(store, b"a2") == got.token


async def test_the_old_keys_die_when_the_new_pair_is_first_used(
    store: Store, clock: ManualClock
) -> None:
    await log_in(store, clock)
    old = await token(store, b"a1")
    await refresh(store, b"r1", 2)
    kept = await token(store, b"a1")
    assert (kept.access_hash, kept.access_expires, kept.unused, kept.id) == (
        b"a1",
        old.access_expires,
        False,
        b"a1",
    )
    assert await store.tokens.use(b"a1") is not None  # using the old ones is no first use
    used = await store.tokens.use(b"a2")
    assert used is not None
    assert not used[0].unused
    assert await store.tokens.use(b"a1") is None
    assert await store.tokens.by_access(b"a1") is None
    assert not await store.tokens.first_used(b"a2")
    assert await store.tokens.use(b"a3") is None


async def test_using_the_old_refresh_key_after_that_kills_the_token(
    store: Store, clock: ManualClock
) -> None:
    session = await log_in(store, clock)
    await refresh(store, b"r1", 2)
    await store.tokens.use(b"a2")
    assert await later(store, clock, b"r1", 3) == Theft(b"a1", session.id, session.user_id)
    assert (await token(store, b"a2")).killed_at == clock.now_ms()
    assert await store.tokens.by_access(b"a3") is None
    for key in (b"r1", b"r2", b"r3"):
        assert await refresh(store, key, 4) is None


async def test_who_never_got_the_answer_refreshes_again(store: Store, clock: ManualClock) -> None:
    await log_in(store, clock)
    await refresh(store, b"r1", 2)
    again = await later(store, clock, b"r1", 3)
    assert isinstance(again, Refreshed)
    assert again.superseded == (b"a2",)
    assert await store.tokens.by_access(b"a2") is None
    assert isinstance(await refresh(store, b"r2", 4), Theft), "someone else has got the answer"


async def test_keys_used_up_long_ago_are_remembered_until_they_would_have_expired(
    store: Store, clock: ManualClock
) -> None:
    await log_in(store, clock)
    for number in (2, 3, 4):
        clock.advance(29 * MINUTE_MS)
        assert isinstance(await refresh(store, b"r%d" % (number - 1), number), Refreshed)
    assert await refresh(store, b"r1", 5) is None, "87 minutes old"
    assert isinstance(await refresh(store, b"r2", 5), Theft), "58 minutes old"
    kept = await store.database.fetch("SELECT refresh_hash FROM spent_refreshes")
    assert {row["refresh_hash"] for row in kept} == {b"r2"}


async def test_expired_keys_refresh_nothing(store: Store, clock: ManualClock) -> None:
    await log_in(store, clock)
    clock.advance(60 * MINUTE_MS)
    assert await refresh(store, b"r1", 2) is None
    assert await refresh(store, b"a1", 2) is None


async def test_a_token_is_known_by_its_first_key_for_good(store: Store, clock: ManualClock) -> None:
    session = await log_in(store, clock)
    await refresh(store, b"r1", 2)
    await refresh(store, b"r2", 3)
    assert [one.id for one in await store.tokens.of_session(session.id)] == [b"a1"]
    assert (await token(store, b"a3")).id == (await token(store, b"a2")).id == b"a1"
    assert await store.tokens.kill(b"a1", clock.now_ms())
    assert not await store.tokens.kill(b"a3", clock.now_ms())
    assert await store.tokens.of_session(session.id) == []


@pytest.mark.parametrize("key", [b"a2", b"a3"])
async def test_a_token_is_killed_by_any_key_that_is_good(
    store: Store, clock: ManualClock, key: bytes
) -> None:
    await log_in(store, clock)
    await refresh(store, b"r1", 2)
    await refresh(store, b"r2", 3)
    assert await store.tokens.kill(key, clock.now_ms())


async def test_a_refreshed_token_counts_once_and_by_its_age(
    store: Store, clock: ManualClock
) -> None:
    session = await log_in(store, clock)
    await refresh(store, b"r1", 2)

    async def issue(key: bytes, limit: int) -> tuple[bytes, ...]:
        issued = await store.tokens.issue(
            session_id=session.id,
            user_id=session.user_id,
            access_hash=key,
            refresh_hash=None,
            access_expires=clock.now_ms() + 1,
            refresh_expires=clock.now_ms() + 1,
            limit=limit,
        )
        return issued.evicted

    assert await issue(b"b1", 2) == ()
    assert await issue(b"c1", 2) == (b"a1",)
    assert await refresh(store, b"r2", 3) is None


async def test_of_two_refreshes_at_once_one_wins(store: Store, clock: ManualClock) -> None:
    """All get the pair of the first one."""
    await log_in(store, clock)
    numbers = range(2, 10)
    answers: list[Refreshed | Theft | None] = []

    async def one(number: int) -> None:
        answers.append(await refresh(store, b"r1", number))

    async with trio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(one, number)
    assert all(isinstance(answer, Refreshed) for answer in answers)
    good = [n for n in numbers if await store.tokens.by_access(b"a%d" % n) is not None]
    assert len(good) == 1
    assert {answer.token.access_hash for answer in answers if isinstance(answer, Refreshed)} == {
        b"a%d" % good[0]
    }
    assert isinstance(await refresh(store, b"r%d" % good[0], 10), Refreshed)
    assert isinstance(await later(store, clock, b"r1", 11), Theft)


async def test_refreshes_uses_and_logouts_at_once_leave_one_pair_or_none(
    store: Store, clock: ManualClock
) -> None:
    """Two clients that have stolen from each other: whoever comes with a spent key ends it."""
    session = await log_in(store, clock)
    numbers = itertools.count(2)
    known = [1]
    thefts: list[Theft] = []

    async def client(step: int) -> None:
        for turn in range(6):
            key = known[-1 - (turn * step) % min(len(known), 2)]
            number = next(numbers)
            clock.advance(REPEAT_MS)
            got = await refresh(store, b"r%d" % key, number)
            if isinstance(got, Theft):
                thefts.append(got)
            elif got is not None:
                known.append(number)
                await store.tokens.use(b"a%d" % number)

    async with trio.open_nursery() as nursery:
        for step in range(4):
            nursery.start_soon(client, step)
    assert len(thefts) <= 1
    alive = await store.tokens.of_session(session.id)
    assert (alive == []) is (len(thefts) == 1)


async def test_the_end_of_a_session_and_a_refresh_at_once_leave_nothing(
    store: Store, clock: ManualClock
) -> None:
    session = await log_in(store, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refresh, store, b"r1", 2)
        nursery.start_soon(store.sessions.end, session.id)
        nursery.start_soon(refresh, store, b"r1", 3)
    assert await store.tokens.of_session(session.id) == []
    for key in (b"r1", b"r2", b"r3"):
        assert await refresh(store, key, 4) is None


async def test_a_user_without_tokens_has_none(store: Store) -> None:
    await make_user(store)
    assert await store.tokens.of_session("s_none") == []


async def test_so_many_spent_keys_of_a_token_are_kept(store: Store, clock: ManualClock) -> None:
    await log_in(store, clock)
    for number in range(2, SPENT_KEPT + 10):
        got = await refresh(store, b"r%d" % (number - 1), number)
        assert isinstance(got, Refreshed)
        await store.tokens.first_used(b"a%d" % number)
        clock.advance(1)
    count = await store.database.value("SELECT count(*) FROM spent_refreshes")
    assert count == SPENT_KEPT
    clock.advance(REPEAT_MS)
    assert await refresh(store, b"r1", 1000) is None  # one of long ago
    assert isinstance(await refresh(store, b"r%d" % (SPENT_KEPT - 1), 1001), Theft)


# The same key at once ----------------------------------------------------------------------------


def keys(got: Refreshed | Theft | None) -> tuple[bytes, bytes | None, tuple[bytes, ...]]:
    assert isinstance(got, Refreshed), got
    return got.token.access_hash, got.token.refresh_hash, got.seeds


@pytest.mark.parametrize("used", [False, True])
async def test_for_a_short_time_a_key_gives_the_same_pair_again(
    store: Store, clock: ManualClock, used: bool
) -> None:
    await log_in(store, clock)
    first = await refresh(store, b"r1", 2)
    assert keys(first) == (b"a2", b"r2", (b"s2",))
    if used:
        await store.tokens.use(b"a2")
    clock.advance(REPEAT_MS - 1)
    again = await refresh(store, b"r1", 3)
    assert keys(again) == (b"a2", b"r2", (b"s2",))
    assert isinstance(again, Refreshed)
    assert again.superseded == ()
    assert again.token.refresh_expires == clock.now_ms() - REPEAT_MS + 1 + 60 * MINUTE_MS
    assert await store.tokens.by_access(b"a3") is None


async def test_a_pair_that_was_refreshed_itself_is_given_until_its_successor_is_used(
    store: Store, clock: ManualClock
) -> None:
    await log_in(store, clock)
    await refresh(store, b"r1", 2)
    await refresh(store, b"r2", 3)
    assert keys(await refresh(store, b"r1", 9)) == (b"a2", b"r2", (b"s2",))
    await refresh(store, b"r3", 4)
    assert keys(await refresh(store, b"r1", 9)) == (b"a3", b"r3", (b"s2", b"s3"))
    await store.tokens.use(b"a4")
    for key, seeds in ((b"r1", (b"s2", b"s3", b"s4")), (b"r2", (b"s3", b"s4")), (b"r3", (b"s4",))):
        assert keys(await refresh(store, key, 9)) == (b"a4", b"r4", seeds)


async def test_a_repeat_does_not_begin_the_time_anew(store: Store, clock: ManualClock) -> None:
    await log_in(store, clock)
    await refresh(store, b"r1", 2)
    await store.tokens.use(b"a2")
    for _ in range(2):
        clock.advance(REPEAT_MS // 2 - 1)
        assert keys(await refresh(store, b"r1", 3))[0] == b"a2"
    clock.advance(2)
    assert isinstance(await refresh(store, b"r1", 3), Theft)


async def test_the_clock_of_the_database_judges_the_time_for_repeats(
    store: Store, clock: ManualClock
) -> None:
    """The server's clock is set by an hour in between."""
    await log_in(store, clock)
    steady = ManualClock(clock.now_ms())
    tokens = Tokens(store.database, clock, lease_time(steady))

    async def one(number: int) -> Refreshed | Theft | None:
        return await tokens.rotate(
            b"r1",
            access_hash=b"a%d" % number,
            new_refresh_hash=b"r%d" % number,
            seed=b"s",
            lifetimes=LIFETIMES,
        )

    await one(2)
    await store.tokens.use(b"a2")
    for step_ms in (59 * MINUTE_MS, -118 * MINUTE_MS):
        clock.advance(step_ms)
        assert keys(await one(3))[0] == b"a2"
    steady.advance(REPEAT_MS)
    assert isinstance(await one(3), Theft)


async def test_a_clock_that_was_set_back_does_not_lengthen_the_time_for_repeats(
    store: Store, clock: ManualClock
) -> None:
    await log_in(store, clock)
    await refresh(store, b"r1", 2)
    await store.tokens.use(b"a2")
    clock.advance(-MINUTE_MS)
    assert isinstance(await refresh(store, b"r1", 3), Theft)


async def test_a_key_that_expires_meanwhile_is_repeated(store: Store, clock: ManualClock) -> None:
    await log_in(store, clock)
    clock.advance(60 * MINUTE_MS - 1)
    await refresh(store, b"r1", 2)
    await store.tokens.use(b"a2")
    clock.advance(REPEAT_MS // 2)
    await refresh(store, b"r2", 3)
    assert keys(await refresh(store, b"r1", 4))[0] == b"a2"
    await store.tokens.use(b"a3")
    assert keys(await refresh(store, b"r1", 4))[0] == b"a3"


async def test_a_pair_that_has_expired_is_not_repeated(store: Store, clock: ManualClock) -> None:
    await log_in(store, clock)
    short = Lifetimes(access_ms=1, refresh_ms=1)
    for _ in range(2):
        got = await store.tokens.rotate(
            b"r1", access_hash=b"a2", new_refresh_hash=b"r2", seed=b"s", lifetimes=short
        )
        assert isinstance(got, Refreshed)
        await store.tokens.use(b"a2")
    clock.advance(1)
    assert isinstance(await refresh(store, b"r1", 3), Theft)


async def unhashed(password: str) -> str:
    return "hash"


@pytest.mark.parametrize("how", ["logout", "session", "account"])
async def test_nothing_is_repeated_for_a_token_that_was_revoked(
    store: Store, clock: ManualClock, how: str
) -> None:
    session = await log_in(store, clock)
    await refresh(store, b"r1", 2)
    if how == "logout":
        await store.tokens.kill(b"a2", clock.now_ms())
    elif how == "session":
        await store.sessions.end(session.id)
    else:
        await store.users.ensure_system_accounts(unhashed)
        await store.users.delete(session.user_id)
    assert await refresh(store, b"r1", 3) is None


async def test_seeds_are_deleted_when_they_are_of_no_use_any_more(
    store: Store, clock: ManualClock
) -> None:
    await log_in(store, clock)
    for number in (2, 3, 4):
        await refresh(store, b"r%d" % (number - 1), number)
    clock.advance(REPEAT_MS)
    await refresh(store, b"r4", 5)
    rows = await store.database.fetch("SELECT seed FROM spent_refreshes WHERE seed IS NOT NULL")
    assert rows == []
    assert isinstance(await refresh(store, b"r1", 6), Theft)
