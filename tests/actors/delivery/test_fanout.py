"""Fan-out: each receiver gets exactly its frames, in one order, in one write."""

from __future__ import annotations

from collections.abc import Hashable
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.delivery.batch import Batch
from actors.delivery.fanout import (
    TURN_SINKS,
    Fanout,
)
from reileta.protocol.frames import deflate, payload_of, text_frame
from reileta.rules.instance.data_rate import InstanceRates
from tests.actors.sinks import DirectSink, FakeSink, frames_of


def frame(text: str) -> bytes:
    return text_frame(text.encode())


class Model:
    """The same, the slow way: a list for each receiver."""

    def __init__(self, count: int) -> None:
        self.inside: dict[int, bool] = {}  # receiver: whether it is a watcher
        self.got: list[list[bytes]] = [[] for _ in range(count)]

    def add(self, one: int, first: bytes | None, watcher: bool) -> None:
        self.inside.pop(one, None)
        self.inside[one] = watcher
        if first is not None:
            self.got[one].append(first)

    def broadcast(self, said: bytes, without: list[int], data: bool) -> None:
        for one, watcher in self.inside.items():
            if one not in without and (data or not watcher):
                self.got[one].append(said)


COUNT = 7
ones = st.integers(0, COUNT - 1)
steps = st.one_of(
    st.tuples(st.just("add"), ones, st.booleans(), st.booleans()),
    st.tuples(st.just("remove"), ones),
    st.tuples(st.just("broadcast"), st.lists(ones, unique=True), st.booleans(), st.booleans()),
    st.tuples(st.just("private"), ones, st.booleans()),
    st.tuples(st.just("flush")),
    st.tuples(st.just("turn")),
)


@given(st.lists(steps, max_size=60))
def test_receivers_get_what_a_list_for_each_would_hold(script: list[tuple[object, ...]]) -> None:
    with patch("actors.delivery.fanout.TURN_SINKS", 2):
        compare_with_the_model(script)


def compare_with_the_model(script: list[tuple[object, ...]]) -> None:
    fanout, model = Fanout(), Model(COUNT)
    sinks = [FakeSink(str(one)) for one in range(COUNT)]
    delivered = writes = 0
    for number, step in enumerate([*script, ("flush",)]):
        said = frame(f"{number}" * (1 + number % 70))
        match step:
            case ("add", int(one), bool(welcomed), bool(watcher)):
                first = said if welcomed else None
                fanout.add(sinks[one], first, watcher=watcher)
                model.add(one, first, watcher)
            case ("remove", int(one)):
                fanout.remove(sinks[one])
                model.inside.pop(one, None)
            case ("broadcast", list(without), bool(keyed), bool(data)):
                key = "k" if keyed else None
                fanout.broadcast(said, key, without=[sinks[one] for one in without], data=data)
                model.broadcast(said, without, data)
            case ("private", int(one), bool(keyed)):
                fanout.private(sinks[one], said, "k" if keyed else None)
                model.got[one].append(said)
            case ("turn",):
                delivered += fanout.flush_turn()
                for sink, got in zip(sinks, model.got, strict=True):
                    assert sink.frames == got[: len(sink.frames)]
                if not fanout.behind:
                    assert [sink.frames for sink in sinks] == model.got
            case _:
                before = [sink.writes for sink in sinks]
                delivered += fanout.flush()
                writes = max(sink.writes - old for sink, old in zip(sinks, before, strict=True))
                assert writes <= 1
                assert [sink.frames for sink in sinks] == model.got
        assert {one for one in range(COUNT) if sinks[one] in fanout} == set(model.inside)
        assert {one for one in range(COUNT) if fanout.watched_by(sinks[one])} == {
            one for one, watcher in model.inside.items() if watcher
        }
    assert delivered == sum(map(len, model.got))
    assert fanout.flush() == 0


def test_a_joiner_has_its_welcome_first_and_nothing_from_before() -> None:
    fanout, old, new = Fanout(), FakeSink(), FakeSink()
    fanout.add(old, None)
    fanout.broadcast(frame("before"))
    fanout.broadcast(frame("joined"))
    fanout.add(new, frame("welcome"))
    fanout.broadcast(frame("after"))
    assert fanout.flush() == 5
    assert old.frames == [frame("before"), frame("joined"), frame("after")]
    assert new.frames == [frame("welcome"), frame("after")]


def test_one_buffer_serves_all_who_get_the_same() -> None:
    pieces: list[object] = []

    class Kept(FakeSink):
        def write(self, got: object) -> None:
            pieces.append(got)

    fanout = Fanout()
    for _ in range(3):
        fanout.add(Kept(), None)
    fanout.broadcast(frame("a"))
    fanout.flush()  # the first drain has edits: those who are new
    pieces.clear()
    fanout.broadcast(frame("b"))
    fanout.flush()
    assert len(pieces) == 3
    assert pieces[0] is pieces[1] is pieces[2]


def test_one_left_out_that_is_no_receiver_gets_nothing_by_it() -> None:
    fanout, one = Fanout(), FakeSink()
    fanout.broadcast(frame("a"))
    fanout.broadcast(frame("b"), without=[one])
    fanout.add(one, frame("welcome"))
    fanout.flush()
    assert one.frames == [frame("welcome")]


def test_nothing_is_kept_of_a_receiver_that_is_gone() -> None:
    fanout, one = Fanout(), FakeSink()
    fanout.add(one, frame("welcome"))
    fanout.remove(one)
    fanout.private(one, frame("bye"))
    fanout.flush()
    assert one.frames == [frame("welcome"), frame("bye")]
    assert len(fanout) == 0
    fanout.broadcast(frame("later"))
    fanout.flush()
    assert len(one.frames) == 2


