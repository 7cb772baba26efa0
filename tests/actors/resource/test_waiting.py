"""Sessions that wait for resources, on a node over the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

import pytest
import trio
import trio.testing

from actors.node import Node
from actors.resource.messages import DeadlineReached, Subscriber
from actors.session.messages import Detach
from reileta.clock import SystemClock
from reileta.errors import (
    DatabaseUnavailable,
    NotQueued,
    Overloaded,
    PermissionDenied,
    QuotaReached,
    ReiletaError,
    ResourceHeld,
    ResourceNotFound,
    ResourceTaken,
    SessionNotFound,
)
from reileta.records import ADMIN_TAG
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.waiting_line import Place
from reileta.store import Store
from tests.actors.session_clients import (
    FakeSessionSink,
    SessionClient,
    log_in,
    open_node,
    second_token,
    until,
)
from tests.actors.sinks import FakeSink
from tests.conftest import ManualClock

OFFER_S, AWAY_S = 30, 60


@pytest.fixture
async def node(store: Store, clock: ManualClock) -> AsyncIterator[Node]:
    async with open_node(store, clock) as node:
        yield node


class Waiter:
    """A session with a socket, which may acquire the document of another one."""

    def __init__(self, client: SessionClient, socket: FakeSessionSink) -> None:
        self.client = client
        self.socket = socket
        self.told: list[tuple[int | None, bool, str | None]] = []
        """Each place that it was told: position, whether it has the offer, why it left."""

    async def queue(self, name: ResourceKey) -> Place:
        return await self.client.node.resources.queue(name, self.client.claimant)

    async def unqueue(self, name: ResourceKey) -> None:
        await self.client.node.resources.unqueue(name, self.client.claimant)

    def places(self) -> list[tuple[int | None, bool, str | None]]:
        for payload in self.socket.payloads():
            if payload["kind"] == "resource-queue":
                offered = payload["offered_until"] is not None
                self.told.append((payload["position"], offered, payload["reason"]))
        return self.told

    async def lose_socket(self) -> None:
        ref = await self.client.node.sessions.live(self.client.principal)
        ref.signal(Detach(self.socket))
        await trio.testing.wait_all_tasks_blocked(0.01)


async def waiters(node: Node, count: int) -> tuple[SessionClient, ResourceKey, list[Waiter]]:
    """The owner of a document, which holds it, and others who may acquire it."""
    owner = await log_in(node)
    name = await owner.document()
    others = []
    for _ in range(count):
        client = await log_in(node)
        await node.resources.share(name, owner.claimant, client.principal.user.id)
        others.append(Waiter(client, await client.open()))
    await owner.acquire(name)
    return owner, name, others


async def settle(node: Node, name: ResourceKey) -> None:
    for _ in range(4):
        await node.resources.read(name)
    await trio.testing.wait_all_tasks_blocked(0.01)


async def later(clock: ManualClock, node: Node, name: ResourceKey, seconds: int) -> None:
    """Time passes by the server's clock, and the actor notices."""
    clock.advance(1000 * seconds)
    ref = await node.resources._live(name)  # noqa: SLF001 - timers are of Trio's clock
    ref.signal(DeadlineReached())
    await settle(node, name)


async def test_the_next_in_line_takes_over(node: Node) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    assert await one.queue(name) == Place(1)
    assert await two.queue(name) == Place(2)
    assert await one.queue(name) == Place(1)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    assert two.places() == [(2, False, None)]
    for client in (two.client, owner):
        with pytest.raises(ResourceTaken) as taken:
            await client.acquire(name)
        assert taken.value.details[0].message == one.client.principal.session_id
    await one.client.acquire(name)
    await until(lambda: (1, False, None) in two.places())
    assert one.places()[-1] == (None, False, "acquired")
    await one.client.release(name)
    await until(lambda: (1, True, None) in two.places())
    await two.client.acquire(name)
    assert node.debug_counts()["waiting sessions"] == 0


async def test_nobody_overtakes_the_line_in_the_moment_of_the_release(node: Node) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    refused = 0

    async def overtake() -> None:
        nonlocal refused
        try:
            await two.client.acquire(name)
        except ResourceTaken:
            refused += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.release, name)
        for _ in range(5):
            nursery.start_soon(overtake)
    assert refused == 5
    await one.client.acquire(name)


async def test_an_offer_that_runs_out_goes_on(node: Node, clock: ManualClock) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    await later(clock, node, name, OFFER_S - 1)
    assert one.places()[-1] == (1, True, None)
    await later(clock, node, name, 1)
    assert one.places()[-1] == (None, False, "expired")
    await until(lambda: (1, True, None) in two.places())
    with pytest.raises(ResourceTaken):
        await one.client.acquire(name)
    await two.client.acquire(name)


