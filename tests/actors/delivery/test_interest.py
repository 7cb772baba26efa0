"""Interest: fewer values of far players, of which each receiver ends with the newest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from actors.delivery.batch import Batch, Piece
from actors.delivery.fanout import Fanout
from actors.delivery.interest import InterestGroup, InterestGroups, ThinnedSink
from actors.delivery.pacing import CoreLoad
from reileta.observability.metrics import Metrics
from reileta.protocol.frames import DataFrames, encode, text_frame
from reileta.rules.instance import interest as rules
from reileta.rules.instance.interest import LATE_SHARE, LEFT, Interest
from tests.actors.sinks import FakeSink, frames_of

ROOM = "i_room"
PLAYERS = [f"p_{number}" for number in range(5)]
NAMES = ["pose", "hat"]
Key = tuple[str, str]


def data(player: str, name: str | None, value: object) -> bytes:
    frames = DataFrames(ROOM, player)
    return frames.plain(encode(value)) if name is None else frames.keyed(name, None, encode(value))


@dataclass
class Client:
    """A receiver, and what it must have got."""

    player: str
    group: InterestGroup
    sink: Any = None
    held: list[list[Piece]] | None = None
    values: dict[Key, int] = field(default_factory=dict)
    """What it knows now."""
    wanted: dict[Key, int] = field(default_factory=dict)
    """What it must know at the end."""
    must: set[int] = field(default_factory=set)
    """Values that must not be left out."""
    got: set[int] = field(default_factory=set)
    interest: Interest = field(default_factory=Interest)
    asked: Interest = field(default_factory=Interest)
    last_at: dict[Key, float] = field(default_factory=dict)
    """When the last value came that counted, by key."""
    now: float = 0.0
    since: int = 0
    """Later values count for the rate."""

    def __post_init__(self) -> None:
        self.sink = FakeSink(self.player)
        self.sink.write = self.read

    def rate(self, player: str) -> float | None:
        if self.interest.near is None or player in self.near:
            return self.interest.rate
        return self.interest.far_rate

    @property
    def near(self) -> frozenset[str]:
        return self.interest.near if isinstance(self.interest.near, frozenset) else frozenset()

    def read(self, pieces: list[Piece]) -> None:
        assert pieces
        for frame in frames_of(pieces):
            message = msgspec.json.decode(frame[2 if frame[1] < 126 else 4 :])
            if "snapshot" in message:
                self.values = {(p, n): v for p, n, v in message["snapshot"]}
                self.last_at.clear()
                continue
            if "left" in message:
                self.values = {k: v for k, v in self.values.items() if k[0] != message["left"]}
                continue
            value = message["data"]
            key = value["player"], value.get("key", "")
            assert key[0] != self.player
            self.got.add(value["data"])
            if not key[1]:
                continue
            assert value["data"] > self.values.get(key, -1), "older, or twice"
            self.values[key] = value["data"]
            rate = self.rate(key[0]) if value["data"] > self.since else None
            if rate is not None:
                before = self.last_at.get(key)
                spacing = (1 - LATE_SHARE) / rate  # and 1 / rate on average
                assert before is None or self.now >= before + spacing - 1e-9, "too often"
                self.last_at[key] = self.now

    def write(self, pieces: list[Piece]) -> None:
        if not pieces:
            return
        if self.held is not None:
            self.held.append(pieces)
        else:
            self.group.target(self.sink).write(pieces)


class World:
    """A gateway: frames come in batches, and some wait."""

    def __init__(self) -> None:
        self.groups = InterestGroups(Metrics())
        self.group = InterestGroup(self.groups, ROOM, None)
        self.groups.by_instance[ROOM] = self.group
        self.groups.forget = lambda group: None  # type: ignore[method-assign]
        self.clients = {player: Client(player, self.group) for player in PLAYERS}
        self.retained: dict[Key, int] = {}
        self.frames: list[tuple[bytes, Any, str]] = []
        self.now = 0.0
        self.number = 0

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for client in self.clients.values():
            client.now = self.now
        self.group.tick(self.now)

    def say(self, player: str, name: str | None) -> None:
        self.number += 1
        key = None if name is None else (ROOM, player, name)
        self.frames.append((data(player, name, self.number), key, player))
        if name is not None:
            self.retained[player, name] = self.number
        for client in self.others(player):
            if name is not None:
                client.wanted[player, name] = self.number
            if name is None or client.rate(player) is None:
                client.must.add(self.number)

    def others(self, player: str) -> list[Client]:
        return [client for client in self.clients.values() if client.player != player]

    def flush(self) -> None:
        if not self.frames:
            return
        batch = Batch([frame for frame, _, _ in self.frames], [key for _, key, _ in self.frames])
        self.group.take(batch)
        whole: list[ThinnedSink] = []
        others = {sender for _, _, sender in self.frames}
        others |= {one.player for one in self.clients.values() if one.held is not None}
        for client in self.clients.values():
            target = self.group.target(client.sink)
            if isinstance(target, ThinnedSink) and client.player not in others:
                whole.append(target)
                continue
            pieces: list[Piece] = []
            start = 0
            for end, (_, _, sender) in zip(batch.ends, self.frames, strict=True):
                if sender != client.player:
                    if pieces and pieces[-1][2] == start:
                        pieces[-1] = (batch, pieces[-1][1], end)
                    else:
                        pieces.append((batch, start, end))
                start = end
            client.write(pieces)
        self.group.write_whole(whole, batch)
        self.frames = []

    def whisper(self, player: str, to: str, name: str) -> None:
        if player == to:
            return
        self.flush()
        self.number += 1
        client = self.clients[to]
        client.wanted[player, name] = self.number
        frame = data(player, name, self.number)
        batch = Batch([frame], [(ROOM, player, name)])
        client.write([(batch, 0, len(batch))])

    def snapshot(self, player: str) -> None:
        self.flush()
        client = self.clients[player]
        batch = self.snapshot_for(client)
        client.write([(batch, 0, len(batch))])

    def snapshot_for(self, client: Client) -> Batch:
        known = {k: v for k, v in self.retained.items() if k[0] != client.player}
        client.wanted, client.since = dict(known), self.number
        rows = [(*key, value) for key, value in known.items()]
        return Batch([text_frame(encode({"snapshot": rows}))], snapshot=True)

    def leave(self, player: str) -> None:
        if len(self.clients) < 3:
            return
        client = self.clients.pop(player)
        self.group.forget(client.sink)
        frame = text_frame(encode({"left": player}))
        self.frames.append((frame, (ROOM, player, LEFT), player))
        for other in self.clients.values():
            other.wanted = {k: v for k, v in other.wanted.items() if k[0] != player}
        self.retained = {k: v for k, v in self.retained.items() if k[0] != player}
        self.flush()

    def ask(self, player: str, interest: Interest) -> None:
        self.flush()
        client = self.clients[player]
        if client.held is None:
            self.take_effect(client, interest)
        client.asked = interest
        if interest.limits:
            held = client.held is not None
            self.group.ask(client.sink, player, interest, self.now, held=held)
        else:
            self.group.end(client.sink)

    def take_effect(self, client: Client, interest: Interest) -> None:
        before = {player: client.rate(player) for player in PLAYERS}
        client.interest, client.since = interest, self.number
        for key in list(client.last_at):
            if client.rate(key[0]) != before[key[0]]:
                del client.last_at[key]

    def hold(self, player: str) -> None:
        self.flush()
        client = self.clients[player]
        if client.held is None:
            client.held = []
            self.group.hold(client.sink)

    async def release(self, player: str) -> None:
        self.flush()
        client = self.clients[player]
        if client.held is None:
            return
        held, client.held = client.held, None
        for pieces in held:
            client.write(pieces)
        self.take_effect(client, client.asked)
        self.group.release(client.sink, self.now)


class HostWorld(World):
    """The host itself: frames come from a fan-out, and nothing waits."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = Random(len(STEPS))
        self.fanout = Fanout(ROOM, self.groups)
        for client in self.clients.values():
            client.sink.direct = lambda data, client=client: self.direct(client, data)
            client.sink.taken_in_part = lambda pieces, sent, client=client: client.read(pieces)
            self.fanout.add(client.sink, None)
        self.fanout.flush()

    def direct(self, client: Client, data: bytes) -> int:
        """The system takes all of it, a part, or nothing."""
        match self.chance.randrange(3):
            case 0:
                raise BlockingIOError
            case 1:
                return self.chance.randrange(len(data))
        client.read(pieces_in(data))
        return len(data)

    def say(self, player: str, name: str | None) -> None:
        super().say(player, name)
        frame, key, _ = self.frames.pop()
        self.fanout.broadcast(frame, key, without=[self.clients[player].sink], data=True)

    def flush(self) -> None:
        self.fanout.flush()

    def whisper(self, player: str, to: str, name: str) -> None:
        if player == to:
            return
        self.number += 1
        client = self.clients[to]
        client.wanted[player, name] = self.number
        self.fanout.private(client.sink, data(player, name, self.number), (ROOM, player, name))

    def snapshot(self, player: str) -> None:
        client = self.clients[player]
        self.fanout.answer(client.sink, [self.snapshot_for(client)])

    def leave(self, player: str) -> None:
        if len(self.clients) < 3:
            return
        self.flush()
        sink = self.clients[player].sink
        super().leave(player)
        self.fanout.remove(sink)
        for frame, key, _ in self.frames:
            self.fanout.broadcast(frame, key)
        self.frames = []

    def hold(self, player: str) -> None:
        """Nothing waits here."""

    async def release(self, player: str) -> None:
        """Nothing waits here."""