@pytest.mark.parametrize(("keys", "kept"), [((None, None), None), (("k", None), ["k", None])])
def test_a_batch_knows_its_keys_if_there_are_any(
    keys: tuple[Hashable | None, ...], kept: list[Hashable | None] | None
) -> None:
    batches: list[Batch] = []

    class Kept(FakeSink):
        def write(self, pieces: object) -> None:
            batches.append(pieces[0][0])  # type: ignore[index]

    fanout = Fanout()
    fanout.add(Kept(), None)
    for key in keys:
        fanout.broadcast(frame("x"), key)
    fanout.flush()
    assert batches[0].keys == kept


def test_a_welcome_is_a_snapshot_and_nothing_else_is() -> None:
    snapshots: list[bool] = []

    class Kept(FakeSink):
        def write(self, pieces: object) -> None:
            snapshots.extend(batch.snapshot for batch, _, _ in pieces)  # type: ignore[attr-defined]

    fanout, sink = Fanout(), Kept()
    fanout.add(sink, frame("welcome"))
    fanout.broadcast(frame("a"))
    fanout.private(sink, frame("b"))
    fanout.flush()
    assert snapshots == [True, False, False]


def test_a_batch_counts_and_deflates_its_frames() -> None:
    frames = [frame("a" * 10), frame("b" * 500), frame("c" * 70_000)]
    batch = Batch(frames, ("k", None, None))
    first, second, third = batch.ends
    assert len(batch) == third
    assert batch.count(0, third) == 3
    assert batch.count(first, second) == 1
    packed, start, end = batch.deflated(first, third)
    assert frames_of([(packed, start, end)]) == [deflate(one) for one in frames[1:]]
    assert packed.keys == batch.keys
    assert batch.deflated(0, first) == (packed, 0, len(frames[0]))
    assert payload_of(frames_of([batch.deflated(0, first)])[0]) == b"a" * 10


def test_some_receivers_are_written_to_at_a_time_with_all_that_came_since() -> None:
    with patch("actors.delivery.fanout.TURN_SINKS", 2):
        fanout, sinks = Fanout(), [FakeSink(str(number)) for number in range(4)]
        for sink in sinks:
            fanout.add(sink, None)
        fanout.flush()
        assert fanout.turns == 2
        fanout.broadcast(frame("a"))
        assert (fanout.flush_turn(), fanout.behind) == (2, True)
        fanout.broadcast(frame("b"))
        assert (fanout.flush_turn(), fanout.behind) == (4, True)
        got = [sink.frames for sink in sinks]
        assert got == [[frame("a")], [frame("a"), frame("b")]] * 2
        assert (fanout.flush_turn(), fanout.behind) == (2, False)
        assert all(sink.frames == [frame("a"), frame("b")] for sink in sinks)
        assert fanout.flush_turn() == 0


def test_frames_that_everyone_has_got_are_not_kept() -> None:
    with patch("actors.delivery.fanout.TURN_SINKS", 2):
        fanout, sinks = Fanout(), [FakeSink() for _ in range(6)]
        for sink in sinks:
            fanout.add(sink, None)
        fanout.flush()
        for number in range(50):
            fanout.broadcast(frame(str(number)), without=sinks[:1], data=True)
            fanout.flush_turn()
            assert len(fanout._frames) <= fanout.turns  # noqa: SLF001
            assert len(fanout._edits) <= 1  # noqa: SLF001
        fanout.flush()
        assert [len(sink.frames) for sink in sinks] == [0, 50, 50, 50, 50, 50]


def test_a_small_room_is_written_to_as_a_whole() -> None:
    fanout, sinks = Fanout(), [FakeSink() for _ in range(2 * TURN_SINKS - 1)]
    for sink in sinks:
        fanout.add(sink, None)
    fanout.broadcast(frame("a"))
    assert (fanout.turns, fanout.flush_turn(), fanout.behind) == (1, len(sinks), False)


def test_what_one_receiver_lacks_at_most_is_gathered_over_all_turns() -> None:
    pace = InstanceRates(1 << 20).of("u")
    with patch("actors.delivery.fanout.TURN_SINKS", 2):
        fanout, sinks = Fanout(), [FakeSink(str(number)) for number in range(4)]
        for sink in sinks:
            fanout.add(sink, None)
        fanout.flush()
        fanout.broadcast(frame("a" * 10), data=True, pace=pace)
        fanout.flush_turn()
        assert (fanout.gathered, fanout.has_data) == (len(frame("a" * 10)), False)
        fanout.broadcast(frame("b"), data=True, pace=pace)
        assert (fanout.gathered, fanout.has_data) == (len(frame("a" * 10) + frame("b")), True)
        fanout.flush_turn()
        assert (fanout.gathered, fanout.has_data) == (len(frame("b")), False)
        fanout.broadcast(frame("c"), data=True, pace=pace)
        fanout.remove(sinks[0])
        assert (fanout.gathered, fanout.has_data) == (len(frame("c")), True)
        fanout.flush()
        assert (fanout.gathered, fanout.has_data) == (0, False)


def test_a_flush_sends_directly() -> None:
    fanout, sinks = Fanout(), [DirectSink(1000) for _ in range(3)]
    for sink in sinks:
        fanout.add(sink, None)
    fanout.flush()
    fanout.broadcast(frame("a"), without=sinks[:1])
    fanout.broadcast(frame("b"))
    assert (fanout.flush(), fanout.reached) == (5, 3)
    assert [sink.sent for sink in sinks] == [[frame("b")], *[[frame("a") + frame("b")]] * 2]
