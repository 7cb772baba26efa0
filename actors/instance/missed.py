"""Messages for players without a socket, until they come back.

A player in its grace period gets the messages that it missed when it joins again: players' data
that is not retained, and moderation of its user.

Overflow policy: the newest `SEAT_LIMIT_BYTES` of each player are kept, and of those addressed to
single players at most `TOTAL_LIMIT_BYTES` in an instance. Older ones are dropped, and their player
is told that there is a gap. Messages for everybody are kept once, whoever misses them, in chunks
that all who come back share. While nobody is away, nothing is kept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from actors.delivery.batch import Batch

SEAT_LIMIT_BYTES: Final = 256 * 1024
TOTAL_LIMIT_BYTES: Final = 8 * 1024 * 1024
UNDERWAY_S: Final = 1.0
"""How long a message may be on its way: a client that was heard of so long after it has read it."""
EVERYBODY: Final = ""
"""In place of a player's id: several players have spoken."""
CHUNK_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Missed:
    """The frames for a player, in order; `gap`: earlier frames may be missing."""

    batches: tuple[Batch, ...] = ()
    gap: bool = False


class _Chunk:
    """Frames for everybody, with their places in the order of all messages."""

    __slots__ = ("_batch", "frames", "places", "sealed", "size")

    def __init__(self) -> None:
        self.places: list[int] = []
        self.frames: list[bytes] = []
        self.size = 0
        self.sealed = False
        self._batch: Batch | None = None

    @property
    def batch(self) -> Batch:
        """All frames, made once; no further ones can be added."""
        self.sealed = True
        if self._batch is None:
            self._batch = Batch(self.frames, snapshot=True)
        return self._batch


@dataclass(slots=True)
class _Absence:
    """A player without a socket: since which place, and the messages for it alone."""

    since: int
    gap: bool
    own: deque[tuple[int, bytes]] = field(default_factory=deque)
    own_bytes: int = 0


