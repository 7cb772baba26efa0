"""Orders to instances are carried out once, whatever happens to their host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import actors.cluster.orders
from actors.cluster.orders import REMEMBERED_STATELESS_S
from actors.instance_service import InstanceService, ModerationRequest
from reileta.cluster.bus import BusMessage
from reileta.errors import (
    DatabaseUnavailable,
    InstanceNotFound,
    NotAllowed,
    NotQueued,
    OutcomeUnknown,
    Overloaded,
)
from reileta.records import InstanceChanges, Moderation
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import ROOM, Client, principal, user_at


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[Cluster]:
    """Three nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b", "c") as opened:
        opened.prefer = "a"
        yield opened


OWNER = principal(0)


async def ban(service: InstanceService) -> None:
    await service.moderate(ROOM, OWNER, ModerationRequest(user_at(3), "ban"))


async def mute(service: InstanceService) -> None:
    await service.moderate(ROOM, OWNER, ModerationRequest(user_at(1), "mute"))


async def appoint(service: InstanceService) -> None:
    await service.add_moderator(ROOM, OWNER, user_at(3))


async def resize(service: InstanceService) -> object:
    return await service.update(ROOM, OWNER, InstanceChanges(capacity=5))


async def close(service: InstanceService) -> None:
    await service.close(ROOM, OWNER)


Order = Callable[[InstanceService], Awaitable[object]]
ORDERS = (ban, mute, appoint, resize, close)


def service(cluster: Cluster, node: str) -> InstanceService:
    return cluster[node].harness.node.instance_service


def log_of(cluster: Cluster) -> list[str]:
    """The moderation log."""
    writes = cluster.store.hosting.moderation_writes
    return [one.type for one in writes if isinstance(one, Moderation)]


def carried_out(cluster: Cluster) -> int:
    """How often an order was: entries of the log, and writes of the record."""
    writes = [one for one in cluster.store.instances.writes if one in ("update capacity", "delete")]
    return len(log_of(cluster)) + len(writes)


def lose_answers(cluster: Cluster, to: str) -> None:
    """Whatever is answered to that node is lost."""

    def loses(bus: str, message: BusMessage) -> bool:
        return bus == to and message.subject.startswith("_INBOX")

    cluster.nats.loses = loses


def lose_nothing(cluster: Cluster) -> None:
    cluster.nats.loses = lambda bus, message: False


async def filled(cluster: Cluster) -> list[Client]:
    return [await cluster[node].harness.joined(number) for number, node in ((0, "b"), (1, "c"))]


@pytest.mark.parametrize("next_host", ["b", "c"])
@pytest.mark.parametrize("order", ORDERS)
async def test_an_order_whose_answer_is_lost_with_its_host_is_carried_out_once(
    cluster: Cluster, order: Order, next_host: str, autojump_clock: MockClock
) -> None:
    await filled(cluster)
    answers: list[object] = []

    async def give() -> None:
        answers.append(await order(service(cluster, "b")))

    async with trio.open_nursery() as nursery:
        lose_answers(cluster, "b")
        nursery.start_soon(give)
        await trio.sleep(0.2)
        assert carried_out(cluster) == 1
        assert answers == []
        cluster.prefer = next_host
        cluster.kill("a")
        lose_nothing(cluster)
    assert carried_out(cluster) == 1
    (answer,) = answers
    assert answer is None or answer == cluster.store.instances.records[ROOM]


@pytest.mark.parametrize("order", ORDERS)
async def test_an_order_that_died_with_its_host_is_carried_out_by_the_next(
    cluster: Cluster, order: Order, autojump_clock: MockClock
) -> None:
    await filled(cluster)
    async with trio.open_nursery() as nursery:
        cluster.store.instances.gate = trio.Event()
        nursery.start_soon(order, service(cluster, "b"))
        await trio.sleep(0.2)
        cluster["a"].harness.node.instances.drop([ROOM])  # with what it was writing
        cluster.kill("a")
        cluster.prefer = "c"
        cluster.store.instances.gate.set()
        cluster.store.instances.gate = None
    assert carried_out(cluster) == 1


