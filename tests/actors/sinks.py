"""Sockets that are none: what is written to them is kept, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec
import trio

from actors.delivery.batch import Piece
from actors.delivery.sink import InstanceHandle
from reileta.protocol.frames import payload_of
from tests.actors.frames import Frame


def frames_of(pieces: Sequence[Piece]) -> list[bytes]:
    """Each frame in the pieces, as it would go over the wire."""
    frames = []
    for batch, start, end in pieces:
        at = start
        for stop in batch.ends:
            if start < stop <= end:
                frames.append(bytes(batch.view[at:stop]))
                at = stop
        assert at == end, "a piece ends inside of a frame"
    return frames


class FakeSink:
    """A `Sink` whose client reads at once."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.seats: dict[str, InstanceHandle] = {}
        self.direct: Callable[[bytes], int] | None = None
        self.frames: list[bytes] = []
        self.writes = 0
        self.closed: tuple[int, str] | None = None
        self.lost_frames = False
        self.left = False
        self.barred = False
        self.vanished_at: float | None = None
        self.silent = False
        """Whether the client answers no ping."""

    def __repr__(self) -> str:
        return f"<FakeSink {self.name}>"

    @property
    def waiting_bytes(self) -> int:
        return 0

    async def responds(self) -> bool:
        await trio.sleep(1 if self.silent else 0)
        return not self.silent

    def write(self, pieces: Sequence[Piece]) -> None:
        assert pieces, "a write of nothing"
        self.writes += 1
        if self.closed is None:
            self.frames.extend(frames_of(pieces))

    def taken_in_part(self, pieces: Sequence[Piece], sent: int) -> None:
        raise AssertionError("nothing is sent directly")

    def send(self, frame: bytes) -> None:
        if self.closed is None:
            self.frames.append(frame)

    def close(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = (code, reason)

    def take(self) -> list[dict[str, Any]]:
        """All that came since the last time, as JSON."""
        frames, self.frames = self.frames, []
        return [msgspec.json.decode(payload_of(frame)) for frame in frames]

    def received(self, *, but: Collection[str] = ()) -> list[Frame]:
        """All frames that came since the last time, without those of the commands in `but`."""
        frames = [Frame.of(message) for message in self.take()]
        return [frame for frame in frames if frame.command not in but]


class SlowSink(FakeSink):
    """A `Sink` whose client reads nothing until it is told to."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.waiting: list[bytes] = []

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, self.waiting))

    def write(self, pieces: Sequence[Piece]) -> None:
        self.waiting.extend(frames_of(pieces))

    def send(self, frame: bytes) -> None:
        self.waiting.append(frame)

    def read(self) -> None:
        """The client catches up."""
        self.frames.extend(self.waiting)
        self.waiting.clear()


class DirectSink(FakeSink):
    """A sink whose system takes so many bytes at once; None: it has an error."""

    def __init__(self, takes: int | None) -> None:
        super().__init__()
        self.takes = takes
        self.sent: list[bytes] = []
        self.rests: list[int] = []
        self.direct = self._direct

    def _direct(self, data: bytes) -> int:
        if self.takes is None:
            raise BlockingIOError
        self.sent.append(data[: self.takes])
        return len(self.sent[-1])

    def taken_in_part(self, pieces: Sequence[Piece], sent: int) -> None:
        assert pieces[0][1] == 0
        self.rests.append(sent)
