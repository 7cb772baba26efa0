from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.loop_lag import EVERY_S, measure_lag
from reileta.observability.metrics import Metrics


async def test_a_late_event_loop_is_measured(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    metrics = Metrics()
    nursery.start_soon(measure_lag, metrics)
    await wait_all_tasks_blocked()
    for jump_s in (EVERY_S, EVERY_S + 0.5):
        mock_clock.jump(jump_s)
        await wait_all_tasks_blocked()
    assert metrics.loop_lag.count == 2
    assert metrics.loop_lag.sum == 0.5
