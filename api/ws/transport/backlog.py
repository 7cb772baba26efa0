"""The backlog of a socket whose client reads too slowly.

Overflow policy: a frame with a key replaces older frames of the same key. It keeps its own place,
so the messages of one sender keep their order. Frames without a key are never dropped. When half of
the limit waits, the users with the largest share of it are held back
(`reileta/rules/instance/data_rate.py`); when a sixteenth more waits, all users of the instances
whose frames come are held back. Beyond the limit `push` returns False, and the socket is closed
(4008). See `docs/protocol.md#data-inside-an-instance`.

Nothing here runs while the client keeps up. Under overload `push` must stay cheap. So batches,
which all sockets share, stay whole until they are conflated: before the next write, and each time
the backlog has doubled.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

from actors.delivery.batch import Batch, Piece
from reileta.rules.instance.data_rate import DataRate, hold_back_loudest

MAX_VIEWS: Final = 512
"""Buffers in one write; the system's own limit (IOV_MAX) is 1,024."""
CONFLATE_FROM: Final = 64 * 1024
PRESS_STEPS: Final = 16
"""Above half of the limit, each further sixteenth holds the loudest users back again."""


_NOTHING: Final[deque[Piece]] = deque(maxlen=0)
"""The pieces of each backlog in which nothing waits: a deque of its own has 760 bytes."""


