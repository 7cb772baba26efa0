"""Instances of a node whose lease has run out, or that has fallen."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from actors.instance.actor import SUSPENDED_S
from actors.instance.hosted import Here, Holding, Where
from actors.instance.messages import GetPlayers
from actors.instance.recovery import RecoveryState
from actors.instance.relay import REFUSED
from actors.membership import MemberSessionEnded
from reileta.errors import Overloaded
from reileta.rules.cluster.placement import Tenure
from tests.actors.frames import data, left
from tests.actors.node_harness import ROOM, NodeHarness, open_harness, settle


class Lease:
    """Which node hosts: this one, as long as its lease is valid."""

    def __init__(self) -> None:
        self.valid = True
        self.holdings: dict[str, Holding] = {}
        self.left: list[str] = []

    async def place(self, instance_id: str) -> Where:
        holding = self.holdings.get(instance_id)
        if holding is None:
            tenure = Tenure(instance_id, "c_me", len(self.left) + 1)
            holding = self.holdings[instance_id] = Holding(tenure, lambda: self.valid)
        return Here(holding)

    def holding(self, instance_id: str) -> Holding | None:
        return self.holdings.get(instance_id)

    def held(self) -> list[str]:
        return list(self.holdings)

    def gave_up(self, instance_id: str) -> None:
        self.holdings.pop(instance_id).lost = True
        self.left.append(instance_id)

    def fenced(self, holding: Holding) -> None:
        raise AssertionError("no write was fenced")


@pytest.fixture
async def hosted(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[tuple[NodeHarness, Lease]]:
    """A node of a cluster, whose lease a test controls."""
    async with open_harness(monkeypatch) as harness:
        lease = Lease()
        harness.node.instances.hosts = lease
        yield harness, lease


Hosted = tuple[NodeHarness, Lease]


async def test_a_suspended_instance_sends_nothing_and_goes_on_in_order(
    hosted: Hosted, autojump_clock: MockClock
) -> None:
    harness, lease = hosted
    one, two = await harness.crowd(1, 2)
    lease.valid = False
    one.say(b"1")  # taken before the instance knows, and held
    await settle()
    one.say(b"2", state=b"9")  # refused
    await trio.sleep(10 * SUSPENDED_S)
    assert one.received() == two.received() == []
    lease.valid = True
    await trio.sleep(2 * SUSPENDED_S)
    assert two.received() == [data(1)]
    (refused,) = one.received()
    assert (refused.state, refused.error) == (9, 122)
    one.say(b"3")
    await settle()
    assert two.received() == [data(3)]


async def test_a_suspended_instance_refuses_requests_and_keeps_signals(
    hosted: Hosted, autojump_clock: MockClock
) -> None:
    harness, lease = hosted
    one, two = await harness.crowd(1, 2)
    lease.valid = False
    with pytest.raises(Overloaded):
        await harness.instance.ask(GetPlayers(None))
    harness.instance.signal(MemberSessionEnded(two.principal.session_id))
    await trio.sleep(10 * SUSPENDED_S)
    assert one.received() == []
    lease.valid = True
    await trio.sleep(3 * SUSPENDED_S)
    players = await harness.instance.ask(GetPlayers(None))
    assert len(players) == 1
    assert one.received() == [left("left")]


async def test_refusals_of_a_suspended_instance_are_bounded(
    hosted: Hosted, autojump_clock: MockClock
) -> None:
    harness, lease = hosted
    (one,) = await harness.crowd(1)
    lease.valid = False
    harness.instance.signal(MemberSessionEnded("s_none"))
    await settle()
    for number in range(REFUSED + 100):
        one.say(b"1", state=b"%d" % number)
    await settle()
    lease.valid = True
    await trio.sleep(2 * SUSPENDED_S)
    assert len(one.received()) == REFUSED


async def test_a_suspended_instance_writes_nothing(
    hosted: Hosted, autojump_clock: MockClock
) -> None:
    harness, lease = hosted
    (one,) = await harness.crowd(1)
    before = list(harness.store.instances.writes)
    lease.valid = False
    harness.instance.signal(MemberSessionEnded(one.principal.session_id))
    await trio.sleep(10 * SUSPENDED_S)
    assert harness.store.instances.writes == before
    lease.valid = True
    await trio.sleep(3 * SUSPENDED_S)
    assert harness.store.instances.writes == [*before, "empty"]


async def test_what_a_node_that_has_fallen_hosted_ends_without_a_word(
    hosted: Hosted, autojump_clock: MockClock
) -> None:
    harness, lease = hosted
    one, two = await harness.crowd(1, 2)
    lost: list[RecoveryState] = []
    harness.node.instances.lost = lost.append
    lease.valid = False
    one.say(b"1")
    await settle()
    lease.holdings.pop(ROOM).lost = True
    lease.valid = True  # the process is another node by now
    harness.node.instances.drop([ROOM])
    await settle()
    assert one.received() == two.received() == []
    assert harness.node.instances.running(ROOM) is None
    (recovery,) = lost
    assert set(recovery.seated) == {one.principal.session_id, two.principal.session_id}
    assert lease.left == []  # the place is not this node's to give back
    await one.join()
    assert harness.node.instances.running(ROOM) is not None


async def test_a_place_is_given_back_when_the_instance_has_ended(
    hosted: Hosted, autojump_clock: MockClock
) -> None:
    harness, lease = hosted
    (one,) = await harness.crowd(1)
    harness.instance.drain()
    await settle()
    assert lease.left == [ROOM]
    await one.join()
    assert lease.held() == [ROOM]


async def test_an_instance_starts_only_where_it_is_placed(
    hosted: Hosted, autojump_clock: MockClock
) -> None:
    harness, lease = hosted
    one = await harness.connect(1)
    assert (await lease.place(ROOM)) == Here(lease.holdings[ROOM])
    lease.holdings[ROOM].lost = True  # it is lost again before the actor starts
    with pytest.raises(Overloaded):
        await one.join()
    assert harness.node.instances.running(ROOM) is None
