"""The queue of an instance over sockets: requests, and who is notified, when and how often."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import RequestEntry
from actors.instance.queue import SLICE
from actors.membership import CandidateOffline, CandidateOnline
from actors.session.messages import Attach
from reileta.errors import InstanceFull, InstanceNotFound
from reileta.records import InstanceChanges
from tests.actors.node_harness import ADDRESS, ROOM, Client, NodeHarness, principal, settle, user_at

Frame = dict[str, Any]


def of_queue(client: Client) -> list[Frame]:
    """What a socket was told of the queue, without the rest."""
    commands = ("instance-candidate", "instance-queue")
    return [one for one in client.sink.take() if one["command"] in commands]


def briefly(frames: list[Frame]) -> list[tuple[Any, ...]]:
    """`candidate`: why, and the state; `queue`: how many wait, and the own position."""
    out: list[tuple[Any, ...]] = []
    for frame in frames:
        data = frame["data"]
        entry = data.get("entry")
        if frame["command"] == "instance-candidate":
            number = int(data["user"].split("@")[0][-4:], 16)
            out.append((number, data["reason"], None if entry is None else entry["state"]))
        elif entry is not None:
            out.append((data["queued"], entry["state"], entry.get("position")))
        else:
            out.append((data["queued"], [one["state"] for one in data["entries"]]))
    return out


async def full(harness: NodeHarness, capacity: int = 1) -> list[Client]:
    """The room, full."""
    harness.room(capacity=capacity)
    return await harness.crowd(*range(1, capacity + 1))


async def waits(harness: NodeHarness, number: int) -> Client:
    client = await harness.connect(number)
    await harness.node.instance_service.candidate(ROOM, principal(number))
    return client


async def test_a_candidate_is_told_of_its_entry_wherever_it_is(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    two = await harness.connect(2)
    other = await harness.connect(2, 1)  # another session of the same user
    entry = await harness.node.instance_service.candidate(ROOM, principal(2))
    assert (entry.state, entry.position) == ("waiting", 1)
    await settle()
    expected = [(2, "asked", "waiting"), (1, "waiting", 1)]
    frames = of_queue(two)
    assert briefly(frames) == expected
    assert briefly(of_queue(other)) == expected
    now = harness.node.clock.now_ms()
    assert frames[0]["subgroup"] == ROOM
    assert frames[0]["data"] == {
        "user": user_at(2),
        "reason": "asked",
        "entry": {"user": user_at(2), "state": "waiting", "position": 1, "since": now},
    }
    assert frames[1]["data"] == {
        "queued": 1,
        "entry": {"user": user_at(2), "state": "waiting", "position": 1, "since": now},
    }


@pytest.mark.parametrize("how", ["leave", "kick", "lost", "capacity"])
async def test_a_seat_that_comes_free_is_held_for_the_first_in_line(
    harness: NodeHarness, autojump_clock: MockClock, how: str
) -> None:
    (one,) = await full(harness)
    two, three = await waits(harness, 2), await waits(harness, 3)
    await settle()
    of_queue(two), of_queue(three)
    match how:
        case "leave":
            await one.leave()
        case "kick":
            harness.act(lambda actor: actor.moderate(user_at(1), "kick"))
        case "lost":
            one.lose()
            await trio.sleep(9.9)
            assert of_queue(two) == []
            await trio.sleep(0.2)
        case _:
            await harness.node.instance_service.update(
                ROOM, principal(0), InstanceChanges(capacity=2)
            )
    await settle()
    told = briefly(of_queue(two))
    assert told == [(2, "admitted", "admitted"), (1, "admitted", None)]
    assert briefly(of_queue(three)) == [(1, "waiting", 1)]
    with pytest.raises(InstanceFull):
        await three.join()
    await two.join()
    await settle()
    assert briefly(of_queue(two))[0] == (2, "joined", None)


async def test_a_hold_that_runs_out_is_the_next_ones(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    (one,) = await full(harness)
    two, three = await waits(harness, 2), await waits(harness, 3)
    await one.leave()
    await settle()
    of_queue(two), of_queue(three)
    await trio.sleep(30.1)
    assert briefly(of_queue(two)) == [(2, "expired", None)]
    assert briefly(of_queue(three)) == [(3, "admitted", "admitted"), (0, "admitted", None)]


async def test_many_changes_of_one_drain_are_told_once(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    watcher = await waits(harness, 2)
    await settle()
    of_queue(watcher)
    async with trio.open_nursery() as nursery:
        for number in range(3, 23):
            ask = RequestEntry(principal(number).as_visitor(ADDRESS))
            nursery.start_soon(harness.instance.ask, ask)
    await settle()
    assert briefly(of_queue(watcher)) == [(21, "waiting", 1)]


async def test_overseers_inside_are_told_all_and_others_nothing(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    master, normal = await full(harness, capacity=2)
    await waits(harness, 3)
    await settle()
    told = of_queue(master)
    assert briefly(told) == [(3, "asked", "waiting"), (1, ["waiting"])]
    assert told[1]["data"]["entries"][0]["user"] == user_at(3)
    assert of_queue(normal) == []


async def test_subscribers_who_oversee_are_told_from_without(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    owner, admin, anyone = (
        await harness.connect(0),
        await harness.connect(7, admin=True),
        await harness.connect(8),
    )
    for client in (owner, admin, anyone):
        await client.subscribe("instance-candidate", target=ROOM)
    await waits(harness, 2)
    await settle()
    for client in (owner, admin):
        assert briefly(of_queue(client)) == [(2, "asked", "waiting")]
    assert of_queue(anyone) == []


async def test_a_pending_one_is_told_to_all_who_may_admit_it(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(access="avr:invite_plus")
    owner = await harness.joined(0)
    await harness.node.instance_service.admit(ROOM, principal(0), user_at(1))
    one = await harness.joined(1)
    two = await harness.connect(2)
    owner.sink.take(), one.sink.take()
    await harness.node.instance_service.candidate(ROOM, principal(2))
    await settle()
    assert briefly(of_queue(one)) == [(2, "asked", "pending")]
    assert (2, "asked", "pending") in briefly(of_queue(owner))
    two.sink.take()
    await harness.node.instance_service.admit(ROOM, principal(1), "user2")
    await settle()
    assert briefly(of_queue(two))[0] == (2, "admitted", "admitted")
    await two.join()


async def test_a_place_in_line_outlives_the_last_socket_for_a_minute(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    two, three = await waits(harness, 2), await waits(harness, 3)
    spare = await harness.connect(2, 1)
    two.lose()
    await trio.sleep(61)
    assert harness.node.directory.occupancy(ROOM).queued == 2  # it has another socket
    spare.lose()
    await trio.sleep(59)
    back = await harness.connect(2, 2)
    assert harness.node.directory.occupancy(ROOM).queued == 2
    back.lose()
    await settle()
    of_queue(three)
    await trio.sleep(60.1)
    assert harness.node.directory.occupancy(ROOM).queued == 1
    assert briefly(of_queue(three)) == [(1, "waiting", 1)]


async def test_who_asks_without_a_socket_is_forgotten_unless_one_comes(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    for number in (2, 3):
        entry = await harness.node.instance_service.candidate(ROOM, principal(number))
        assert entry.expires_at == harness.node.clock.now_ms() + 60_000
    three = await harness.connect(3)
    await trio.sleep(61)
    queue = await harness.node.instance_service.queue(ROOM, principal(3))
    assert (queue.waiting, queue.entries) == (1, None)
    assert queue.own is not None
    assert (queue.own.position, queue.own.expires_at) == (1, None)
    assert briefly(of_queue(three))[-1] == (1, "waiting", 1)


async def test_a_socket_that_comes_back_is_told_where_it_stands(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    two = await waits(harness, 2)
    two.lose()
    await settle()
    who = principal(2)
    session = await harness.node.sessions.live(who)
    sink = type(two.sink)("back")
    await session.ask(Attach(sink, who.token_hash))
    await settle()
    client = Client(harness, who, session, sink)
    assert briefly(of_queue(client)) == [(1, "waiting", 1)]


async def test_a_long_line_is_told_in_slices_and_admission_overtakes_it(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    (one,) = await full(harness)
    count = 3 * SLICE
    clients = [await waits(harness, number) for number in range(10, 10 + count)]
    await trio.sleep(1)
    for client in clients:
        client.sink.take()
    writes = [client.sink.writes for client in clients]
    started = trio.current_time()
    order: list[int] = []
    for place, client in enumerate(clients):
        client.sink.write = _noting(client.sink.write, order, place)  # type: ignore[method-assign]
    await one.leave()
    await trio.sleep(1)
    assert trio.current_time() - started < 1.1
    assert order[0] == 0  # its admission, in the drain in which the seat came free
    assert [
        client.sink.writes - before for client, before in zip(clients, writes, strict=True)
    ] == [1] * count
    for place, client in enumerate(clients[1:], 1):
        assert briefly(of_queue(client)) == [(count - 1, "waiting", place)]


def _noting(write: Any, order: list[int], place: int) -> Any:
    def noted(pieces: Any) -> None:
        order.append(place)
        write(pieces)

    return noted


async def test_candidates_survive_a_crash(harness: NodeHarness, autojump_clock: MockClock) -> None:
    (one,) = await full(harness)
    two = await waits(harness, 2)
    await settle()
    of_queue(two)
    harness.crash()
    await trio.sleep(1)
    assert briefly(of_queue(two)) == [(1, "waiting", 1)]
    await one.leave()
    await settle()
    assert briefly(of_queue(two))[0] == (2, "admitted", "admitted")


async def test_who_waits_for_an_instance_that_is_given_up_is_told(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    two = await waits(harness, 2)
    for _ in range(3):
        harness.crash()
        await trio.sleep(0.5)
    assert briefly(of_queue(two))[-1] == (2, "closed", None)
    assert "candidacies" not in harness.leftovers()


async def test_a_closed_instance_lets_its_candidates_go(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await full(harness)
    two = await waits(harness, 2)
    await settle()
    of_queue(two)
    await harness.node.instance_service.close(ROOM, principal(0))
    await settle()
    assert briefly(of_queue(two)) == [(2, "closed", None)]
    assert "candidacies" not in harness.leftovers()


async def test_news_of_a_socket_that_are_late_change_nothing(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=1)
    await harness.joined(1)
    await harness.connect(2)
    await harness.node.instance_service.candidate(ROOM, principal(2))
    await harness.node.instance_service.candidate(ROOM, principal(3))
    harness.instance.signal(CandidateOffline(user_at(2)))  # it has come back meanwhile
    harness.instance.signal(CandidateOnline(user_at(3)))  # it has gone again meanwhile
    await settle()
    two = (await harness.node.instance_service.queue(ROOM, principal(2))).own
    three = (await harness.node.instance_service.queue(ROOM, principal(3))).own
    assert two is not None
    assert three is not None
    assert two.expires_at is None
    assert three.expires_at is not None


async def test_nobody_lines_up_for_an_instance_that_ends(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(1)
    harness.store.instances.gate = gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.node.instance_service.close, ROOM, principal(0))
        await settle()
        with pytest.raises(InstanceNotFound):
            await harness.instance.ask(RequestEntry(principal(2).as_visitor(ADDRESS)))
        gate.set()
