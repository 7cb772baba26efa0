from __future__ import annotations

from collections.abc import Hashable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.delivery.batch import Batch
from api.ws.transport.backlog import CONFLATE_FROM, MAX_VIEWS, Backlog
from reileta.protocol.frames import text_frame
from reileta.rules.instance.data_rate import DataRate

MIB = 1024 * 1024


def numbered(number: int, size: int = 0) -> bytes:
    """A frame that can be told from all others: its number, and so many bytes more."""
    return text_frame(b"%08d" % number + b"." * size)


def split(data: bytes) -> list[int]:
    """The numbers of the frames in a stream of bytes, which must be whole frames."""
    numbers = []
    while data:
        head = {126: 4, 127: 10}.get(data[1], 2)
        size = data[1] if head == 2 else int.from_bytes(data[2:head])
        assert data[0] == 0x81
        assert len(data) >= head + size, "the stream ends within a frame"
        numbers.append(int(data[head : head + 8]))
        data = data[head + size :]
    return numbers


def batch(*frames: tuple[int, Hashable | None] | tuple[int, Hashable | None, int]) -> Batch:
    """A batch of frames: number, key, and size if it matters."""
    return Batch(
        [numbered(one[0], one[2] if len(one) == 3 else 0) for one in frames],
        [one[1] for one in frames],
    )


def sent(backlog: Backlog) -> list[int]:
    """Everything that waits, taken in one go."""
    data = b"".join(backlog.views())
    assert len(data) == backlog.size
    backlog.taken(len(data))
    assert backlog.size == 0
    return split(data)


def push(backlog: Backlog, one: Batch) -> bool:
    return backlog.push([(one, 0, len(one))])


def test_what_waits_goes_in_order() -> None:
    backlog = Backlog(MIB)
    assert push(backlog, batch((1, None), (2, None)))
    assert push(backlog, batch((3, None)))
    assert sent(backlog) == [1, 2, 3]
    assert backlog.views() == []


def test_the_newest_of_a_key_takes_the_newest_place() -> None:
    backlog = Backlog(MIB)
    push(backlog, batch((1, "a"), (2, None), (3, "b"), (4, "a"), (5, None)))
    push(backlog, batch((6, "a"), (7, "c")))
    backlog.conflate()
    assert backlog.conflated == 2
    assert sent(backlog) == [2, 3, 5, 6, 7]


def test_keys_are_anything_that_can_be_told_apart() -> None:
    backlog = Backlog(MIB)
    push(
        backlog, batch((1, ("i_1", "p_1", "x")), (2, ("i_1", "p_2", "x")), (3, ("i_2", "p_1", "x")))
    )
    backlog.conflate()
    assert sent(backlog) == [1, 2, 3]


def test_a_frame_sent_in_part_is_finished_whatever_came_of_its_key() -> None:
    backlog = Backlog(MIB)
    first = batch((1, "a"), (2, "a"))
    written = first.buffer[:5]
    backlog.push([(first, 0, len(first))], 5)
    push(backlog, batch((3, "a")))
    backlog.conflate()
    assert split(written + b"".join(backlog.views())) == [1, 3]


def test_pieces_that_were_sent_whole_are_not_kept() -> None:
    backlog = Backlog(MIB)
    one, two = batch((1, None)), batch((2, None), (3, None))
    backlog.push([(one, 0, len(one)), (two, 0, len(two))], len(one) + two.ends[0])
    assert sent(backlog) == [3]
    backlog.push([(one, 0, len(one))], len(one))
    assert backlog.size == 0
    assert not backlog.views()


def test_over_the_limit_it_says_so() -> None:
    backlog = Backlog(200)
    assert push(backlog, batch((1, None, 150)))
    assert not push(backlog, batch((2, None, 150)))


def test_frames_that_conflate_do_not_overflow_it() -> None:
    backlog = Backlog(2 * CONFLATE_FROM)
    for number in range(5_000):
        assert push(backlog, batch((number, number % 3, 1_000)))
    backlog.conflate()
    assert sorted(sent(backlog)) == [4997, 4998, 4999]


def test_a_snapshot_may_be_larger_than_the_limit_once() -> None:
    backlog = Backlog(200)
    large = Batch([numbered(1, 1_000)], snapshot=True)
    assert push(backlog, large)
    assert push(backlog, batch((2, None, 150)))
    assert not push(backlog, large), "or one who enters again and again has everything kept for it"
    sent(backlog)
    assert push(backlog, large), "sent, it is over and done with"
    sent(backlog)
    assert not push(backlog, batch((3, None, 250)))


def test_what_is_dropped_leaves_the_stream_on_the_edge_of_a_frame() -> None:
    backlog = Backlog(MIB)
    one = batch((1, None), (2, None))
    backlog.push([(one, 0, len(one))], 3)
    push(backlog, batch((3, None)))
    backlog.clear()
    assert backlog.size == len(numbered(1)) - 3
    push(backlog, batch((4, None)))
    assert split(one.buffer[:3] + b"".join(backlog.views())) == [1, 4]


def test_a_write_has_as_many_buffers_as_the_system_takes() -> None:
    backlog = Backlog(MIB)
    for number in range(MAX_VIEWS + 5):
        push(backlog, batch((number, None)))
    assert len(backlog.views()) == MAX_VIEWS
    backlog.taken(sum(map(len, backlog.views())))
    assert sent(backlog) == list(range(MAX_VIEWS, MAX_VIEWS + 5))


def test_a_write_can_be_bounded() -> None:
    backlog = Backlog(MIB)
    for number in range(10):
        push(backlog, batch((number, None, 100)))
    assert sum(map(len, backlog.views(250))) < 500


