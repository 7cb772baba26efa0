"""What a crash of an instance leaves behind: see also test_instance_crashes.py."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from actors.instance.recovery import RecoveryState
from tests.actors.node_harness import ROOM, NodeHarness, settle


async def test_the_roster_follows_who_is_inside(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    again = await harness.connect(1)
    await again.join()
    rosters: list[RecoveryState] = []
    harness.act(lambda actor: rosters.append(actor.parts.recovery))
    await settle()
    (recovery,) = rosters
    assert recovery.record.id == ROOM
    assert list(recovery.seated) == ["s_1.0", "s_2.0"]
    seated = recovery.seated["s_1.0"]
    assert list(seated.sinks) == [one.sink, again.sink]
    assert seated.player.id == one.sink.seats[ROOM].player
    assert seated.session is one.session
    one.lose()
    again.lose()
    await settle()
    assert recovery.seated["s_1.0"].sinks == {}
    await two.leave()
    await trio.sleep(11)
    assert recovery.seated == {}


async def test_a_session_that_was_started_anew_is_the_one_to_be_told(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    for _ in range(3):
        one.session.tell(None)  # type: ignore[arg-type]  # which no session survives
        await trio.sleep(0.5)
    again = await harness.connect(1)
    await again.join()
    await again.leave()
    await settle()
    assert harness.node.sessions.recoveries["s_1.0"].joined_instances == {}
