"""Who is heard, and by whom: the cases that `test_instance.py` has not."""

from __future__ import annotations

from trio.testing import MockClock

from tests.actors.nodes import World, settle


async def test_those_addressed_alone_hear_it(world: World, autojump_clock: MockClock) -> None:
    one, two, three = await world.crowd(1, 2, 3)
    player = next(iter(two.sink.seats.values())).player
    own = next(iter(one.sink.seats.values())).player
    one.say(b"1", to=(player, own, "p_gone"), state=b"4")
    await settle()
    assert (one.said(), two.said(), three.said()) == (["data #4"], ["data 1"], [])


async def test_a_rollback_is_answered_and_not_heard(
    world: World, autojump_clock: MockClock
) -> None:
    one, two = await world.crowd(1, 2)
    one.say(b"2", key="k", at=2)
    one.say(b"1", key="k", at=1, state=b"5")
    await settle()
    assert (one.said(), two.said()) == (["data #5"], ["data 2"])