def pieces_in(data: bytes) -> list[Piece]:
    """What was sent directly."""
    frames, at = [], 0
    while at < len(data):
        size = data[at + 1]
        head, size = (4, int.from_bytes(data[at + 2 : at + 4])) if size == 126 else (2, size)
        frames.append(data[at : at + head + size])
        at += head + size
    batch = Batch(frames)
    return [(batch, 0, len(batch))]


def drawn(chance: Random) -> tuple[Any, ...]:
    """A step. Half of what Hypothesis would try is too short to find anything."""
    player, name = chance.choice(PLAYERS), chance.choice(NAMES)
    match chance.choices(STEPS, WEIGHTS)[0]:
        case "say":
            return "say", player, chance.choice([name, name, name, None])
        case "whisper":
            return "whisper", player, chance.choice(PLAYERS), name
        case "tick":
            return "tick", chance.choice([0, 0.05, 0.05, 0.3, 0.3, 1, 2.5])
        case "ask":
            return "ask", player, drawn_interest(chance)
        case "flush":
            return ("flush",)
        case step:
            return step, player


def drawn_interest(chance: Random) -> Interest:
    rate, far_rate = chance.choice(RATES), chance.choice(RATES)
    near = frozenset(chance.sample(PLAYERS, chance.randrange(4)))
    match chance.randrange(5):
        case 0:
            return Interest()
        case 1:
            return Interest(rate)
        case 2:
            return Interest(rate, near, far_rate)
        case _:
            return Interest(None, near, far_rate)