async def test_leaving_hands_the_offer_on(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when something else wakes the actor."""
    monkeypatch.setattr("actors.resource.actor.IDLE_S", 3600)
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    await one.unqueue(name)
    await until(lambda: (1, True, None) in two.places())
    with pytest.raises(NotQueued):
        await one.unqueue(name)
    assert one.places()[-1] == (None, False, "withdrawn")


async def test_a_session_that_acquires_another_resource_waits_no_longer(node: Node) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    other = await one.client.document()
    await one.client.acquire(other)
    await until(lambda: (None, False, "holds") in one.places())
    with pytest.raises(ResourceHeld):
        await one.queue(name)
    await owner.release(name)
    await until(lambda: (1, True, None) in two.places())


async def test_a_session_that_acquired_another_elsewhere_is_passed_over(node: Node) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    other = await one.client.document()
    await node.store.leases.acquire(other, one.client.claimant, until=1 << 60)
    await owner.release(name)
    await until(lambda: (1, True, None) in two.places())
    assert one.places()[-1] == (None, False, "holds")


async def test_a_session_that_ended_or_may_no_longer_is_passed_over(node: Node) -> None:
    owner, name, (one, two, three) = await waiters(node, 3)
    for waiter in (one, two, three):
        await waiter.queue(name)
    await node.store.sessions.end(one.client.principal.session_id)
    await node.resources.unshare(name, owner.claimant, two.client.principal.user.id)
    await owner.release(name)
    await until(lambda: (1, True, None) in three.places())
    assert two.places()[-1] == (None, False, "refused")
    with pytest.raises(SessionNotFound):
        await one.queue(name)
    with pytest.raises(PermissionDenied):
        await two.queue(name)


async def test_a_session_without_sockets_keeps_its_place_for_a_while(
    node: Node, clock: ManualClock
) -> None:
    _, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await one.lose_socket()
    await later(clock, node, name, AWAY_S - 1)
    twin = Waiter(one.client, await (await second_token(one.client)).open())
    await until(lambda: twin.places() == [(1, False, None)])
    await later(clock, node, name, 5 * AWAY_S)
    assert two.places()[-1] == (2, False, None)
    one.socket = twin.socket
    await one.lose_socket()
    await later(clock, node, name, AWAY_S)
    assert two.places()[-1] == (1, False, None)
    assert await one.queue(name) == Place(2)


async def test_a_free_resource_is_offered_at_once(node: Node) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await owner.release(name)
    await one.queue(name)
    await until(lambda: (1, True, None) in one.places())
    with pytest.raises(ResourceTaken):
        await two.client.acquire(name)


async def test_a_holder_that_is_gone_makes_room(node: Node) -> None:
    owner, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    await node.store.sessions.end(owner.principal.session_id)
    node.sessions.end(owner.principal.session_id)
    await until(lambda: (1, True, None) in one.places())


async def test_a_lease_that_expired_makes_room(node: Node, clock: ManualClock) -> None:
    _, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    clock.advance(1000 * (AWAY_S + 21))
    await node.lease_renewer.renew()
    await until(lambda: (1, True, None) in one.places())


async def test_the_line_ends_with_the_resource(node: Node) -> None:
    owner, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    held = await node.store.leases.of_session(owner.principal.session_id)
    assert held is not None
    await node.resources.delete(name, owner.claimant, fence=held.fence, if_version=None)
    await until(lambda: (None, False, "deleted") in one.places())
    with pytest.raises(ResourceNotFound):
        await one.queue(name)
    assert node.debug_counts()["waiting sessions"] == 0


async def test_autopilots_do_not_queue(node: Node) -> None:
    pilot = await log_in(node, autopilot=True)
    name = await pilot.document()
    with pytest.raises(PermissionDenied):
        await node.resources.queue(name, pilot.principal.as_claimant())


async def test_a_crash_keeps_the_line_and_the_offer(node: Node) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await crash(node, name)
    assert await two.queue(name) == Place(2)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    await crash(node, name)
    with pytest.raises(ResourceTaken):
        await two.client.acquire(name)
    await one.client.acquire(name)


async def crash(node: Node, name: ResourceKey) -> None:
    ref = await node.resources._live(name)  # noqa: SLF001 - it may not run
    ref.signal(cast(Any, "not a message"))
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_an_outage_delays_the_offer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    leases = type(node.store.leases)
    whole = leases.claim_of
    away = True

    async def claim_of(self: Any, session: str) -> Any:
        if away:
            raise DatabaseUnavailable
        return await whole(self, session)

    monkeypatch.setattr(leases, "claim_of", claim_of)
    monkeypatch.setattr("actors.resource.actor.AGAIN_S", 0.01)
    await owner.release(name)
    with pytest.raises((ResourceTaken, DatabaseUnavailable)):
        await owner.acquire(name)
    away = False
    await until(lambda: (1, True, None) in one.places())


async def test_lines_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.resource.interests.LINES_PER_SESSION", 1)
    _, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    await one.queue(name)
    with pytest.raises(QuotaReached):
        await one.queue(await one.client.document())


async def test_a_user_who_may_no_longer_acquire_it_waits_no_longer(node: Node) -> None:
    """At once, also while another session holds the resource."""
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await node.resources.unshare(name, owner.claimant, one.client.principal.user.id)
    await until(lambda: (None, False, "refused") in one.places())
    await until(lambda: (1, False, None) in two.places())
    assert node.resources.recoveries[name.number].line.offered is None


async def test_an_admin_who_is_none_any_more_gets_no_offer(node: Node) -> None:
    """Another process changed the user, and this node has not heard of it."""
    owner, name, (two,) = await waiters(node, 1)
    admin = await log_in(node)
    user = admin.principal.user.id
    await node.store.users.update(user, tags=frozenset({ADMIN_TAG}))
    one = Waiter(admin, await admin.open())
    who = Claimant(admin.principal.session_id, user, admin=True)
    assert await node.resources.queue(name, who) == Place(1)
    await two.queue(name)
    await node.store.users.update(user, tags=frozenset())
    await owner.release(name)
    await until(lambda: (1, True, None) in two.places())
    assert one.places()[-1] == (None, False, "refused")


async def test_an_offer_that_is_being_taken_does_not_run_out(
    node: Node, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    leases, gate, begun = type(node.store.leases), trio.Event(), trio.Event()
    acquire = leases.acquire

    async def late(self: Any, *args: Any, **more: Any) -> Any:
        begun.set()
        await gate.wait()
        return await acquire(self, *args, **more)

    monkeypatch.setattr(leases, "acquire", late)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.client.acquire, name)
        await begun.wait()
        clock.advance(1000 * OFFER_S)
        ref = await node.resources._live(name)  # noqa: SLF001 - timers are of Trio's clock
        ref.signal(DeadlineReached())
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
    await until(lambda: one.places()[-1][0] is None)
    assert one.places()[-1] == (None, False, "acquired")
    assert two.places()[-1] == (1, False, None)


async def no_stamps(*_: object) -> None:
    """In place of what polls ask for: they find nothing."""
    raise DatabaseUnavailable


async def test_an_offer_that_was_taken_although_the_database_went_away_counts(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor looks by itself, and needs no other change for it."""
    monkeypatch.setattr(type(node.store.resources), "stamps", no_stamps)
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    leases = type(node.store.leases)
    acquire = leases.acquire

    async def acquired(self: Any, *args: Any, **more: Any) -> Any:
        await acquire(self, *args, **more)
        raise DatabaseUnavailable

    monkeypatch.setattr(leases, "acquire", acquired)
    with pytest.raises(DatabaseUnavailable):
        await node.resources.acquire(name, one.client.claimant, until=1 << 60)
    await until(lambda: (None, False, "acquired") in one.places())
    await until(lambda: (1, False, None) in two.places())


async def test_a_resource_that_was_taken_elsewhere_is_offered_no_longer(node: Node) -> None:
    """Another process gave it to a session that does not wait here."""
    owner, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    await node.store.leases.acquire(name, owner.claimant, until=1 << 60)
    node.resources.changed(name.number)
    await until(lambda: one.places()[-1] == (1, False, None))
    assert await one.queue(name) == Place(1)


async def test_nothing_is_kept_of_a_request_that_was_refused(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    name, sink = await ada.document(), FakeSink()
    await node.resources.read(name)
    monkeypatch.setattr("actors.resource.actor.OPERATIONS", 0)
    with pytest.raises(Overloaded):
        await node.resources.queue(name, ada.claimant)
    with pytest.raises(Overloaded):
        await node.resources.watch(name, ada.claimant, Subscriber(sink, b"1"))
    assert node.debug_counts()["waiting sessions"] == 0
    assert node.debug_counts()["watching sockets"] == 0


async def test_a_poll_that_finds_nothing_reads_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    await settle(node, name)
    resources, reads = type(node.store.resources), 0
    get = resources.get

    async def counted(self: Any, *args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await get(self, *args)

    monkeypatch.setattr(resources, "get", counted)
    await node.resources.poll()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert reads == 0


async def test_a_storm_leaves_nothing_behind(node: Node) -> None:
    """Sessions wait, leave, watch and unwatch, crossing each other; the actor crashes twice."""
    owner, name, others = await waiters(node, 6)

    async def storm(waiter: Waiter, turn: int) -> None:
        who, resources = waiter.client.claimant, node.resources
        for number in range(12):
            sink = FakeSink()
            with suppress(ReiletaError):
                await waiter.queue(name)
            with suppress(ReiletaError):
                await resources.watch(name, who, Subscriber(sink, b"1"))
            if (number + turn) % 4 == 0:
                with suppress(ReiletaError):
                    await waiter.client.acquire(name)
                    await waiter.client.release(name)
            with suppress(ReiletaError):
                await waiter.unqueue(name)
            if number % 2:
                resources.unwatch(name, sink)
            resources.socket_closed(sink)

    async with trio.open_nursery() as nursery:
        for turn, waiter in enumerate(others):
            nursery.start_soon(storm, waiter, turn)
        await owner.release(name)
        for _ in range(2):
            await crash(node, name)
    for waiter in others:
        with suppress(NotQueued):
            await waiter.unqueue(name)
    await settle(node, name)
    counts = node.debug_counts()
    assert (counts["waiting sessions"], counts["watching sockets"]) == (0, 0)
    recovery = node.resources.recoveries[name.number]
    assert (len(recovery.line), len(recovery.watchers), recovery.session_sinks) == (0, 0, {})
    for waiter in others:
        left = [place for place in waiter.places() if place[2] is not None]
        assert left


async def test_offers_run_out_by_themselves(store: Store) -> None:
    async with open_node(store, SystemClock(), resource_offer_s=0.05) as node:
        owner, name, (one, two) = await waiters(node, 2)
        await one.queue(name)
        await two.queue(name)
        await owner.release(name)
        await until(lambda: (None, False, "expired") in one.places())
        await until(lambda: (None, False, "expired") in two.places())
        assert (1, True, None) in one.told
        assert (1, True, None) in two.told


async def test_a_session_that_ends_leaves_the_line_while_another_holds_the_resource(
    node: Node,
) -> None:
    _, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await two.queue(name)
    await node.store.sessions.end(one.client.principal.session_id)
    node.sessions.end(one.client.principal.session_id)
    await until(lambda: (1, False, None) in two.places())


async def test_a_former_admin_waits_no_longer(node: Node) -> None:
    _, name, (two,) = await waiters(node, 1)
    admin = await log_in(node)
    user = admin.principal.user
    await node.store.users.update(user.id, tags=frozenset({ADMIN_TAG}))
    one = Waiter(admin, await admin.open())
    await node.resources.queue(name, Claimant(admin.principal.session_id, user.id, admin=True))
    await two.queue(name)
    node.resources.user_changed(user)  # who is an admin no longer
    await until(lambda: (None, False, "refused") in one.places())
    await until(lambda: (1, False, None) in two.places())


async def test_the_end_of_the_holder_s_session_makes_room_without_a_poll(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(node.store.resources), "stamps", no_stamps)
    owner, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    await node.store.sessions.end(owner.principal.session_id)
    node.resources.session_ended(owner.principal.session_id)
    await until(lambda: (1, True, None) in one.places())


async def test_what_is_done_is_done_although_it_can_not_be_read_afterwards(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, (one,) = await waiters(node, 1)
    await one.queue(name)
    users, away = type(node.store.users), True
    many = users.many

    async def gone(self: Any, *args: Any) -> Any:
        if away:
            raise DatabaseUnavailable
        return await many(self, *args)

    monkeypatch.setattr("actors.resource.actor.AGAIN_S", 0.01)
    monkeypatch.setattr(users, "many", gone)
    await node.resources.release(name, owner.claimant)
    away = False
    await until(lambda: (1, True, None) in one.places())


class Gate:
    """Holds up a method of a store, after it was carried out, until `open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
        self.begun = trio.Event()
        self._opened = trio.Event()
        whole = getattr(owner, method)

        async def late(store: Any, *args: Any, **more: Any) -> Any:
            answer = await whole(store, *args, **more)
            self.begun.set()
            await self._opened.wait()
            return answer

        monkeypatch.setattr(owner, method, late)

    def open(self) -> None:
        self._opened.set()


async def test_a_socket_that_is_lost_while_its_session_queues_counts_as_lost(
    node: Node, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, (one, two) = await waiters(node, 2)
    gate = Gate(monkeypatch, type(node.store.leases), "claim_of")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.queue, name)
        await gate.begun.wait()
        await one.lose_socket()
        gate.open()
    await two.queue(name)
    await later(clock, node, name, AWAY_S)
    assert two.places()[-1] == (1, False, None)


async def test_a_session_that_ends_while_it_queues_does_not_wait(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, (one,) = await waiters(node, 1)
    gate = Gate(monkeypatch, type(node.store.leases), "claim_of")

    async def queue() -> None:
        with pytest.raises(SessionNotFound):
            await one.queue(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue)
        await gate.begun.wait()
        node.resources.session_ended(one.client.principal.session_id)
        gate.open()
    assert node.debug_counts()["waiting sessions"] == 0
    await one.queue(name)  # the next request is judged anew


async def test_a_session_that_acquires_another_resource_while_it_queues_does_not_wait(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, (one, two) = await waiters(node, 2)
    other = await one.client.document()
    gate = Gate(monkeypatch, type(node.store.leases), "claim_of")

    async def queue() -> None:
        with pytest.raises(ResourceHeld):
            await one.queue(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue)
        await gate.begun.wait()
        await node.resources.acquire(other, one.client.claimant, until=1 << 60)
        gate.open()
    assert await two.queue(name) == Place(1)


async def test_an_admin_who_is_none_any_more_while_it_queues_does_not_wait(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, (two,) = await waiters(node, 1)
    admin = await log_in(node)
    who = Claimant(admin.principal.session_id, admin.principal.user.id, admin=True)
    gate = Gate(monkeypatch, type(node.store.leases), "claim_of")

    async def queue() -> None:
        with pytest.raises(PermissionDenied):
            await node.resources.queue(name, who)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue)
        await gate.begun.wait()
        node.resources.user_changed(admin.principal.user)  # who is an admin no longer
        gate.open()
    assert await two.queue(name) == Place(1)


async def test_leaving_a_line_is_judged_like_every_request_about_a_resource(node: Node) -> None:
    """The resource must exist, and the user must see it; then the session must wait."""
    _, name, (one,) = await waiters(node, 1)
    stranger = Waiter(one.client, one.socket)
    stranger.client = await log_in(node)
    with pytest.raises(NotQueued):
        await one.unqueue(name)
    with pytest.raises(PermissionDenied):
        await stranger.unqueue(name)
    with pytest.raises(ResourceNotFound):
        await one.unqueue(ResourceKey("document", 1 << 40))
    await one.queue(name)
    with pytest.raises(ResourceNotFound):
        await one.unqueue(ResourceKey("world", name.number))
    assert await one.queue(name) == Place(1)
    await one.unqueue(name)
    assert node.debug_counts()["waiting sessions"] == 0


async def test_an_acquisition_of_another_while_a_session_queues_is_not_its_end(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens to others, or what is done with other requests, is not its own end."""
    _, name, (one, two) = await waiters(node, 2)
    gate = Gate(monkeypatch, type(node.store.leases), "claim_of")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.queue, name)
        await gate.begun.wait()
        node.resources.session_ended(two.client.principal.session_id)
        gate.open()
    assert node.resources.recoveries[name.number].line.sessions == (
        one.client.principal.session_id,
    )


async def test_who_has_not_the_turn_gets_the_error_that_it_would_get_without_a_line(
    node: Node,
) -> None:
    owner, name, (one, two) = await waiters(node, 2)
    await one.queue(name)
    await owner.release(name)
    await until(lambda: (1, True, None) in one.places())
    await two.client.acquire(await two.client.document())
    with pytest.raises(ResourceHeld):
        await two.client.acquire(name)
    stranger = await log_in(node)
    with pytest.raises(PermissionDenied):
        await stranger.acquire(name)
    await node.store.sessions.end(stranger.principal.session_id)
    with pytest.raises(SessionNotFound):
        await node.resources.acquire(name, stranger.claimant, until=1 << 60)


async def test_whether_the_user_may_acquire_it_comes_before_what_the_session_holds(
    node: Node,
) -> None:
    _, name, _ = await waiters(node, 0)
    stranger = await log_in(node)
    await stranger.acquire(await stranger.document())
    with pytest.raises(PermissionDenied):
        await node.resources.queue(name, stranger.claimant)


async def test_a_request_to_queue_that_was_given_up_and_then_refused_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, (one,) = await waiters(node, 1)
    await one.client.acquire(await one.client.document())
    gate, scope = Gate(monkeypatch, type(node.store.leases), "claim_of"), trio.CancelScope()

    async def queue() -> None:
        with scope:
            await one.queue(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue)
        await gate.begun.wait()
        scope.cancel()
        gate.open()
    await settle(node, name)
    assert node.debug_counts()["waiting sessions"] == 0
