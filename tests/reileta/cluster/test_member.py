"""A member over witnesses in memory, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from reileta.cluster.bus import BusUnavailable
from reileta.cluster.member import Load, Member
from reileta.cluster.nats_witness import About, SeenRecord
from reileta.errors import DatabaseUnavailable
from reileta.rules.cluster.lease import Bury, DatabaseMark, ReadRecord, Record, WriteRecord
from reileta.store.cluster_leases import RowsSeen
from tests.reileta.cluster.memory_bus import MemoryBus, MemoryNats

RENEW_S, OWN_S, TAKE_S, YIELD_S = 0.5, 2.0, 3.0, 3.0


@dataclass
class Row:
    name: str
    beat: int = 0
    nats_ok: bool = False
    asked: bool = False
    fenced_by: str | None = None


class FakeRows:
    """The rows of all nodes."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.up = True

    def _check(self) -> None:
        if not self.up:
            raise DatabaseUnavailable

    async def register(self, node: str, *, name: str, roles: object, version: str) -> None:
        self._check()
        self.rows.setdefault(node, Row(name))

    async def renew(self, node: str, *, nats_ok: bool) -> RowsSeen | None:
        self._check()
        row = self.rows.get(node)
        if row is None or row.fenced_by is not None:
            return None
        row.beat += 1
        row.nats_ok = nats_ok
        return RowsSeen(
            {
                id_: DatabaseMark(one.beat, one.nats_ok)
                for id_, one in self.rows.items()
                if one.fenced_by is None
            },
            row.asked,
        )

    async def fence(self, node: str, beat: int, *, by: str) -> list[str] | None:
        self._check()
        row = self.rows[node]
        if row.beat != beat or row.fenced_by is not None:
            return None
        row.fenced_by = by
        return []

    async def give_back(self, node: str) -> list[str]:
        self._check()
        self.rows[node].fenced_by = node
        return []

    async def withdraw(self, node: str) -> list[str]:
        self._check()
        del self.rows[node]
        return []

    async def ask_to_yield(self, node: str) -> bool:
        self.rows[node].asked = True
        return True


@dataclass
class FakeRecords:
    """The records of all nodes, as one bus sees them."""

    bus: MemoryBus
    shared: dict[str, SeenRecord]
    silent: bool = False
    deaf: bool = False
    """Writes are lost."""
    numbers: list[int] = field(default_factory=lambda: [0])

    async def _check(self) -> None:
        if self.silent:
            await trio.sleep_forever()
        if self.bus.connection is None:
            raise BusUnavailable

    def _write(self, node: str, revision: int, beat: int, about: About | None) -> int | None:
        present = self.shared.get(node)
        if revision != (0 if present is None else present.record.revision):
            return None
        self.numbers[0] += 1
        state: Any = "buried" if about is None else "up"
        self.shared[node] = SeenRecord(Record(self.numbers[0], beat, state), about)
        return self.numbers[0]

    async def read(self, node: str, request: ReadRecord) -> Record | None:
        await self._check()
        seen = self.shared.get(node)
        return None if seen is None else seen.record

    async def write(self, node: str, request: WriteRecord, about: About) -> int | None:
        await self._check()
        if self.deaf:
            await trio.sleep_forever()
        return self._write(node, request.revision, request.beat, about)

    async def look(self) -> dict[str, SeenRecord]:
        await self._check()
        return dict(self.shared)

    async def bury(self, step: Bury, *, by: str) -> bool:
        await self._check()
        return self._write(step.node, step.revision, 0, None) is not None

    async def remove(self, node: str, *, connection: int) -> None:
        await self._check()
        self.shared.pop(node, None)


MayRegister = Callable[[], Awaitable[bool]]


async def _always() -> bool:
    return True


