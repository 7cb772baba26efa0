"""Each join is answered or refused in time, whatever happens to its instance meanwhile."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.cluster.remote_instance import PLACED_S
from reileta.cluster.bus import BusMessage
from reileta.errors import ReiletaError
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.cluster.faults import Faults
from tests.actors.node_harness import ROOM, Client

pytestmark = pytest.mark.usefixtures("autojump_clock")

NODES: Final = ("a", "b", "c")
JOINED_S: Final = 16
"""The longest that a request of a client may take, and a second."""
LATE_S: Final = 5
"""Seconds after the last fault in which what is on its way must come."""
SEEDS: Final = range(40)


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> AsyncIterator[Cluster]:
    """Three nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, *NODES) as opened:
        opened.prefer = "a"
        opened["a"].harness.room(capacity=64)
        yield opened


def answers_in(client: Client) -> int:
    """How often the client was answered that it is inside."""
    return sum(
        each["command"] == "instance-join" and each.get("state") == 1 for each in client.sink.take()
    )


def is_news(message: BusMessage) -> bool:
    """Whether it is what a host tells its gateways."""
    return ".i." in message.subject


async def outcome_of(client: Client, outcomes: list[str]) -> None:
    """Joins, and notes how that ended."""
    try:
        await client.join()
    except ReiletaError:
        outcomes.append("refused")
    else:
        outcomes.append("inside")


async def lose_answer(
    cluster: Cluster, request: Callable[[], Awaitable[object]], *, dies: bool
) -> None:
    """Runs a request of a client of `b`. The host `a` carries it out, but its messages to `b` are
    lost; then it dies or hands over, and `c` is the host."""
    cluster["a"].member.unseen.add("b")  # so it hands over to c

    def loses(bus: str, message: BusMessage) -> bool:
        return (bus == "b" and is_news(message)) or (bus == "a" and b"replay" in message.data)

    cluster.nats.loses = loses
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request)
        await trio.sleep(0.5)
        cluster.prefer = "c"
        if dies:
            cluster.kill("a")
        else:
            nursery.start_soon(cluster["a"].handover.run)
        await trio.sleep(2)
        cluster.nats.loses = lambda bus, message: False
        await trio.sleep(6)
    assert cluster.places[ROOM][0] == "c"


@pytest.mark.parametrize("dies", [True, False])
async def test_a_join_is_answered_though_its_answer_was_lost_with_the_host(
    cluster: Cluster, autojump_clock: MockClock, dies: bool
) -> None:
    """The host has let it in, and said so to the gateway; the client has not got its answer."""
    await cluster["b"].harness.joined(1)
    late = await cluster["b"].harness.connect(2)
    outcomes: list[str] = []
    await lose_answer(cluster, partial(outcome_of, late, outcomes), dies=dies)
    assert outcomes == ["inside"]
    assert answers_in(late) == 1


@pytest.mark.parametrize("dies", [True, False])
async def test_a_leave_is_answered_though_its_answer_was_lost_with_the_host(
    cluster: Cluster, autojump_clock: MockClock, dies: bool
) -> None:
    """The next host does not take the player for one that is inside."""
    one = await cluster["b"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await lose_answer(cluster, two.leave, dies=dies)
    left = [each for each in two.sink.take() if each["command"] == "instance-leave"]
    assert [each["state"] for each in left] == [2]
    assert ROOM not in two.sink.seats
    again = await cluster["b"].harness.connect(1)
    await again.join()
    (answer,) = [each for each in again.sink.take() if each["command"] == "instance-join"]
    inside = [each["user"].partition("@")[0] for each in answer["data"]["players"]]
    assert inside == [one.principal.user.id]


async def test_all_joins_through_a_gateway_are_refused_in_time_if_the_host_is_silent(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """None waits for the others to be refused first."""
    await cluster["a"].harness.joined(1)
    clients = [await cluster["b"].harness.connect(number) for number in range(2, 12)]
    cluster["a"].bus.cut()
    outcomes: list[str] = []
    with trio.fail_after(PLACED_S + 1.5):
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(outcome_of, client, outcomes)
    assert outcomes == ["refused"] * len(clients)


@dataclass
class Storm:
    """Joins and leaves at all nodes, while the instance goes from one host to the next."""

    cluster: Cluster
    chance: random.Random
    wrong: list[str] = field(default_factory=list)

    async def visit(self, number: int) -> None:
        """A client joins, is answered, talks, and leaves again or not."""
        await trio.sleep(self.chance.uniform(0, 3))
        node = self.chance.choice([one for one in NODES if one in self.cluster.live])
        client = await self.cluster[node].harness.connect(number)
        began, refused = trio.current_time(), False
        try:
            with trio.fail_after(JOINED_S):
                await client.join()
        except ReiletaError:
            refused = True
        except trio.TooSlowError:
            self.wrong.append(f"{number} at {node} was not answered at all")
            return
        if node not in self.cluster.live:
            return
        took = trio.current_time() - began
        answers = 0
        with trio.move_on_after(LATE_S):
            while not (answers := answers + answers_in(client)) and not refused:
                await trio.sleep(0.1)
        if node in self.cluster.live and not (refused or answers):
            self.wrong.append(
                f"{number} at {node} got {answers} answers, refused: {refused}, after {took:.2f} s"
            )
        if not refused and self.chance.random() < 0.3:
            try:
                with trio.fail_after(JOINED_S):
                    await client.leave()
            except ReiletaError:
                return

    async def moves(self) -> None:
        """The host hands over, or dies."""
        for _ in range(self.chance.randrange(1, 4)):
            await trio.sleep(self.chance.uniform(0.1, 1.5))
            host = self.cluster.places[ROOM][0]
            if host is None or host not in self.cluster.live:
                continue
            if self.chance.random() < 0.2 and len(self.cluster.live) == len(NODES):
                others = [one for one in self.cluster.live if one != host]
                self.cluster.prefer = self.chance.choice(others)
                self.cluster.kill(host)
            else:
                with trio.move_on_after(20):
                    await self.cluster[host].handover.run()


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_join_is_answered_while_the_instance_moves(
    cluster: Cluster, seed: int, autojump_clock: MockClock
) -> None:
    chance = random.Random(seed)
    await cluster["a"].harness.joined(1)
    await cluster["b"].harness.joined(2)
    await trio.sleep(0.5)
    async with trio.open_nursery() as nursery:
        storm = Storm(cluster, chance)
        cluster.nats.loses = faults = Faults(
            cluster,
            chance,
            nursery,
            lost=(0, 0.02, 0.2),
            late=(0, 0.3, 0.9),
            late_s=(0.05, 0.5, 1.5),
        )
        async with trio.open_nursery() as visits:
            for number in range(chance.randrange(1, 16)):
                visits.start_soon(storm.visit, 10 + number)
            visits.start_soon(storm.moves)
            await trio.sleep(chance.uniform(2, 6))
            faults.over = True
        nursery.cancel_scope.cancel()
    assert storm.wrong == []
