"""Watchers of resources, on a node over the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from actors.delivery.batch import Piece
from actors.node import Node
from actors.resource.messages import Idle, Subscriber, Tell
from actors.resource.operations import WRITES_AT_ONCE
from reileta.errors import (
    DatabaseUnavailable,
    Overloaded,
    PermissionDenied,
    QuotaReached,
    ResourceNotFound,
    ResourceTaken,
    SessionNotFound,
)
from reileta.records import ADMIN_TAG
from reileta.rules.identity import Claimant
from reileta.rules.resource import watchers
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.merge_patch import apply_object
from reileta.rules.resource.resource import ResourceKey, Write
from reileta.rules.resource.types import WORLD, Content
from reileta.store import Store
from tests.actors.session_clients import FakeSessionSink, SessionClient, log_in, open_node, until
from tests.actors.sinks import FakeSink, SlowSink
from tests.conftest import ManualClock


@pytest.fixture
async def node(store: Store, clock: ManualClock) -> AsyncIterator[Node]:
    async with open_node(store, clock) as node:
        yield node


class Watcher:
    """A socket of `/api/ws` that keeps a copy of a resource by what it is sent."""

    def __init__(self) -> None:
        self.sink: FakeSink = FakeSink()
        self.copy: dict[str, Json] = {}
        self.last: dict[str, Any] = {}
        self.ended: list[str] = []
        self.events = 0
        self.views = 0

    def read(self) -> Watcher:
        for message in self.sink.take():
            data = message["data"]
            if message["command"] == "resource-unwatched":
                self.ended.append(data["reason"])
                continue
            assert message["command"] in ("watch", "resource-updated")
            self.events += 1
            self.last = data
            if "view" in data:
                self.copy = data["view"]
                self.views += 1
            elif "patch" in data:
                assert data["from"] == self.copy["version"], "a gap"
                self.copy = apply_object(self.copy, data["patch"])
                assert self.copy["version"] == data["version"]
        return self


async def watch(node: Node, client: SessionClient, name: ResourceKey) -> Watcher:
    watcher = Watcher()
    who = client.principal.as_claimant()
    await node.resources.watch(name, who, Subscriber(watcher.sink, b"1"))
    return watcher.read()


async def settle(node: Node, name: ResourceKey) -> None:
    """Until the resource's actor has done all that it was sent."""
    for _ in range(3):
        await node.resources.read(name)
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_watcher_keeps_a_copy_without_asking(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    assert watcher.last["holder"] is None
    assert watcher.copy["version"] == 1
    await ada.acquire(name)
    await settle(node, name)
    assert watcher.read().last["holder"]["session"] == ada.principal.session_id
    for width in range(5):
        await ada.write(name, data={"door": {"width": width, "side": ["l"] * width}})
    await ada.write(name, title="Back door", data={"door": {"side": None}})
    await ada.release(name)
    await settle(node, name)
    watcher.read()
    assert watcher.last["title"] == "Back door"
    assert watcher.last["holder"] is None
    assert watcher.copy["data"] == {"door": {"width": 4}}
    assert watcher.copy["version"] == 7
    assert watcher.views == 1


async def test_nulls_that_no_patch_can_make_come_as_a_whole_view(node: Node) -> None:
    ada = await log_in(node)
    made = await node.store.resources.create(WORLD, ada.claimant, Content("Sea", None))
    name = ResourceKey(WORLD, made.number)
    watcher = await watch(node, ada, name)
    await ada.acquire(name)
    await ada.write(name, data={"description": "wide"})
    await ada.write(name, data={"description": None})
    await settle(node, name)
    assert watcher.read().copy["data"] == (await node.resources.read(name)).record.data


async def test_who_may_only_see_the_preview_gets_no_data(node: Node) -> None:
    ada, bob = await log_in(node), await log_in(node)
    made = await node.store.resources.create(WORLD, ada.claimant, Content("Sea", None))
    name = ResourceKey(WORLD, made.number)
    watcher = await watch(node, bob, name)
    await ada.acquire(name)
    await ada.write(name, title="Lake")
    await settle(node, name)
    watcher.read()
    assert watcher.last["title"] == "Lake"
    assert watcher.last["access"] == "preview"
    assert watcher.last["holder"]["session"] is None
    assert not {"view", "patch", "from", "data"} & set(watcher.last)
    await node.resources.share(name, ada.claimant, bob.principal.user.id)
    await settle(node, name)
    assert watcher.read().last["access"] == "view"
    assert watcher.copy["title"] == "Lake"


async def test_who_may_not_see_it_can_not_watch(node: Node) -> None:
    ada, bob = await log_in(node), await log_in(node)
    name = await ada.document()
    with pytest.raises(PermissionDenied):
        await watch(node, bob, name)
    with pytest.raises(ResourceNotFound):
        await watch(node, ada, ResourceKey("document", 1 << 40))
    assert node.debug_counts()["watching sockets"] == 0


async def test_a_watch_ends_with_its_reason(node: Node) -> None:
    ada, bob, admin = [await log_in(node) for _ in range(3)]
    await node.store.users.update(admin.principal.user.id, tags=frozenset({ADMIN_TAG}))
    name = await ada.document()
    await node.resources.share(name, ada.claimant, bob.principal.user.id)
    shared, owned = await watch(node, bob, name), await watch(node, ada, name)
    overseen = Watcher()
    who = Claimant(admin.principal.session_id, admin.principal.user.id, admin=True)
    await node.resources.watch(name, who, Subscriber(overseen.sink, b"1"))
    await node.resources.unshare(name, ada.claimant, bob.principal.user.id)
    await settle(node, name)
    assert shared.read().ended == ["unshared"]
    node.resources.user_changed(admin.principal.user)  # who is an admin no longer
    await settle(node, name)
    assert overseen.read().ended == ["hidden"]
    await ada.acquire(name)
    held = await node.store.leases.of_session(ada.principal.session_id)
    assert held is not None
    await node.resources.delete(name, ada.claimant, fence=held.fence, if_version=None)
    await until(lambda: owned.read().ended)
    assert owned.ended == ["deleted"]
    assert node.debug_counts()["watching sockets"] == 0
    assert node.debug_counts()["watching sessions"] == 0


async def test_unwatch_and_a_closed_socket_end_it_in_silence(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    one, two = await watch(node, ada, name), await watch(node, ada, name)
    assert node.resources.unwatch(name, one.sink)
    assert not node.resources.unwatch(name, one.sink)
    node.resources.socket_closed(two.sink)
    await ada.acquire(name)
    await settle(node, name)
    assert one.sink.take() == two.sink.take() == []
    assert node.debug_counts()["watching sockets"] == 0


async def test_watching_again_right_after_an_end_counts(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    node.resources.unwatch(name, watcher.sink)
    who = ada.principal.as_claimant()
    await node.resources.watch(name, who, Subscriber(watcher.sink, b"1"))
    await ada.acquire(name)
    await settle(node, name)
    assert watcher.read().last["holder"] is not None
    node.resources.socket_closed(watcher.sink)
    await settle(node, name)
    await ada.release(name)
    await settle(node, name)
    assert watcher.sink.take() == []


async def test_a_watch_of_the_session_api_is_acknowledged_then_told(node: Node) -> None:
    ada = await log_in(node)
    socket = await ada.open()
    name = await ada.document()
    socket.take()
    subscriber = Subscriber(socket, session_sink=socket, event_id="e1")
    await node.resources.watch(name, ada.principal.as_claimant(), subscriber)
    assert socket.acks == ["e1"]
    (told,) = socket.payloads()
    assert told["kind"] == "resource-updated"
    assert told["view"]["data"] is None
    await ada.acquire(name)
    await ada.write(name, data={"a": 1})
    await settle(node, name)
    kinds = [payload["kind"] for payload in socket.payloads()]
    assert kinds.count("resource") == 2
    assert "resource-updated" in kinds


async def test_a_change_by_somebody_else_is_found(node: Node) -> None:
    """Another server, a command or an operator writes to the database alone."""
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    await node.store.leases.acquire(name, ada.claimant, until=1 << 60)
    await node.resources.poll()
    await until(lambda: watcher.read().last["holder"])
    assert watcher.last["holder"]["session"] == ada.principal.session_id
    events = watcher.events
    await node.resources.poll()
    await settle(node, name)
    assert watcher.read().events == events
    await node.store.sessions.end(ada.principal.session_id)
    node.sessions.end(ada.principal.session_id)
    await settle(node, name)
    assert watcher.read().last["holder"] is None


async def test_a_crash_loses_no_change(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    await ada.acquire(name)
    await settle(node, name)
    await node.store.resources.write(
        name, ada.claimant, fence=1, patch={"data": {"a": 1}}, if_version=None
    )
    await crash(node, name)
    await until(lambda: watcher.read().copy["version"] == 2)
    assert watcher.copy["data"] == {"a": 1}
    await ada.write(name, data={"b": 2})
    await settle(node, name)
    assert watcher.read().copy["data"] == {"a": 1, "b": 2}


async def crash(node: Node, name: ResourceKey) -> None:
    ref = await node.resources._live(name)  # noqa: SLF001 - it may not run
    ref.signal(cast(Any, "not a message"))
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_an_actor_that_fails_for_good_says_so(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    await node.resources.queue(name, ada.principal.as_claimant())
    for _ in range(6):
        await crash(node, name)
        await trio.sleep(0.3)
        if watcher.read().ended:
            break
    assert watcher.ended == ["failed"]
    assert node.debug_counts()["watching sockets"] == 0
    assert node.debug_counts()["waiting sessions"] == 0
    assert (await watch(node, ada, name)).copy["version"] == 1


async def test_a_slow_watcher_gets_the_newest(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    watcher, quick, slow = Watcher(), await watch(node, ada, name), SlowSink()
    watcher.sink = slow
    await node.resources.watch(name, ada.principal.as_claimant(), Subscriber(slow, b"1"))
    slow.read()
    await ada.acquire(name)
    await settle(node, name)
    slow.read()
    watcher.read()
    slow.waiting.append(b"x" * (1 << 20))
    for width in range(3):
        await ada.write(name, data={"width": width})
    await settle(node, name)
    assert len(slow.waiting) == 1
    assert quick.read().copy["version"] == 4
    slow.waiting.clear()
    await until(lambda: slow.waiting)
    slow.read()
    assert watcher.read().copy["version"] == 4
    assert watcher.copy == quick.copy


async def test_watches_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await log_in(node)
    name = await ada.document()
    monkeypatch.setattr("actors.resource.interests.WATCHES_PER_SESSION", 1)
    await watch(node, ada, name)
    with pytest.raises(QuotaReached):
        await watch(node, ada, name)
    monkeypatch.setattr("actors.resource.interests.WATCHES_PER_SESSION", 9)
    monkeypatch.setattr(watchers, "WATCHERS_LIMIT", 1)
    with pytest.raises(QuotaReached):
        await watch(node, ada, name)
    assert node.debug_counts()["watching sockets"] == 1


async def test_writes_that_wait_together_are_one_transaction(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    name = await ada.document()
    await ada.acquire(name)
    batches: list[int] = []
    together = type(node.store.resources).write_all

    async def counted(self: Any, name: Any, writes: Any) -> Any:
        batches.append(len(writes))
        return await together(self, name, writes)

    monkeypatch.setattr(type(node.store.resources), "write_all", counted)
    versions: list[int] = []

    async def write(number: int) -> None:
        versions.append((await ada.write(name, data={str(number): number})).version)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(write, number)
    assert sorted(versions) == list(range(2, 22))
    assert sum(batches) == 20
    assert len(batches) < 20
    data = (await node.resources.read(name)).record.data
    assert data == {str(number): number for number in range(20)}


async def test_a_resource_that_nobody_uses_is_put_away(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.resource.actor.IDLE_S", 0.01)
    ada = await log_in(node)
    name = await ada.document()
    await node.resources.read(name)
    await until(lambda: node.debug_counts()["resource recoveries"] == 0)
    assert node.debug_counts()["resources"] == 0
    watcher = await watch(node, ada, name)
    await trio.sleep(0.05)
    assert node.debug_counts()["resources"] == 1
    node.resources.socket_closed(watcher.sink)
    await until(lambda: node.debug_counts()["resources"] == 0)


async def test_a_sink_of_a_session_socket_is_forgotten(node: Node) -> None:
    ada = await log_in(node)
    name, socket = await ada.document(), FakeSessionSink()
    subscriber = Subscriber(socket, session_sink=socket, event_id="e1")
    await node.resources.watch(name, ada.principal.as_claimant(), subscriber)
    node.resources.socket_closed(socket)
    await settle(node, name)
    assert not node.resources.recoveries[name.number].session_sinks
    socket.take()
    await ada.acquire(name)
    await settle(node, name)
    assert socket.take() == []


async def test_a_socket_that_closes_while_its_watch_begins_is_forgotten(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    name, watcher = await ada.document(), Watcher()
    resources, gate, reads = type(node.store.resources), trio.Event(), 0
    get = resources.get

    async def late(self: Any, name: ResourceKey) -> Any:
        nonlocal reads
        reads += 1
        await gate.wait()
        return await get(self, name)

    monkeypatch.setattr(resources, "get", late)

    async def begin() -> None:
        with pytest.raises(SessionNotFound):
            await watch_by(watcher)

    async def watch_by(watcher: Watcher) -> None:
        who = ada.principal.as_claimant()
        await node.resources.watch(name, who, Subscriber(watcher.sink, b"1"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin)
        await until(lambda: reads)
        node.resources.socket_closed(watcher.sink)
        again = Watcher()
        nursery.start_soon(watch_by, again)
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
    assert watcher.sink.take() == []
    assert again.read().copy["version"] == 1
    assert node.debug_counts()["watching sockets"] == 1


async def test_a_closed_socket_is_forgotten_although_the_actor_crashes(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    one, two = await watch(node, ada, name), await watch(node, ada, name)
    node.resources.socket_closed(one.sink)
    await crash(node, name)
    await ada.acquire(name)
    await until(lambda: two.read().last["holder"])
    assert one.sink.take() == []


async def test_an_actor_that_crashed_is_put_away_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    name = await ada.document()
    await node.resources.read(name)
    monkeypatch.setattr("actors.resource.actor.IDLE_S", 0.01)
    await crash(node, name)
    await until(lambda: node.debug_counts()["resources"] == 0)


@pytest.mark.parametrize("kind", ["reads", "writes"])
async def test_operations_that_wait_are_bounded(
    node: Node, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    limit = "OPERATIONS" if kind == "reads" else "WRITES"
    monkeypatch.setattr(f"actors.resource.actor.{limit}", 2)
    ada = await log_in(node)
    name = await ada.document()
    gate, begun, resources = trio.Event(), trio.Event(), type(node.store.resources)
    get = resources.get

    async def late(self: Any, name: ResourceKey) -> Any:
        begun.set()
        await gate.wait()
        return await get(self, name)

    monkeypatch.setattr(resources, "get", late)
    refused = 0

    async def ask() -> None:
        nonlocal refused
        try:
            if kind == "reads":
                await node.resources.read(name)
            else:
                await node.resources.write(name, [Write(ada.claimant, 1, {"data": 1})])
        except Overloaded:
            refused += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.resources.read, name)
        await begun.wait()
        for _ in range(5):
            nursery.start_soon(ask)
        await until(lambda: refused == 3)
        gate.set()
    assert refused == 3


async def test_numbers_that_are_made_up_leave_no_actors(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.resource.actor.IDLE_S", 3600)
    ada = await log_in(node)
    name = await ada.document()
    await node.resources.read(name)
    for number in range(1 << 40, (1 << 40) + 20):
        with pytest.raises(ResourceNotFound):
            await node.resources.read(ResourceKey("document", number))
        with pytest.raises(ResourceNotFound):
            await watch(node, ada, ResourceKey("document", number))
    await until(lambda: node.debug_counts()["resource recoveries"] == 1)
    assert node.debug_counts()["resources"] == 1


class FaultySink(FakeSink):
    """A socket that makes the actor crash when it writes to it for the second time."""

    def write(self, pieces: Sequence[Piece]) -> None:
        super().write(pieces)
        if self.writes == 2:
            raise RuntimeError("a fault")


async def test_a_crash_among_the_watchers_leaves_no_gap(node: Node) -> None:
    """Some have got the patch, the others have not."""
    ada = await log_in(node)
    name = await ada.document()
    await ada.acquire(name)
    first, faulty = await watch(node, ada, name), Watcher()
    faulty.sink = FaultySink()
    who = ada.principal.as_claimant()
    await node.resources.watch(name, who, Subscriber(faulty.sink, b"1"))
    last = await watch(node, ada, name)
    written = node.store.resources.write
    await written(name, ada.claimant, fence=1, patch={"data": {"a": 1}}, if_version=None)
    node.resources.changed(name.number)
    await until(lambda: last.read().copy["version"] == 2)
    await ada.write(name, data={"b": 2})
    await until(lambda: all(one.read().copy["version"] == 3 for one in (first, faulty, last)))
    assert first.copy["data"] == faulty.copy["data"] == last.copy["data"] == {"a": 1, "b": 2}
    assert last.views == 2


async def test_a_watch_that_is_cancelled_before_it_began_is_forgotten(node: Node) -> None:
    ada = await log_in(node)
    name, sink = await ada.document(), FakeSink()
    with trio.CancelScope() as scope:
        scope.cancel()
        await node.resources.watch(name, ada.principal.as_claimant(), Subscriber(sink, b"1"))
    assert scope.cancelled_caught
    assert node.debug_counts()["watching sockets"] == 0


async def test_changes_during_the_pause_after_a_fan_out_are_one_event(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    name = await ada.document()
    await ada.acquire(name)
    watcher = await watch(node, ada, name)
    times = count(step=1000.0)  # each drain takes so long, also the one that begins the write
    monkeypatch.setattr(
        "actors.resource.watching.trio", SimpleNamespace(current_time=lambda: next(times))
    )
    monkeypatch.setattr("actors.resource.watching.PAUSE_S", 3600.0)
    events = watcher.events
    for key in ("a", "b", "c"):
        await ada.write(name, data={key: 1})
    await settle(node, name)
    assert watcher.read().events == events
    ref = node.resources.running(name.number)
    assert ref is not None
    ref.signal(Tell())
    await settle(node, name)
    assert watcher.read().events == events + 1
    assert watcher.copy["data"] == {"a": 1, "b": 1, "c": 1}


async def test_a_watcher_that_comes_later_begins_with_the_newest(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    await ada.acquire(name)
    await watch(node, ada, name)
    await ada.write(name, data={"a": 1})
    later = await watch(node, ada, name)
    assert (later.copy["version"], later.copy["data"]) == (2, {"a": 1})


async def test_a_watched_resource_is_not_put_away(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    ref = node.resources.running(name.number)
    assert ref is not None
    ref.signal(Idle())
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert node.resources.running(name.number) is ref
    await ada.acquire(name)
    await settle(node, name)
    assert watcher.read().last["holder"] is not None


async def test_reads_that_wait_together_share_a_query_but_not_with_other_types(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    name = await ada.document()
    resources, asked = type(node.store.resources), list[ResourceKey]()
    get = resources.get

    async def counted(self: Any, name: ResourceKey) -> Any:
        asked.append(name)
        await trio.testing.wait_all_tasks_blocked(0.01)
        return await get(self, name)

    monkeypatch.setattr(resources, "get", counted)
    other, missing = ResourceKey(WORLD, name.number), 0

    async def ask(key: ResourceKey) -> None:
        nonlocal missing
        try:
            assert (await node.resources.read(key)).record.type == key.type
        except ResourceNotFound:
            missing += 1

    async with trio.open_nursery() as nursery:
        for key in [name] * 10 + [other] * 2:
            nursery.start_soon(ask, key)
    assert missing == 2
    assert len(asked) < 12


async def no_stamps(*_: object) -> None:
    """In place of what polls ask for: they find nothing."""
    raise DatabaseUnavailable


async def test_a_crash_loses_no_change_without_a_poll(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(node.store.resources), "stamps", no_stamps)
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    await node.store.leases.acquire(name, ada.claimant, until=1 << 60)
    await crash(node, name)
    await until(lambda: watcher.read().last["holder"])


async def test_a_refusal_shows_what_others_have_changed_without_a_poll(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(node.store.resources), "stamps", no_stamps)
    ada, bob = await log_in(node), await log_in(node)
    name = await ada.document()
    await node.resources.share(name, ada.claimant, bob.principal.user.id)
    watcher = await watch(node, ada, name)
    await node.store.leases.acquire(name, ada.claimant, until=1 << 60)
    with pytest.raises(ResourceTaken):
        await bob.acquire(name)
    await until(lambda: watcher.read().last["holder"])


async def test_a_watch_again_that_fails_ends_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch that there is goes on, and still ends with its socket."""
    ada = await log_in(node)
    name = await ada.document()
    watcher = await watch(node, ada, name)
    resources, who = type(node.store.resources), ada.principal.as_claimant()
    with monkeypatch.context() as outage:

        async def away(*_: object) -> None:
            raise DatabaseUnavailable

        outage.setattr(resources, "get", away)
        with pytest.raises(DatabaseUnavailable):
            await node.resources.watch(name, who, Subscriber(watcher.sink, b"1"))
    await ada.acquire(name)
    await until(lambda: watcher.read().last["holder"])
    assert node.debug_counts()["watching sockets"] == 1
    node.resources.socket_closed(watcher.sink)
    await settle(node, name)
    assert len(node.resources.recoveries[name.number].watchers) == 0
    assert node.debug_counts()["watching sockets"] == 0


async def test_a_watch_that_fails_after_its_request_was_given_up_is_forgotten(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await log_in(node), await log_in(node)
    name = await ada.document()
    resources, begun, gate = type(node.store.resources), trio.Event(), trio.Event()
    get = resources.get

    async def late(self: Any, name: ResourceKey) -> Any:
        begun.set()
        await gate.wait()
        return await get(self, name)

    monkeypatch.setattr(resources, "get", late)
    scope = trio.CancelScope()

    async def begin() -> None:
        with scope:
            await watch(node, bob, name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin)
        await begun.wait()
        scope.cancel()
        gate.set()
    await settle(node, name)
    assert node.debug_counts()["watching sockets"] == 0


async def test_who_ceases_to_be_an_admin_while_its_watch_begins_sees_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, admin = await log_in(node), await log_in(node)
    name, watcher = await ada.document(), Watcher()
    who = Claimant(admin.principal.session_id, admin.principal.user.id, admin=True)
    users, begun, gate = type(node.store.users), trio.Event(), trio.Event()
    many = users.many

    async def late(self: Any, ids: Any) -> Any:
        begun.set()
        await gate.wait()
        return await many(self, ids)

    monkeypatch.setattr(users, "many", late)

    async def begin() -> None:
        with pytest.raises(PermissionDenied):
            await node.resources.watch(name, who, Subscriber(watcher.sink, b"1"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin)
        await begun.wait()
        node.resources.user_changed(admin.principal.user)  # who is an admin no longer
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
    assert watcher.sink.take() == []
    assert node.debug_counts()["watching sockets"] == 0


async def test_a_patch_is_never_longer_than_the_view(node: Node) -> None:
    """Many members that go and a few that come: their names alone are longer than what is left."""
    ada = await log_in(node)
    name = await ada.document()
    await ada.acquire(name)
    many: dict[str, Json] = {f"a name of a member {number}": 1 for number in range(100)}
    await ada.write(name, data=many)
    watcher = await watch(node, ada, name)
    await ada.write(name, data=dict.fromkeys(many))
    await settle(node, name)
    assert watcher.read().views == 2
    assert watcher.copy["data"] == {}
    await ada.write(name, data={"a": 1})
    await settle(node, name)
    assert watcher.read().views == 2
    assert watcher.copy["data"] == {"a": 1}


async def test_a_transaction_takes_a_bounded_number_of_writes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    name = await ada.document()
    fence = await ada.acquire(name)
    resources, batches = type(node.store.resources), list[int]()
    together = resources.write_all

    async def counted(self: Any, name: Any, writes: Any) -> Any:
        batches.append(len(writes))
        await trio.testing.wait_all_tasks_blocked(0.01)
        return await together(self, name, writes)

    monkeypatch.setattr(resources, "write_all", counted)

    async def write(number: int) -> None:
        await node.resources.write(name, [Write(ada.claimant, fence, {"data": number})])

    async with trio.open_nursery() as nursery:
        for number in range(2 * WRITES_AT_ONCE + 2):
            nursery.start_soon(write, number)
    assert sum(batches) == 2 * WRITES_AT_ONCE + 2
    assert max(batches) == WRITES_AT_ONCE


async def test_many_watches_that_wait_can_end_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose database hangs loses its clients: those that go end their own watches."""
    ada = await log_in(node)
    name = await ada.document()
    monkeypatch.setattr("actors.resource.interests.WATCHES_PER_SESSION", 1000)
    resources, begun, gate = type(node.store.resources), trio.Event(), trio.Event()
    get = resources.get

    async def late(self: Any, name: ResourceKey) -> Any:
        begun.set()
        await gate.wait()
        return await get(self, name)

    monkeypatch.setattr(resources, "get", late)
    watchers_, ended = [Watcher() for _ in range(300)], 0

    async def begin(watcher: Watcher) -> None:
        nonlocal ended
        try:
            await node.resources.watch(name, ada.claimant, Subscriber(watcher.sink, b"1"))
        except SessionNotFound:
            ended += 1

    async with trio.open_nursery() as nursery:
        for watcher in watchers_:
            nursery.start_soon(begin, watcher)
        await begun.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        for watcher in watchers_[::2]:
            node.resources.socket_closed(watcher.sink)
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
    assert ended == 150
    assert not any(watcher.sink.take() for watcher in watchers_[::2])
    assert all(watcher.read().events == 1 for watcher in watchers_[1::2])
    assert node.debug_counts()["watching sockets"] == 150


async def test_a_watch_of_what_can_not_be_read_is_refused_and_harms_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resource is there, but the database goes away before its users are read."""
    ada = await log_in(node)
    name = await ada.document()
    with monkeypatch.context() as outage:

        async def away(*_: object) -> None:
            raise DatabaseUnavailable

        outage.setattr(type(node.store.users), "many", away)
        with pytest.raises(DatabaseUnavailable):
            await watch(node, ada, name)
    assert node.debug_counts()["watching sockets"] == 0
    assert (await watch(node, ada, name)).copy["version"] == 1
