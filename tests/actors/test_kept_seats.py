"""Seats and the queue of a single server, over the end of one run and the begin of the next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.instance_service import ModerationRequest
from actors.kept_seats import ALIVE_S, GATHER_S, KeptSeats
from reileta.errors import InstanceFull
from reileta.records import DISABLED_TAG
from reileta.rules.instance.restart import KEPT_MS
from tests.actors.node_harness import (
    ROOM,
    Client,
    FakeDatabase,
    NodeHarness,
    account,
    open_harness,
    principal,
    settle,
    user_at,
)


class Runs:
    """The runs of one server on one database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = FakeDatabase()
        self._monkeypatch = monkeypatch
        self.capacity = 2
        self.lost = False
        """Whether the database is lost as soon as all is read."""

    @asynccontextmanager
    async def run(self, away_s: float = 2.0, **settings: Any) -> AsyncIterator[NodeHarness]:
        """A run of the server, which ends as by a kill. `away_s`: how long none had run before."""
        self.store.soft_states.away_ms = int(away_s * 1000)
        async with open_harness(self._monkeypatch, self.store, **settings) as harness:
            harness.room(capacity=self.capacity)
            seats = kept(harness)
            await seats.load()
            self.store.instances.away = self.lost
            async with trio.open_nursery() as nursery:
                nursery.start_soon(seats.run)
                await settle()
                yield harness
                nursery.cancel_scope.cancel()


def kept(harness: NodeHarness) -> KeptSeats:
    seats = harness.node.kept_seats
    assert seats is not None
    return seats


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


async def written() -> None:
    """Until all that has changed is written."""
    await trio.sleep(2 * GATHER_S)


async def waits(harness: NodeHarness, number: int) -> Client:
    client = await harness.connect(number)
    await harness.node.instance_service.candidate(ROOM, principal(number))
    return client


async def line(harness: NodeHarness) -> list[tuple[str, str, int | None]]:
    queue = await harness.node.instance_service.queue(ROOM, principal(0))
    return [(one.user, one.state, one.position) for one in queue.entries or ()]


def ids(*clients: Client) -> list[str]:
    return [one.sink.seats[ROOM].player for one in clients]


async def refused(harness: NodeHarness, number: int) -> None:
    with pytest.raises(InstanceFull):
        await (await harness.connect(number)).join()


async def test_players_come_back_as_the_same_and_the_line_is_as_it_was(
    runs: Runs, autojump_clock: MockClock
) -> None:
    async with runs.run() as harness:
        players = ids(await harness.joined(1), await harness.joined(2))
        for number in (5, 3, 4):
            await waits(harness, number)
        before = await line(harness)
        await written()
    async with runs.run() as harness:
        assert harness.node.directory.occupancy(ROOM).connected == 2
        assert await line(harness) == before
        await refused(harness, 3)
        assert await (await harness.connect(2)).join() == players[1]
        await refused(harness, 6)
        assert await (await harness.connect(1)).join() == players[0]
        await trio.sleep(30)
        assert harness.node.directory.occupancy(ROOM).connected == 2


@pytest.mark.parametrize(("away_s", "hold_s"), [(0.5, 10.5), (20, 30), (300, 40)])
async def test_a_seat_is_held_for_the_grace_and_the_pause_of_a_client(
    runs: Runs, away_s: float, hold_s: float, autojump_clock: MockClock
) -> None:
    async with runs.run() as harness:
        players = ids(await harness.joined(1), await harness.joined(2))
        await waits(harness, 3)
        await written()
    async with runs.run(away_s) as harness:
        back = await harness.connect(2)
        assert await back.join() == players[1]
        three = await harness.connect(3)
        await trio.sleep(hold_s - 0.1)
        assert "instance-left" not in [one["command"] for one in back.sink.take()]
        assert await line(harness) == [(user_at(3), "waiting", 1)]
        await trio.sleep(0.2)
        (left,) = [one for one in back.sink.take() if one["command"] == "instance-left"]
        assert (left["data"]["player"], left["data"]["reason"]) == (players[0], "disconnected")
        assert await line(harness) == [(user_at(3), "admitted", None)]
        await three.join()
        await refused(harness, 1)


async def test_nothing_counts_after_too_long(runs: Runs, autojump_clock: MockClock) -> None:
    async with runs.run() as harness:
        await harness.joined(1)
        await harness.joined(2)
        await waits(harness, 3)
        await written()
    async with runs.run(KEPT_MS / 1000 + 1) as harness:
        assert not runs.store.soft_states.parts
        assert len(harness.node.instances) == 0
        await harness.joined(4)
        assert await line(harness) == []


async def test_without_a_grace_no_seat_is_held_and_the_line_stays(
    runs: Runs, autojump_clock: MockClock
) -> None:
    async with runs.run(seat_grace_s=0) as harness:
        await harness.joined(1)
        await harness.joined(2)
        await waits(harness, 3)
        await waits(harness, 4)
        await written()
    async with runs.run(seat_grace_s=0) as harness:
        assert [state for _, state, _ in await line(harness)] == ["admitted", "admitted"]


