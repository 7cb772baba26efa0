"""Measures how late the event loop runs its tasks."""

from __future__ import annotations

from typing import Final

import trio

from reileta.observability.metrics import Metrics

EVERY_S: Final = 0.25


async def measure_lag(metrics: Metrics) -> None:
    """Notes how much later than asked a sleeping task wakes, for ever.

    A task that computes for long without a checkpoint makes all others late, and so does a machine
    without time for this process.
    """
    while True:
        due = trio.current_time() + EVERY_S
        await trio.sleep_until(due)
        metrics.loop_lag.observe(max(0.0, trio.current_time() - due))
