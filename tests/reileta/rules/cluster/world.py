"""A cluster in one process: nodes with the real rules, and models of NATS, PostgreSQL and clocks.

A call to a witness is a `Flight`, which its driver carries to the witness and back, or drops, at
any time and in any order. Two drivers exist: `storm.py` draws the times of everything from a seed,
and `test_lease_machine.py` lets Hypothesis choose each step.

The world checks one promise, whenever something happens: **a fenced node may not act**. Its
instances can have another host from that moment on. A paused node does nothing, so it is checked
when it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from reileta.rules.cluster.lease import (
    Bury,
    DatabaseMark,
    Fence,
    LeaseTimes,
    NodeLease,
    PeerWatch,
    ReadRecord,
    Record,
    RenewRow,
    WriteRecord,
)

TIMES: Final = LeaseTimes()

Witness = Literal["nats", "database"]


class TwoHosts(AssertionError):
    """A node could act after its row was fenced."""


@dataclass(frozen=True)
class Rules:
    """The rules that a world plays by. Mutants replace some."""

    lease: type[NodeLease] = NodeLease
    watch: type[PeerWatch] = PeerWatch
    times: LeaseTimes = TIMES
    buries_by_revision: bool = True
    fences_by_beat: bool = True
    fences_first: bool = False
    gives_back_first: bool = False


@dataclass
class Nats:
    """The records, and the number of the last write. A server that lost its data counts anew."""

    records: dict[str, Record] = field(default_factory=dict)
    earlier: dict[str, Record] = field(default_factory=dict)
    """The records before the last write, for stale reads."""
    sequence: int = 0
    incarnation: int = 0

    def write(self, node: str, revision: int | None, beat: int, *, buried: bool) -> int | None:
        """Writes if the record has that revision (None: any); the new one, or None if refused."""
        present = self.records.get(node)
        if revision not in (None, 0 if present is None else present.revision):
            return None
        self.earlier = dict(self.records)
        self.sequence += 1
        self.records[node] = Record(self.sequence, beat, "buried" if buried else "up")
        return self.sequence

    def lose_data(self) -> None:
        self.records, self.earlier, self.sequence = {}, {}, 0
        self.incarnation += 1


@dataclass
class Row:
    beat: int = 0
    nats_ok: bool = True
    fenced: bool = False


@dataclass(eq=False)
class Flight:
    """A call under way: to the witness until `request` has run, then back with its answer."""

    node: Node
    incarnation: int
    witness: Witness
    server: int
    """The incarnation of NATS that it was sent to."""
    request: Callable[[], object]
    answer: Callable[[object], None]
    answered: bool = False
    result: object = None


class Node:
    """A server process: it runs the rules, and carries out what they ask for."""

    def __init__(self, world: World, name: str, rate: float, offset_ms: float) -> None:
        self.world = world
        self.name = name
        self._rate = rate
        self._offset_ms = offset_ms
        self.paused = False
        self.dead = False
        self.incarnation = 0
        self._connection = 0
        self.server = -1
        self.start()

    def now(self) -> int:
        """The node's own clock."""
        return int(self._offset_ms + self.world.now_ms * self._rate)

    @property
    def id(self) -> str:
        return f"{self.name}.{self.incarnation}"

    def start(self) -> None:
        """Begins a new incarnation, whose row exists and whose record does not."""
        self.incarnation += 1
        rules = self.world.rules
        self.lease = rules.lease(self.id, self.now(), rules.times)
        self.watch = rules.watch(self.id, rules.times)
        self.world.rows[self.id] = Row()
        self._nats_answered_ms = self.now()
        self._looked_ms = self.now() - rules.times.renew_ms
        self.reconnect()

    def reconnect(self) -> None:
        """Gets a new connection to NATS."""
        self._connection += 1
        self.server = self.world.nats.incarnation
        self.lease.connected(self._connection, self.now())

    def die(self) -> None:
        self.dead = True

    def tick(self) -> None:
        """Sends what is due."""
        now, times, world = self.now(), self.world.rules.times, self.world
        if self.lease.fallen:
            return
        for request in self.lease.due(now):
            match request:
                case RenewRow():
                    self._renew(request, now)
                case ReadRecord():
                    self._read(request, now)
                case WriteRecord():
                    self._write(request, now)
        if now - self._looked_ms >= times.renew_ms:
            self._looked_ms = now
            self._look(now)
        for bury in self.watch.overdue(now):
            self._take_over(bury)
        if self.watch.is_isolated(now, self._nats_answered_ms):
            self._give_back()
        world.check()

    # Calls

    def _call(
        self,
        witness: Witness,
        request: Callable[[], object],
        answer: Callable[[object], None],
    ) -> None:
        flight = Flight(self, self.incarnation, witness, self.server, request, answer)
        self.world.send(flight)

    def _renew(self, request: RenewRow, sent_ms: int) -> None:
        me, world = self.id, self.world
        nats_ok = sent_ms - self._nats_answered_ms <= world.rules.times.look_ms

        def run() -> object:
            row = world.rows[me]
            if row.fenced:
                return None
            row.beat += 1
            row.nats_ok = nats_ok
            return {
                node: DatabaseMark(one.beat, one.nats_ok)
                for node, one in world.rows.items()
                if not one.fenced
            }

        def done(result: object) -> None:
            if isinstance(result, dict):
                self.watch.rows_seen(result, sent_ms, self.now())
                self.lease.row_renewed(request.call, self.now())
            else:
                self.lease.row_refused()

        self._call("database", run, done)

    def _read(self, request: ReadRecord, sent_ms: int) -> None:
        me, world = self.id, self.world

        def done(result: object) -> None:
            self._heard(sent_ms)
            assert result is None or isinstance(result, Record)
            self.lease.record_read(request.call, result, self.now())

        self._call("nats", lambda: world.nats.records.get(me), done)

    def _write(self, request: WriteRecord, sent_ms: int) -> None:
        me, world = self.id, self.world

        def done(result: object) -> None:
            self._heard(sent_ms)
            if isinstance(result, int):
                self.lease.record_written(request.call, result, self.now())
            else:
                self.lease.record_refused(request.call, self.now())

        self._call(
            "nats",
            lambda: world.nats.write(me, request.revision, request.beat, buried=False),
            done,
        )

    def _look(self, sent_ms: int) -> None:
        connection, world = self._connection, self.world

        def done(result: object) -> None:
            self._heard(sent_ms)
            assert isinstance(result, dict)
            if connection == self._connection:
                self.watch.records_seen(result, connection, sent_ms, self.now())

        self._call("nats", world.read_all, done)

    def _heard(self, sent_ms: int) -> None:
        self._nats_answered_ms = max(self._nats_answered_ms, sent_ms)

    # Taking over, and giving back

    def _take_over(self, step: Bury) -> None:
        rules, world = self.world.rules, self.world
        revision = step.revision if rules.buries_by_revision else None

        def bury(then: Callable[[], None]) -> None:
            def done(result: object) -> None:
                if result is not None:
                    then()

            self._call("nats", lambda: world.nats.write(step.node, revision, 0, buried=True), done)

        def fence(then: Callable[[], None]) -> None:
            self._call(
                "database", lambda: world.fence(step.then), lambda ok: then() if ok else None
            )

        if rules.fences_first:
            fence(lambda: bury(lambda: None))
        else:
            bury(lambda: fence(lambda: None))

    def _give_back(self) -> None:
        me, world, lease = self.id, self.world, self.lease
        if not world.rules.gives_back_first:
            lease.yield_up()

        def run() -> object:
            world.fenced(me)
            return True

        self._call("database", run, lambda _: lease.yield_up())