class Backlog:
    """Bytes that wait, in the order in which they will be sent.

    `size` is their number. `conflated` counts the frames that a newer one replaced.
    """

    __slots__ = (
        "_all_at",
        "_allowance",
        "_conflate_at",
        "_dirty",
        "_partial",
        "_pieces",
        "_press_at",
        "conflated",
        "limit",
        "size",
    )

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.size = 0
        self.conflated = 0
        self._partial: memoryview | None = None
        self._pieces = _NOTHING
        self._dirty = False
        self._conflate_at = CONFLATE_FROM
        self._press_at = limit_bytes // 2
        self._all_at = limit_bytes // 2 + limit_bytes // PRESS_STEPS
        self._allowance = 0

    def push(self, pieces: Sequence[Piece], sent: int = 0) -> bool:
        """Takes the pieces, except their first `sent` bytes; False when the limit is exceeded.

        A snapshot may exceed the limit: until everything is sent, the limit is higher by its size.
        Of several snapshots only the largest counts, or a client that joins over and over, and
        never reads, would make the server keep ever more.
        """
        snapshot = 0
        if self._pieces is _NOTHING:
            self._pieces = deque()
        for piece in pieces:
            batch, start, end = piece
            size = end - start
            if sent:
                if sent >= size:
                    sent -= size
                    continue
                rest = self._cut(batch, start + sent, end)
                size -= sent
                sent = 0
                if rest is not None:
                    self._pieces.append(rest)
            else:
                self._pieces.append(piece)
            self.size += size
            if batch.keys is not None:
                self._dirty = True
            if batch.snapshot:
                snapshot += size
        if snapshot > self._allowance:
            self._allowance = snapshot
        if self.size > self._conflate_at:
            self.conflate()
            self._conflate_at = max(CONFLATE_FROM, min(2 * self.size, self.limit))
        if self.size > self._press_at:
            hold_back_loudest(self._shares())
            # Only a few times until it is full, because this looks at the whole backlog.
            self._press_at = self.size + self.limit // PRESS_STEPS
        if self.size > self._all_at:
            _hold_all_back(pieces)
        return self.size <= self.limit + self._allowance

    def _shares(self) -> Iterator[tuple[DataRate, int]]:
        """The sender's rate and the size of each frame."""
        for batch, start, end in self._pieces:
            paces = batch.paces
            if paces is None:
                continue
            first = bisect_right(batch.ends, start)
            begins = start
            for number in range(first, bisect_right(batch.ends, end)):
                pace, ends = paces[number], batch.ends[number]
                if pace is not None:
                    yield pace, ends - begins
                begins = ends

    def _cut(self, batch: Batch, start: int, end: int) -> Piece | None:
        """Sets the rest of a frame that was sent in part aside; returns the frames after it."""
        index = bisect_right(batch.ends, start)
        begins = batch.ends[index - 1] if index else 0
        if start != begins:
            stop = min(batch.ends[index], end)
            self._partial = batch.view[start:stop]
            start = stop
        return (batch, start, end) if start < end else None

    def views(self, limit_bytes: int | None = None) -> list[memoryview]:
        """The buffers to send next, at most `limit_bytes`; pass the sent bytes to `taken`."""
        views = [] if self._partial is None else [self._partial[:limit_bytes]]
        if limit_bytes is None:
            for batch, start, end in self._pieces:
                if len(views) >= MAX_VIEWS:
                    break
                views.append(batch.view[start:end])
            return views
        left = limit_bytes - sum(map(len, views))
        for batch, start, end in self._pieces:
            if left <= 0 or len(views) >= MAX_VIEWS:
                break
            views.append(batch.view[start : min(end, start + left)])
            left -= end - start
        return views

    def taken(self, sent: int) -> None:
        """Removes the first `sent` bytes, which were sent."""
        self.size -= sent
        if self._partial is not None:
            if sent < len(self._partial):
                self._partial = self._partial[sent:]
                return
            sent -= len(self._partial)
            self._partial = None
        while self._pieces and sent >= self._pieces[0][2] - self._pieces[0][1]:
            _, start, end = self._pieces.popleft()
            sent -= end - start
        if sent:
            batch, start, end = self._pieces.popleft()
            rest = self._cut(batch, start + sent, end)
            if rest is not None:
                self._pieces.appendleft(rest)
        # The threshold sinks with the backlog, so that users who go on are held back again.
        self._press_at = max(
            self.limit // 2, min(self._press_at, self.size + self.limit // PRESS_STEPS)
        )
        if not self.size:
            self._pieces = _NOTHING
            self._dirty = False
            self._conflate_at = CONFLATE_FROM
            self._allowance = 0

    def pop_frame(self) -> bytes | None:
        """Removes and returns the first frame."""
        if not self._pieces:
            return None
        batch, start, end = self._pieces[0]
        stop = min(batch.ends[bisect_right(batch.ends, start)], end)
        frame = bytes(batch.view[start:stop])
        self.taken(stop - start)
        return frame

    def conflate(self) -> None:
        """Drops each frame that has a newer one of the same key."""
        if not self._dirty:
            return
        self._dirty = False
        frames: list[memoryview] = []
        keys: list[Hashable | None] = []
        paces: list[DataRate | None] = []
        seen: set[Hashable] = set()
        dropped = 0
        pieces: deque[Piece] = deque()
        for batch, start, end in reversed(self._pieces):
            if batch.snapshot and batch.keys is None:
                # None of its frames can be dropped, and other sockets may share it.
                _prepend(pieces, frames, keys, paces)
                pieces.appendleft((batch, start, end))
                continue
            index = bisect_right(batch.ends, start)
            bounds = [start, *batch.ends[index : bisect_right(batch.ends, end)]]
            for number in range(len(bounds) - 2, -1, -1):
                key = None if batch.keys is None else batch.keys[index + number]
                if key is not None:
                    if key in seen:
                        dropped += 1
                        self.size -= bounds[number + 1] - bounds[number]
                        continue
                    seen.add(key)
                frames.append(batch.view[bounds[number] : bounds[number + 1]])
                keys.append(key)
                paces.append(None if batch.paces is None else batch.paces[index + number])
        if not dropped:
            return
        self.conflated += dropped
        _prepend(pieces, frames, keys, paces)
        self._pieces = pieces

    def clear(self) -> None:
        """Drops everything except the rest of a frame that was sent in part."""
        self._pieces.clear()
        self.size = 0 if self._partial is None else len(self._partial)
        self._dirty = False
        self._allowance = 0


def _prepend(
    pieces: deque[Piece],
    frames: list[memoryview],
    keys: list[Hashable | None],
    paces: list[DataRate | None],
) -> None:
    """Puts the frames, which are in reverse order, before the pieces, and empties the lists."""
    if not frames:
        return
    # It is a copy, since views of a few frames would keep whole shared batches alive.
    batch = Batch(frames[::-1], keys[::-1], paces=paces[::-1])
    pieces.appendleft((batch, 0, len(batch)))
    frames.clear()
    keys.clear()
    paces.clear()


def _hold_all_back(pieces: Sequence[Piece]) -> None:
    """Holds back all users in the instances that the pieces come from."""
    for batch, _, _ in pieces:
        pace = next(filter(None, batch.paces or ()), None)
        if pace is not None:
            pace.hold_all_back()