class Heard:
    """A listener that remembers."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.events: list[tuple[str, str]] = []
        self.valid_at_fall: list[bool] = []
        member.listeners.append(self)

    def fell(self, was: str) -> None:
        self.valid_at_fall.append(self._member.valid())
        self.events.append(("fell", was))

    def node_gone(self, node: str) -> None:
        self.events.append(("gone", node))

    def node_seen(self, node: str) -> None:
        self.events.append(("seen", node))

    def reconnected(self) -> None:
        self.events.append(("reconnected", ""))


class Process:
    """A process of the cluster, which can be paused, cut off and killed."""

    def __init__(self, world: World, name: str, may: MayRegister = _always) -> None:
        self.bus = world.nats.bus(name)
        self.records = FakeRecords(self.bus, world.records, numbers=world.numbers)
        self.rows = FakeRows()
        self.rows.rows = world.rows.rows
        self.paused_ms = 0
        self.load = Load(0.5, 3, 2, 7, 100)
        self.awake: set[int] = set()
        """When it looked at its clock."""
        self.member = Member(
            bus=self.bus,
            renewals=self.rows,
            rows=self.rows,
            records=self.records,
            cluster="test",
            name=name,
            version="0.1.0",
            load=lambda: self.load,
            may_register=may,
            now_ms=self._now_ms,
        )
        self.heard = Heard(self.member)
        self.life = trio.CancelScope()

    def _now_ms(self) -> int:
        now = int(trio.current_time() * 1000)
        self.awake.add(now)
        return now

    async def run(self) -> None:
        with self.life:
            await self.member.run()


class World:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.nats = MemoryNats()
        self.records: dict[str, SeenRecord] = {}
        self.numbers = [0]
        self.rows = FakeRows()
        self._nursery = nursery

    def start(self, name: str) -> Process:
        process = Process(self, name)
        self._nursery.start_soon(process.run)
        return process


@pytest.fixture
async def world(autojump_clock: MockClock) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery)
        nursery.cancel_scope.cancel()


async def until(true: Callable[[], bool], within_s: float = 60.0) -> float:
    """Waits on the fake clock; how long it took."""
    begun = trio.current_time()
    with trio.fail_after(within_s):
        while not true():
            await trio.sleep(0.01)
    return trio.current_time() - begun


async def pair(world: World) -> tuple[Process, Process]:
    a, b = world.start("a"), world.start("b")
    await until(lambda: len(a.member.nodes) == len(b.member.nodes) == 2)
    return a, b


async def test_a_node_is_valid_once_a_witness_has_confirmed_it(
    world: World, autojump_clock: MockClock
) -> None:
    process = world.start("a")
    assert not process.member.valid()
    await process.member.wait_valid()
    assert process.member.valid()
    assert process.member.node in world.rows.rows
    assert process.member.node.startswith("c_")
    assert 0 < process.member.valid_for_s <= OWN_S


async def test_nodes_see_each_other_with_what_they_say_of_themselves(
    world: World, autojump_clock: MockClock
) -> None:
    a, b = await pair(world)
    seen = a.member.nodes[b.member.node]
    assert (seen.name, seen.state, seen.load, seen.instances) == ("b", "up", 0.5, 2)
    assert (seen.players, seen.capacity, seen.lag_ms, seen.version) == (7, 100, 3, "0.1.0")
    assert a.member.nodes[a.member.node].name == "a"
    assert ("seen", b.member.node) in a.heard.events
    b.load = Load(draining=True)
    await until(lambda: a.member.nodes[b.member.node].state == "draining", 2.0)


@pytest.mark.parametrize("witness", ["nats", "database"])
async def test_either_witness_keeps_a_node_valid(
    world: World, autojump_clock: MockClock, witness: str
) -> None:
    process = world.start("a")
    await process.member.wait_valid()
    await trio.sleep(1.0)
    if witness == "nats":
        process.rows.up = False
    else:
        process.bus.cut()
    for _ in range(100):
        await trio.sleep(0.1)
        assert process.member.valid()


async def test_without_both_it_is_suspended_in_time_and_goes_on_when_one_is_back(
    world: World, autojump_clock: MockClock
) -> None:
    process = world.start("a")
    await process.member.wait_valid()
    await trio.sleep(1.0)
    was = process.member.node
    process.rows.up = False
    process.bus.cut()
    assert await until(lambda: not process.member.valid()) <= OWN_S
    assert process.member.valid_for_s <= 0
    await trio.sleep(30.0)
    assert not process.member.valid()
    process.rows.up = True
    await process.member.wait_valid()
    assert process.member.node == was
    assert process.heard.events == []


async def test_a_witness_that_hangs_is_given_up(world: World, autojump_clock: MockClock) -> None:
    process = world.start("a")
    await process.member.wait_valid()
    await trio.sleep(1.0)
    process.records.silent = True
    for _ in range(50):
        await trio.sleep(0.1)
        assert process.member.valid()
    assert process.member.counts.failures["nats"] > 0


async def test_a_node_that_died_is_taken_over_in_time(
    world: World, autojump_clock: MockClock
) -> None:
    a, b = await pair(world)
    dead = b.member.node
    b.life.cancel()
    took_s = await until(lambda: ("gone", dead) in a.heard.events)
    assert TAKE_S - RENEW_S <= took_s <= 4.1
    assert world.rows.rows[dead].fenced_by == a.member.node
    assert a.member.counts.takeovers == 1
    assert dead not in a.member.nodes


async def test_the_others_hear_of_it_at_once(world: World, autojump_clock: MockClock) -> None:
    a, b = await pair(world)
    c = world.start("c")
    await until(lambda: len(a.member.nodes) == len(b.member.nodes) == 3)
    dead = c.member.node
    c.life.cancel()
    await until(lambda: world.rows.rows[dead].fenced_by is not None)
    await wait_all_tasks_blocked()
    assert [one.heard.events.count(("gone", dead)) for one in (a, b)] == [1, 1]
    await trio.sleep(5.0)
    assert [one.heard.events.count(("gone", dead)) for one in (a, b)] == [1, 1]


@pytest.mark.parametrize("away", ["nats", "database"])
async def test_nobody_is_taken_over_while_a_witness_is_away(
    world: World, autojump_clock: MockClock, away: str
) -> None:
    a, b = await pair(world)
    if away == "nats":
        a.bus.cut()
    else:
        a.rows.up = False
    b.life.cancel()
    await trio.sleep(20.0)
    assert world.rows.rows[b.member.node].fenced_by is None
    assert a.member.valid()


async def test_a_node_that_was_fenced_falls_and_goes_on_as_another_one(
    world: World, autojump_clock: MockClock
) -> None:
    a, b = await pair(world)
    was = a.member.node
    world.rows.rows[was].fenced_by = b.member.node
    await until(lambda: a.heard.events[-1] == ("fell", was), 2.0)
    assert a.heard.valid_at_fall == [False]
    assert a.member.node != was
    await a.member.wait_valid()
    await until(lambda: a.member.node in b.member.nodes)
    assert ("gone", was) in b.heard.events
    assert a.member.counts.falls == 1


async def test_an_isolated_node_gives_its_instances_back_until_nats_answers(
    world: World, autojump_clock: MockClock
) -> None:
    a, b = await pair(world)
    was = a.member.node
    a.bus.cut()
    with capture_logs() as logs:
        took_s = await until(lambda: ("fell", was) in a.heard.events)
    assert YIELD_S - RENEW_S <= took_s <= YIELD_S + 2 * RENEW_S
    assert next(line for line in logs if line["event"] == "node.fell")["isolated"]
    assert a.heard.valid_at_fall == [False]
    await trio.sleep(1.0)
    assert world.rows.rows[was].fenced_by == was
    assert ("gone", was) in b.heard.events
    await trio.sleep(20.0)
    assert (a.member.isolated, a.member.valid()) == (True, False)
    a.bus.mend()
    await a.member.wait_valid()
    assert not a.member.isolated


async def test_an_isolated_node_waits_for_an_answer_not_for_a_connection(
    world: World, autojump_clock: MockClock
) -> None:
    a, _ = await pair(world)
    a.records.silent = True
    await until(lambda: a.member.isolated)
    await trio.sleep(20.0)
    assert not a.member.valid()
    assert a.member.counts.falls == 1
    a.records.silent = False
    await a.member.wait_valid()


async def test_if_no_node_has_nats_nobody_falls(world: World, autojump_clock: MockClock) -> None:
    a, b = await pair(world)
    a.bus.cut()
    b.bus.cut()
    await trio.sleep(20.0)
    assert a.member.valid()
    assert b.member.valid()
    assert a.member.counts.falls == b.member.counts.falls == 0


async def test_a_node_yields_when_it_is_asked_to(world: World, autojump_clock: MockClock) -> None:
    a, _ = await pair(world)
    was = a.member.node
    world.rows.rows[was].asked = True
    await until(lambda: ("fell", was) in a.heard.events, 2.0)
    await a.member.wait_valid()
    assert world.rows.rows[was].fenced_by == was


async def test_a_node_that_only_the_database_shows_is_asked_to_yield(
    world: World, autojump_clock: MockClock
) -> None:
    a, b = await pair(world)
    c = world.start("c")
    await until(lambda: len(a.member.nodes) == 3)
    # c reads NATS, and its writes are lost.
    c.records.deaf = True
    was = c.member.node
    assert await until(lambda: ("fell", was) in c.heard.events, 20.0) >= 9.0
    assert a.member.counts.falls == b.member.counts.falls == 0


async def test_it_withdraws_in_order(world: World, autojump_clock: MockClock) -> None:
    a, b = await pair(world)
    was = a.member.node
    await a.member.withdraw()
    assert not a.member.valid()
    assert was not in world.rows.rows
    assert was not in world.records
    await wait_all_tasks_blocked()
    assert ("gone", was) in b.heard.events
    assert ("fell", was) not in a.heard.events
    await trio.sleep(5.0)
    assert was not in world.records


@pytest.mark.parametrize("told", [True, False])
async def test_a_node_that_goes_before_it_was_seen_is_gone_all_the_same(
    world: World, autojump_clock: MockClock, told: bool
) -> None:
    """Its record was never read; but an instance may be there."""
    a = world.start("a")
    await a.member.wait_valid()
    await trio.sleep(0.2)
    b = world.start("b")
    b.records.deaf = True
    await until(lambda: any(row.name == "b" for row in world.rows.rows.values()))
    await trio.sleep(2 * RENEW_S)
    assert list(a.member.nodes) == [a.member.node]
    if not told:
        b.bus.cut()
    was = b.member.node
    await b.member.withdraw()
    await until(lambda: ("gone", was) in a.heard.events, 2.0)
    await trio.sleep(2.0)
    assert a.heard.events.count(("gone", was)) == 1


async def test_it_does_not_register_while_it_must_not(
    world: World, autojump_clock: MockClock
) -> None:
    allowed = False

    async def may() -> bool:
        return allowed

    process = Process(world, "a", may)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        await trio.sleep(5.0)
        assert world.rows.rows == {}
        allowed = True
        await process.member.wait_valid()
        nursery.cancel_scope.cancel()


async def test_a_new_connection_is_told(world: World, autojump_clock: MockClock) -> None:
    process = world.start("a")
    await process.member.wait_valid()
    process.bus.cut()
    await trio.sleep(0.2)
    assert process.heard.events == []
    process.bus.mend()
    await wait_all_tasks_blocked()
    assert process.heard.events == [("reconnected", "")]


async def test_it_begins_without_either_witness(world: World, autojump_clock: MockClock) -> None:
    process = Process(world, "a")
    process.rows.up = False
    process.bus.cut()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        await trio.sleep(10.0)
        assert not process.member.valid()
        process.rows.up = True
        await process.member.wait_valid()
        nursery.cancel_scope.cancel()


def test_subjects_are_of_the_cluster() -> None:
    member = Member.__new__(Member)
    member.cluster = "blue"
    assert member.subject("n", "c_1", "rpc") == "avr.blue.n.c_1.rpc"


async def test_an_idle_node_wakes_up_for_its_renewals_alone(
    world: World, autojump_clock: MockClock
) -> None:
    a, _ = await pair(world)
    await trio.sleep(5.0)
    a.awake.clear()
    before = dict(a.member.counts.renewals)
    await trio.sleep(60.0)
    assert len(a.awake) <= 121
    renewed = {name: many - before[name] for name, many in a.member.counts.renewals.items()}
    assert all(118 <= many <= 121 for many in renewed.values())
