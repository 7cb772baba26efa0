"""Waits inside an instance while the system's clock is set: they last as long as they should."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import Tick
from tests.actors.frames import ROLES, left
from tests.actors.node_harness import ROOM, NodeHarness, settle
from tests.actors.sinks import FakeSink

HOUR_MS = 3_600_000
steps = pytest.mark.parametrize("by_ms", [-HOUR_MS, -900, 900, HOUR_MS])


@steps
@pytest.mark.parametrize("woken", [False, True])
async def test_a_lost_player_keeps_its_seat_for_its_grace(
    harness: NodeHarness, autojump_clock: MockClock, by_ms: int, woken: bool
) -> None:
    one, other = await harness.crowd(1, 2)
    one.lose()
    await trio.sleep(4)
    harness.clock.set_ms += by_ms
    if woken:  # as by any message, or by `ClockSteps`
        harness.instance.tell(Tick())
    await trio.sleep(5.5)
    assert other.received(but=ROLES) == []
    await trio.sleep(1)
    assert other.received(but=ROLES) == [left("disconnected")]


@steps
async def test_a_grace_that_begins_after_the_step_lasts_as_long(
    harness: NodeHarness, autojump_clock: MockClock, by_ms: int
) -> None:
    one, other = await harness.crowd(1, 2)
    harness.clock.set_ms += by_ms
    one.lose()
    await trio.sleep(9.5)
    assert other.received(but=ROLES) == []
    await trio.sleep(1)
    assert other.received(but=ROLES) == [left("disconnected")]


@steps
async def test_work_beside_the_actor_takes_effect_after_the_step_too(
    harness: NodeHarness, autojump_clock: MockClock, by_ms: int
) -> None:
    """The end of the question whether a client is there is what the rules hear first."""
    silent = FakeSink("silent")
    silent.silent = True
    await harness.joined(1, sink=silent)
    lost = await harness.joined(2)
    lost.lose()
    await settle()
    await harness.joined(1, session=1)
    harness.clock.set_ms += by_ms
    await trio.sleep(9.5)
    assert harness.node.directory.occupancy(ROOM).connected == 2
    await trio.sleep(1)
    assert harness.node.directory.occupancy(ROOM).connected == 1