RATES = [1.0, 2.0, 3.5]
STEPS = ["say", "whisper", "flush", "tick", "ask", "snapshot", "hold", "release", "leave"]
WEIGHTS = [35, 7, 13, 20, 12, 3, 4, 5, 1]


def play(kind: type[World], script: list[tuple[Any, ...]]) -> None:
    """Plays the steps, and checks what each receiver has at the end."""

    async def run() -> None:
        world = kind()
        for step, *arguments in script:
            if step not in ("flush", "tick") and arguments[0] not in world.clients:
                continue
            if step == "whisper" and arguments[1] not in world.clients:
                continue
            done = getattr(world, step)(*arguments)
            if done is not None:
                await done
        for player in list(world.clients):
            await world.release(player)
        world.flush()
        for _ in range(20):
            world.tick(0.25)
        for client in world.clients.values():
            assert client.values == client.wanted
            assert client.got >= client.must, "something that is not limited was left out"
        assert world.group.rules.next_at() is None

    trio.run(run)


@pytest.mark.parametrize("kind", [World, HostWorld])
def test_each_receiver_ends_with_the_newest_values_at_no_more_than_its_rate(
    kind: type[World],
) -> None:
    for seed in range(400):
        chance = Random(seed)
        play(kind, [drawn(chance) for _ in range(chance.randrange(10, 120))])


@pytest.mark.parametrize("kind", [World, HostWorld])
def test_values_that_are_sent_early_do_not_make_others_come_twice_or_late(
    kind: type[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "OWED_LIMIT_BYTES", 60)
    monkeypatch.setattr(f"{__name__}.LATE_SHARE", 1.0)  # early ones do not count for the rate
    for seed in range(1000, 1150):
        chance = Random(seed)
        play(kind, [drawn(chance) for _ in range(chance.randrange(10, 120))])


async def test_nothing_is_written_for_an_instance_that_has_ended_meanwhile(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    groups, written = InterestGroups(Metrics()), []

    def end(other: str, pieces: Sequence[Piece]) -> None:
        written.append(pieces)
        groups.forget_instance(other)

    sinks = {instance: FakeSink(instance) for instance in ("i_one", "i_two")}
    for instance, sink in sinks.items():
        groups.ask(instance, sink, "p_me", Interest(1.0))
        frame = text_frame(encode({"value": 1}))
        groups.by_instance[instance].take(Batch([frame], [(instance, "p_you", "pose")]))
    for instance, sink in sinks.items():
        (other,) = sinks.keys() - {instance}
        sink.write = partial(end, other)  # type: ignore[method-assign]
        lane = groups.by_instance[instance].sinks[sink].receiver.far_lane
        lane.due = [1.0] * len(lane.due)
    nursery.start_soon(groups.run)
    await trio.sleep(5)
    assert len(written) == 1


async def test_values_that_waited_are_work_for_players_messages(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    groups, sink, load = InterestGroups(Metrics()), FakeSink("me"), CoreLoad(float, float)
    groups.ask(ROOM, sink, "p_me", Interest(1.0))
    nursery.start_soon(groups.run, load)
    await trio.sleep(1)
    before = load.traffic_s
    groups.by_instance[ROOM].take(Batch([data("p_you", "pose", 1)], [(ROOM, "p_you", "pose")]))
    await trio.sleep(2)
    assert sink.writes == 1
    assert load.traffic_s > before
