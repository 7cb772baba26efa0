"""Bulk counting of deliveries with `bytes.count`, and sampling of 1 in n.

Pure except for the clock's value, which the caller passes in.
"""

from __future__ import annotations

import statistics
from array import array
from dataclasses import dataclass, field
from typing import Final

from benchmarks.frames import CLOSE, MARKER, PING, STAMP_BEFORE_MARKER, STAMP_DIGITS
from benchmarks.stats import percentile

CARRY: Final = 160
"""Bytes kept of earlier data: a marker or a control frame (127 bytes at most) that is split between
two reads is found when its last byte arrives, and so counted exactly once."""

WINDOW_NS: Final = 100_000_000
LEAST_SAMPLES: Final = 100
"""Fewer samples of a window have no 99th percentile."""

_PING: Final = bytes([0x80 | PING])
_CLOSE: Final = bytes([0x80 | CLOSE])


@dataclass(slots=True)
class Stream:
    """The state of one connection."""

    until_sample: int
    tail: bytearray = field(default_factory=lambda: bytearray(CARRY))
    delivered: int = 0
    received_bytes: int = 0


class Tally:
    """Counts the markers of all connections, which share one buffer, so that it stays in the cache.

    Read into `space`, then call `arrived` with the connection's stream and the number of bytes.
    """

    def __init__(self, *, sample_every: int, size: int = 1 << 18) -> None:
        self._buffer = bytearray(CARRY + size)
        self.space = memoryview(self._buffer)[CARRY:]
        self.sample_every = sample_every
        self.counted = 0
        """Deliveries whose markers were counted, in so many bytes."""
        self.counted_bytes = 0
        self.discarded_bytes = 0
        self.due_ns = array("q")
        self.latency_ns = array("q")
        self._stride = 0
        """Bytes from one marker to the next, as last seen: a first guess."""

    def stream(self, number: int = 0) -> Stream:
        """The state of a new connection. `number` spreads the streams' first samples."""
        return Stream(until_sample=1 + number % self.sample_every)

    def arrived(self, stream: Stream, size: int, now_ns: int) -> None:
        """`size` bytes of that stream have been read into `space`."""
        buffer = self._buffer
        end = CARRY + size
        buffer[:CARRY] = stream.tail
        begin = CARRY - len(MARKER) + 1
        count = buffer.count(MARKER, begin, end)
        if count:
            stream.delivered += count
            self.counted += count
            left = stream.until_sample - count
            if left <= 0:
                left = self._sample(stream.until_sample, begin, end, count, now_ns)
            stream.until_sample = left
        stream.received_bytes += size
        self.counted_bytes += size
        stream.tail = buffer[size:end]

    def discarded(self, stream: Stream, size: int) -> None:
        """`size` bytes of that stream have been discarded."""
        stream.received_bytes += size
        self.discarded_bytes += size

    @property
    def delivered(self) -> int:
        """All deliveries. Those that were discarded have as many bytes each as the others."""
        if not self.discarded_bytes or not self.counted:
            return self.counted
        return self.counted + round(self.discarded_bytes * self.counted / self.counted_bytes)

    def _sample(self, nth: int, begin: int, end: int, count: int, now_ns: int) -> int:
        """Takes the nth delivery of this read and every `sample_every`th after it. Returns what is
        left."""
        buffer = self._buffer
        at, position = 1, buffer.find(MARKER, begin, end)
        while nth <= count:
            while at < nth:
                guess = position + (nth - at) * self._stride
                if self._stride and guess < end and buffer.startswith(MARKER, guess, end):
                    at, position = nth, guess
                    break
                follower = buffer.find(MARKER, position + 1, end)
                self._stride = follower - position
                at, position = at + 1, follower
            stamp = position - STAMP_BEFORE_MARKER
            due_ns = int(buffer[stamp : stamp + STAMP_DIGITS])
            self.due_ns.append(due_ns)
            self.latency_ns.append(now_ns - due_ns)
            nth += self.sample_every
        return nth - count

    def ping(self, size: int) -> bytes | None:
        """The payload of a ping that ended in the `size` bytes just read; call it after `arrived`.

        A length byte can look like a ping. Then there is one pong too many, which is harmless.
        """
        buffer = self._buffer
        end = CARRY + size
        at = buffer.find(_PING, 0, end)
        while at != -1:
            if at + 1 < end and buffer[at + 1] < 126:
                done = at + 2 + buffer[at + 1]
                if CARRY < done <= end:
                    return bytes(buffer[at + 2 : done])
            at = buffer.find(_PING, at + 1, end)
        return None


def closing_code(tail: bytes | bytearray) -> int | None:
    """The close code that a stream ended with, from its last bytes; None if there was none."""
    at = tail.rfind(_CLOSE)
    if at == -1 or at + 4 > len(tail) or at + 2 + tail[at + 1] != len(tail):
        return None
    return int.from_bytes(tail[at + 2 : at + 4])


def latencies_between(tally: Tally, begin_ns: int, end_ns: int) -> list[int]:
    """The latencies of the samples that were due in that span of time."""
    pairs = zip(tally.due_ns, tally.latency_ns, strict=True)
    return [latency for due, latency in pairs if begin_ns <= due < end_ns]


def calm_percentile(tally: Tally, begin_ns: int, end_ns: int, share: float) -> float | None:
    """The median of that percentile in windows of `WINDOW_NS`; None if none has enough samples."""
    windows: dict[int, list[int]] = {}
    for due, latency in zip(tally.due_ns, tally.latency_ns, strict=True):
        if begin_ns <= due < end_ns:
            windows.setdefault((due - begin_ns) // WINDOW_NS, []).append(latency)
    found = [
        percentile(sorted(one), share) for one in windows.values() if len(one) >= LEAST_SAMPLES
    ]
    return statistics.median(found) if found else None