class World:
    """The nodes, the witnesses, and the calls between them."""

    def __init__(self, rules: Rules, clocks: list[tuple[float, float]]) -> None:
        """`clocks`: the rate and the offset (ms) of each node's clock."""
        self.rules = rules
        self.now_ms = 0.0
        self.nats = Nats()
        self.rows: dict[str, Row] = {}
        self.flights: list[Flight] = []
        self.stale_reads = False
        self.takeovers = 0
        self.nodes: list[Node] = []
        for number, (rate, offset_ms) in enumerate(clocks):
            self.nodes.append(Node(self, f"c{number}", rate, offset_ms))

    # Time and nodes

    def advance(self, to_ms: float) -> None:
        self.now_ms = max(self.now_ms, to_ms)

    def resume(self, node: Node) -> None:
        """The paused node goes on: its next step may be a frame."""
        node.paused = False
        self.check()

    # Calls

    def send(self, flight: Flight) -> None:
        self.flights.append(flight)

    def carry(self, flight: Flight) -> bool:
        """Carries the call to its witness, or its answer to its node; whether it goes on.

        A paused node gets nothing: the driver carries the answer again later.
        """
        node = flight.node
        if not flight.answered:
            if flight.witness == "nats" and flight.server != self.nats.incarnation:
                self.flights.remove(flight)  # its connection has ended
                return False
            flight.answered, flight.result = True, flight.request()
            self.check()
            return True
        assert not node.paused
        self.flights.remove(flight)
        if not node.dead and flight.incarnation == node.incarnation:
            flight.answer(flight.result)
            self.check()
        return False

    def drop(self, flight: Flight) -> None:
        self.flights.remove(flight)

    # The witnesses

    def read_all(self) -> dict[str, Record]:
        return dict(self.nats.earlier if self.stale_reads else self.nats.records)

    def fence(self, step: Fence) -> bool:
        row = self.rows[step.node]
        if row.fenced or (self.rules.fences_by_beat and row.beat != step.beat):
            return False
        self.takeovers += 1
        self.fenced(step.node)
        return True

    def fenced(self, id_: str) -> None:
        self.rows[id_].fenced = True

    # The promise

    def check(self) -> None:
        """Raises TwoHosts."""
        for node in self.nodes:
            if node.paused or node.dead or not self.rows[node.id].fenced:
                continue
            if node.lease.may_act(node.now()):
                raise TwoHosts(f"{node.id} may act at {self.now_ms:.0f} ms and is fenced")


