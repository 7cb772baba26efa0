"""The rules of the lease, one by one."""

from __future__ import annotations

import pytest

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
    Request,
    Standing,
    WriteRecord,
    jitter_ms,
)

ME, PEER = "c_me", "c_peer"
LONG_AFTER_MS = 1_000_000


class Asked:
    """A lease, and what it asked for last."""

    def __init__(self, *, connected: bool = True) -> None:
        self.lease = NodeLease(ME, 0)
        if connected:
            self.lease.connected(1, 0)

    def due(self, now_ms: int) -> list[Request]:
        return self.lease.due(now_ms)

    def row(self, now_ms: int) -> RenewRow:
        return next(one for one in self.due(now_ms) if isinstance(one, RenewRow))

    def read(self, now_ms: int) -> ReadRecord:
        return next(one for one in self.due(now_ms) if isinstance(one, ReadRecord))

    def write(self, now_ms: int) -> WriteRecord:
        return next(one for one in self.due(now_ms) if isinstance(one, WriteRecord))

    def confirm_row(self, now_ms: int) -> None:
        self.lease.row_renewed(self.row(now_ms).call, now_ms)


def risen() -> Asked:
    """A lease that both witnesses have confirmed by calls that were sent at 1 ms and 2 ms."""
    asked = Asked()
    row, read = asked.due(0)
    assert isinstance(row, RenewRow)
    assert isinstance(read, ReadRecord)
    asked.lease.record_read(read.call, None, 0)
    asked.lease.row_renewed(row.call, 0)
    assert asked.due(1) == [], "a rise needs a renewal that was sent after the look"
    asked.confirm_row(500)
    write = asked.write(501)
    assert write.revision == 0
    asked.lease.record_written(write.call, 7, 502)
    return asked


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("take_ms", 2_999, "take_ms"),
        ("own_ms", 2_001, "take_ms"),
        ("patience_ms", 2_000, "patience_ms"),
        ("renew_ms", 0, "renew_ms"),
        ("renew_ms", 800, "look_ms"),
        ("yield_ms", 1_999, "yield_ms"),
        ("unseen_ms", 2_999, "unseen_ms"),
    ],
)
def test_times_that_do_not_fit_are_refused(field: str, value: int, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        LeaseTimes(**{field: value})


def test_a_new_lease_allows_nothing() -> None:
    lease = NodeLease(ME, 0)
    assert lease.standing(0) is Standing.SILENT


def test_1_each_witness_has_one_call_at_a_time_which_is_given_up() -> None:
    asked = Asked()
    assert len(asked.due(0)) == 2
    assert asked.due(999) == []
    assert len(asked.due(1_000)) == 2


def test_1_a_renewal_that_was_answered_is_followed_by_the_next_after_the_interval() -> None:
    asked = Asked(connected=False)
    asked.confirm_row(0)
    assert asked.due(499) == []
    assert len(asked.due(500)) == 1


def test_1_the_answer_of_a_call_that_was_given_up_is_ignored() -> None:
    asked = Asked(connected=False)
    first = asked.row(0)
    asked.row(1_000)
    asked.lease.row_renewed(first.call, 1_001)
    assert not asked.lease.may_act(1_001)


@pytest.mark.parametrize("answered_ms", [0, 900])
def test_2_a_confirmation_counts_from_when_it_was_sent(answered_ms: int) -> None:
    asked = Asked(connected=False)
    asked.lease.row_renewed(asked.row(0).call, answered_ms)
    assert asked.lease.may_act(1_999)
    assert not asked.lease.may_act(2_000)


def test_3_a_silent_node_goes_on_when_a_witness_confirms_it() -> None:
    asked = Asked(connected=False)
    asked.confirm_row(0)
    assert asked.lease.standing(3_000) is Standing.SILENT
    asked.confirm_row(3_000)
    assert asked.lease.standing(3_001) is Standing.ACTIVE


def test_4_a_refused_renewal_is_the_fall() -> None:
    asked = risen()
    asked.lease.row_refused()
    assert asked.lease.standing(503) is Standing.FALLEN
    assert asked.due(LONG_AFTER_MS) == []


def test_5_an_own_ghost_is_adopted() -> None:
    asked = risen()
    given_up = asked.write(1_001)
    newest = asked.write(2_001)
    assert newest.revision == 7
    asked.lease.record_refused(newest.call, 2_002)
    asked.lease.record_read(asked.read(2_002).call, Record(9, given_up.beat, "up"), 2_003)
    again = asked.write(2_003)
    assert again.revision == 9
    asked.lease.record_written(again.call, 10, 2_004)
    assert asked.lease.may_act(4_002), "without a renewal in PostgreSQL"


@pytest.mark.parametrize(
    "record", [None, Record(9, 0, "buried"), Record(9, 1_000, "up")], ids=["gone", "buried", "odd"]
)
def test_5_a_record_that_is_not_its_own_makes_nats_count_no_more(record: Record | None) -> None:
    asked = risen()
    write = asked.write(1_001)
    asked.lease.record_refused(write.call, 1_002)
    asked.lease.record_read(asked.read(1_002).call, record, 1_003)
    assert asked.lease.valid_until_ms == 2_500, "as PostgreSQL has confirmed"


def missed(asked: Asked, now_ms: int) -> None:
    """The record is seen to be buried."""
    asked.lease.record_refused(asked.write(now_ms).call, now_ms)
    asked.lease.record_read(asked.read(now_ms).call, Record(20, 0, "buried"), now_ms)


def test_6_a_rise_needs_a_renewal_that_was_sent_after_the_look() -> None:
    asked = risen()
    row = asked.row(1_000)
    missed(asked, 1_400)
    asked.lease.row_renewed(row.call, 1_401)
    assert asked.due(1_402) == []
    asked.confirm_row(1_500)
    assert asked.write(1_501).revision == 20


def test_6_a_rise_is_not_sent_once_its_renewal_counts_no_more() -> None:
    asked = risen()
    missed(asked, 1_001)
    asked.confirm_row(2_001)
    assert not [one for one in asked.due(4_001) if isinstance(one, WriteRecord)]


def test_6_a_rise_that_is_answered_too_late_does_not_count() -> None:
    asked = risen()
    missed(asked, 1_001)
    asked.confirm_row(2_001)
    write = asked.write(3_900)
    asked.lease.record_written(write.call, 21, 4_001)
    assert not asked.lease.may_act(4_001)
    asked.confirm_row(4_900)
    assert asked.write(4_901).revision == 21, "the next one may count"


def test_7_after_a_reconnect_the_record_is_read_before_it_is_written() -> None:
    asked = risen()
    asked.lease.disconnected()
    assert [type(one) for one in asked.due(1_500)] == [RenewRow]
    asked.lease.connected(2, 2_000)
    read = asked.read(2_000)
    assert read.connection == 2
    asked.lease.record_read(read.call, Record(3, 1, "up"), 2_001)
    write = asked.write(2_001)
    assert (write.connection, write.revision) == (2, 3)


# The view of the others


class Watching:
    """A view of one peer, which is looked at every 500 ms."""

    def __init__(self) -> None:
        self.watch = PeerWatch(ME)
        self.beat = 1
        self.record: Record | None = Record(5, 1, "up")
        self.nats_ok = True
        self.rows = self.records = self.writes = True
        self.own = Record(1, 0, "up")
        self.connection = 1

    def look(self, until_ms: int, from_ms: int = 0) -> None:
        for now_ms in range(from_ms, until_ms + 1, 500):
            if self.rows:
                rows = {ME: DatabaseMark(now_ms, True), PEER: DatabaseMark(self.beat, self.nats_ok)}
                self.watch.rows_seen(rows, now_ms, now_ms)
            if self.records:
                if self.writes:
                    self.own = Record(now_ms + 1, now_ms, "up")
                records = (
                    {ME: self.own} if self.record is None else {ME: self.own, PEER: self.record}
                )
                self.watch.records_seen(records, self.connection, now_ms, now_ms)


def taken_ms() -> int:
    """From when the peer is overdue, if it was first seen at 0 ms."""
    return 3_000 + jitter_ms(ME, PEER)


def test_8_a_node_that_both_witnesses_show_unchanged_is_overdue() -> None:
    seen = Watching()
    seen.look(3_000)
    assert seen.watch.overdue(taken_ms() - 1) == []
    assert seen.watch.overdue(taken_ms()) == [Bury(PEER, 1, 5, Fence(PEER, 1))]


def test_8_a_take_over_under_way_is_not_begun_again_at_once() -> None:
    seen = Watching()
    seen.look(4_000)
    assert seen.watch.overdue(4_000)
    assert not seen.watch.overdue(4_001)
    seen.look(6_000, 4_500)
    assert seen.watch.overdue(6_000)


@pytest.mark.parametrize("change", ["beat", "record"])
def test_8_a_change_at_either_witness_begins_the_wait_anew(change: str) -> None:
    seen = Watching()
    seen.look(2_500)
    if change == "beat":
        seen.beat = 2
    else:
        seen.record = Record(6, 2, "up")
    seen.look(5_500, 3_000)
    assert seen.watch.overdue(5_999) == []
    seen.look(6_000, 6_000)
    assert seen.watch.overdue(6_200)


@pytest.mark.parametrize("away", ["rows", "records"])
def test_8_nobody_is_taken_over_while_a_witness_does_not_answer(away: str) -> None:
    seen = Watching()
    seen.look(1_500)
    setattr(seen, away, False)
    seen.look(9_000, 2_000)
    assert seen.watch.overdue(9_000) == []


def test_8_a_burial_by_another_node_counts_at_once() -> None:
    seen = Watching()
    seen.look(3_000)
    seen.record = Record(8, 0, "buried")
    seen.look(3_500, 3_500)
    assert seen.watch.overdue(3_500) == [Bury(PEER, 1, 8, Fence(PEER, 1))]


def test_8_a_record_that_is_gone_is_waited_for() -> None:
    seen = Watching()
    seen.look(3_000)
    seen.record = None
    seen.look(6_000, 3_500)
    assert seen.watch.overdue(6_000) == []
    seen.look(7_000, 6_500)
    assert seen.watch.overdue(7_000) == [Bury(PEER, 1, 0, Fence(PEER, 1))]


def test_7_after_a_reconnect_the_wait_begins_anew() -> None:
    seen = Watching()
    seen.look(2_500)
    seen.connection = 2
    seen.look(5_500, 3_000)
    assert seen.watch.overdue(5_500) == []


def test_a_node_does_not_take_itself_over() -> None:
    watch = PeerWatch(ME)
    for now_ms in range(0, 10_000, 500):
        watch.rows_seen({ME: DatabaseMark(1, True)}, now_ms, now_ms)
        watch.records_seen({ME: Record(1, 1, "up")}, 1, now_ms, now_ms)
    assert watch.overdue(9_500) == []


def test_9_a_node_that_nats_does_not_answer_yields_if_it_answers_another_one() -> None:
    seen = Watching()
    seen.look(5_000)
    assert not seen.watch.is_isolated(5_000, 0), "the other one is silent in PostgreSQL, too"
    for now_ms in range(5_500, 8_500, 500):
        seen.beat += 1
        seen.look(now_ms, now_ms)
        assert not seen.watch.is_isolated(now_ms, 0), "NATS has only begun to answer the other one"
    assert seen.watch.is_isolated(8_500, 5_500)
    assert not seen.watch.is_isolated(8_500, 5_501)
    seen.beat, seen.nats_ok = seen.beat + 1, False
    seen.look(9_000, 9_000)
    assert not seen.watch.is_isolated(9_000, 0), "NATS is away for all"
    seen.beat, seen.nats_ok = seen.beat + 1, True
    seen.look(9_500, 9_500)
    assert not seen.watch.is_isolated(9_500, 0), "the others' time begins anew"
    assert seen.watch.next_ms(9_500, 0) <= 12_500


def test_9_what_the_database_did_not_show_counts_for_nothing() -> None:
    seen = Watching()
    for now_ms in (500, 1_000, 9_000):  # no look between the last two: PostgreSQL was away
        seen.beat += 1
        seen.look(now_ms, now_ms)
    assert not seen.watch.is_isolated(9_000, 0)


def test_9_a_node_that_yields_falls_before_it_gives_back() -> None:
    asked = risen()
    asked.lease.yield_up()
    assert asked.lease.standing(502) is Standing.FALLEN


def test_9_a_node_that_only_postgresql_shows_is_asked_to_yield() -> None:
    seen = Watching()
    for now_ms in range(0, 11_000, 500):
        seen.beat += 1
        seen.look(now_ms, now_ms)
        assert seen.watch.unseen(now_ms) == ([PEER] if now_ms >= 10_000 else [])


def test_9_nobody_is_asked_to_yield_because_nats_takes_no_writes_of_anyone() -> None:
    seen = Watching()
    for now_ms in range(0, 30_000, 500):
        seen.beat += 1
        seen.writes = not 5_000 <= now_ms < 20_000
        seen.look(now_ms, now_ms)
        assert seen.watch.unseen(now_ms) == []
    seen.beat += 1
    seen.look(30_000, 30_000)
    assert seen.watch.unseen(30_000) == [PEER]
