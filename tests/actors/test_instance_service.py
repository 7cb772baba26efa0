"""What the faces ask of live instances, and whom they mean."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import QueueSnapshot
from reileta.errors import AlreadyConnected, NotQueued, Overloaded, UserNotFound
from tests.actors.node_harness import (
    ADDRESS,
    ROOM,
    NodeHarness,
    account,
    principal,
    settle,
    user_at,
)


def test_an_asker_as_instances_know_it() -> None:
    who = principal(1, admin=True).as_visitor(ADDRESS, frozenset({user_at(2)}))
    assert (who.session, who.user, who.displayname) == ("s_1.0", user_at(1), "U1")
    assert who.administers
    assert who.friends == {user_at(2)}


async def test_where_nobody_is_nothing_is_started_to_say_so(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    assert await harness.node.instance_service.queue(ROOM, principal(0)) == QueueSnapshot(
        entries=()
    )
    assert await harness.node.instance_service.players(ROOM) == ()
    assert harness.node.metrics.instances == 0


@pytest.mark.parametrize("name", ["user2", account(2).id, user_at(2), f"user2@{ADDRESS}"])
async def test_a_user_is_meant_by_its_id_or_name(
    harness: NodeHarness, autojump_clock: MockClock, name: str
) -> None:
    harness.room(access="avr:invite_only")
    entry = await harness.node.instance_service.admit(ROOM, principal(0), name)
    assert entry.user == user_at(2)
    await harness.node.instance_service.refuse(ROOM, principal(0), name)
    with pytest.raises(NotQueued):
        await harness.node.instance_service.refuse(ROOM, principal(0), name)


@pytest.mark.parametrize("name", ["", "@me", "nobody", "user2@elsewhere.example", "p_1"])
async def test_who_is_nobody_is_not_found(
    harness: NodeHarness, autojump_clock: MockClock, name: str
) -> None:
    with pytest.raises(UserNotFound):
        await harness.node.instance_service.admit(ROOM, principal(0), name)


async def test_asking_and_withdrawing(harness: NodeHarness, autojump_clock: MockClock) -> None:
    instance_service = harness.node.instance_service
    await harness.joined(1)
    with pytest.raises(AlreadyConnected):
        await instance_service.candidate(ROOM, principal(1))
    assert (await instance_service.candidate(ROOM, principal(2))).state == "admitted"
    queue = await instance_service.queue(ROOM, principal(1))  # the master oversees
    assert queue.entries is not None
    assert [one.user for one in queue.entries] == [user_at(2)]
    await instance_service.withdraw(ROOM, principal(2))
    with pytest.raises(NotQueued):
        await instance_service.withdraw(ROOM, principal(2))


async def test_an_answer_that_takes_too_long_is_overload(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(1)
    await settle()
    harness.act(lambda _: trio.sleep(60))
    with pytest.raises(Overloaded):
        await harness.node.instance_service.players(ROOM)