@pytest.mark.parametrize("order", ORDERS)
async def test_an_order_of_the_host_itself_is_carried_out_once_if_it_falls(
    cluster: Cluster, order: Order, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(1)
    async with trio.open_nursery() as nursery:
        cluster.store.instances.gate = trio.Event()
        nursery.start_soon(order, service(cluster, "a"))
        await trio.sleep(0.2)
        cluster.prefer = "b"
        cluster.fall("a", "a2")
        cluster.store.instances.gate.set()
        cluster.store.instances.gate = None
    assert carried_out(cluster) == 1


@pytest.mark.parametrize("order", [ban, mute, appoint, resize])
@pytest.mark.parametrize("was_done", [True, False])
async def test_an_order_of_which_nobody_knows_can_be_given_again(
    cluster: Cluster, order: Order, was_done: bool, autojump_clock: MockClock
) -> None:
    await filled(cluster)
    began = trio.current_time()
    if was_done:
        lose_answers(cluster, "b")
    else:
        cluster.nats.loses = lambda bus, message: bus == "a"
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            with pytest.raises(OutcomeUnknown):
                await order(service(cluster, "b"))

        nursery.start_soon(fail)
        await trio.sleep(0.2)
        cluster.kill("a")
        lose_nothing(cluster)
        cluster.database_away = cluster.store.instances.away = True
    assert trio.current_time() - began <= 5.1
    cluster.database_away = cluster.store.instances.away = False
    cluster.prefer = "c"
    await order(service(cluster, "b"))
    assert carried_out(cluster) == 1
    assert service(cluster, "b").orders.debug_counts() == {"unknown orders": 0}  # type: ignore[union-attr]


async def unknown(cluster: Cluster, client: Client, state: bytes | None) -> None:
    """A kick that is carried out, and that nobody knows of."""
    lose_answers(cluster, "b")
    with pytest.raises(OutcomeUnknown):
        await kick(cluster, client, state)
    lose_nothing(cluster)


async def kick(cluster: Cluster, client: Client, state: bytes | None) -> None:
    request = ModerationRequest(user_at(3), "kick")
    await service(cluster, "b").moderate(
        ROOM, client.principal, request, sink=client.sink, state=state
    )


@pytest.mark.parametrize(("state", "pause_s"), [(b"7", 60), (None, REMEMBERED_STATELESS_S - 10)])
async def test_a_repetition_is_known_by_its_state_for_a_while(
    cluster: Cluster, state: bytes | None, pause_s: float, autojump_clock: MockClock
) -> None:
    owner, _ = await filled(cluster)
    await cluster["c"].harness.joined(3)
    await unknown(cluster, owner, state)
    await trio.sleep(pause_s)
    owner.sink.take()
    await kick(cluster, owner, state)
    await trio.sleep(0.1)
    assert log_of(cluster) == ["kick"]
    states = [one.get("state") for one in owner.sink.take() if "state" in one]
    assert states == ([] if state is None else [7])


@pytest.mark.parametrize("why", ["another state", "later", "another order"])
async def test_an_order_that_is_alike_is_a_new_one(
    cluster: Cluster, why: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(actors.cluster.orders, "REMEMBERED_S", 10)
    owner, _ = await filled(cluster)
    await cluster["c"].harness.joined(3)
    await unknown(cluster, owner, b"7")
    await cluster["c"].harness.joined(3)
    if why == "another order":
        await mute(service(cluster, "b"))
        cluster.store.hosting.moderation_writes.clear()
    elif why == "later":
        await trio.sleep(11)
    await kick(cluster, owner, b"8" if why == "another state" else b"7")
    assert log_of(cluster)[-1] == "kick"
    assert len(log_of(cluster)) == (1 if why == "another order" else 2)


async def test_a_refusal_is_known(cluster: Cluster, autojump_clock: MockClock) -> None:
    """It is not asked again, and not remembered."""
    _, other = await filled(cluster)
    request = ModerationRequest(user_at(0), "kick")
    with pytest.raises(NotAllowed):
        await service(cluster, "b").moderate(ROOM, other.principal, request)
    assert service(cluster, "b").orders.debug_counts() == {"unknown orders": 0}  # type: ignore[union-attr]


async def test_an_order_that_reached_nobody_is_refused(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await filled(cluster)
    cluster.kill("a")
    cluster.database_away = True
    with pytest.raises(Overloaded):
        await ban(service(cluster, "b"))


@pytest.mark.parametrize("node", ["a", "b"])
async def test_a_moderation_that_waits_for_the_database_is_written_once(
    cluster: Cluster, node: str, autojump_clock: MockClock
) -> None:
    """It is in force already. To give it again is to wait for it."""
    await filled(cluster)
    instances = cluster.store.instances
    cluster.store.hosting.changed[principal(3).user.id] = principal(3).user
    await cluster["c"].harness.joined(3)
    for one in ("a", "b"):
        await cluster[one].harness.connect(3, 1)
    instances.away = True
    for _ in range(3):
        with pytest.raises((DatabaseUnavailable, OutcomeUnknown)):
            await ban(service(cluster, node))
    instances.away = False
    await ban(service(cluster, node))
    await trio.sleep(5)
    assert log_of(cluster) == ["ban"]


async def queued(cluster: Cluster) -> Any:
    return await service(cluster, "b").candidate(ROOM, principal(4))


async def test_a_place_in_the_queue_is_given_once(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster["a"].harness.room(capacity=1)
    await cluster["c"].harness.joined(1)
    await cluster["b"].harness.connect(4)
    lose_answers(cluster, "b")
    with pytest.raises(OutcomeUnknown):
        await queued(cluster)
    lose_nothing(cluster)
    entry = await queued(cluster)
    assert (entry.state, entry.position) == ("waiting", 1)
    lose_answers(cluster, "b")
    with pytest.raises(OutcomeUnknown):
        await service(cluster, "b").withdraw(ROOM, principal(4))
    lose_nothing(cluster)
    await service(cluster, "b").withdraw(ROOM, principal(4))
    with pytest.raises(NotQueued):
        await service(cluster, "b").withdraw(ROOM, principal(4))


async def test_an_end_that_was_carried_out_is_known_though_nothing_is_left(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await filled(cluster)
    lose_answers(cluster, "b")
    with pytest.raises(OutcomeUnknown):
        await close(service(cluster, "b"))
    lose_nothing(cluster)
    await close(service(cluster, "b"))
    with pytest.raises(InstanceNotFound):
        await close(service(cluster, "b"))
