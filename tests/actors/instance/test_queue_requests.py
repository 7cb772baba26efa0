"""Who stands in the queue: what an instance decides by what is so at that moment."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import RequestEntry
from actors.membership import CandidateOffline, CandidateOnline
from reileta.errors import InstanceNotFound
from tests.actors.nodes import ADDRESS, ROOM, World, principal, settle, user_at


async def test_news_of_a_socket_that_are_late_change_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    world.room(capacity=1)
    await world.joined(1)
    await world.connect(2)
    await world.node.instance_service.candidate(ROOM, principal(2))
    await world.node.instance_service.candidate(ROOM, principal(3))
    world.instance.signal(CandidateOffline(user_at(2)))  # it has come back meanwhile
    world.instance.signal(CandidateOnline(user_at(3)))  # it has gone again meanwhile
    await settle()
    two = (await world.node.instance_service.queue(ROOM, principal(2))).own
    three = (await world.node.instance_service.queue(ROOM, principal(3))).own
    assert two is not None
    assert three is not None
    assert two.expires_at is None
    assert three.expires_at is not None


async def test_nobody_lines_up_for_an_instance_that_ends(
    world: World, autojump_clock: MockClock
) -> None:
    await world.joined(1)
    world.store.instances.gate = gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.node.instance_service.close, ROOM, principal(0))
        await settle()
        with pytest.raises(InstanceNotFound):
            await world.instance.ask(RequestEntry(principal(2).as_visitor(ADDRESS)))
        gate.set()