def test_frame_by_frame() -> None:
    backlog = Backlog(MIB)
    one = batch((0, None), (1, "a"), (2, "a"))
    backlog.push([(one, one.ends[0], len(one))])
    push(backlog, batch((3, "a")))
    backlog.conflate()
    assert backlog.pop_frame() == numbered(3)
    assert backlog.pop_frame() is None
    assert backlog.size == 0
    push(backlog, batch((4, None), (5, None)))
    assert [backlog.pop_frame(), backlog.pop_frame()] == [numbered(4), numbered(5)]
    assert backlog.pop_frame() is None


Sent = tuple[int, Hashable | None]

frames = st.lists(
    st.tuples(st.sampled_from([None, None, "a", "b", ("a", "b")]), st.integers(0, 300)),
    min_size=1,
    max_size=5,
)
steps = st.one_of(
    st.tuples(st.just("push"), frames, st.integers(0, 10_000), st.booleans()),
    st.tuples(st.just("taken"), st.integers(0, 2_000)),
    st.tuples(st.just("conflate")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_against_a_naive_model(script: Sequence[tuple[object, ...]]) -> None:
    """Any mixture of pushing, writing in part and conflating: order is kept, frames stay whole,
    nothing without a key is lost, and the newest of each key arrives."""
    backlog = Backlog(100 * MIB)
    wire = b""
    pushed: list[Sent] = []
    for step in script:
        if step[0] == "push":
            _, contents, cut, in_part = step
            assert isinstance(contents, list)
            assert isinstance(cut, int)
            numbers = range(len(pushed), len(pushed) + len(contents))
            keys = [key for key, _ in contents]
            made = Batch(
                [numbered(n, size) for n, (_, size) in zip(numbers, contents, strict=True)],
                keys if any(key is not None for key in keys) else None,
            )
            # A receiver's own frames are left out: the batch comes in two pieces.
            middle = made.ends[len(made.ends) // 2]
            pieces = [
                one for one in ((made, 0, middle), (made, middle, len(made))) if one[1] < one[2]
            ]
            already = cut % (len(made) + 1) if in_part and not backlog.size else 0
            wire += made.buffer[:already]
            assert backlog.push(pieces, already)
            pushed.extend(zip(numbers, keys, strict=True))
        elif step[0] == "taken":
            waits = b"".join(backlog.views())
            assert isinstance(step[1], int)
            count = min(step[1], len(waits))
            wire += waits[:count]
            backlog.taken(count)
        else:
            backlog.conflate()
        assert backlog.size == sum(map(len, backlog.views()))
    wire += b"".join(backlog.views())
    arrived = split(wire)
    assert arrived == sorted(arrived), "one order for all"
    assert len(set(arrived)) == len(arrived)
    for number, key in pushed:
        if number not in arrived:
            assert key is not None, "a message without a key was dropped"
            assert any(later in arrived for later, other in pushed[number + 1 :] if other == key)
    assert backlog.conflated == len(pushed) - len(arrived)


@pytest.mark.parametrize("snapshot", [False, True])
def test_compressed_pieces_conflate_like_others(snapshot: bool) -> None:
    plain = Batch(
        [numbered(1, 500), numbered(2, 500), numbered(3, 10)], ["a", "a", None], snapshot=snapshot
    )
    backlog = Backlog(MIB)
    backlog.push([plain.deflated(0, len(plain))])
    backlog.conflate()
    assert backlog.conflated == 1
    assert backlog.size < plain.ends[1]


def said_by(pace: DataRate | None, *sizes: int, key: Hashable | None = None) -> Batch:
    """Frames of a player."""
    frames = [numbered(number, size) for number, size in enumerate(sizes)]
    return Batch(frames, [key] * len(frames), paces=[pace] * len(frames))


def test_who_fills_half_of_it_is_held_back_and_nobody_else() -> None:
    loud, quiet = DataRate(), DataRate()
    backlog = Backlog(1000)
    assert push(backlog, said_by(quiet, 10))
    assert push(backlog, said_by(loud, 200))
    assert push(backlog, said_by(None, 200))
    assert not loud.held
    assert push(backlog, said_by(quiet, 100))
    assert (loud.held, quiet.held) == (True, False)


def test_who_goes_on_is_held_back_again_before_it_is_full() -> None:
    backlog, times = Backlog(8000), 0
    while True:
        pace = DataRate()
        fits = push(backlog, said_by(pace, *[450] * 20 if not backlog.size else [450]))
        times += pace.held
        if not fits:
            break
    assert times <= 4, "each time costs a look at all that waits"
    backlog = Backlog(8000)
    first, second = DataRate(), DataRate()
    push(backlog, said_by(first, *[450] * 9))
    push(backlog, said_by(second, 100))
    assert (first.held, second.held) == (True, False)
    push(backlog, said_by(second, *[450] * 7))
    assert second.held is False
    backlog.taken(backlog.size - 1000)
    third = DataRate()
    push(backlog, said_by(third, *[450] * 8))
    assert third.held, "once it was nearly empty, half is enough again"


def test_frames_that_gave_way_count_for_nobody() -> None:
    loud, keyed = DataRate(), DataRate()
    backlog = Backlog(4 * CONFLATE_FROM)
    for _ in range(20):
        push(backlog, said_by(keyed, 30_000, key="k"))
    assert not keyed.held
    for _ in range(2):
        push(backlog, said_by(loud, 60_000))
    assert (loud.held, keyed.held) == (True, False)


def test_compressed_frames_have_their_players() -> None:
    pace = DataRate()
    whole = said_by(pace, 300, 300)
    backlog = Backlog(64)
    push(backlog, said_by(DataRate(), 1))
    backlog.push([whole.deflated(0, len(whole))])
    assert pace.held
