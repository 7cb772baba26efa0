"""Fan-out: the frames of one drain, built once and written once to each receiver.

The frames for everybody are joined in one buffer. A receiver whose frames differ (without its own
messages, with an answer, only from its join on) has a list of edits against that buffer, so the
buffer is never copied. All receivers get frames in the order of the calls.

In a large room on a busy core, some of the receivers are written to at a time, in turns. Each of
them is written to as often as if all were, for the same work. But new messages are read between the
turns, and the next receivers get them at once, so the longest wait is shorter by nearly the length
of a fan-out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from actors.delivery.batch import Batch, Piece
from actors.delivery.interest import InterestGroup, InterestGroups
from actors.delivery.sink import Sink
from actors.delivery.writing import write_pieces, write_whole
from reileta.observability.metrics import Metrics
from reileta.rules.instance.data_rate import DataRate

Edit = tuple[int, int, Batch | None]
"""A receiver gets other frames, or none, in place of those from one position to another."""

TURN_SINKS: Final = 96
"""A turn has at least so many receivers: each turn costs a wake-up."""
MOST_TURNS: Final = 8


@dataclass(slots=True)
class _Turn:
    """Receivers that are written to at the same time, and what they have got since the turns began:
    so many frames, up to that position."""

    sinks: Sequence[Sink]
    frames: int = 0
    position: int = 0


class Fanout:
    """The receivers of one instance, and the frames of the current drain for them."""

    def __init__(self, instance: str = "", interests: InterestGroups | None = None) -> None:
        """`interests`: the receivers of this process that asked for fewer values."""
        self._id = instance
        self._metrics = Metrics() if interests is None else interests.metrics
        self._interests = {} if interests is None else interests.by_instance
        self._sinks: dict[Sink, None] = {}
        self._watchers: set[Sink] = set()
        self._frames: list[bytes] = []
        self._keys: list[Hashable | None] = []
        self._paces: list[DataRate | None] = []
        self._keyed = False
        self._paced = False
        self._size = 0
        self.gathered = 0
        """Bytes of players' data since the last flush. In turns, bytes that one receiver lacks at
        most, from before the last flush too."""
        self._kept = 0
        """How many of those are from before the last flush."""
        self._edits: dict[Sink, list[Edit]] = {}
        self._absent: dict[Sink, int] = {}
        self._turns: deque[_Turn] = deque()
        """The next one first, which is furthest behind. None: all receivers are equally far."""
        self._dropped = 0
        """Frames that all turns have got: they are not in `_frames` any more."""
        self._caught_up = 0
        """Frames that were sent since the last flush, to end the turns."""
        self.reached = 0
        """How many sinks the last flush wrote to."""
        self.changes = 0
        """How often a receiver was added or removed."""

    def __len__(self) -> int:
        return len(self._sinks)

    def __contains__(self, sink: Sink) -> bool:
        return sink in self._sinks

    def watched_by(self, sink: Sink) -> bool:
        return sink in self._watchers

    def add(
        self, sink: Sink, first: bytes | Sequence[Batch] | None, *, watcher: bool = False
    ) -> None:
        """Makes the sink a receiver from here on; `first`, a frame or batches, goes to it before.

        A watcher gets players' data only.
        """
        self.remove(sink)
        self._catch_up()
        self.changes += 1
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
        """Ends that: from here on the sink gets its `private` frames only."""
        if sink in self._sinks:
            self._catch_up()
            self.changes += 1
            del self._sinks[sink]
            self._watchers.discard(sink)
            self._absent[sink] = self._size
            group = self._interests.get(self._id)
            if group is not None:
                group.forget(sink)

    def broadcast(
        self,
        frame: bytes,
        key: Hashable | None = None,
        *,
        without: Iterable[Sink] = (),
        data: bool = False,
        pace: DataRate | None = None,
    ) -> None:
        """Sends the frame to all receivers but those in `without`; to watchers only if it is data.

        `pace` is the data rate of the player who sent it.
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
            if sink in self._sinks:  # other sinks get nothing here, and need no edit
                self._edit(sink, start, end, None)
        if not data and self._watchers:
            for sink in self._watchers:
                self._edit(sink, start, end, None)

    def relay(
        self, frame: bytes, key: Hashable | None, without: Iterable[Sink], pace: DataRate
    ) -> None:
        """As `broadcast` of a player's data, which nearly all frames are."""
        start, size = self._size, len(frame)
        self._size = end = start + size
        self.gathered += size
        self._frames.append(frame)
        self._keys.append(key)
        self._paces.append(pace)
        self._paced = True
        if key is not None:
            self._keyed = True
        sinks, edits = self._sinks, self._edits
        for sink in without:
            if sink not in sinks:
                continue
            edit = edits.get(sink)
            if edit is None:
                edits[sink] = [(start, end, None)]
            elif edit[-1][1] == start and edit[-1][2] is None:
                edit[-1] = (edit[-1][0], end, None)
            else:
                edit.append((start, end, None))

    def private(
        self,
        sink: Sink,
        frame: bytes,
        key: Hashable | None = None,
        *,
        pace: DataRate | None = None,
    ) -> None:
        """Sends the frame to this sink only, whether or not it is a receiver."""
        keys = None if key is None else (key,)
        paces = None
        if pace is not None:
            paces = (pace,)
            self.gathered += len(frame)
        since = self._size
        if sink not in self._sinks:
            self._catch_up()
            since = self._absent.get(sink, 0)
            self._absent[sink] = self._size
        self._edit(sink, since, self._size, Batch((frame,), keys, paces=paces))

    def answer(self, sink: Sink, batches: Sequence[Batch]) -> None:
        """Sends the batches to one receiver only."""
        assert sink in self._sinks
        self._edit_in(sink, self._size, batches)

    def flush(self) -> int:
        """Writes once to every receiver; returns how many frames were sent."""
        if self._turns:
            self._catch_up()
        caught_up, self._caught_up = self._caught_up, 0
        self.gathered = self._kept = 0
        if not self._frames and not self._edits:
            self.reached = 0
            return caught_up
        batch = Batch(
            self._frames,
            self._keys if self._keyed else None,
            paces=self._paces if self._paced else None,
        )
        edits, absent = self._edits, self._absent
        self._frames, self._keys, self._keyed, self._size = [], [], False, 0
        self._paces, self._paced = [], False
        self._edits, self._absent = {}, {}
        delivered = reached = 0
        sinks: Collection[Sink] = self._sinks
        group = self._interests.get(self._id)
        if group is not None:
            thinned = group.sinks
            sinks = {sink: None for sink in sinks if sink not in thinned}
            delivered, reached = self._write_thinned(group, batch, edits)
        for sink, edit in edits.items():
            if sink in sinks:
                written = self._write_edited(sink, batch, edit)
                delivered += written
                reached += written > 0
        if batch.ends:
            plain = [sink for sink in sinks if sink not in edits] if edits else sinks
            write_whole(plain, batch, self._metrics)
            delivered += len(batch.ends) * len(plain)
            reached += len(plain)
        for sink, since in absent.items():
            edit = edits.get(sink, [])
            edit.append((since, len(batch), None))
            written = self._write_edited(sink, batch, edit)
            delivered += written
            reached += written > 0
        self.reached = reached
        return delivered + caught_up

    @property
    def has_data(self) -> bool:
        """Whether there is players' data since the last flush."""
        return self.gathered > self._kept

    # In turns ----------------------------------------------------------------------------------

    @property
    def turns(self) -> int:
        """In how many turns `flush_turn` writes to all receivers."""
        sinks = len(self._sinks)
        return 1 if sinks < 2 * TURN_SINKS else min(MOST_TURNS, sinks // TURN_SINKS)

    @property
    def behind(self) -> bool:
        """Whether receivers wait for frames that others have got."""
        return bool(self._turns) and bool(self._frames or self._edits)

    def flush_turn(self) -> int:
        """Writes once to those receivers whose turn it is; returns how many frames were sent.

        In small rooms, and where receivers asked for fewer values, all are written to.
        """
        turns = self.turns
        if turns == 1 or self._absent or self._id in self._interests:
            return self.flush()
        if not self._turns:
            sinks = list(self._sinks)
            self._turns = deque(_Turn(sinks[first::turns]) for first in range(turns))
        caught_up, self._caught_up = self._caught_up, 0
        turn = self._turns[0]
        self._turns.rotate(-1)
        delivered = self._write_turn(turn)
        dropped = self._turns[0].frames - self._dropped
        if dropped:
            self._dropped += dropped
            del self._frames[:dropped], self._keys[:dropped], self._paces[:dropped]
        self.gathered = self._kept = self._size - self._turns[0].position
        return delivered + caught_up

    def _catch_up(self) -> None:
        """Ends the turns: all receivers get the frames so far, so that their positions agree."""
        if not self._turns:
            return
        for turn in self._turns:
            self._caught_up += self._write_turn(turn)
        self._turns.clear()
        self._frames, self._keys, self._keyed, self._size = [], [], False, 0
        self._paces, self._paced, self._dropped = [], False, 0
        self.gathered -= self._kept
        self._kept = 0

    def _write_turn(self, turn: _Turn) -> int:
        first, since = turn.frames - self._dropped, turn.position
        frames = self._frames[first:] if first else self._frames
        turn.frames += len(frames)
        turn.position = self._size
        batch = Batch(
            frames,
            self._keys[first:] if self._keyed else None,
            paces=self._paces[first:] if self._paced else None,
        )
        plain: list[Sink] = []
        edits, delivered, reached = self._edits, 0, 0
        for sink in turn.sinks:
            edit = edits.pop(sink, None)
            if edit is None:
                plain.append(sink)
                continue
            own = [(start - since, end - since, frame) for start, end, frame in edit]
            written = self._write_edited(sink, batch, own)
            delivered += written
            reached += written > 0
        if frames:
            write_whole(plain, batch, self._metrics)
            delivered += len(frames) * len(plain)
            reached += len(plain)
        self.reached = reached
        return delivered

    def _write_edited(self, sink: Sink, batch: Batch, edits: Sequence[Edit]) -> int:
        """Writes the batch with these edits; returns how many frames were written."""
        pieces, frames = _edited(batch, edits)
        if pieces:
            write_pieces(sink, pieces, self._metrics)
        return frames

    def _write_thinned(
        self, group: InterestGroup, batch: Batch, edits: dict[Sink, list[Edit]]
    ) -> tuple[int, int]:
        """Writes the batch with these edits to the receivers that asked for fewer values. Returns
        how many frames were written, and to how many."""
        delivered = reached = 0
        group.take(batch)
        chosen = group.at_once(batch)
        for sink, edit in edits.items():
            thinned = group.sinks.get(sink)
            if thinned is None or sink not in self._sinks:
                continue
            if len(edit) > 1 or edit[0][2] is not None:
                chosen.pop(thinned, None)
                before = thinned.frames
                thinned.begin(batch)
                pieces, _ = _edited(batch, edit)
                if pieces:
                    thinned.write(pieces)
                delivered += thinned.frames - before
                reached += thinned.frames > before
            elif thinned in chosen:  # frames were taken out, as its own are
                [(start, end, _)] = edit
                first, behind = bisect_right(batch.ends, start), bisect_right(batch.ends, end)
                own = range(first, behind)
                chosen[thinned] = [place for place in chosen[thinned] if place not in own]
        for thinned, places in chosen.items():
            if places and thinned.sink in self._sinks:
                thinned.write_at_once(batch, places)
                delivered += len(places)
                reached += 1
        return delivered, reached

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


def _edited(batch: Batch, edits: Sequence[Edit]) -> tuple[list[Piece], int]:
    """The pieces of the batch without the ranges edited out, with the frames edited in; and how
    many frames they have."""
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
    return pieces, frames
