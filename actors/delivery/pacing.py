"""The rest after a fan-out and the pause after reading, by how busy the core is.

A fan-out to many sockets costs hardly more for many messages than for one, and a round that reads
few messages costs more than they do. So unless the core is idle, an instance rests after a fan-out,
and the reader pauses after a round: messages that come meanwhile share the next one. Both are short
beside what players can notice. On an idle core there is nothing to save, and messages would only be
late.

Time in which the thread waits for the core counts as busy, too: others use the core then. Only
Linux tells it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

PACED_FROM_S: Final = 0.000_2
"""A fan-out that is faster is not followed by a rest."""
IDLE_SHARE: Final = 0.2
"""If the core is less busy than this share, nobody rests or pauses."""
BUSY_SHARE: Final = 0.4
"""From this share on, rests and pauses have their full length."""
REST_TIMES: Final = 1.5
"""A rest is so many times as long as the fan-out."""
REST_S: Final = 0.000_5
"""The longest rest on a core that is not crowded, and the longest pause."""
CROWDED_SHARE: Final = 0.95
"""From this share on, rests grow."""
FULL_REST_TIMES: Final = 2.5
"""On a core without any time left, a rest is so many times as long as the fan-out."""
FULL_REST_S: Final = 0.005
"""The longest rest on such a core."""
WHOLE_SHARE: Final = 0.97
"""From this share on, a large room is written to as a whole, because turns cost more."""
OTHERS_SHARE: Final = 0.3
"""If all but players' messages needs less of the core than this share, the reader may keep the
thread while it pauses."""
SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
SCHEDSTAT_BYTES: Final = 128
"""More than its three numbers can have."""
WINDOW_S: Final = 0.04
"""The load is measured anew after so many seconds. The system counts in steps of up to 4 ms."""
MEMORY_S: Final = 0.2
"""The load is an average over about so many seconds. One that follows each window would make rests
unequal, and so the longest waits longer."""
NEWEST_SHARE: Final = 0.1
"""The share of the newest fan-out in the average of their lengths. Rests that follow each single
length would make long waits longer: after a long one, more messages wait for the next."""


class BusyTime:
    """For how long this thread has run or waited for its core, in seconds. Made in that thread."""

    __slots__ = ("_file",)

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        with suppress(OSError):
            self._file = SCHEDSTAT.open("rb", buffering=0)

    def __call__(self) -> float:
        if self._file is not None:
            with suppress(OSError, ValueError):
                counted = os.pread(self._file.fileno(), SCHEDSTAT_BYTES, 0)
                ran_ns, waited_ns, *_ = map(int, counted.split())
                if ran_ns:  # systems that don't count say 0
                    return (ran_ns + waited_ns) / 1e9
            self.close()
        return time.thread_time()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()


class CoreLoad:
    """How busy the event loop's core is, as a share. One for all instances."""

    __slots__ = (
        "_busy_s",
        "_measured_at",
        "_now_s",
        "_others",
        "_share",
        "_traffic_s",
        "_used_s",
        "traffic_s",
    )

    def __init__(
        self,
        busy_s: Callable[[], float] | None = None,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`busy_s` grows while the core is busy; `now_s` never jumps."""
        self._busy_s, self._now_s = busy_s or BusyTime(), now_s
        self._used_s, self._measured_at = self._busy_s(), now_s()
        self._share = self._others = 0.0
        self.traffic_s = self._traffic_s = 0.0
        """Seconds of work for players' messages: rounds of the reader with their fan-outs, and
        values that had waited. Those who do it add it here."""

    def share(self) -> float:
        """The average of the windows that are over. A window ends when this is asked, so it may be
        longer than it should."""
        now_s = self._now_s()
        span_s = now_s - self._measured_at
        if span_s >= WINDOW_S:
            used_s = self._busy_s()
            share = max(0.0, used_s - self._used_s) / span_s  # another counter may be used now
            others = max(0.0, share - (self.traffic_s - self._traffic_s) / span_s)
            newest = min(1.0, span_s / MEMORY_S)
            self._share += (share - self._share) * newest
            self._others += (others - self._others) * newest
            self._used_s, self._traffic_s, self._measured_at = used_s, self.traffic_s, now_s
        return self._share

    @property
    def traffic_dominates(self) -> bool:
        """Whether all but players' messages needs little of the core, so that the reader may keep
        the thread while it pauses."""
        self.share()  # the windows end when they are asked for
        return self._others < OTHERS_SHARE

    @property
    def suits_turns(self) -> bool:
        """Whether a large room should be written to in turns: instances rest, and the core has time
        for it."""
        return IDLE_SHARE < self.share() < WHOLE_SHARE

    def rest_s(self, took_s: float) -> float:
        """The rest after a fan-out that took so many seconds, in seconds."""
        if took_s < PACED_FROM_S:
            return 0.0
        share = self.share()
        rest_s = _busy(share) * min(REST_TIMES * took_s, REST_S)
        if share > CROWDED_SHARE:
            more_s = min(FULL_REST_TIMES * took_s, FULL_REST_S) - rest_s
            rest_s += min((share - CROWDED_SHARE) / (1 - CROWDED_SHARE), 1.0) * max(more_s, 0.0)
        return rest_s

    def pause_s(self, took_s: float) -> float:
        """The pause after a round of reading that took so many seconds with the fan-outs at its
        end, in seconds: as long as their rest, so that the next round finds them ready."""
        if took_s < PACED_FROM_S:
            return _busy(self.share()) * REST_S
        return min(self.rest_s(took_s), REST_S)


def _busy(share: float) -> float:
    """How much of its full length a rest has."""
    return min(max((share - IDLE_SHARE) / (BUSY_SHARE - IDLE_SHARE), 0.0), 1.0)


class FanoutPace:
    """The rests of one instance, by the average length of its fan-outs."""

    __slots__ = ("_load", "_took_s")

    def __init__(self, load: CoreLoad) -> None:
        self._load = load
        self._took_s = 0.0

    def rest_s(self, took_s: float, turns: int = 1) -> float:
        """The rest after a fan-out, or after one of so many turns of it, which took `took_s`; in
        seconds."""
        self._took_s += (took_s * turns - self._took_s) * NEWEST_SHARE
        return self._load.rest_s(self._took_s) / turns
