"""What waits for one socket that can't keep up: bounded, and conflated by key.

Overflow policy (PROTOCOL §7): of frames with a key, older ones give way to the newest of the same
key, which takes the newest's place, so no sender's messages change their order. Frames without a
key are never dropped. When half of the limit waits, the users whose share of it is the largest are
held back (`reileta/rules/instance/data_rate.py`); when a sixteenth more waits, all in the instances
whose frames come are. More than the limit: `push` says so, and the socket is closed (4008).

As long as a socket keeps up nothing here runs. Under overload pushing must stay cheap, so batches
are kept as they are, shared by all sockets, and only taken apart to conflate: before the next
write, and when what waits has doubled.
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
"""Over half of the limit, each further sixteenth of it has the loudest held back again."""


class Backlog:
    """Bytes that wait, in the order in which they are to be sent.

    `size` is how many. `conflated` counts frames that gave way to a newer one.
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
        self._pieces: deque[Piece] = deque()
        self._dirty = False
        self._conflate_at = CONFLATE_FROM
        self._press_at = limit_bytes // 2
        self._all_at = limit_bytes // 2 + limit_bytes // PRESS_STEPS
        self._allowance = 0

    def push(self, pieces: Sequence[Piece], sent: int = 0) -> bool:
        """Takes the pieces, of which the first `sent` bytes are sent already; False: overflown.

        A snapshot is let in over the limit, once: until all is sent, the limit is as much higher.
        That of several the largest counts keeps a client that enters over and over, and never
        reads, from having ever more kept for it.
        """
        snapshot = 0
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
            # A few times until it is full, for this looks at all that waits.
            self._press_at = self.size + self.limit // PRESS_STEPS
        if self.size > self._all_at:
            _hold_all_back(pieces)
        return self.size <= self.limit + self._allowance

    def _shares(self) -> Iterator[tuple[DataRate, int]]:
        """Whose frames wait, and how large each is."""
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
        """Keeps the rest of a frame that was sent in part aside; returns what comes after it."""
        index = bisect_right(batch.ends, start)
        begins = batch.ends[index - 1] if index else 0
        if start != begins:
            stop = min(batch.ends[index], end)
            self._partial = batch.view[start:stop]
            start = stop
        return (batch, start, end) if start < end else None

    def views(self, limit_bytes: int | None = None) -> list[memoryview]:
        """What to send next, `limit_bytes` at most; `taken` is told what of it was sent."""
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
        """Lets go of what was sent: the first `sent` bytes."""
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
        # It follows what waits down, so that whoever goes on is held back again.
        self._press_at = max(
            self.limit // 2, min(self._press_at, self.size + self.limit // PRESS_STEPS)
        )
        if not self.size:
            self._dirty = False
            self._conflate_at = CONFLATE_FROM
            self._allowance = 0

    def pop_frame(self) -> bytes | None:
        """Takes out the first frame whole, for a receiver that is sent frame by frame."""
        if not self._pieces:
            return None
        batch, start, end = self._pieces[0]
        stop = min(batch.ends[bisect_right(batch.ends, start)], end)
        frame = bytes(batch.view[start:stop])
        self.taken(stop - start)
        return frame

    def conflate(self) -> None:
        """Drops each frame that a newer one of the same key makes stale."""
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
                # Nothing of it can go, and others may share it.
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
        """Drops what waits, but for the rest of a frame that was sent in part."""
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
    """Puts frames, the last of them first, before the pieces, and empties the lists."""
    if not frames:
        return
    # A copy of its own: views would keep whole shared batches alive for a few frames each.
    batch = Batch(frames[::-1], keys[::-1], paces=paces[::-1])
    pieces.appendleft((batch, 0, len(batch)))
    frames.clear()
    keys.clear()
    paces.clear()


def _hold_all_back(pieces: Sequence[Piece]) -> None:
    """Holds back all in the instances that the pieces come from."""
    for batch, _, _ in pieces:
        pace = next(filter(None, batch.paces or ()), None)
        if pace is not None:
            pace.hold_all_back()
