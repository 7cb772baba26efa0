"""Sockets that are none: what is written to them is kept, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.delivery.batch import Piece
from actors.delivery.sink import InstanceHandle
from reileta.protocol.frames import payload_of


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
        self.frames: list[bytes] = []
        self.writes = 0
        self.closed: tuple[int, str] | None = None

    def __repr__(self) -> str:
        return f"<FakeSink {self.name}>"

    @property
    def waiting_bytes(self) -> int:
        return 0

    def write(self, pieces: Sequence[Piece]) -> None:
        assert pieces, "a write of nothing"
        self.writes += 1
        if self.closed is None:
            self.frames.extend(frames_of(pieces))

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

    def said(self) -> list[str]:
        """All that came since the last time, each in a few words; but not who is master now, which
        follows from most comings and goings."""
        return [brief(one) for one in self.take() if one.get("command") != "instance-role"]


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


def brief(message: dict[str, Any]) -> str:
    """What a frame says: its command, its state, its error's code, or what its data tells."""
    words = [message.get("command", "?").removeprefix("instance-")]
    if "state" in message:
        words.append(f"#{message['state']}")
    if "error" in message:
        words.append(f"error {message['error']['code']}")
        return " ".join(words)
    data = message["data"]
    if isinstance(data, dict):
        if "displayname" in data:
            words.append(data["displayname"])
        if "reason" in data:
            words.append(data["reason"])
        if "data" in data:
            words.append(msgspec.json.encode(data["data"]).decode())
        if "players" in data:
            words.append("+".join(one["displayname"] for one in data["players"]))
    return " ".join(words)
