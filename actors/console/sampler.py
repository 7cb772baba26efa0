"""Samples the counters of this process, every few seconds, for the console's charts.

Nothing is counted for it: it reads the counters that `/metrics` has.
"""

from __future__ import annotations

import os
import time

import trio

from reileta.clock import Clock
from reileta.observability.metrics import DatabaseCounters, Metrics
from reileta.rules.console.figures import FigureRing, Sample, between

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def memory_bytes() -> int:
    """The memory of this process that is in use; 0 if the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


class FigureSampler:
    """The figures of the last 15 minutes of this process. `step` is called every `EVERY_S`."""

    def __init__(self, metrics: Metrics, database: DatabaseCounters, clock: Clock) -> None:
        self._metrics = metrics
        self._database = database
        self._clock = clock
        self._last: Sample | None = None
        self.ring = FigureRing()

    async def step(self) -> None:
        """Takes a sample."""
        sample = self._sample()
        if self._last is not None:
            self.ring.add(self._clock.now_ms(), between(self._last, sample))
        self._last = sample

    def _sample(self) -> Sample:
        metrics = self._metrics
        return Sample(
            at_s=trio.current_time(),
            sockets=metrics.connections,
            players=metrics.players,
            instances=metrics.instances,
            messages_in=metrics.messages_in,
            deliveries=metrics.deliveries_out,
            bytes_in=metrics.bytes_in,
            bytes_out=metrics.bytes_out,
            requests=sum(metrics.http_requests.values()),
            statements=self._database.statements,
            backlog_bytes=metrics.backlog_bytes,
            cpu_s=time.process_time(),
            memory_bytes=memory_bytes(),
            drains=metrics.drains,
            drained=metrics.drain_size.sum,
            waited_s=metrics.mailbox_wait.sum,
            too_slow=metrics.too_slow,
            crashes=metrics.actor_crashes,
            lag=tuple(metrics.loop_lag.counts),
            lag_bounds=metrics.loop_lag.bounds,
        )