async def test_those_who_may_not_come_any_more_have_no_seat(
    runs: Runs, autojump_clock: MockClock
) -> None:
    runs.capacity = 4
    async with runs.run() as harness:
        for number in (1, 2, 3, 4):
            await harness.joined(number)
        for number in (5, 6):
            await waits(harness, number)
        await written()
        runs.store.soft_states.ended.add("s_1.0")
        kick = ModerationRequest(user_at(2), "kick")
        await harness.node.instance_service.moderate(ROOM, principal(0), kick)
        for number in (3, 5):
            suspended = replace(account(number), tags=frozenset({DISABLED_TAG}))
            runs.store.hosting.changed[suspended.id] = suspended
        await settle()
        # Killed before the change is written; the log has the kick.
    async with runs.run() as harness:
        players = await harness.node.instance_service.players(ROOM, principal(0))
        assert [player.user for player, _ in players] == [user_at(4)]
        assert await line(harness) == [(user_at(6), "admitted", None)]


async def test_a_database_that_hangs_delays_no_join_and_changes_share_a_write(
    runs: Runs, autojump_clock: MockClock
) -> None:
    runs.capacity = 60
    async with runs.run() as harness:
        soft = runs.store.soft_states
        soft.gate = trio.Event()
        await harness.joined(1)
        await written()
        begun = trio.current_time()
        for number in range(2, 41):
            await harness.joined(number)
        assert trio.current_time() == begun
        assert soft.writes == []
        soft.gate.set()
        soft.gate = None
        await written()
        assert len(soft.writes) <= 3
    async with runs.run() as harness:
        assert harness.node.directory.occupancy(ROOM).connected == 40


async def test_all_is_written_anew_after_an_outage(runs: Runs, autojump_clock: MockClock) -> None:
    async with runs.run() as harness:
        soft = runs.store.soft_states
        players = ids(await harness.joined(1))
        await written()
        soft.away = True
        players += ids(await harness.joined(2))
        await trio.sleep(60)
        soft.parts.clear()  # PostgreSQL lost its last commits
        soft.away = False
        await trio.sleep(ALIVE_S + 2)
    async with runs.run() as harness:
        for number, player in zip((1, 2), players, strict=True):
            assert await (await harness.connect(number)).join() == player


async def test_an_instance_that_can_not_start_is_tried_again(
    runs: Runs, autojump_clock: MockClock
) -> None:
    async with runs.run() as harness:
        players = ids(await harness.joined(1))
        await written()
    runs.lost = True
    async with runs.run() as harness:
        await trio.sleep(3)
        assert len(harness.node.instances) == 0
        runs.store.instances.away = False
        await trio.sleep(2)
        assert harness.node.directory.occupancy(ROOM).connected == 1
        assert await (await harness.connect(1)).join() == players[0]


@pytest.mark.parametrize("how", ["closed", "given up", "empty"])
async def test_an_instance_that_ended_leaves_nothing(
    runs: Runs, how: str, autojump_clock: MockClock
) -> None:
    async with runs.run() as harness:
        one = await harness.joined(1)
        await written()
        assert runs.store.soft_states.parts
        match how:
            case "closed":
                await harness.node.instance_service.close(ROOM, principal(0))
            case "given up":
                for _ in range(3):
                    harness.crash()
                    await trio.sleep(0.5)
            case "empty":
                await one.leave()
                await trio.sleep(61)
        await written()
        assert not runs.store.soft_states.parts
        assert kept(harness).debug_counts() == {"found instances": 0, "kept instances": 0}


async def test_a_server_that_stops_writes_all_and_nothing_after_that(
    runs: Runs, autojump_clock: MockClock
) -> None:
    async with runs.run() as harness:
        one, two = await harness.joined(1), await harness.joined(2)
        players = ids(one, two)
        await kept(harness).finish()
        await one.leave()
        await written()
    async with runs.run() as harness:
        for number, player in zip((1, 2), players, strict=True):
            assert await (await harness.connect(number)).join() == player


async def test_an_earlier_run_that_goes_on_writes_nothing_more(
    runs: Runs, autojump_clock: MockClock
) -> None:
    """It was paused, and another server has its database now."""
    async with runs.run() as before:
        players = ids(await before.joined(1))
        await written()
        async with runs.run() as harness:
            assert await (await harness.connect(1)).join() == players[0]
            await written()
            parts = dict(runs.store.soft_states.parts)
            await before.joined(2)
            await trio.sleep(5)
            assert runs.store.soft_states.parts == parts


async def test_what_is_kept_survives_several_restarts(
    runs: Runs, autojump_clock: MockClock
) -> None:
    async with runs.run() as harness:
        players = ids(await harness.joined(1), await harness.joined(2))
        await written()
    for _ in range(3):
        async with runs.run() as harness:
            await written()
    async with runs.run() as harness:
        for number, player in zip((2, 1), reversed(players), strict=True):
            assert await (await harness.connect(number)).join() == player
