"""What the faces ask of live instances, and whom they mean."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import Queue
from actors.instance_service import visitor
from reileta.errors import AlreadyConnected, NotQueued, Overloaded, UserNotFound
from tests.actors.nodes import ADDRESS, ROOM, World, account, asker, settle, user_at


def test_an_asker_as_instances_know_it() -> None:
    who = visitor(asker(1, admin=True), ADDRESS, frozenset({user_at(2)}))
    assert (who.session, who.user, who.displayname) == ("s_1.0", user_at(1), "U1")
    assert who.administers
    assert who.friends == {user_at(2)}


async def test_where_nobody_is_nothing_is_started_to_say_so(
    world: World, autojump_clock: MockClock
) -> None:
    assert await world.node.desk.queue(ROOM, asker(0)) == Queue(entries=())
    assert await world.node.desk.players(ROOM) == ()
    assert world.node.metrics.instances == 0


@pytest.mark.parametrize("name", ["user2", account(2).id, user_at(2), f"user2@{ADDRESS}"])
async def test_a_user_is_meant_by_its_id_or_name(
    world: World, autojump_clock: MockClock, name: str
) -> None:
    world.room(access="avr:invite_only")
    entry = await world.node.desk.admit(ROOM, asker(0), name)
    assert entry.user == user_at(2)
    await world.node.desk.refuse(ROOM, asker(0), name)
    with pytest.raises(NotQueued):
        await world.node.desk.refuse(ROOM, asker(0), name)


@pytest.mark.parametrize("name", ["", "@me", "nobody", "user2@elsewhere.example", "p_1"])
async def test_who_is_nobody_is_not_found(
    world: World, autojump_clock: MockClock, name: str
) -> None:
    with pytest.raises(UserNotFound):
        await world.node.desk.admit(ROOM, asker(0), name)


async def test_asking_and_withdrawing(world: World, autojump_clock: MockClock) -> None:
    desk = world.node.desk
    await world.joined(1)
    with pytest.raises(AlreadyConnected):
        await desk.candidate(ROOM, asker(1))
    assert (await desk.candidate(ROOM, asker(2))).state == "admitted"
    queue = await desk.queue(ROOM, asker(1))  # the master oversees
    assert queue.entries is not None
    assert [one.user for one in queue.entries] == [user_at(2)]
    await desk.withdraw(ROOM, asker(2))
    with pytest.raises(NotQueued):
        await desk.withdraw(ROOM, asker(2))


async def test_an_answer_that_takes_too_long_is_overload(
    world: World, autojump_clock: MockClock
) -> None:
    await world.joined(1)
    await settle()
    world.act(lambda _: trio.sleep(60))
    with pytest.raises(Overloaded):
        await world.node.desk.players(ROOM)