class MissedMessages:
    """The messages that players of one instance missed. It outlives a crash of the actor.

    Attributes:
        away: the players without a socket, by id; only to be read.
    """

    def __init__(
        self,
        *,
        seat_limit_bytes: int = SEAT_LIMIT_BYTES,
        total_limit_bytes: int = TOTAL_LIMIT_BYTES,
    ) -> None:
        self.away: dict[str, _Absence] = {}
        self._speaker = EVERYBODY
        self._spoken_at = self._others_spoken_at = -math.inf
        self._told_at: dict[str, float] = {}  # by player inside that got what it missed: when
        self._seat_limit = seat_limit_bytes
        self._total_limit = total_limit_bytes
        self._chunks: deque[_Chunk] = deque()
        self._chunk_bytes = 0
        self._own_bytes = 0  # of all players
        self._next = 0
        self._dropped_before = 0  # of messages for everybody, those before this place are gone

    @property
    def size(self) -> int:
        """The bytes of all frames that are kept."""
        return self._chunk_bytes + self._own_bytes

    def spoken(self, speaker: str, at: float) -> None:
        """Messages without a key were written to the sockets, from one player or `EVERYBODY`."""
        if speaker == EVERYBODY:
            self._others_spoken_at = at
        elif speaker != self._speaker:
            self._others_spoken_at = self._spoken_at
        self._speaker, self._spoken_at = speaker, at

    def underway(self, player_id: str, heard_at: float) -> bool:
        """Whether messages may not have reached a player whose client was last heard of then, and
        has vanished: since then, or just before, others have spoken, or it got what it missed."""
        mine = self._speaker == player_id
        spoken_at = self._others_spoken_at if mine else self._spoken_at
        told_at = self._told_at.get(player_id, -math.inf)
        return max(spoken_at, told_at) > heard_at - UNDERWAY_S

    def begin(self, player_id: str, *, gap: bool = False) -> None:
        """A player lost its last socket; `gap`: earlier messages may not have reached it."""
        if player_id in self.away:
            return
        if self._chunks:
            self._chunks[-1].sealed = True  # it gets whole chunks
        self.away[player_id] = _Absence(self._next, gap)

    def lose(self, player_id: str) -> None:
        """Earlier messages may not have reached a player that has lost its last socket."""
        absence = self.away.get(player_id)
        if absence is not None:
            absence.gap = True

    def add(self, frame: bytes) -> None:
        """A frame for everybody inside; call it only while someone is away."""
        chunk = self._chunks[-1] if self._chunks else None
        if chunk is None or chunk.sealed or chunk.size >= CHUNK_BYTES:
            chunk = _Chunk()
            self._chunks.append(chunk)
        chunk.places.append(self._next)
        chunk.frames.append(frame)
        chunk.size += len(frame)
        self._chunk_bytes += len(frame)
        self._next += 1
        while self._chunk_bytes > self._seat_limit:
            oldest = self._chunks.popleft()
            self._chunk_bytes -= oldest.size
            self._dropped_before = oldest.places[-1] + 1

    def add_for(self, player_id: str, frame: bytes) -> None:
        """A frame for one player, if it is away."""
        absence = self.away.get(player_id)
        if absence is None:
            return
        absence.own.append((self._next, frame))
        absence.own_bytes += len(frame)
        self._own_bytes += len(frame)
        self._next += 1
        while absence.own_bytes > self._seat_limit or (
            self._own_bytes > self._total_limit and absence.own
        ):
            self._drop_oldest(absence)

    def _drop_oldest(self, absence: _Absence) -> None:
        _, dropped = absence.own.popleft()
        absence.own_bytes -= len(dropped)
        self._own_bytes -= len(dropped)
        absence.gap = True

    def take(self, player_id: str, at: float) -> Missed:
        """Removes and returns the messages of a player that has a socket again."""
        missed = self.of(player_id)
        self._end_absence(player_id)
        if missed.batches or missed.gap:
            self._told_at[player_id] = at
        return missed

    def of(self, player_id: str) -> Missed:
        """The messages that wait for a player."""
        absence = self.away.get(player_id)
        if absence is None:
            return Missed()
        chunks = [one for one in self._chunks if one.places[0] >= absence.since]
        gap = absence.gap or absence.since < self._dropped_before
        batches = _merged(chunks, absence.own, self._seat_limit)
        if sum(map(len, batches)) < sum(one.size for one in chunks) + absence.own_bytes:
            gap = True
        return Missed(batches, gap)

    def resume(self, player_id: str, frames: Sequence[bytes], *, gap: bool) -> None:
        """A player without a socket, with the messages that wait for it."""
        self.begin(player_id, gap=gap)
        for frame in frames:
            self.add_for(player_id, frame)

    def forget(self, player_id: str) -> None:
        """A player has left."""
        self._told_at.pop(player_id, None)
        self._end_absence(player_id)

    def _end_absence(self, player_id: str) -> None:
        absence = self.away.pop(player_id, None)
        if absence is not None:
            self._own_bytes -= absence.own_bytes
        if not self.away:
            self._chunks.clear()
            self._chunk_bytes = 0


def _merged(chunks: list[_Chunk], own: deque[tuple[int, bytes]], limit: int) -> tuple[Batch, ...]:
    """The newest frames of both, in order, up to the limit; whole chunks are shared."""
    total = sum(one.size for one in chunks) + sum(len(frame) for _, frame in own)
    if total <= limit and not own:
        return tuple(one.batch for one in chunks)
    frames = [pair for one in chunks for pair in zip(one.places, one.frames, strict=True)]
    kept: list[bytes] = []
    for _, frame in sorted([*frames, *own], reverse=True):
        limit -= len(frame)
        if limit < 0:
            break
        kept.append(frame)
    return (Batch(kept[::-1], snapshot=True),) if kept else ()
