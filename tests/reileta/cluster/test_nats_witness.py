"""NATS as a witness, with the rules of the lease over a real server."""

from __future__ import annotations

import pytest

from reileta.cluster.bus import Bus
from reileta.cluster.key_value import Bucket, KeyValue
from reileta.cluster.nats_witness import About, NatsWitness
from reileta.rules.cluster.lease import (
    Bury,
    Fence,
    NodeLease,
    ReadRecord,
    Record,
    RenewRow,
    Request,
    Standing,
    WriteRecord,
)
from tests.nats_server import NatsServer
from tests.reileta.cluster.conftest import connected, disconnected

pytestmark = pytest.mark.slow

ME = "c_me"
ABOUT = About("0.1.0", ("reil", "ins"), load=0.5, instances=3, capacity=10)


@pytest.fixture
def witness(bus: Bus) -> NatsWitness:
    return NatsWitness(bus, "test")


class Living:
    """A node's lease over a witness; its row is confirmed each time, unless it is cut off."""

    def __init__(self, bus: Bus, witness: NatsWitness) -> None:
        self.bus = bus
        self.witness = witness
        self.lease = NodeLease(ME, 0)
        self.now_ms = 0
        self.database = True
        self.connect()

    def connect(self) -> None:
        assert self.bus.connection is not None
        self.lease.connected(self.bus.connection, self.now_ms)

    async def live(self, ms: int) -> None:
        for _ in range(0, ms, 100):
            self.now_ms += 100
            while requests := self.lease.due(self.now_ms):
                for request in requests:
                    await self.carry_out(request)

    async def carry_out(self, request: Request) -> None:
        match request:
            case RenewRow():
                if self.database:
                    self.lease.row_renewed(request.call, self.now_ms)
            case ReadRecord():
                record = await self.witness.read(ME, request)
                self.lease.record_read(request.call, record, self.now_ms)
            case WriteRecord():
                revision = await self.witness.write(ME, request, ABOUT)
                if revision is None:
                    self.lease.record_refused(request.call, self.now_ms)
                else:
                    self.lease.record_written(request.call, revision, self.now_ms)

    def standing(self) -> Standing:
        return self.lease.standing(self.now_ms)


@pytest.fixture
async def living(bus: Bus, witness: NatsWitness) -> Living:
    """A node that lives by NATS alone."""
    living = Living(bus, witness)
    await living.live(2_000)
    living.database = False
    await living.live(5_000)
    assert living.standing() is Standing.ACTIVE
    return living


def bury(bus: Bus, revision: int) -> Bury:
    assert bus.connection is not None
    return Bury(ME, bus.connection, revision, Fence(ME, 0))


async def test_others_see_a_node_and_what_it_says_of_itself(
    living: Living, witness: NatsWitness
) -> None:
    before = (await witness.look())[ME]
    assert before.record.state == "up"
    assert before.about == ABOUT
    await living.live(500)
    after = (await witness.look())[ME]
    assert after.record.revision > before.record.revision
    assert after.record.beat > before.record.beat


async def test_a_burial_expects_the_revision_that_was_seen(
    living: Living, witness: NatsWitness
) -> None:
    seen = (await witness.look())[ME].record
    await living.live(500)
    assert not await witness.bury(bury(living.bus, seen.revision), by="c_other")
    await living.live(5_000)
    assert living.standing() is Standing.ACTIVE


async def test_a_buried_node_is_silent_until_postgresql_confirms_it(
    living: Living, witness: NatsWitness
) -> None:
    seen = (await witness.look())[ME].record
    assert await witness.bury(bury(living.bus, seen.revision), by="c_other")
    assert (await witness.look())[ME].record.state == "buried"
    await living.live(3_000)
    assert living.standing() is Standing.SILENT
    living.database = True
    await living.live(2_000)
    living.database = False
    await living.live(5_000)
    assert living.standing() is Standing.ACTIVE
    assert (await witness.look())[ME].record.state == "up"


async def test_a_node_goes_on_after_a_restart_of_nats(living: Living, nats: NatsServer) -> None:
    await nats.kill()
    await disconnected(living.bus)
    living.lease.disconnected()
    await nats.start()
    await connected(living.bus)
    living.connect()
    await living.live(5_000)
    assert living.standing() is Standing.ACTIVE


async def test_a_nats_that_lost_its_data_counts_again_once_postgresql_confirms(
    living: Living, nats: NatsServer, witness: NatsWitness
) -> None:
    await nats.kill()
    await disconnected(living.bus)
    living.lease.disconnected()
    nats.forget()
    await nats.start()
    await connected(living.bus)
    living.connect()
    await living.live(3_000)
    assert living.standing() is Standing.SILENT
    living.database = True
    await living.live(2_000)
    living.database = False
    await living.live(5_000)
    assert living.standing() is Standing.ACTIVE
    assert list(await witness.look()) == [ME]


async def test_a_node_that_has_stopped_leaves_no_record(
    living: Living, witness: NatsWitness
) -> None:
    assert living.bus.connection is not None
    for _ in range(2):
        await witness.remove(ME, connection=living.bus.connection)
        seen = (await witness.look()).get(ME)
        assert seen is None or seen.about is None


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b'{"beat": "1", "state": "up"}', b"[]"])
async def test_a_record_that_cannot_be_read_is_nobodys(
    bus: Bus, living: Living, witness: NatsWitness, value: bytes
) -> None:
    assert bus.connection is not None
    records = KeyValue(bus, Bucket("avr_test_nodes"))
    seen = (await witness.look())[ME].record
    revision = await records.write(
        ME, value, revision=seen.revision, ttl_s=60, connection=bus.connection
    )
    assert (await witness.look())[ME].record == Record(revision, 2**62, "up")
    await living.live(3_000)
    assert living.standing() is Standing.SILENT, "as after a burial"