Fault = Literal["lost", "unanswered", "late", "answered late"]
"""What becomes of a call: it or its answer is lost, or stays on its way until `deliver_late`."""

STEP_MS: Final = 50.0


class CalmWorld(World):
    """A world in which calls take no time, except for those of the faults that a test asks for."""

    def __init__(self, rules: Rules, clocks: list[tuple[float, float]] | None = None) -> None:
        super().__init__(rules, clocks or [(1.0, 0.0), (1.0, 7_000.0)])
        self.late: list[Flight] = []

    def run(self, ms: float, faults: dict[tuple[str, Witness], Fault] | None = None) -> None:
        """Lets the nodes run for so long, with these faults by node and witness."""
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.advance(min(self.now_ms + STEP_MS, end_ms))
            for node in self.nodes:
                if not node.paused and not node.dead:
                    node.tick()
                self.settle(faults or {})

    def settle(self, faults: dict[tuple[str, Witness], Fault]) -> None:
        """Carries all calls to their ends."""
        while ready := [one for one in self.flights if not (one.answered and one.node.paused)]:
            for flight in ready:
                fault = faults.get((flight.node.name, flight.witness))
                if fault in ("lost", "late") and not flight.answered:
                    self._stop(flight, late=fault == "late")
                elif fault in ("unanswered", "answered late") and flight.answered:
                    self._stop(flight, late=fault == "answered late")
                else:
                    self.carry(flight)

    def _stop(self, flight: Flight, *, late: bool) -> None:
        self.drop(flight)
        if late:
            self.late.append(flight)

    def deliver_late(self) -> None:
        """The late calls arrive, in the order in which they were sent."""
        self.flights += self.late
        self.late = []
        self.settle({})

    def lose_data(self) -> None:
        """NATS restarts without its data; the nodes have not noticed yet."""
        self.nats.lose_data()
