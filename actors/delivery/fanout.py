"""Fan-out: what one drain of an instance says, built once, written once to each receiver.

All frames that everybody is to get are joined into one buffer. A receiver who is to get something
else (not its own frames; an answer; only what came after it joined) has a list of edits against
that buffer, so that no receiver costs a copy (DESIGN §3). One order holds for all: the order of the
calls.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

from actors.delivery.sink import Sink
from reileta.protocol.frames import deflate
from reileta.rules.instance.data_rate import DataRate


class Batch:
    """Frames one behind the other in one buffer.

    `ends[n]` is where frame n ends, in bytes. `keys[n]` is what it conflates by, or None: then it
    is never dropped; `keys` is None when no frame has one. `paces[n]` is that of the player who
    said it, or None; `paces` is None when no player said any. A `snapshot` is an answer that may be
    larger than a receiver's backlog limit.
    """

    __slots__ = ("_deflated", "buffer", "ends", "keys", "paces", "snapshot", "view")

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

    def __len__(self) -> int:
        return len(self.buffer)

    def count(self, start: int, end: int) -> int:
        """How many frames lie between two frame boundaries."""
        return bisect_right(self.ends, end) - bisect_right(self.ends, start)

    def deflated(self, start: int, end: int) -> Piece:
        """The same frames compressed: once for all receivers that take them so."""
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


class Fanout:
    """The receivers of one instance, and what the drain at hand has for them."""

    def __init__(self) -> None:
        self._sinks: dict[Sink, None] = {}
        self._watchers: set[Sink] = set()
        self._frames: list[bytes] = []
        self._keys: list[Hashable | None] = []
        self._paces: list[DataRate | None] = []
        self._keyed = False
        self._paced = False
        self._size = 0
        self.gathered = 0
        """Bytes that players have said since the last flush."""
        self._edits: dict[Sink, list[tuple[int, int, Batch | None]]] = {}
        self._absent: dict[Sink, int] = {}
        self.reached = 0
        """How many sinks the last flush wrote to."""

    def __len__(self) -> int:
        return len(self._sinks)

    def __contains__(self, sink: Sink) -> bool:
        return sink in self._sinks

    def watched_by(self, sink: Sink) -> bool:
        return sink in self._watchers

    def add(
        self, sink: Sink, first: bytes | Sequence[Batch] | None, *, watcher: bool = False
    ) -> None:
        """From here on the sink gets what all get, and before it its welcome, `first`: a frame
        or batches.

        A watcher gets data alone.
        """
        self.remove(sink)
        since = self._absent.pop(sink, 0)
        self._sinks[sink] = None
        if watcher:
            self._watchers.add(sink)
        if not first:
            self._edit(sink, since, self._size, None)
            return
        batches = (Batch([first], snapshot=True),) if isinstance(first, bytes) else first
        self._edit_in(sink, since, batches)

    def remove(self, sink: Sink) -> None:
        """From here on the sink gets nothing more but what is `private` to it."""
        if sink in self._sinks:
            del self._sinks[sink]
            self._watchers.discard(sink)
            self._absent[sink] = self._size

    def broadcast(
        self,
        frame: bytes,
        key: Hashable | None = None,
        *,
        without: Iterable[Sink] = (),
        data: bool = False,
        pace: DataRate | None = None,
    ) -> None:
        """Everyone gets the frame but those in `without`, and watchers unless it is data.

        `pace` is that of the player who said it.
        """
        start = self._size
        self._size = end = start + len(frame)
        self._frames.append(frame)
        self._keys.append(key)
        self._paces.append(pace)
        if key is not None:
            self._keyed = True
        if pace is not None:
            self._paced = True
            self.gathered += len(frame)
        for sink in without:
            if sink in self._sinks:  # an edit of another would undo that it is absent
                self._edit(sink, start, end, None)
        if not data and self._watchers:
            for sink in self._watchers:
                self._edit(sink, start, end, None)

    def private(
        self,
        sink: Sink,
        frame: bytes,
        key: Hashable | None = None,
        *,
        pace: DataRate | None = None,
    ) -> None:
        """The sink alone gets the frame, whether or not it is a receiver of the rest."""
        keys = None if key is None else (key,)
        paces = None
        if pace is not None:
            paces = (pace,)
            self.gathered += len(frame)
        since = self._size
        if sink not in self._sinks:
            since = self._absent.get(sink, 0)
            self._absent[sink] = self._size
        self._edit(sink, since, self._size, Batch((frame,), keys, paces=paces))

    def answer(self, sink: Sink, batches: Sequence[Batch]) -> None:
        """A receiver alone gets the batches."""
        assert sink in self._sinks
        self._edit_in(sink, self._size, batches)

    def flush(self) -> int:
        """Writes to every receiver, once; returns how many frames went out."""
        if not self._frames and not self._edits:
            self.reached = 0
            return 0
        batch = Batch(
            self._frames,
            self._keys if self._keyed else None,
            paces=self._paces if self._paced else None,
        )
        edits, absent = self._edits, self._absent
        self._frames, self._keys, self._keyed, self._size = [], [], False, 0
        self._paces, self._paced, self.gathered = [], False, 0
        self._edits, self._absent = {}, {}
        frames = len(batch.ends)
        delivered = reached = edited = 0
        whole: list[Piece] = [(batch, 0, len(batch))]
        for sink in self._sinks:
            edit = edits.get(sink)
            if edit is not None:
                written = _write_edited(sink, batch, edit)
                delivered += written
                reached += written > 0
                edited += 1
            elif frames:
                sink.write(whole)
                delivered += frames
        if frames:
            reached += len(self._sinks) - edited
        for sink, since in absent.items():
            edit = edits.get(sink, [])
            edit.append((since, len(batch), None))
            written = _write_edited(sink, batch, edit)
            delivered += written
            reached += written > 0
        self.reached = reached
        return delivered

    def _edit_in(self, sink: Sink, since: int, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._edit(sink, since, self._size, batch)
            since = self._size

    def _edit(self, sink: Sink, start: int, end: int, frame: Batch | None) -> None:
        edits = self._edits.get(sink)
        if edits is None:
            self._edits[sink] = [(start, end, frame)]
        else:
            edits.append((start, end, frame))


def _write_edited(sink: Sink, batch: Batch, edits: list[tuple[int, int, Batch | None]]) -> int:
    """Writes the batch without the ranges edited out, with the frames edited in."""
    pieces: list[Piece] = []
    position = frames = 0
    for start, end, frame in edits:
        if start > position:
            pieces.append((batch, position, start))
            frames += batch.count(position, start)
        if frame is not None:
            pieces.append((frame, 0, len(frame)))
            frames += 1
        position = max(position, end)
    size = len(batch)
    if position < size:
        pieces.append((batch, position, size))
        frames += batch.count(position, size)
    if pieces:
        sink.write(pieces)
    return frames
