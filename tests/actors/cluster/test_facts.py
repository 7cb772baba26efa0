"""Facts go from node to node, whatever the bus loses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.cluster.facts import BEAT_S, TOLD_EVERY_S, FactsExchange
from actors.directory import Directory, Occupancy
from actors.elsewhere import SessionElsewhere
from reileta.observability.metrics import Metrics
from reileta.rules.cluster.facts import LINGER_S, Changes
from reileta.rules.visibility import Audience
from tests.actors.cluster.fake_member import FakeMember
from tests.actors.sinks import FakeSink
from tests.reileta.cluster.memory_bus import MemoryNats

ADA, BEN = "u_ada", "u_ben@other.example:3032"


@dataclass
class Node:
    """One node, with its directory, and who came or went by what others told it."""

    member: FakeMember
    directory: Directory = field(default_factory=lambda: Directory(Metrics()))
    toggled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts = FactsExchange(self.member, self.learned)
        self.directory.join_cluster(self.facts.tell, FakeSink)

    def learned(self, changes: Changes) -> None:
        self.toggled += sorted(self.directory.learn(changes))


@dataclass
class Nodes:
    nats: MemoryNats
    nursery: trio.Nursery
    nodes: list[Node] = field(default_factory=list)

    async def start(self, count: int) -> list[Node]:
        for _ in range(count):
            name = f"c_{len(self.nodes) + 1}"
            member = FakeMember(name, self.nats.bus(name))
            self.nodes.append(Node(member))
            self.nursery.start_soon(self.nodes[-1].facts.run)
        for node in self.nodes:
            node.member.peers = {other.member.node: None for other in self.nodes}
        await trio.testing.wait_all_tasks_blocked()
        return self.nodes[-count:]

    @contextmanager
    def losing(self) -> Iterator[None]:
        self.nats.loses = lambda *_: True
        yield
        self.nats.loses = lambda *_: False


@pytest.fixture
async def nodes(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Nodes:
    return Nodes(MemoryNats(), nursery)


async def told() -> None:
    """Lets a change arrive."""
    await trio.sleep(TOLD_EVERY_S * 2)


async def test_what_one_node_has_all_others_know_within_the_pause(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two, three = await nodes.start(3)
    sink = FakeSink()
    audience = Audience((frozenset({"u_ada@play.example.org"}),))
    occupancy = Occupancy(3, 1, "u_ada@play.example.org", full=True, audience=audience)
    assert one.directory.opened(ADA, sink)
    one.directory.occupy("i_1", occupancy)
    one.directory.queue(BEN, "i_1")
    session = SessionElsewhere(ADA, 1, {"i_1": "p_1", "i_2": None}, frozenset({b"token"}))
    one.directory.note_session("s_1", session)
    await told()
    for other in (two.directory, three.directory):
        assert other.connected(ADA)
        assert other.live("i_1") == occupancy
        assert other.full() == {"i_1"}
        assert other.candidacies(BEN) == ("i_1",)
        assert other.candidates() == (BEN,)
        assert other.sessions_elsewhere("s_1") == {"c_1": session}
    assert two.toggled == three.toggled == [ADA]
    assert one.directory.closed(ADA, sink)
    one.directory.occupy("i_1", None)
    one.directory.unqueue(BEN, "i_1")
    one.directory.note_session("s_1", None)
    await told()
    for other in (two.directory, three.directory):
        assert not other.connected(ADA)
        assert other.live("i_1") is None
        assert not other.full()
        assert other.candidates() == ()
        counts = other.elsewhere.debug_counts()
        assert set(counts.values()) == {0}
    assert two.toggled == three.toggled == [ADA, ADA]


async def test_a_user_at_two_nodes_comes_once_and_goes_once(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two, three = await nodes.start(3)
    here, there = FakeSink(), FakeSink()
    assert one.directory.opened(ADA, here)
    await told()
    assert not two.directory.opened(ADA, there)
    await told()
    assert not one.directory.closed(ADA, here)
    await told()
    assert three.toggled == [ADA]
    assert two.directory.closed(ADA, there)
    await told()
    assert three.toggled == [ADA, ADA]


async def test_both_last_sockets_close_at_once_and_every_node_notices(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two, three = await nodes.start(3)
    here, there = FakeSink(), FakeSink()
    one.directory.opened(ADA, here)
    await told()
    two.directory.opened(ADA, there)
    await told()
    for node in (one, two, three):
        node.toggled.clear()
    # Each thinks that the other one still has a socket.
    assert not one.directory.closed(ADA, here)
    assert not two.directory.closed(ADA, there)
    await told()
    assert [node.toggled for node in (one, two, three)] == [[ADA]] * 3


async def test_lost_messages_are_made_up_for_at_the_next_heartbeat(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two = await nodes.start(2)
    with nodes.losing():
        one.directory.opened(ADA, FakeSink())
        await told()
    pulls = two.facts.pulls
    assert not two.directory.connected(ADA)
    await trio.sleep(BEAT_S * 2)
    assert two.directory.connected(ADA)
    assert two.facts.pulls == pulls + 1


async def test_a_node_that_starts_later_or_reconnects_learns_everything(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    (one,) = await nodes.start(1)
    users = [f"u_{number}" for number in range(5_000)]  # more than one message takes
    for user in users:
        one.directory.opened(user, FakeSink())
    await told()
    (two,) = await nodes.start(1)
    await trio.sleep(BEAT_S * 2)
    assert all(map(two.directory.connected, users))
    two.member.bus.cut()
    one.directory.opened(ADA, FakeSink())
    await told()
    two.member.bus.mend()
    await told()
    assert two.directory.connected(ADA)


async def test_facts_of_a_node_that_is_gone_fall_and_users_linger(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two = await nodes.start(2)
    one.directory.opened(ADA, FakeSink())
    one.directory.occupy("i_1", Occupancy(1))
    await told()
    one.member.bus.cut()
    del two.member.peers["c_1"]
    two.facts.node_gone("c_1")
    assert two.directory.live("i_1") is None
    assert two.directory.connected(ADA)
    await trio.sleep(LINGER_S + BEAT_S)
    assert not two.directory.connected(ADA)
    assert two.toggled == [ADA, ADA]


async def test_a_user_who_comes_back_at_another_node_was_never_away(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two, three = await nodes.start(3)
    one.directory.opened(ADA, FakeSink())
    await told()
    one.member.bus.cut()
    for node in (two, three):
        del node.member.peers["c_1"]
        node.facts.node_gone("c_1")
    two.directory.opened(ADA, FakeSink())
    await trio.sleep(LINGER_S + BEAT_S)
    assert three.directory.connected(ADA)
    assert three.toggled == [ADA]


async def test_a_node_that_fell_goes_on_under_its_new_id_without_a_flicker(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two = await nodes.start(2)
    one.directory.opened(ADA, FakeSink())
    one.directory.occupy("i_1", Occupancy(1))
    await told()
    one.directory.occupy("i_1", None)
    one.member.node = "c_9"
    one.facts.fell("c_1")
    two.member.peers = {"c_9": None}
    two.facts.node_gone("c_1")
    two.facts.node_seen("c_9")
    await trio.sleep(LINGER_S + BEAT_S * 2)
    assert two.directory.connected(ADA)
    assert two.toggled == [ADA]
    assert two.directory.live("i_1") is None
    assert two.facts.known.nodes() == ("c_9",)
    assert one.facts.known.nodes() == ("c_2",)


async def test_facts_of_a_newer_version_count_as_none(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    one, two = await nodes.start(2)
    one.facts.tell("weather/berlin", b"rain")
    one.facts.tell("instance/i_1", b"\x01")
    one.facts.tell("session/s_1", b"\xff")
    one.directory.opened(ADA, FakeSink())
    nodes.nats.bus("c_9").publish("avr.test.facts", b"\x01\x92\xa1z\x01")
    nodes.nats.bus("c_9").publish("avr.test.facts", b"rubbish")
    await told()
    assert two.directory.live("i_1") is None
    assert two.directory.sessions_elsewhere("s_1") == {}
    assert two.directory.connected(ADA)
