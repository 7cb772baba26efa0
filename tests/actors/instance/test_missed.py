"""Messages for players without a socket: what is kept, in which order, and how much of it."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from actors.delivery.batch import Batch
from actors.instance import missed
from actors.instance.missed import Missed, MissedMessages
from reileta.protocol.frames import text_frame
from tests.actors.sinks import frames_of

PLAYERS: Final = ("p_1", "p_2", "p_3")


def frames(taken: Missed) -> list[bytes]:
    pieces = [(batch, 0, len(batch)) for batch in taken.batches]
    return frames_of(pieces)


def number(value: int, size: int = 10) -> bytes:
    return text_frame(b"%0*d" % (size, value))


def test_everybody_away_gets_what_came_since_it_lost_its_socket() -> None:
    messages = MissedMessages()
    messages.begin("p_1")
    messages.add(number(1))
    messages.begin("p_2")
    messages.begin("p_1")  # told twice: the first counts
    messages.add(number(2))
    messages.add_for("p_1", number(3))
    messages.add_for("p_9", number(4))
    messages.add(number(5))
    assert frames(messages.take("p_2", 0)) == [number(2), number(5)]
    messages.add(number(6))
    taken = messages.take("p_1", 0)
    assert frames(taken) == [number(1), number(2), number(3), number(5), number(6)]
    assert not taken.gap
    assert messages.take("p_1", 0) == Missed()
    assert messages.size == 0


def test_what_came_before_may_be_a_gap() -> None:
    messages = MissedMessages()
    messages.begin("p_1", gap=True)
    assert messages.take("p_1", 0) == Missed((), gap=True)
    messages.begin("p_1")
    assert messages.take("p_1", 0) == Missed()


def test_300_players_share_the_memory_of_a_flood() -> None:
    messages = MissedMessages()
    players = [f"p_{index}" for index in range(300)]
    for player in players:
        messages.begin(player)
    for index in range(20_000):
        messages.add(number(index, 1_000))
        assert messages.size <= missed.SEAT_LIMIT_BYTES
    buffers: set[int] = set()
    for player in players:
        taken = messages.take(player, 0)
        assert taken.gap
        assert frames(taken)[-1] == number(19_999, 1_000)
        buffers.update(id(batch.buffer) for batch in taken.batches)
    assert len(buffers) <= 1 + missed.SEAT_LIMIT_BYTES // missed.CHUNK_BYTES


def test_messages_for_single_players_are_bounded_in_all() -> None:
    messages = MissedMessages(seat_limit_bytes=1_000, total_limit_bytes=1_500)
    for player in PLAYERS:
        messages.begin(player)
        for index in range(20):
            messages.add_for(player, number(index, 98))
            assert messages.size <= 1_500
    assert frames(messages.take("p_1", 0)) == [number(index, 98) for index in range(10, 20)]
    assert [frames(messages.take(player, 0)) for player in PLAYERS[1:]] == [
        [number(index, 98) for index in range(15, 20)],
        [],
    ]


_steps = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "add", "add", "add", "add_for", "take", "forget"]),
        st.sampled_from(PLAYERS),
        st.integers(1, 120),
    ),
    max_size=60,
)


@given(_steps)
def test_a_player_gets_all_it_missed_or_the_newest_and_is_told_of_the_gap(
    steps: list[tuple[str, str, int]],
) -> None:
    missed_limit = 200
    messages = MissedMessages(seat_limit_bytes=missed_limit, total_limit_bytes=300)
    owed: dict[str, list[bytes]] = {}
    for step, player, size in steps:
        frame = text_frame(b"x" * size)
        if step == "begin":
            messages.begin(player)
            owed.setdefault(player, [])
        elif step == "add" and messages.away:
            messages.add(frame)
            for each in owed.values():
                each.append(frame)
        elif step == "add_for":
            messages.add_for(player, frame)
            if player in owed:
                owed[player].append(frame)
        elif step == "forget":
            messages.forget(player)
            owed.pop(player, None)
        elif step == "take":
            taken = messages.take(player, 0)
            expected = owed.pop(player, [])
            got = frames(taken)
            assert sum(map(len, got)) <= missed_limit
            if not taken.gap:
                assert got == expected
            else:
                assert _is_subsequence(got, expected)
                assert got != expected
        assert set(messages.away) == set(owed)
        assert messages.size <= missed_limit + 300
        assert owed or not messages.size


def _is_subsequence(part: list[bytes], whole: list[bytes]) -> bool:
    rest = iter(whole)
    return all(any(one == other for other in rest) for one in part)


def test_a_batch_of_missed_messages_may_exceed_the_backlog() -> None:
    messages = MissedMessages()
    messages.begin("p_1")
    messages.add(number(1))
    messages.add_for("p_1", number(2))
    batches: tuple[Batch, ...] = messages.take("p_1", 0).batches
    assert batches
    assert all(batch.snapshot for batch in batches)


def test_messages_are_under_way_for_a_second_and_not_to_who_sent_them() -> None:
    messages = MissedMessages()
    assert not messages.underway("p_1", 0)
    messages.spoken("p_1", 10)
    assert not messages.underway("p_1", 10)
    assert messages.underway("p_2", 10)
    assert messages.underway("p_2", 10.9)
    assert not messages.underway("p_2", 11)
    messages.spoken("p_2", 20)
    messages.spoken("p_2", 30)
    assert messages.underway("p_1", 30)
    assert messages.underway("p_2", 10)  # what p_1 said
    assert not messages.underway("p_2", 11)
    messages.spoken(missed.EVERYBODY, 40)
    assert messages.underway("p_2", 40)
    messages.spoken("p_2", 50)
    assert messages.underway("p_2", 40)
    assert not messages.underway("p_2", 41)


def test_what_a_player_has_missed_is_under_way_for_a_second_too() -> None:
    messages = MissedMessages()
    messages.begin("p_1")
    messages.add(number(1))
    messages.take("p_1", 10)
    assert messages.underway("p_1", 10.9)
    assert not messages.underway("p_1", 11)
    messages.begin("p_1")
    assert messages.take("p_1", 20) == Missed()
    assert not messages.underway("p_1", 20)
    messages.begin("p_1", gap=True)
    assert messages.take("p_1", 30) == Missed((), gap=True)
    assert messages.underway("p_1", 30)
    messages.forget("p_1")
    assert not messages.underway("p_1", 30)
