"""The durable writes of an instance's host, and the sweep of what no node hosts."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

from reileta.errors import DatabaseUnavailable, InstanceNotFound
from reileta.records import Ban, InstanceRecord, Moderation, MuteRecord
from reileta.rules.cluster.placement import Tenure
from reileta.store import Store
from reileta.store.cluster_leases import ClusterLeases, UnhostedSweep, hold
from reileta.store.deeds import KEPT_MS
from reileta.store.host_writes import (
    FencedHostWrites,
    HostWrites,
    Suspended,
    UnfencedHostWrites,
)
from tests.conftest import ManualClock
from tests.reileta.store.records import held_up
from tests.reileta.store.test_instances import make

A, B = "c_a", "c_b"


class Host:
    """A node that hosts a room."""

    def __init__(self, store: Store, room: InstanceRecord, tenure: Tenure) -> None:
        self.store = store
        self.room = room
        self.tenure = tenure
        self.leases = ClusterLeases(store.database)
        self.valid = True
        self.fenced = 0
        self.writes = FencedHostWrites(store, tenure, lambda: self.valid, self._note)

    def _note(self) -> None:
        self.fenced += 1

    def ban(self, user: str = "u_x") -> Ban:
        return Ban(self.room.id, user, None, None, "u_1", 1)

    async def state(self) -> tuple[object, ...]:
        """All that a host can write."""
        row = await self.store.database.fetch_one(
            "SELECT title, empty_since FROM instances WHERE id = $1", self.room.id
        )
        bans = await self.store.bans.of(self.room.id)
        mutes = await self.store.mutes.of(self.room.id)
        return (None if row is None else tuple(row)), len(bans), len(mutes)


@pytest.fixture
async def host(store: Store) -> Host:
    leases = ClusterLeases(store.database)
    for node in (A, B):
        await leases.register(node, name=node, roles=("ins",), version="0.1.0")
    room = await make(store, "room")
    place = await leases.claim(room.id, A)
    return Host(store, room, Tenure(room.id, A, place.epoch))


def log_entry(host: Host, deed: str | None, at: int = 1) -> Moderation:
    return Moderation(host.room.id, host.room.owner, "ban", "u_x", "u_1", None, None, at, deed)


async def write_all(writes: HostWrites, host: Host) -> None:
    assert (await writes.update(title="Harbour")).title == "Harbour"
    assert await writes.occupied(7, entered=True)
    mute = MuteRecord(host.room.id, "u_y", None, None, "u_1", 1)
    assert await writes.moderate([host.ban(), mute]) == {}


async def test_a_host_writes(host: Host) -> None:
    await write_all(host.writes, host)
    assert await host.state() == (("Harbour", 7), 1, 1)
    assert await host.writes.delete()
    assert (await host.state())[0] is None
    assert host.fenced == 0


async def test_without_a_cluster_nothing_is_fenced(host: Host) -> None:
    writes = UnfencedHostWrites(host.store, host.room.id)
    await write_all(writes, host)
    assert await writes.delete()


@pytest.mark.parametrize("how", ["fenced", "left", "moved", "bumped"])
async def test_a_former_host_changes_nothing(host: Host, how: str) -> None:
    before = await host.state()
    match how:
        case "fenced":
            await host.leases.fence(A, 0, by=B)
        case "left":
            await host.leases.leave(host.tenure)
        case "moved":
            await host.leases.move(host.tenure, B)
        case _:
            await host.leases.bump()
    writes = host.writes
    for write in (
        lambda: writes.update(title="Late"),
        lambda: writes.occupied(None, entered=True),
        writes.delete,
        lambda: writes.moderate([host.ban()]),
    ):
        with pytest.raises(Suspended):
            await write()
    assert await host.state() == before
    assert host.fenced == 4


async def test_a_node_without_a_valid_lease_does_not_even_ask(host: Host) -> None:
    host.valid = False
    statements = host.store.database.statements
    for write in (host.writes.delete, lambda: host.writes.moderate([host.ban()])):
        with pytest.raises(Suspended):
            await write()
    assert host.store.database.statements == statements
    assert host.fenced == 0


async def test_an_instance_that_is_gone_is_told_as_that(host: Host) -> None:
    await host.store.instances.delete(host.room.id)
    assert not await host.writes.delete()
    assert not await host.writes.occupied(None, entered=True)
    with pytest.raises(InstanceNotFound):
        await host.writes.update(title="x")
    (error,) = (await host.writes.moderate([host.ban()])).values()
    assert isinstance(error, InstanceNotFound)


async def test_a_fence_waits_for_a_write_that_was_first(host: Host) -> None:
    fenced: list[object] = []

    async def fence() -> None:
        fenced.append(await host.leases.fence(A, 0, by=B))

    async with host.store.database.transaction() as transaction:
        await host.writes._hold_or_gone(transaction)  # noqa: SLF001
        async with held_up(host.store, fence):
            await host.store.instances.over(transaction).update(host.room.id, title="First")
            assert fenced == []
            await transaction.execute("COMMIT; BEGIN")
    assert fenced == [[host.room.id]]
    assert (await host.state())[0] == ("First", (await host.state())[0][1])  # type: ignore[index]


async def test_a_host_that_is_paused_in_a_write_does_not_hold_up_its_fence(host: Host) -> None:
    """PostgreSQL ends the transaction; here after a shorter time than a node has."""
    async with host.store.database.dedicated() as paused:
        await paused.execute("SET idle_in_transaction_session_timeout = 50")
        await paused.execute("BEGIN")
        await hold(paused, host.tenure)
        assert await host.leases.fence(A, 0, by=B) == [host.room.id]
        with pytest.raises(DatabaseUnavailable):
            await paused.execute("COMMIT")


# Deeds


async def test_a_deed_is_noted_with_its_write_and_its_answer(host: Host) -> None:
    update, entry, close, refused = (str(uuid4()) for _ in range(4))
    record = await host.writes.update(update, title="Harbour")
    answer = await host.writes.answer(update)
    assert answer is not None
    assert msgspec.msgpack.decode(answer, type=InstanceRecord) == record
    assert await host.writes.moderate([host.ban(), log_entry(host, entry)]) == {}
    assert await host.writes.answer(entry) == b""
    with pytest.raises(InstanceNotFound):
        await FencedHostWrites(
            host.store, Tenure("i_none", A, 1), lambda: True, lambda: None
        ).update(refused, title="x")
    assert await host.writes.answer(refused) is None
    assert await host.writes.delete(close)
    assert await host.writes.answer(close) == b""
    assert await host.writes.answer(entry) == b""
    (error, _) = (await host.writes.moderate([host.ban(), log_entry(host, refused)])).values()
    assert isinstance(error, InstanceNotFound)
    assert await host.writes.answer(refused) is None


async def test_the_log_has_a_deed_once_however_often_it_is_written(host: Host) -> None:
    deed = str(uuid4())
    for at in (1, 2, 3):
        await host.writes.moderate([log_entry(host, deed, at)])
    page = await host.store.moderations.of(host.room.id, owner=None, limit=9, offset=0)
    assert [one.created_at for one in page.items] == [1]


async def test_a_former_host_notes_no_deed(host: Host) -> None:
    await host.leases.fence(A, 0, by=B)
    deed = str(uuid4())
    with pytest.raises(Suspended):
        await host.writes.update(deed, title="Late")
    with pytest.raises(Suspended):
        await host.writes.moderate([log_entry(host, deed)])
    assert await host.writes.answer(deed) is None


async def test_the_sweep_forgets_deeds_after_a_while(host: Host, store: Store) -> None:
    old, new = str(uuid4()), str(uuid4())
    for deed in (old, new):
        await store.deeds.note(deed, b"")
    await store.database.execute(
        "UPDATE deeds_done SET at = at - $2 WHERE deed = $1::text::uuid", old, KEPT_MS
    )
    await UnhostedSweep(store.database, store.instances).run(1000, 0, 0)
    assert await store.deeds.answer(old) is None
    assert await store.deeds.answer(new) == b""


async def test_without_a_cluster_no_statement_is_about_deeds(host: Host) -> None:
    writes, database = UnfencedHostWrites(host.store, host.room.id), host.store.database
    await writes.update(None, title="x")
    assert await writes.moderate([log_entry(host, None)]) == {}
    assert await writes.answer(str(uuid4())) is None
    assert await database.value("SELECT count(*) FROM deeds_done") == 0


# The sweep


async def test_the_sweep_leaves_alone_what_a_node_hosts(
    host: Host, store: Store, clock: ManualClock
) -> None:
    other = await make(store, "other")
    for room in (host.room, other):
        await store.instances.occupied(room.id, None, entered=True)
    sweep = UnhostedSweep(store.database, store.instances)
    assert await sweep.run(1000, 0, 0) == []
    assert await store.instances.in_use() == [host.room.id]
    assert [one.id for one in await sweep.run(2000, 1001, 1001)] == [other.id]
    assert await store.instances.get(host.room.id) is not None


async def test_the_sweep_deletes_nothing_that_is_hosted_and_looks_empty(
    host: Host, store: Store
) -> None:
    await store.instances.occupied(host.room.id, 5, entered=True)
    sweep = UnhostedSweep(store.database, store.instances)
    assert await sweep.run(1000, 500, 500) == []
    await host.leases.fence(A, 0, by=B)
    assert [one.id for one in await sweep.run(1000, 500, 500)] == [host.room.id]


async def test_the_sweep_goes_on_if_an_instance_is_deleted_meanwhile(
    host: Host, store: Store
) -> None:
    await host.leases.leave(host.tenure)
    others = [await make(store, f"other{number}") for number in range(3)]
    for room in (host.room, *others):
        await store.instances.occupied(room.id, 5, entered=True)
    deleted: list[InstanceRecord] = []

    async def sweep() -> None:
        deleted.extend(await UnhostedSweep(store.database, store.instances).run(1000, 500, 500))

    async with store.database.transaction() as transaction:
        await store.instances.over(transaction).delete(host.room.id)
        async with held_up(store, sweep):
            await transaction.execute("COMMIT; BEGIN")
    assert {one.id for one in deleted} == {one.id for one in others}
    assert await store.database.value("SELECT count(*) FROM instances") == 0


async def test_one_node_sweeps_at_a_time(host: Host, store: Store) -> None:
    await store.instances.occupied(host.room.id, 5, entered=True)
    await host.leases.leave(host.tenure)
    sweep = UnhostedSweep(store.database, store.instances)
    async with store.database.transaction() as transaction:
        key = 0x7265696C65746132
        assert await transaction.value("SELECT pg_try_advisory_xact_lock($1::bigint)", key)
        assert await sweep.run(1000, 500, 500) == []
    assert len(await sweep.run(1000, 500, 500)) == 1


async def test_a_claim_that_waits_for_the_sweep_finds_the_instance_gone(
    host: Host, store: Store
) -> None:
    await host.leases.leave(host.tenure)
    answers: list[object] = []

    async def claim() -> None:
        try:
            answers.append(await host.leases.claim(host.room.id, B))
        except InstanceNotFound:
            answers.append(None)

    async with store.database.transaction() as transaction:
        await transaction.execute(
            "UPDATE places SET node = node WHERE instance_id = $1", host.room.id
        )
        async with held_up(store, claim):
            await store.instances.over(transaction).delete(host.room.id)
            await transaction.execute("COMMIT; BEGIN")
    assert answers == [None]


async def test_a_server_alone_ends_all_nodes_of_before(host: Host) -> None:
    assert await host.leases.clear() == 2
    assert await host.leases.renew(A, nats_ok=True) is None
    assert (await host.leases.place(host.room.id)).node is None
    assert await host.leases.clear() == 0


async def test_operators_see_all_nodes(host: Host) -> None:
    await host.leases.fence(B, 0, by=A)
    rows = await host.leases.nodes()
    assert [(row.id, row.instances, row.fenced_by) for row in rows] == [(A, 1, None), (B, 0, A)]
    assert await host.leases.epochs() == (0, 1)
