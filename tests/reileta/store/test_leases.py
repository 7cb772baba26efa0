"""Leases in the database: the rules of S that two servers could break together."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio

from reileta.errors import (
    DatabaseUnavailable,
    ReiletaError,
    ResourceHeld,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
    ResourceTypeUnknown,
    SessionNotFound,
)
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import DOCUMENT, WORLD
from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.leases import LostLease
from reileta.store.worlds import Worlds
from tests.conftest import ManualClock
from tests.reileta.store.sessions import FOR_EVER, make_document, make_session


async def test_a_session_acquires_and_releases_a_resource(store: Store) -> None:
    session, who = await make_session(store)
    made, name = await make_document(store, who, {"a": 1})
    held = await store.leases.acquire(name, who, until=7)
    assert (held.resource, held.fence, held.until) == (made, 1, 7)
    assert await store.leases.of_session(session.id) == held
    assert await store.leases.release(name, who) == LostLease(session.id, name, 1)
    assert await store.leases.of_session(session.id) is None


async def test_what_is_held_is_listed_by_resource_while_it_is_held(
    store: Store, clock: ManualClock
) -> None:
    until = clock.now_ms() + 60_000
    holders = []
    for _ in range(3):
        session, who = await make_session(store)
        _, name = await make_document(store, who)
        await store.leases.acquire(name, who, until=until)
        holders.append((name.number, session.id, who.user, until))
    page = await store.leases.held(query=None, limit=2, offset=1)
    listed = [(one.number, one.session, one.user, one.until) for one in page.items]
    assert (listed, page.total) == (sorted(holders)[1:], 3)
    username = page.items[0].username
    assert (await store.leases.held(query=username.upper(), limit=9, offset=0)).total >= 1
    assert (await store.leases.held(query="nobody_of_that_name", limit=9, offset=0)).items == ()
    clock.advance(60_001)
    assert (await store.leases.held(query=None, limit=9, offset=0)).total == 0


async def test_each_session_can_acquire_up_to_one_resource_at_a_time(store: Store) -> None:
    _, who = await make_session(store)
    _, first = await make_document(store, who)
    _, second = await make_document(store, who)
    await store.leases.acquire(first, who, until=FOR_EVER)
    for name in (second, first):
        with pytest.raises(ResourceHeld, match=str(first)):
            await store.leases.acquire(name, who, until=FOR_EVER)


async def test_each_resource_can_be_acquired_by_up_to_one_session_at_a_time(store: Store) -> None:
    session, who = await make_session(store)
    _, other = await make_session(store)  # of the same user
    _, name = await make_document(store, who)
    await store.leases.acquire(name, who, until=FOR_EVER)
    with pytest.raises(ResourceTaken) as taken:
        await store.leases.acquire(name, other, until=FOR_EVER)
    assert [(one.field, one.message) for one in taken.value.details] == [
        ("session", session.id),
        ("user", who.user),
    ]


async def test_the_release_of_what_nobody_holds_is_no_op_and_of_anothers_is_refused(
    store: Store,
) -> None:
    _, who = await make_session(store)
    _, other = await make_session(store)
    _, name = await make_document(store, who)
    assert await store.leases.release(name, who) is None
    await store.leases.acquire(name, who, until=FOR_EVER)
    with pytest.raises(ResourceTaken):
        await store.leases.release(name, other)


async def test_the_fencing_number_grows_with_each_acquisition(store: Store) -> None:
    _, who = await make_session(store)
    _, other = await make_session(store)
    _, name = await make_document(store, who)
    fences = []
    for one in (who, other, who):
        fences.append((await store.leases.acquire(name, one, until=0)).fence)
        await store.leases.release(name, one)
    assert fences == [1, 2, 3]


async def test_who_was_declared_gone_can_never_write(store: Store, clock: ManualClock) -> None:
    session, who = await make_session(store)
    _, other = await make_session(store)
    _, name = await make_document(store, who, {})
    old = await store.leases.acquire(name, who, until=clock.now_ms())
    assert await store.leases.expire_one(session.id) == LostLease(session.id, name, old.fence)

    async def write(fence: int) -> None:
        await store.resources.write(
            name, who, fence=fence, patch={"data": {"by": "who"}}, if_version=None
        )

    with pytest.raises(ResourceNotAcquired):
        await write(old.fence)
    await store.leases.acquire(name, other, until=FOR_EVER)
    with pytest.raises(ResourceTaken):
        await write(old.fence)
    await store.leases.release(name, other)
    again = await store.leases.acquire(name, who, until=FOR_EVER)
    with pytest.raises(ResourceNotAcquired):
        await write(old.fence)
    await write(again.fence)


async def test_what_is_not_there_is_not_acquired(store: Store) -> None:
    session, who = await make_session(store)
    made, name = await make_document(store, who)
    with pytest.raises(ResourceNotFound):
        await store.leases.acquire(ResourceKey(DOCUMENT, made.number + 1), who, until=0)
    with pytest.raises(ResourceNotFound):
        await store.leases.acquire(ResourceKey(WORLD, made.number), who, until=0)
    with pytest.raises(ResourceTypeUnknown):
        await store.leases.acquire(ResourceKey("song", made.number), who, until=0)
    await store.sessions.end(session.id)
    with pytest.raises(SessionNotFound):
        await store.leases.acquire(name, who, until=0)
    with pytest.raises(SessionNotFound):
        await store.leases.acquire(name, replace(who, session="s_none"), until=0)


async def test_a_session_that_ends_ends_with_its_state_and_resource(store: Store) -> None:
    session, who = await make_session(store)
    _, other = await make_session(store)
    _, name = await make_document(store, who)
    held = await store.leases.acquire(name, who, until=FOR_EVER)
    assert await store.states.apply(session.id, base=0, version=1, text='{"a":1}')
    await store.sessions.end(session.id)
    with pytest.raises(SessionNotFound):
        await store.states.load(session.id)
    assert not await store.states.apply(session.id, base=1, version=2, text='{"a":2}')
    assert not await store.states.apply(session.id, base=2, version=3, text='{"a":2}')
    with pytest.raises(ResourceNotAcquired):
        await store.resources.write(name, who, fence=held.fence, patch={}, if_version=None)
    assert (await store.leases.acquire(name, other, until=0)).fence == held.fence + 1


async def test_the_resource_of_a_session_that_ended_otherwise_is_free_too(store: Store) -> None:
    session, who = await make_session(store)
    _, name = await make_document(store, who)
    await store.leases.acquire(name, who, until=FOR_EVER)
    await store.users.change_password(who.user, "hash", keep=None)
    assert (await store.resources.get(name)).lease.session is None
    _, other = await make_session(store)
    await store.leases.acquire(name, other, until=0)
    assert await store.leases.of_session(session.id) is None


async def test_a_deleted_user_takes_its_resources_and_leases_along(store: Store) -> None:
    async def password(_: str) -> str:
        return "hash"

    await store.users.ensure_system_accounts(password)
    _, who = await make_session(store, "ada")
    _, bob = await make_session(store, "bob")
    _, adas = await make_document(store, who)
    _, bobs = await make_document(store, bob)
    await store.resources.share(bobs, bob, who.user)
    await store.leases.acquire(bobs, who, until=FOR_EVER)
    await store.users.delete(who.user)
    with pytest.raises(ResourceNotFound):
        await store.resources.get(adas)
    left = await store.resources.get(bobs)
    assert (left.lease.session, left.record.shares) == (None, frozenset())


async def test_a_session_without_a_websocket_loses_its_resource_after_a_while(
    store: Store, clock: ManualClock
) -> None:
    session, who = await make_session(store)
    _, name = await make_document(store, who)
    assert await store.leases.expire_one(session.id) is None
    assert not await store.leases.renew(session.id, until=0)
    held = await store.leases.acquire(name, who, until=clock.now_ms() + 60_000)
    assert await store.leases.expire_one(session.id) == held.until
    assert await store.leases.renew(session.id, until=clock.now_ms() + 90_000)
    clock.advance(60_000)
    assert await store.leases.expire_one(session.id) == clock.now_ms() + 30_000
    clock.advance(30_000)
    assert await store.leases.expire_one(session.id) == LostLease(session.id, name, held.fence)
    assert (await store.resources.get(name)).lease.session is None


async def test_the_overdue_lose_theirs_and_those_who_are_here_never(
    store: Store, clock: ManualClock
) -> None:
    sessions = []
    for _ in range(3):
        session, who = await make_session(store)
        _, name = await make_document(store, who)
        await store.leases.acquire(name, who, until=clock.now_ms() + 60_000)
        sessions.append((session.id, name))
    (here, _), (gone, lost), (later, _) = sessions
    clock.advance(59_999)
    assert await store.leases.renew_all([], as_of=clock.now_ms(), until=0) == []
    await store.leases.renew(later, until=clock.now_ms() + 2)
    clock.advance(1)
    until = clock.now_ms() + 80_000
    taken = await store.leases.renew_all([here, "s_none"], as_of=clock.now_ms(), until=until)
    assert taken == [LostLease(gone, lost, 1)]
    kept = await store.leases.of_session(here)
    assert kept is not None
    assert kept.until == until
    assert await store.leases.of_session(later) is not None


async def test_renewals_do_not_wait_for_other_statements(store: Store, clock: ManualClock) -> None:
    session, who = await make_session(store)
    _, name = await make_document(store, who)
    await store.leases.acquire(name, who, until=clock.now_ms() + 60_000)
    until = clock.now_ms() + 80_000
    async with AsyncExitStack() as busy:
        for _ in range(Settings().database_connections):
            await busy.enter_async_context(store.database.connection())
        assert await store.leases.renew_all([session.id], as_of=clock.now_ms(), until=until) == []
    kept = await store.leases.of_session(session.id)
    assert kept is not None
    assert kept.until == until


async def test_any_number_of_leases_is_renewed(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reileta.store.leases.RENEWED_AT_ONCE", 2)
    sessions = []
    for _ in range(5):
        session, who = await make_session(store)
        _, name = await make_document(store, who)
        await store.leases.acquire(name, who, until=clock.now_ms() + 1)
        sessions.append(session.id)
    clock.advance(2)
    now_ms = clock.now_ms()
    assert await store.leases.renew_all(sessions, as_of=now_ms, until=now_ms + 1) == []


async def test_a_database_that_hangs_costs_no_session_its_resource_that_comes_back_meanwhile(
    store: Store, clock: ManualClock
) -> None:
    session, who = await make_session(store)
    _, name = await make_document(store, who)
    await store.leases.acquire(name, who, until=clock.now_ms() + 60_000)
    as_of = clock.now_ms() + 59_999  # when the node saw who has a WebSocket
    clock.advance(70_000)  # until the database answers; the session has come back
    assert await store.leases.renew_all([], as_of=as_of, until=0) == []
    assert await store.leases.of_session(session.id) is not None
    assert await store.leases.renew_all([], as_of=as_of + 1, until=0) == [
        LostLease(session.id, name, 1)
    ]


async def test_others_changes_of_a_world_that_is_held_are_refused(
    store: Store, clock: ManualClock
) -> None:
    session, who = await make_session(store)
    other, _ = await make_session(store)
    world = await store.worlds.create(
        title="Harbour", description=None, capacity=4, owner=who.user, tags=frozenset()
    )
    name = ResourceKey(WORLD, world.number)

    async def rename(by: str | None, title: str) -> None:
        async with store.leases.unheld(name, by) as queries:
            await Worlds(queries, clock).update(world.id, title=title)

    await rename(None, "Quay")
    held = await store.leases.acquire(name, who, until=FOR_EVER)
    assert held.resource.version == 2
    for by in (other.id, None):
        with pytest.raises(ResourceTaken):
            await rename(by, "Pier")
    await rename(session.id, "Jetty")
    found = await store.worlds.get(world.id)
    assert found is not None
    assert found.title == "Jetty"


async def test_nobody_acquires_while_a_change_by_another_way_is_under_way(store: Store) -> None:
    _, who = await make_session(store)
    _, name = await make_document(store, who)
    acquired = trio.Event()

    async def acquire() -> None:
        await store.leases.acquire(name, who, until=FOR_EVER)
        acquired.set()

    async with trio.open_nursery() as nursery, store.leases.unheld(name, None) as queries:
        nursery.start_soon(acquire)
        while not await queries.value(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN "
            "(SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
        ):
            pass
        assert not acquired.is_set()
    assert acquired.is_set()


async def test_many_sessions_on_two_servers_fight_for_few_resources(
    database_url: str, clock: ManualClock
) -> None:
    """The history is checked: at each fence of a resource one session alone had it, only with its
    fence did it write, a session had one thing at a time, and every write that was answered is
    in the data, once."""
    settings = Settings(database=database_url, database_connections=6)
    held: dict[str, set[tuple[int, int]]] = {}
    holders: dict[tuple[int, int], str] = {}
    written: dict[int, list[str]] = {}
    refused: set[type[ReiletaError]] = set()

    async with open_store(settings, clock) as one, open_store(settings, clock) as two:
        _, owner = await make_session(one)
        names = [(await make_document(one, owner, {}))[1] for _ in range(3)]
        sessions = [(await make_session(one))[1] for _ in range(8)]

        async def fight(number: int, store: Store) -> None:
            who = sessions[number % len(sessions)]  # two fighters a session, on two servers
            for turn in range(12):
                name = names[(number * 5 + turn * 7 + turn // 3) % len(names)]
                try:
                    got = await store.leases.acquire(name, who, until=clock.now_ms())
                except (ResourceHeld, ResourceTaken) as error:
                    refused.add(type(error))
                    continue
                key = (name.number, got.fence)
                assert key not in holders, "two had it by one acquisition"
                holders[key] = who.session
                mine = held.setdefault(who.session, set())
                assert not mine, "a session had two resources"
                mine.add(key)
                for step in range(3):
                    mark = f"{number}.{turn}.{step}"
                    try:
                        await store.resources.write(
                            name,
                            who,
                            fence=got.fence,
                            patch={"data": {mark: got.fence}},
                            if_version=None,
                        )
                        written.setdefault(name.number, []).append(mark)
                    except (ResourceNotAcquired, ResourceTaken) as error:
                        refused.add(type(error))
                    if turn % 4 == 3 and step == 1:  # its server takes it for gone
                        mine.clear()
                        await store.leases.expire_one(who.session)
                if key in mine:  # not what the session's other fighter has got meanwhile
                    mine.clear()
                    await store.leases.release(name, who)

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(fight, number, (one, two)[number // 8])

        for name in names:
            found = (await one.resources.get(name)).record
            data = found.data
            assert isinstance(data, dict)
            marks = written.get(name.number, [])
            assert sorted(data) == sorted(marks)
            assert found.version == 1 + len(marks)
            fences = [fence for number, fence in holders if number == name.number]
            assert sorted(fences) == list(range(1, len(fences) + 1))
    assert refused >= {ResourceHeld, ResourceTaken}
    assert sum(map(len, written.values())) > 30


async def test_an_acquisition_whose_database_is_gone_is_none(store: Store) -> None:
    _, who = await make_session(store)
    _, name = await make_document(store, who)
    await store.database.close()
    with pytest.raises(DatabaseUnavailable):
        await store.leases.acquire(name, who, until=0)


@pytest.mark.parametrize("jump_ms", [-86_400_000, 86_400_000])
async def test_a_jump_of_the_servers_clock_takes_no_resource(
    database_url: str, clock: ManualClock, jump_ms: int
) -> None:
    """The database's clock judges, and times are given in the server's, which is right again."""
    async with open_store(Settings(database=database_url), clock) as store:
        session, who = await make_session(store)
        _, name = await make_document(store, who)
        held = await store.leases.acquire(name, who, until=clock.now_ms() + 600_000)
        assert held.until == clock.now_ms() + 600_000
        clock.advance(jump_ms)
        assert await store.leases.renew_all([], as_of=clock.now_ms(), until=0) == []
        kept = await store.leases.of_session(session.id)
        until = await store.leases.expire_one(session.id)
        assert kept is not None
        assert isinstance(until, int)
        for time in (kept.until, until):
            assert 0 < time - clock.now_ms() <= 600_000
        assert await store.leases.renew(session.id, until=clock.now_ms())
        assert await store.leases.expire_one(session.id) == LostLease(session.id, name, held.fence)
