"""Batches of frames, and the pieces of them that a socket gets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from itertools import pairwise

from reileta.protocol.frames import deflate
from reileta.rules.instance.data_rate import DataRate
from reileta.rules.instance.interest import Index


class Batch:
    """Frames, joined in one buffer.

    Attributes:
        ends: `ends[n]` is where frame n ends, in bytes.
        keys: `keys[n]` is the conflation key of frame n, or None if the frame is never dropped;
            `keys` is None if no frame has a key.
        paces: `paces[n]` is the data rate of the player who sent frame n, or None if no player did;
            `paces` is None if no player sent any.
        snapshot: whether the batch may be larger than a receiver's backlog limit.
        index: where the values of which players are, if a receiver asked for fewer of them.
    """

    __slots__ = ("_deflated", "buffer", "ends", "index", "keys", "paces", "snapshot", "view")

    def __init__(
        self,
        frames: Sequence[bytes | memoryview],
        keys: Sequence[Hashable | None] | None = None,
        *,
        paces: Sequence[DataRate | None] | None = None,
        snapshot: bool = False,
    ) -> None:
        self.buffer = b"".join(frames)
        self.view = memoryview(self.buffer)
        self.keys = keys
        self.paces = paces
        self.snapshot = snapshot
        self.ends: list[int] = []
        end = 0
        for frame in frames:
            end += len(frame)
            self.ends.append(end)
        self._deflated: Batch | None = None
        self.index: Index | None = None

    @classmethod
    def of_buffer(
        cls,
        buffer: bytes,
        ends: list[int],
        keys: Sequence[Hashable | None] | None = None,
        *,
        snapshot: bool = False,
    ) -> Batch:
        """A batch from its attributes, as another node sent it."""
        batch = cls((), keys, snapshot=snapshot)
        batch.buffer, batch.view, batch.ends = buffer, memoryview(buffer), ends
        return batch

    def __len__(self) -> int:
        return len(self.buffer)

    def count(self, start: int, end: int) -> int:
        """How many frames lie between two frame boundaries."""
        return bisect_right(self.ends, end) - bisect_right(self.ends, start)

    def frames(self) -> list[bytes]:
        """The frames, one by one."""
        return [self.buffer[start:end] for start, end in pairwise([0, *self.ends])]

    def deflated(self, start: int, end: int) -> Piece:
        """The same frames, compressed once for all receivers with compression."""
        if self._deflated is None:
            bounds = [0, *self.ends]
            frames = [deflate(self.view[a:b]) for a, b in pairwise(bounds)]
            self._deflated = Batch(frames, self.keys, paces=self.paces, snapshot=self.snapshot)
        bounds = [0, *self._deflated.ends]
        first = bisect_right(self.ends, start)
        last = bisect_right(self.ends, end)
        return (self._deflated, bounds[first], bounds[last])


Piece = tuple[Batch, int, int]
"""Bytes `start` to `end` of a batch; both are frame boundaries."""
