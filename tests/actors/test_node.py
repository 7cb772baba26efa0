"""The node: what its faces ask of it, what is left behind, and its end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.hub.messages import RemoveSocket
from actors.instance.actor import MEASURED_OF, PART_BYTES
from actors.instance.parts import InstanceParts
from actors.node import Node
from actors.session.messages import Attach, Join, Leave
from reileta.errors import InstanceNotFound, Overloaded
from reileta.observability.metrics import Metrics
from reileta.records import InstanceChanges, Unset
from reileta.records import World as WorldRecord
from reileta.rules.identity import Principal
from reileta.security.server_key import ServerKey
from reileta.settings import Settings
from reileta.store import Store
from tests.actors.frames import data, join, leave, left
from tests.actors.node_harness import (
    ADDRESS,
    EPOCH_MS,
    ROOM,
    NodeHarness,
    account,
    open_harness,
    principal,
    settle,
)
from tests.actors.sinks import FakeSink
from tests.conftest import PATIENCE_S, ManualClock


async def test_the_depth_of_mailboxes_is_measured(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room()
    one = await harness.joined(1)
    for _ in range(3):
        one.session.tell(Join(one.sink, ROOM, None))
    assert harness.node.metrics.mailbox_depths() == {
        "hub": 0,
        "instance": 0,
        "resource": 0,
        "session": 3,
    }
    await settle()
    assert harness.node.metrics.mailbox_depths()["session"] == 0
    for number in range(4):
        one.say(b"%d" % number)
    for _ in range(2):
        harness.node.hub.signal(RemoveSocket(FakeSink()))
    assert harness.node.metrics.mailbox_depths() == {
        "hub": 2,
        "instance": 4,
        "resource": 0,
        "session": 0,
    }


async def test_the_time_from_a_message_to_its_fan_out_is_measured_for_one_of_eight(
    harness: NodeHarness, mock_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    fanout = harness.node.metrics.fanout
    assert fanout.count == 0  # joins are no data
    one.say(b"1")
    mock_clock.jump(0.03)
    two.say(b"2")
    mock_clock.jump(0.01)
    await settle()
    assert (fanout.count, round(fanout.sum, 6)) == (1, 0.04)
    for _ in range(MEASURED_OF):
        assert fanout.count == 1
        # So much data is written before the end of the drain, and is measured all the same.
        one.say(b'"%s"' % (b"x" * (PART_BYTES + 1)))
        await settle()
    assert fanout.count == 2


async def test_a_soak_of_coming_and_going_leaves_nothing_behind(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=64)
    admin = await harness.connect(999, admin=True)
    await admin.subscribe("instance-data")

    async def visit(number: int) -> None:
        for turn in range(50):
            client = await harness.connect(number % 25, session=number)
            await client.subscribe("update-instance", "instance-joined", target=ROOM)
            await client.join()
            client.say(b"1", key="k", at=turn)
            match (number + turn) % 4:
                case 0:
                    await client.leave()
                    client.lose()
                case 1:
                    harness.node.sessions.end(client.principal.session_id)
                    await trio.sleep(70)
                case 2:
                    client.lose()
                    await trio.sleep(11)
                case _:
                    client.lose()
            admin.sink.frames.clear()

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(visit, number)
    admin.lose()
    await trio.sleep(300)
    assert harness.leftovers() == {}
    assert harness.store.instances.records == {}
    assert harness.node.metrics.actor_crashes == 0
    listeners = harness.listeners
    assert (listeners.of, listeners.by_topic, listeners.by_user) == ({}, {}, {})


async def test_what_lives_in_an_instance_goes_with_the_players(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    stays = await harness.joined(0)
    inside: list[InstanceParts] = []
    harness.act(lambda actor: inside.append(actor.parts))
    await settle()
    (parts,) = inside
    for number in range(1, 30):
        one = await harness.joined(number)
        one.say(b"1", key="k")
        await settle()
        await one.leave()
    await settle()
    assert len(parts.fanout) == len(parts.recovery.seated) == 1
    assert parts.fanout.flush() == 0
    assert list(parts.rules.retained()) == []
    assert parts.rules.audible == {stays.sink.seats[ROOM].player}
    assert parts.recovery.moderation_writes == []


async def test_a_world_is_told_to_those_who_may_see_it(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    owner, other = await harness.connect(0), await harness.connect(1)
    for client in (owner, other):
        await client.subscribe("update-world", "update-instance")
    for tag in ("avr:public", "avr:private"):
        record = WorldRecord(
            "w_1", 1, "Hall", None, 8, account(0).id, frozenset({tag}), EPOCH_MS, EPOCH_MS
        )
        harness.store.worlds.records[record.id] = record
        harness.node.changed("world", record)
        await settle()
    assert (len(owner.sink.take()), len(other.sink.take())) == (2, 1)
    harness.node.changed("instance", harness.room())
    harness.node.changed("instance", harness.room(access="avr:private"))
    await settle()
    assert other.sink.take() == []
    (update,) = owner.sink.take()  # of one drain, the newest
    assert (update["data"]["connected"], update["data"]["address"]) == (0, ADDRESS)


async def test_instances_elsewhere_or_nowhere_are_not_found(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.connect(1)
    for name in ("nowhere", "", f"{ROOM}@other.example", "@"):
        with pytest.raises(InstanceNotFound):
            await one.join(name)
    with pytest.raises(InstanceNotFound):
        await harness.node.instance_service.close("nowhere", principal(0))
    await one.join(f"{ROOM}@{ADDRESS}")
    assert harness.leftovers().keys() & {"instances"}


async def test_many_who_join_first_start_one_instance(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    clients = [await harness.connect(number) for number in range(8)]
    async with trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            nursery.start_soon(client.join, ROOM if number % 2 else "room-001")
    assert harness.node.directory.occupancy(ROOM).connected == 8
    assert harness.node.metrics.instances == 1


async def test_an_answer_that_does_not_come_is_overload(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(1)
    harness.act(lambda _: trio.sleep(40))
    with pytest.raises(Overloaded):
        await harness.node.instance_service.update(ROOM, principal(0), InstanceChanges(title="x"))
    with pytest.raises(Overloaded):
        await harness.node.instance_service.close(ROOM, principal(0))


async def test_a_full_mailbox_is_the_speakers_to_hear_of(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch, mailbox_limit=16) as harness:
        one, two = await harness.crowd(1, 2)
        for number in range(16):
            one.say(b"%d" % number)
        with pytest.raises(Overloaded) as refused:
            one.say(b"16")
        assert refused.value.code == 122
        two.lose()  # which is never refused
        await settle()
        one.say(b"17")
        await trio.sleep(11)
        assert one.received() == [left("disconnected")]
        assert not [one for one in two.received() if one.data == 16 or one.error == 16]


async def test_busy_instances_end_in_time(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch, shutdown_s=8) as harness:
        one, two = await harness.crowd(1, 2)
        for number in range(1000):
            one.say(b"%d" % number)
        harness.act(lambda _: trio.sleep_forever())
        session = one.session
        started = trio.current_time()
    assert trio.current_time() - started < 8
    assert session.stopped
    # Its drain was cut short by a message that hangs; what had been written by then is in order.
    heard = two.received()
    assert heard == [data(number) for number in range(len(heard))]


async def test_a_quiet_node_ends_at_once_and_says_what_waits(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch) as harness:
        one, two = await harness.crowd(1, 2)
        for number in range(1000):
            one.say(b"%d" % number)
        started = trio.current_time()
    assert trio.current_time() - started < 1
    assert two.received() == [data(number) for number in range(1000)]


async def test_over_the_real_database(store: Store, clock: ManualClock) -> None:
    owner = await store.users.create(username="ada", displayname="Ada", password_hash=None)
    hall = await store.worlds.create(
        title="Hall", description=None, capacity=8, owner=owner.id, tags=frozenset()
    )
    record = await store.instances.create(
        name="hall",
        title=None,
        description=None,
        world=hall.id,
        owner=owner.id,
        capacity=4,
        tags=frozenset({"avr:public"}),
    )
    opened = await store.sessions.open(owner.id)
    metrics = Metrics()
    async with Node.open(
        settings=Settings(),
        store=store,
        clock=clock,
        metrics=metrics,
        instruments=metrics,
        address=ADDRESS,
        key=ServerKey.generate(),
    ) as node:
        who, sink = Principal(owner, opened.id, b"token"), FakeSink()
        session = await node.sessions.live(who)
        await session.ask(Attach(sink, who.token_hash))
        await session.ask(Join(sink, "hall", b"1"))
        changes = InstanceChanges(title="The hall", tags=frozenset())
        changed = await node.instance_service.update(record.id, who, changes)
        stored = await store.instances.get("hall")
        assert stored is not None
        assert (stored.title, stored.tags) == (changed.title, changed.tags)
        assert stored.tags == {"avr:public"}
        assert not isinstance(changes.title, Unset)
        # It is occupied, which is written down beside what its actor does, and so neither the
        # sweep nor its look for the forgotten touches it.
        with trio.fail_after(PATIENCE_S):
            while await store.instances.abandoned(2**62, 2**62):
                await trio.sleep(0.01)
        await node.instances.sweep()
        assert await store.instances.in_use() == [record.id]
        assert await store.instances.abandoned(2**62, 2**62) == []
        sink.seats[record.id].send_data(sink, b"1", None, None, None, b"2")
        await session.ask(Leave(sink, record.id, b"3"))
        await node.instance_service.close(record.id, who)
        assert await store.instances.get("hall") is None
    answers = [one for one in sink.received() if one.state is not None]
    assert answers == [
        join("Ada", state=1),
        data(state=2),
        leave(state=3),
    ]
    assert metrics.actor_crashes == 0
