"""The live instances of a node."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from reileta.errors import InstanceNotFound
from reileta.rules.identity import Visitor
from tests.actors.node_harness import ADDRESS, ROOM, NodeHarness, user_at


async def test_an_instance_is_started_once_however_it_is_called(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    places = harness.node.instances
    assert places.running(ROOM) is None
    one = Visitor("s_1", user_at(1), "U1")
    found = [await places.live(name, one) for name in (ROOM, f"{ROOM}@{ADDRESS}")]
    assert {id_ for id_, _ in found} == {ROOM}
    assert len({id(ref) for _, ref in found}) == 1
    assert places.running(ROOM) is found[0][1]


@pytest.mark.parametrize("name", ["", "nowhere", f"{ROOM}@elsewhere.example.org", "@me"])
async def test_what_is_not_there_or_anothers(
    harness: NodeHarness, autojump_clock: MockClock, name: str
) -> None:
    with pytest.raises(InstanceNotFound):
        await harness.node.instances.live(name, Visitor("s_1", user_at(1), "U1"))
