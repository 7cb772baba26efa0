"""What admins see of a node: its instances, actors, crashes; what watches get."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec import UNSET
from trio.testing import MockClock

from actors.console.console import Topic
from actors.console.live import LOOK_S
from actors.console.watches import WATCHES, Watch
from actors.runtime.trace import Sampler
from actors.runtime.trace_watch import PER_S, TraceWatch
from reileta.errors import InstanceNotFound, NodeNotFound, QuotaReached
from reileta.observability import log_events
from tests.actors.node_harness import (
    ROOM,
    InspectableInstance,
    NodeHarness,
    RunInActor,
    account,
    settle,
    user_at,
)
from tests.actors.sinks import FakeSink

INSTANCES = Topic(topic="instances")


def fail(_: InspectableInstance) -> None:
    raise ZeroDivisionError("token=ua_0123456789abcdef is secret")


async def look(harness: NodeHarness, *topics: Topic, after_ms: int = -1) -> Any:
    return await harness.node.console.look(topics, after_ms)


async def test_a_live_instance_with_what_happens_in_it(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    ada, bob = await harness.crowd(0, 1)
    console = harness.node.console
    (row,) = (await console.instances(INSTANCES)).items
    assert (row.id, row.connected, row.capacity, row.node) == (ROOM, 2, 8, "local")
    assert row.messages_per_s is UNSET  # nobody has looked before
    for _ in range(20):
        bob.say(b"1")
    await trio.sleep(2)
    (row,) = (await console.instances(INSTANCES)).items
    assert row.messages_per_s == pytest.approx(10, abs=1)
    assert row.drain_size != UNSET
    await harness.node.instance_service.transfer_master(ROOM, ada.principal, user_at(1))
    bob.lose()
    await settle()
    detail = await console.instance(ROOM)
    assert {(one.user, one.role, one.sockets) for one in detail.players} == {
        (user_at(0), "owner", 1),
        (user_at(1), "master", 0),
    }
    assert [one.lag_ms is UNSET for one in detail.players] == [False, True]
    assert [one.event for one in detail.events] == ["moderated", "joined", "joined"]
    with pytest.raises(InstanceNotFound):
        await console.instance("i_nowhere")


async def test_instances_are_sorted_searched_and_cut(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    rooms = [f"{ROOM[:-1]}{number}" for number in (2, 3, 4)]
    for number, room in enumerate(rooms):
        harness.room(room, capacity=4 + number)
        client = await harness.connect(number)
        await client.join(room)
    await settle()
    console = harness.node.console
    page = await console.instances(
        Topic(topic="instances", sort="capacity", order="asc", limit=2, offset=1)
    )
    assert ([one.id for one in page.items], page.total) == (rooms[1:], 3)
    found = await console.instances(Topic(topic="instances", query="ROOM-003"))
    assert [one.id for one in found.items] == [rooms[1]]


async def test_nothing_is_counted_while_nobody_looks(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(0, 1)
    supervisors = harness.node.supervisors

    def counted() -> bool:
        return any(one.meter for some in supervisors for one in some.children())

    assert not counted()
    harness.node.console.live.actors()
    assert counted()
    await harness.connect(2)
    assert all(one.meter for some in supervisors for one in some.children())
    await trio.sleep(LOOK_S + 6)
    assert not counted()
    assert not harness.node.console.live.looked_at


async def test_a_crash_is_shown_without_secrets(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(0, 1)
    harness.instance.tell(RunInActor(fail))  # type: ignore[arg-type]
    await trio.sleep(1)
    tree = await harness.node.console.actors()
    (crash,) = tree.crashes
    assert (crash.actor, crash.error) == (f"instance/{ROOM}", "ZeroDivisionError")
    assert crash.restarted
    assert "ua_0123456789abcdef" not in crash.message + crash.traceback
    assert "in fail" in crash.traceback
    assert crash.last_messages[-1].startswith("RunInActor ")
    by_name = {some.name: some for some in tree.supervisors}
    assert [one.restarts for one in by_name["instances"].actors] == [1]
    assert by_name["sessions"].total == 2
    assert "figures" in {one.name for one in tree.background}
    assert (await harness.node.console.nodes()).nodes[0].crashes == 1


async def test_an_actor_that_has_ended_leaves_its_crashes(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(0)
    for _ in range(3):
        harness.instance.tell(RunInActor(fail))  # type: ignore[arg-type]
        await trio.sleep(1)
    tree = await harness.node.console.actors()
    assert [one.restarted for one in tree.crashes] == [False, True, True]


async def test_figures_are_sampled_and_nodes_have_the_newest(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(0, 1)
    await trio.sleep(31)
    view = await harness.node.console.figures()
    assert len(view.at) == 6
    assert view.series["players"][-1] == 2
    assert all(len(values) == 6 for values in view.series.values())
    newer = await harness.node.console.figures(after_ms=view.at[3])
    assert newer.at == view.at[4:]
    with pytest.raises(NodeNotFound):
        await harness.node.console.figures("n_elsewhere")
    (node,) = (await harness.node.console.nodes()).nodes
    assert (node.id, node.here, node.players, node.state) == ("local", True, 2, "ready")


async def test_who_is_online(harness: NodeHarness, autojump_clock: MockClock) -> None:
    await harness.crowd(0, 1)
    await harness.connect(1, session=1)
    page = await harness.node.console.online(query=None, limit=9, offset=0)
    assert [(one.user, one.sockets, one.sessions, one.instances) for one in page.items] == [
        (account(0).id, 1, 1, 1),
        (account(1).id, 2, 2, 1),
    ]
    found = await harness.node.console.online(query="USER1", limit=9, offset=0)
    assert [one.username for one in found.items] == ["user1"]


# Watches -----------------------------------------------------------------------------------------


def shown(sink: FakeSink) -> list[dict[str, Any]]:
    return [one["data"] for one in sink.take() if one["command"] == "admin-figures"]


async def test_a_watch_gets_its_topics_again_and_again(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(0)
    await trio.sleep(11)
    sink, watches = FakeSink(), harness.node.watches
    topics = [Topic(topic="figures"), INSTANCES, Topic(topic="instance", instance="i_nowhere")]
    watches.set(Watch(sink, topics, 1.0, lambda: True))
    await trio.sleep(0.5)
    (first,) = shown(sink)
    assert len(first["figures"]["at"]) == 2
    assert [one["id"] for one in first["instances"]["items"]] == [ROOM]
    assert first["missing"] == ["instance"]
    await trio.sleep(5)
    later = shown(sink)
    assert len(later) == 5
    # Only what is new: one sample has come since.
    assert sum(len(one["figures"]["at"]) for one in later) == 1
    watches.set(Watch(sink, [Topic(topic="nodes")], 1.0, lambda: True))
    await trio.sleep(1.5)
    assert all("nodes" in one and "figures" not in one for one in shown(sink)[-2:])
    watches.end(sink)
    await trio.sleep(2)
    sink.take()
    await trio.sleep(5)
    assert shown(sink) == []


async def test_who_is_no_admin_any_more_sees_nothing_more(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    sink, allowed = FakeSink(), [True]
    harness.node.watches.set(Watch(sink, [INSTANCES], 1.0, lambda: allowed[0]))
    await trio.sleep(0.5)
    assert len(shown(sink)) == 1
    allowed[0] = False
    await trio.sleep(5)
    assert shown(sink) == []
    assert len(harness.node.watches) == 0


async def test_a_socket_that_does_not_read_is_passed_over(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    class Slow(FakeSink):
        waiting = 1

        @property
        def waiting_bytes(self) -> int:
            return self.waiting

    sink = Slow()
    harness.node.watches.set(Watch(sink, [INSTANCES], 1.0, lambda: True))
    await trio.sleep(4.5)
    assert shown(sink) == []
    sink.waiting = 0
    await trio.sleep(1)
    assert len(shown(sink)) == 1


async def test_watches_are_bounded(harness: NodeHarness, autojump_clock: MockClock) -> None:
    watches = harness.node.watches
    sinks = [FakeSink() for _ in range(WATCHES)]
    for sink in sinks:
        watches.set(Watch(sink, [INSTANCES], 60.0, lambda: True))
    with pytest.raises(QuotaReached):
        watches.set(Watch(FakeSink(), [INSTANCES], 60.0, lambda: True))
    watches.set(Watch(sinks[0], [INSTANCES], 60.0, lambda: True))  # in place of its own
    watches.end(sinks[1])
    watches.set(Watch(FakeSink(), [INSTANCES], 60.0, lambda: True))


# Traces ------------------------------------------------------------------------------------------


async def test_traces_are_drawn_only_while_somebody_looks(autojump_clock: MockClock) -> None:
    watch, sampler = TraceWatch(), Sampler()
    watch.add(sampler)
    assert not any(sampler.begin().sampled for _ in range(50))
    watch.start()
    span = sampler.begin()
    assert span.sampled
    watch.take(None, "info", {"event": log_events.PLAYER_JOINED, "trace": span.trace_id})
    await trio.sleep(2)
    watch.step()
    assert [one.id for one in watch.slowest] == [span.trace_id]
    watch.stop()
    assert not any(sampler.begin().sampled for _ in range(50))


async def test_of_many_traces_a_few_are_drawn(autojump_clock: MockClock) -> None:
    watch, sampler = TraceWatch(), Sampler()
    watch.add(sampler)
    watch.start()
    drawn = 0
    for _ in range(20):
        drawn = sum(sampler.begin().sampled for _ in range(5000))
        await trio.sleep(1)
        watch.step()
    assert drawn <= PER_S * 4
