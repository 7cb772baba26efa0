"""The lease of a node: until when it may host instances.

A node is one run of a server process (an incarnation); its id is never used again. Two *witnesses*
confirm that it is alive: a record in NATS and a row in PostgreSQL. A node may host while **either**
has confirmed it lately. Another node may take its instances over only if **both** have been silent,
and must win both by a compare-and-set. So neither an outage of NATS nor one of the database stops a
node, and two hosts of one instance are impossible.

`NodeLease` is a node's own side, `PeerWatch` its view of the other nodes. Both are pure: times are
milliseconds of the node's own clock, which must go on while the machine sleeps (CLOCK_BOOTTIME).
No time of one node is compared with one of another; only the rates of their clocks must agree
within `take_ms / own_ms`. The rules, whose numbers the code and the tests use:

1.  Each witness is renewed every `renew_ms`, with one call at a time, which is given up after
    `patience_ms`. The answer of a call that was given up is ignored, unless it is a refusal.
2.  A confirmation counts from when its call was **sent**, for `own_ms`.
3.  Without a confirmation that counts, the node is silent: it sends, writes and answers nothing for
    its instances, and keeps them. It goes on when a witness confirms it again.
4.  If PostgreSQL refuses a renewal, the node was taken over: it has fallen, for good.
5.  If NATS refuses a renewal, the node reads its record at the leader. A record that it wrote
    itself, by a call that it had given up, is a ghost: the node uses its revision. If the record is
    buried or gone, NATS no longer counts.
6.  NATS counts again after a new write of the record, the *rise*. It needs a confirmation of
    PostgreSQL that was sent after the node saw its record buried or gone, and that still counts
    when the write is sent and when its answer arrives. A node that starts has no record: it begins
    with a rise, too.
7.  Revisions are worth nothing after a reconnect, because a server without its data counts anew:
    the node reads, compares the content, and writes only then.
8.  A node is overdue when its record and its row have not changed for `take_ms`, and both were read
    within `look_ms`. Whoever takes it over first buries the record, expecting the revision that it
    saw, then fences the row, expecting the beat that it saw. If either is refused, the node is
    alive, or another node was faster.
9.  A node that NATS does not answer for `yield_ms`, while PostgreSQL shows for as long that NATS
    answers another node, is isolated: it falls by itself, and gives its instances back after that.
    When NATS comes back for all, one node is the first that it answers: the others have their time.
10. A node that stops gives its instances back after its last word, and deletes row and record.

Why no node hosts what another one took over: when its row is fenced, its last confirmation by
PostgreSQL is older than `take_ms`, which is longer than `own_ms`, or the beat has changed and the
fence is refused. The same is true for NATS and the burial. A rise after the burial needs a renewal
in PostgreSQL, which changes the beat.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, TypeAlias

__all__ = [
    "Bury",
    "DatabaseMark",
    "Fence",
    "LeaseTimes",
    "NodeLease",
    "PeerWatch",
    "ReadRecord",
    "Record",
    "RenewRow",
    "Standing",
    "WriteRecord",
]

NEVER: Final = -(2**62)
"""A time before all others."""
FOREVER: Final = 2**62
"""A time after all others."""

_SHORTEST_RATIO: Final = 1.5
"""`take_ms` to `own_ms`: so much faster than another node's clock may a node's clock be."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """The times of the lease, in milliseconds; equal on all nodes of a cluster.

    Attributes:
        renew_ms: between two renewals at a witness.
        own_ms: for which a confirmation counts.
        take_ms: of silence, after which a node may be taken over.
        patience_ms: after which a call to a witness is given up.
        yield_ms: without an answer of NATS, while it answers others, after which an isolated node
            gives its instances back.
        look_ms: for which a look at a witness is recent.
        unseen_ms: of silence in NATS, after which a node that PostgreSQL shows is asked to yield.
    """

    renew_ms: int = 500
    own_ms: int = 2_000
    take_ms: int = 3_000
    patience_ms: int = 1_000
    yield_ms: int = 3_000
    look_ms: int = 1_500
    unseen_ms: int = 10_000

    def __post_init__(self) -> None:
        """Raises ValueError, naming the times that don't fit each other."""
        if not 0 < self.renew_ms <= self.patience_ms < self.own_ms:
            raise ValueError("a lease needs 0 < renew_ms <= patience_ms < own_ms")
        if self.take_ms < _SHORTEST_RATIO * self.own_ms:
            raise ValueError(
                f"take_ms must be at least {_SHORTEST_RATIO * self.own_ms:g}, that is "
                f"{_SHORTEST_RATIO} times own_ms: clocks of two nodes may differ in their rate"
            )
        if self.yield_ms < self.own_ms or self.unseen_ms < self.yield_ms:
            raise ValueError("a lease needs own_ms <= yield_ms <= unseen_ms")
        if self.look_ms < 2 * self.renew_ms:
            raise ValueError("look_ms must be at least twice renew_ms")


