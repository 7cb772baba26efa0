"""Numbered messages over a bus that loses them: each arrives once and in order, or it is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reileta.rules.cluster.stream import MARK_S, MARKS, Incoming, Outgoing, Reached


def data(number: int) -> bytes:
    return b"%d" % number


def test_messages_arrive_in_order() -> None:
    incoming = Incoming(1)
    assert incoming.take(1, b"a") == [b"a"]
    assert incoming.take(3, b"c") == []
    assert incoming.missing == 2
    assert incoming.take(2, b"b") == [b"b", b"c"]
    assert incoming.missing is None


def test_a_message_arrives_once() -> None:
    incoming = Incoming(1)
    incoming.take(1, b"a")
    assert incoming.take(1, b"a") == []
    incoming.take(3, b"c")
    assert incoming.take(3, b"c") == []
    assert incoming.take(2, b"b") == [b"b", b"c"]


def test_a_loss_at_the_tail_is_noticed_by_the_last_number() -> None:
    incoming = Incoming(1)
    incoming.take(1, b"a")
    assert incoming.missing is None
    incoming.heard(2)
    assert incoming.missing == 2


def test_before_its_beginning_is_known_everything_is_held() -> None:
    incoming = Incoming()
    for number in (4, 5, 7):
        assert incoming.take(number, data(number)) == []
    assert incoming.missing is None
    assert incoming.begin(5) == [b"5"]
    assert incoming.missing == 6


def test_a_doubt_ends_with_an_answer() -> None:
    incoming = Incoming(3)
    incoming.doubt()
    assert incoming.missing == 3
    assert incoming.replayed([]) == []
    assert incoming.missing is None


def test_too_much_before_its_turn_is_asked_for_again() -> None:
    incoming = Incoming(1, held_bytes=2)
    for number in (2, 3, 4):
        incoming.take(number, data(number))
    assert incoming.replayed([data(1), data(2), data(3), data(4)]) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("first", "kept"), [(1, None), (2, None), (3, [b"3", b"4"]), (5, []), (6, [])]
)
def test_old_messages_are_forgotten(first: int, kept: list[bytes] | None) -> None:
    outgoing = Outgoing(kept_bytes=100, kept_s=3)
    for number in (1, 2, 3, 4):
        outgoing.add(data(number), now=float(number))
    outgoing.forget_old(5.0)
    assert outgoing.since(first) == kept


def test_large_messages_push_old_ones_out_but_the_newest_stays() -> None:
    outgoing = Outgoing(kept_bytes=10)
    outgoing.add(b"x" * 8, 0)
    outgoing.add(b"y" * 20, 0)
    assert outgoing.since(1) is None
    assert outgoing.since(2) == [b"y" * 20]
    assert outgoing.size == 20


def test_what_the_receiver_has_is_forgotten() -> None:
    outgoing = Outgoing()
    for number in (1, 2, 3):
        outgoing.add(data(number), 0)
    outgoing.taken(2)
    assert (outgoing.since(3), outgoing.since(2)) == ([b"3"], None)
    assert outgoing.size == 1
    outgoing.taken(9)
    assert (outgoing.since(4), outgoing.size) == ([], 0)


@given(st.permutations(range(1, 8)))
def test_any_order_of_arrival_ends_in_the_one_order(numbers: list[int]) -> None:
    incoming = Incoming(1)
    arrived = [one for number in numbers for one in incoming.take(number, data(number))]
    assert arrived == [data(number) for number in range(1, 8)]


@dataclass
class Receiver:
    """A receiver of the machine below: what it got, with None where it began anew."""

    incoming: Incoming
    got: list[int | None] = field(default_factory=list)

    def take(self, ready: list[bytes]) -> None:
        self.got += map(int, ready)


class Streams(RuleBasedStateMachine):
    """One sender, two receivers, a bus that loses and delays anything, and a clock.

    A receiver that misses something asks; if the sender has forgotten it, it begins anew.
    """

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.outgoing = Outgoing(kept_bytes=12)
        self.receivers = [Receiver(Incoming(1)), Receiver(Incoming(1))]
        self.underway: list[list[tuple[int, bytes | None]]] = [[], []]

    @rule(lost=st.tuples(st.booleans(), st.booleans()))
    def send(self, lost: tuple[bool, bool]) -> None:
        message = data(self.outgoing.last + 1)
        number = self.outgoing.add(message, self.now)
        for receiver in (0, 1):
            if not lost[receiver]:
                self.underway[receiver].append((number, message))

    @rule(lost=st.tuples(st.booleans(), st.booleans()))
    def beat(self, lost: tuple[bool, bool]) -> None:
        for receiver in (0, 1):
            if not lost[receiver]:
                self.underway[receiver].append((self.outgoing.last, None))

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: any(self.underway))
    @rule(which=st.integers(0, 1), count=st.integers(1, 5))
    def arrive(self, which: int, count: int) -> None:
        receiver = self.receivers[which]
        for number, message in self.underway[which][:count]:
            if message is None:
                receiver.incoming.heard(number)
            else:
                receiver.take(receiver.incoming.take(number, message))
        del self.underway[which][:count]

    @rule(which=st.integers(0, 1))
    def lose_the_connection(self, which: int) -> None:
        self.underway[which].clear()
        self.receivers[which].incoming.doubt()

    @rule(which=st.integers(0, 1))
    def ask(self, which: int) -> None:
        receiver = self.receivers[which]
        missing = receiver.incoming.missing
        if missing is None:
            return
        self.outgoing.forget_old(self.now)
        replayed = self.outgoing.since(missing)
        if replayed is None:
            receiver.got.append(None)
            receiver.take(receiver.incoming.begin(self.outgoing.last + 1))
            replayed = []
        receiver.take(receiver.incoming.replayed(replayed))

    @invariant()
    def each_arrived_once_and_in_order(self) -> None:
        for receiver in getattr(self, "receivers", ()):
            expected = 1
            for number in receiver.got:
                if number is None:
                    expected = 0  # anything later may follow
                    continue
                assert number == expected if expected else number > 0
                expected = number + 1
            numbers = [one for one in receiver.got if one is not None]
            assert numbers == sorted(set(numbers))

    def teardown(self) -> None:
        """The bus works again, and a beat comes: then every receiver is up to date."""
        for which, receiver in enumerate(getattr(self, "receivers", ())):
            self.arrive(which, 10_000) if self.underway[which] else None
            receiver.incoming.heard(self.outgoing.last)
            self.ask(which)
            assert receiver.incoming.missing is None
            assert receiver.incoming.last == self.outgoing.last
            assert receiver.got[-1:] in ([self.outgoing.last], [None], [])
            self.each_arrived_once_and_in_order()


def test_losses_anywhere_end_with_every_message_once_in_order_or_a_known_loss() -> None:
    run_state_machine_as_test(Streams, settings=settings(deadline=None))


@given(st.lists(st.floats(0, 2 * MARK_S), min_size=1, max_size=400), st.floats(-1, 300))
def test_what_is_known_of_a_streams_past_is_never_too_high(steps: list[float], at: float) -> None:
    reached, now, history = Reached(), 0.0, list[tuple[float, int]]()
    for number, step in enumerate(steps):
        now += step
        reached.note(number, now)
        history.append((now, number))
    true = max((number for when, number in history if when <= at), default=-1)
    assert reached.number_at(at) <= true
    for when, number in history:
        assert reached.time_of(number) <= when
    assert reached.number_at(now) == len(steps) - 1
    assert reached.time_of(len(steps) - 1) == now


def test_the_past_of_a_busy_stream_is_kept_for_a_minute_to_half_a_second() -> None:
    reached = Reached()
    for number in range(20_000):
        reached.note(number, number / 100)
    assert reached.number_at(200 - MARKS * MARK_S * 1.1) == -1
    for at in (199.5, 190.0, 150.0, 140.0):
        assert at * 100 - 100 * MARK_S - 1 <= reached.number_at(at) <= at * 100
        assert at - MARK_S - 0.01 <= reached.time_of(int(at * 100)) <= at
