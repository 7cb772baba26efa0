"""Whatever comes in, and in whatever pieces: messages and answers are those of the parser alone."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from api.ws.transport.text_frames import FrameTracker, begins_text, text_frames

LIMIT = 70_000
TAIL_LIMIT = 200
SIZES = st.sampled_from([0, 1, 5, 125, 126, 127, 300, 65_535, 65_536, LIMIT, LIMIT + 1])


def masked(opcode: Opcode, size: int, *, fin: bool = True) -> bytes:
    return Frame(opcode, b"x" * size, fin).serialize(mask=True)


FRAMES = st.one_of(
    st.builds(lambda size: masked(Opcode.TEXT, size), SIZES),
    st.builds(lambda size: masked(Opcode.BINARY, size), SIZES),
    st.builds(
        lambda size, fin, first: masked(
            Opcode.TEXT if first else Opcode.CONT, size, fin=fin and not first
        ),
        st.integers(0, 200),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(lambda size: masked(Opcode.PING, size), st.integers(0, 125)),
    st.builds(lambda size: masked(Opcode.PONG, size), st.integers(0, 125)),
    st.just(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)),
    st.just(Frame(Opcode.TEXT, b"not masked").serialize(mask=False)),
    st.just(b"\x81\xfe\x00\x05" + bytes(4) + b"short"),  # a length that is longer than it need be
    st.just(b"\x81\xff" + (2**63 - 1).to_bytes(8, "big") + bytes(4)),
    st.binary(max_size=20),
)


def spoken() -> ServerProtocol:
    return ServerProtocol(state=State.OPEN, max_size=LIMIT)


def told(protocol: ServerProtocol) -> list[tuple[Opcode, bool, bytes]]:
    return [
        (one.opcode, one.fin, bytes(one.data))
        for one in protocol.events_received()
        if isinstance(one, Frame)
    ]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 70_100), max_size=12))
@example([masked(Opcode.TEXT, 65_536)], [1] * 7)
def test_the_parser_gets_what_it_must(frames: list[bytes], cuts: list[int]) -> None:
    """The same frames, in one order, the same answers: with the short way and without."""
    stream = b"".join(frames)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(stream[at : at + cut])
        at += cut
    pieces = [piece for piece in (*pieces, stream[at:]) if piece]
    alone, behind, tracker = spoken(), spoken(), FrameTracker()
    expected: list[tuple[Opcode, bool, bytes]] = []
    got: list[tuple[Opcode, bool, bytes]] = []
    fragmented, tail = False, b""
    for piece in pieces:
        alone.receive_data(piece)
        expected += told(alone)
        rest, tail = tail + piece, b""
        if tracker.between_frames and not fragmented and behind.state is State.OPEN:
            texts, end = text_frames(rest, LIMIT)
            got += [(Opcode.TEXT, True, text) for text in texts]
            rest = rest[end:]
            if begins_text(rest, TAIL_LIMIT):
                rest, tail = b"", rest
                assert len(tail) < TAIL_LIMIT + 14
        if rest:
            tracker.follow(rest)
            behind.receive_data(rest)
            new = told(behind)
            for opcode, fin, _ in new:
                if opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    fragmented = not fin
            got += new
        assert alone.data_to_send() == behind.data_to_send()
        assert alone.state is behind.state
    assert got == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535])
def test_the_common_frame_takes_the_short_way(size: int) -> None:
    frame = masked(Opcode.TEXT, size)
    assert text_frames(frame * 3 + b"\x81", LIMIT) == ([b"x" * size] * 3, 3 * len(frame))


@pytest.mark.parametrize("end", [1, 2, 3, 5, 7, 8, 100])
def test_a_small_text_waits_for_its_rest(end: int) -> None:
    frame = masked(Opcode.TEXT, 150)
    assert begins_text(frame[:end], 150)
    assert end < 4 or not begins_text(frame[:end], 149)


def test_other_frames_do_not_wait() -> None:
    for frame in (
        masked(Opcode.PING, 5),
        masked(Opcode.BINARY, 5),
        masked(Opcode.TEXT, 5, fin=False),
        masked(Opcode.TEXT, 65_536),
        Frame(Opcode.TEXT, b"not masked").serialize(mask=False),
        b"\x81\xfe\x00\x05" + bytes(4),
    ):
        assert not begins_text(frame[:4], 1 << 20)
    assert not begins_text(masked(Opcode.TEXT, 5)[:4], -1)