DEFAULT_TIMES: Final = LeaseTimes()

RecordState = Literal["up", "buried"]


@dataclass(frozen=True, slots=True)
class Record:
    """A node's record in NATS, as far as the lease depends on it. Its key is the node's id."""

    revision: int
    beat: int
    state: RecordState


class Standing(Enum):
    """What a node may do."""

    ACTIVE = auto()
    """It may host."""
    SILENT = auto()
    """It keeps its instances, and sends, writes and answers nothing for them (rule 3)."""
    FALLEN = auto()
    """It must forget its instances, and go on under a new id (rules 4 and 9)."""


# What the node is to do


@dataclass(frozen=True, slots=True)
class RenewRow:
    """Renew the row in PostgreSQL. Answers: `row_renewed`, `row_refused`."""

    call: int


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """Read the own record in NATS, at the leader. Answer: `record_read`."""

    call: int
    connection: int


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Write the own record to NATS if it has that revision (0: if there is none), and if the
    connection is still that one. Answers: `record_written`, `record_refused`."""

    call: int
    connection: int
    revision: int
    beat: int


Request: TypeAlias = RenewRow | ReadRecord | WriteRecord


@dataclass(frozen=True, slots=True)
class _Call:
    request: Request
    sent_ms: int


class NodeLease:
    """A node's own lease. Its methods take the present time of the node's clock.

    The caller asks `due` for what to send, sends it, and reports each answer with the number of its
    call. An answer that never comes needs no report.
    """

    def __init__(self, node: str, now_ms: int, times: LeaseTimes = DEFAULT_TIMES) -> None:
        """A lease that nothing has confirmed yet. The row must exist; there is no record."""
        self.node = node
        self.times = times
        self.valid_until_ms = NEVER
        """The node may host while its clock is before this time. The only thing that the paths of
        frames and answers compare; it can change with each answer of a witness."""
        self.fallen = False
        self._calls = 0
        self._row_call: _Call | None = None
        self._row_sent_ms = NEVER
        """When the newest confirmed renewal of the row was sent."""
        self._row_due_ms = now_ms
        self._connection: int | None = None
        self._record_call: _Call | None = None
        self._record_sent_ms = NEVER
        """When the newest confirmed write of the record was sent."""
        self._record_due_ms = now_ms
        self._revision: int | None = None
        """The record's revision; None: it must be read."""
        self._missed_ms: int | None = now_ms
        """When the record was last seen to be buried or gone; None: it counts."""
        self._beat = 0

    # What it may do

    def may_act(self, now_ms: int) -> bool:
        """Whether the node may send, write or answer anything for its instances (rule 3)."""
        return now_ms < self.valid_until_ms

    def standing(self, now_ms: int) -> Standing:
        if self.fallen:
            return Standing.FALLEN
        return Standing.ACTIVE if self.may_act(now_ms) else Standing.SILENT

    def yield_up(self) -> None:
        """The node falls by its own will (rules 9 and 10). Call it before the instances are given
        back: after that, they may have another host at once."""
        self.fallen = True
        self._weigh()

    # What to send

    def due(self, now_ms: int) -> list[Request]:
        """The calls to send now (rule 1). Each is noted as sent at `now_ms`."""
        if self.fallen:
            return []
        requests: list[Request] = []
        if now_ms >= self._row_due_ms and self._idle(self._row_call, now_ms):
            self._row_due_ms = now_ms + self.times.renew_ms
            self._row_call = self._sent(RenewRow(self._next_call()), now_ms)
            requests.append(self._row_call.request)
        if (
            self._connection is not None
            and now_ms >= self._record_due_ms
            and self._idle(self._record_call, now_ms)
        ):
            request = self._record_request(self._connection, now_ms)
            if request is not None:
                self._record_due_ms = now_ms + self.times.renew_ms
                self._record_call = self._sent(request, now_ms)
                requests.append(request)
        return requests

    def next_ms(self, now_ms: int) -> int:
        """When `due` has something to send, or the lease runs out. An answer that comes before can
        make it earlier, but not if it only confirms."""
        if self.fallen:
            return FOREVER
        times = [self._next_call_ms(self._row_due_ms, self._row_call, now_ms)]
        if self._connection is not None and not self._waits_to_rise(now_ms):
            times.append(self._next_call_ms(self._record_due_ms, self._record_call, now_ms))
        if self.may_act(now_ms):
            times.append(self.valid_until_ms)
        return min(times)

    def _next_call_ms(self, due_ms: int, call: _Call | None, now_ms: int) -> int:
        if call is None or now_ms < due_ms:
            return due_ms
        return call.sent_ms + self.times.patience_ms

    def _waits_to_rise(self, now_ms: int) -> bool:
        """Whether a renewal of the row must be confirmed before the record is written."""
        return (
            self._revision is not None
            and self._missed_ms is not None
            and not self._may_rise(self._missed_ms, now_ms)
        )

    def _record_request(self, connection: int, now_ms: int) -> Request | None:
        if self._revision is None:
            return ReadRecord(self._next_call(), connection)
        if self._waits_to_rise(now_ms):
            return None
        self._beat += 1
        return WriteRecord(self._next_call(), connection, self._revision, self._beat)

    def _idle(self, call: _Call | None, now_ms: int) -> bool:
        """Whether no call is under way, or it is given up now."""
        return call is None or now_ms - call.sent_ms >= self.times.patience_ms

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls

    def _sent(self, request: Request, now_ms: int) -> _Call:
        return _Call(request, now_ms)

    # Answers of PostgreSQL

    def row_renewed(self, call: int, now_ms: int) -> None:
        """The row was renewed."""
        sent = self._row_call
        if sent is None or sent.request.call != call:
            return  # given up
        self._row_call = None
        self._row_sent_ms = max(self._row_sent_ms, self._counts_from(sent, now_ms))
        self._weigh()

    def row_refused(self) -> None:
        """There is no such row, or it is fenced: by any call, also one that was given up."""
        self.fallen = True
        self._weigh()

    # Answers of NATS

    def connected(self, connection: int, now_ms: int) -> None:
        """NATS is connected, by a connection with a new number (rule 7)."""
        self._connection = connection
        self._record_call = None
        self._forget_revision()
        self._record_due_ms = now_ms

    def disconnected(self) -> None:
        """NATS is not connected; the answer of a call that is under way is lost."""
        self._connection = None
        self._record_call = None

    def record_written(self, call: int, revision: int, now_ms: int) -> None:
        """The record was written, and has this revision now."""
        sent = self._answered(call)
        if sent is None:
            return
        self._revision = revision
        if self._missed_ms is not None:
            if not self._may_rise(self._missed_ms, now_ms):
                # Too late to count. The next write needs a renewal that is sent after now.
                self._missed_ms = now_ms
                return
            self._missed_ms = None
        self._record_sent_ms = max(self._record_sent_ms, self._counts_from(sent, now_ms))
        self._weigh()

    def record_refused(self, call: int, now_ms: int) -> None:
        """The record has another revision (rule 5): it is read next."""
        if self._answered(call) is not None:
            self._revision = None
            self._record_due_ms = now_ms

    def record_read(self, call: int, record: Record | None, now_ms: int) -> None:
        """The record at the leader; None: there is none."""
        if self._answered(call) is None:
            return
        self._record_due_ms = now_ms
        self._revision = 0 if record is None else record.revision
        if record is None or not self._is_own(record):
            self._missed_ms = now_ms
            self._record_sent_ms = NEVER
            self._weigh()

    def _answered(self, call: int) -> _Call | None:
        """The call that is under way, which ends; None: it was given up."""
        sent = self._record_call
        if sent is None or sent.request.call != call:
            return None
        self._record_call = None
        return sent

    def _counts_from(self, sent: _Call, now_ms: int) -> int:
        """From when a confirmation counts (rule 2)."""
        return sent.sent_ms

    def _is_own(self, record: Record) -> bool:
        """Whether the node wrote the record itself (rule 5)."""
        return record.state == "up" and record.beat <= self._beat

    def _may_rise(self, missed_ms: int, now_ms: int) -> bool:
        """Whether a write of the record counts although it was buried or gone (rule 6)."""
        return missed_ms < self._row_sent_ms and now_ms < self._row_sent_ms + self.times.own_ms

    def _forget_revision(self) -> None:
        """After a reconnect (rule 7)."""
        self._revision = None

    def _weigh(self) -> None:
        """Sets `valid_until_ms` after a change."""
        newest = max(self._row_sent_ms, self._record_sent_ms)
        self.valid_until_ms = (
            NEVER if self.fallen or newest == NEVER else newest + self.times.own_ms
        )


