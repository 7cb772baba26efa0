"""What other processes changed: each change once, whoever made it and whenever it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from reileta.records import ADMIN_TAG
from reileta.security.credentials import digest
from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.change_feed import KEPT_S, SWEEP_S, Changed, ChangeFeed
from reileta.store.users import Users
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user, held_up
from tests.reileta.store.test_tokens import issue

NOTHING = Changed()


@pytest.fixture
async def other(database_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """Another process's store over the same database."""
    async with open_store(Settings(database=database_url), clock) as store:
        yield store


async def test_a_change_by_another_process_comes_once(store: Store, other: Store) -> None:
    ada = await a_user(store)
    await other.users.grant(ada.id, "avr:early")
    feed = store.changes
    await feed.begin()
    assert await feed.next() == NOTHING
    await other.users.grant(ada.id, ADMIN_TAG)
    assert await feed.next() == Changed(users=frozenset({ada.id}))
    assert await feed.next() == NOTHING
    await other.users.revoke(ada.id, ADMIN_TAG)
    assert await feed.next() == Changed(users=frozenset({ada.id}))


async def test_ones_own_changes_do_not_come(store: Store, other: Store) -> None:
    await store.changes.begin()
    await other.changes.begin()
    ada = await a_user(store)
    await store.users.grant(ada.id, ADMIN_TAG)
    assert await store.changes.next() == NOTHING
    assert await other.changes.next() == Changed(users=frozenset({ada.id}))


async def test_sessions_and_tokens_that_end_come(store: Store, other: Store) -> None:
    ada = await a_user(store)
    first, second = await store.sessions.open(ada.id), await store.sessions.open(ada.id)
    await issue(store, first, digest("ua_1"))
    await issue(store, second, digest("ua_2"))
    await store.changes.begin()
    await other.tokens.kill(digest("ua_1"), 5)
    assert await store.changes.next() == Changed(tokens=frozenset({digest("ua_1")}))
    await other.sessions.end(second.id)
    told = await store.changes.next()
    assert told == Changed(sessions=frozenset({second.id}), tokens=frozenset({digest("ua_2")}))


async def test_a_user_that_is_deleted_takes_all_along(store: Store, other: Store) -> None:
    async def unhashed(password: str) -> str:
        return "hash"

    await store.users.ensure_system_accounts(unhashed)
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    await issue(store, session, digest("ua_1"))
    tea = await store.instances.create(
        name="tea", title=None, description=None, world="w_1", owner=ada.id, capacity=8,
        tags=frozenset(),
    )  # fmt: skip
    await store.changes.begin()
    await other.users.delete(ada.id)
    assert await store.changes.next() == Changed(
        sessions=frozenset({session.id}),
        tokens=frozenset({digest("ua_1")}),
        instances=frozenset({tea.id}),
    )


async def test_a_transaction_that_began_first_and_ended_last_is_not_passed_over(
    store: Store, other: Store, clock: ManualClock
) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    await store.changes.begin()
    async with other.database.transaction() as transaction:
        await Users(transaction, clock).grant(ada.id, ADMIN_TAG)
        await other.users.grant(bob.id, ADMIN_TAG)
        for wanted in (frozenset({bob.id}), frozenset()):
            assert (await store.changes.next()).users == wanted
    assert (await store.changes.next()).users == {ada.id}
    assert await store.changes.next() == NOTHING


async def test_what_is_rolled_back_does_not_come(
    store: Store, other: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    await store.changes.begin()
    transaction = other.database.transaction()
    users = Users(await transaction.__aenter__(), clock)
    await users.grant(ada.id, ADMIN_TAG)
    error = ZeroDivisionError()
    await transaction.__aexit__(ZeroDivisionError, error, None)
    assert await store.changes.next() == NOTHING


async def test_a_reader_that_could_not_ask_for_long_is_told_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("reileta.store.change_feed.trio.current_time", lambda: now)
    feed = ChangeFeed(store.database)
    await feed.begin()
    now += KEPT_S / 2
    assert not (await feed.next()).gap
    now += KEPT_S / 2 + 1
    assert (await feed.next()).gap
    assert not (await feed.next()).gap


async def test_old_rows_are_swept_out(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("reileta.store.change_feed.trio.current_time", lambda: now)
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    await store.changes.begin()
    await other.users.grant(ada.id, ADMIN_TAG)
    await store.database.execute("UPDATE changes SET at = at - interval '61 minutes'")
    await other.users.grant(bob.id, ADMIN_TAG)
    await store.changes.next()
    now += SWEEP_S + 1
    await store.changes.next()
    rows = await store.database.fetch("SELECT id FROM changes")
    assert [row["id"] for row in rows] == [bob.id]


async def test_writers_do_not_wait_for_each_other(store: Store, other: Store) -> None:
    """Each change is a row of its own: there is no counter that all lock."""
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    async with AsyncExitStack() as stack:
        transaction = await stack.enter_async_context(store.database.transaction())
        await transaction.execute("UPDATE users SET status = 'away' WHERE id = $1", ada.id)
        await other.users.grant(bob.id, ADMIN_TAG)

        async def same() -> None:
            await other.users.grant(ada.id, ADMIN_TAG)

        # Leaving the transaction lets it go on.
        waiting = held_up(store, same)
        await waiting.__aenter__()
    await waiting.__aexit__(None, None, None)