# The other nodes


@dataclass(frozen=True, slots=True)
class DatabaseMark:
    """A node's row, as far as the others depend on it.

    `beat` changes with each renewal. `nats_ok`: whether NATS answered the node lately.
    """

    beat: int
    nats_ok: bool


@dataclass(frozen=True, slots=True)
class Fence:
    """The second step: in one transaction, fence the node's row if it has that beat and is not
    fenced, and free its instances."""

    node: str
    beat: int


@dataclass(frozen=True, slots=True)
class Bury:
    """The first step of a take-over: write the node's record as buried, if it has that revision (0:
    if there is none) and the connection is still that one. If that succeeds, `then` is next."""

    node: str
    connection: int
    revision: int
    then: Fence


class PeerWatch:
    """A node's view of the other nodes: whom it may take over.

    The caller reports each look at a witness, with the time when the look was sent. Of silence,
    only that counts which lies after the answer in which a mark was first seen.
    """

    def __init__(self, node: str, times: LeaseTimes = DEFAULT_TIMES) -> None:
        self.node = node
        self.times = times
        self._rows: dict[str, tuple[DatabaseMark, int]] = {}
        """Each node's row, and when it was first seen so."""
        self._rows_looked_ms = NEVER
        self._others_answered_ms = FOREVER
        """Since when PostgreSQL shows, without a break, that NATS answers another node."""
        self._records: dict[str, tuple[Record | None, int]] = {}
        self._records_looked_ms = NEVER
        self._connection: int | None = None
        self._own: Record | None = None
        self._own_changed_ms = NEVER
        """When this node's own record was last seen to change."""
        self._written_since_ms = NEVER
        """Since when NATS shows this node's renewals, without a break."""
        self._tried_ms: dict[str, int] = {}
        """When each node's take-over was last begun."""

    # What it sees

    def rows_seen(self, rows: Mapping[str, DatabaseMark], sent_ms: int, now_ms: int) -> None:
        """All rows that are not fenced, by a look that was sent at `sent_ms`."""
        before, self._rows = self._rows, {}
        for node, mark in rows.items():
            if node != self.node:
                old = before.get(node)
                same = old is not None and old[0].beat == mark.beat
                self._rows[node] = (mark, old[1] if same and old is not None else now_ms)
        broken = sent_ms - self._rows_looked_ms > self.times.look_ms
        if not self._answers_another(now_ms):
            self._others_answered_ms = FOREVER
        elif broken or self._others_answered_ms == FOREVER:
            self._others_answered_ms = now_ms
        self._rows_looked_ms = max(self._rows_looked_ms, sent_ms)
        for gone in before.keys() - self._rows.keys():
            self._records.pop(gone, None)
            self._tried_ms.pop(gone, None)

    def records_seen(
        self, records: Mapping[str, Record], connection: int, sent_ms: int, now_ms: int
    ) -> None:
        """All records, by a look that was sent at `sent_ms` on that connection."""
        if connection != self._connection:
            self._forget_records()
            self._connection = connection
        for node in self._rows:
            record = records.get(node)
            old = self._records.get(node)
            if old is None or old[0] != record:
                self._records[node] = (record, now_ms)
        own = records.get(self.node)
        if own != self._own:
            if now_ms - self._own_changed_ms > self.times.look_ms:
                self._written_since_ms = now_ms
            self._own, self._own_changed_ms = own, now_ms
        self._records_looked_ms = max(self._records_looked_ms, sent_ms)

    def _forget_records(self) -> None:
        """After a reconnect (rule 7): equal marks may be of different data."""
        self._records.clear()
        self._records_looked_ms = NEVER

    # Taking over

    def overdue(self, now_ms: int) -> list[Bury]:
        """The take-overs to begin now (rule 8)."""
        connection = self._connection
        if connection is None:
            return []
        steps = []
        for node in self._rows:
            if self._is_overdue(node, now_ms):
                record = self._records[node][0]
                self._tried_ms[node] = now_ms
                # The beat of now, not that of the moment after the burial: a renewal in between
                # must make the fence fail.
                fence = Fence(node, self._rows[node][0].beat)
                revision = 0 if record is None else record.revision
                steps.append(Bury(node, connection, revision, fence))
        return steps

    def next_ms(self, now_ms: int, nats_answered_ms: int) -> int:
        """When `overdue` or `is_isolated` may change, if nothing is seen before."""
        times = [max(nats_answered_ms, self._others_answered_ms) + self.times.yield_ms]
        for node, (_, row_since_ms) in self._rows.items():
            silent_ms = self.times.take_ms + jitter_ms(self.node, node)
            tried_ms = self._tried_ms.get(node, NEVER) + 2 * self.times.patience_ms
            record_ms = self._record_silent_from(node, silent_ms)
            times.append(max(row_since_ms + silent_ms, record_ms, tried_ms))
        return min((one for one in times if one > now_ms), default=FOREVER)

    def _is_overdue(self, node: str, now_ms: int) -> bool:
        times = self.times
        if now_ms - self._tried_ms.get(node, NEVER) < 2 * times.patience_ms:
            return False  # under way
        silent_ms = times.take_ms + jitter_ms(self.node, node)
        return self._row_silent(node, now_ms, silent_ms) and self._record_silent(
            node, now_ms, silent_ms
        )

    def _row_silent(self, node: str, now_ms: int, silent_ms: int) -> bool:
        return (
            now_ms - self._rows_looked_ms <= self.times.look_ms
            and now_ms - self._rows[node][1] >= silent_ms
        )

    def _record_silent(self, node: str, now_ms: int, silent_ms: int) -> bool:
        looked = now_ms - self._records_looked_ms <= self.times.look_ms
        return looked and now_ms >= self._record_silent_from(node, silent_ms)

    def _record_silent_from(self, node: str, silent_ms: int) -> int:
        """When the node's record counts as silent, if it does not change."""
        seen = self._records.get(node)
        if seen is None:
            return FOREVER
        record, since_ms = seen
        if record is not None and record.state == "buried":
            # Another node has waited before it buried the record, and failed since then.
            return NEVER
        return since_ms + silent_ms

    # Isolation

    def is_isolated(self, now_ms: int, nats_answered_ms: int) -> bool:
        """Whether this node must yield (rule 9). `nats_answered_ms`: when the newest call that NATS
        has answered was sent."""
        since_ms = max(nats_answered_ms, self._others_answered_ms)
        return now_ms - since_ms >= self.times.yield_ms and self._answers_another(now_ms)

    def _answers_another(self, now_ms: int) -> bool:
        """Whether PostgreSQL shows a node that lives, and that NATS answers."""
        return any(
            mark.nats_ok and now_ms - changed_ms <= self.times.look_ms
            for mark, changed_ms in self._rows.values()
        )

    def unseen(self, now_ms: int) -> list[str]:
        """The nodes that are alive in PostgreSQL and silent in NATS: they are asked to yield.

        Silence counts only while NATS shows the renewals of this node. Without a majority of its
        servers, NATS answers looks, and takes no writes of anyone.
        """
        if now_ms - self._own_changed_ms > self.times.look_ms:
            return []
        return [
            node
            for node, (_, changed_ms) in self._rows.items()
            if now_ms - changed_ms <= self.times.look_ms
            and node in self._records
            and now_ms - max(self._records[node][1], self._written_since_ms) >= self.times.unseen_ms
        ]


def jitter_ms(node: str, peer: str) -> int:
    """By how much longer the node waits before it takes the peer over, so that not all nodes try at
    the same time: 0 to 199 ms."""
    return zlib.crc32(f"{node} {peer}".encode()) % 200
