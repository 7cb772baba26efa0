"""Data that an instance handles at once reaches everyone as data that waits in its mailbox."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock

from actors.delivery.fanout import Fanout
from actors.delivery.pacing import CoreLoad
from actors.instance.actor import PART_BYTES
from reileta.errors import PlayerNotFound
from reileta.protocol.frames import payload_of
from tests.actors.node_harness import (
    ROOM,
    Client,
    InspectableInstance,
    NodeHarness,
    open_harness,
    settle,
    user_at,
)

CLIENTS = 4
REST_S = 0.01
Step = tuple[str, int, dict[str, Any]]


@pytest.fixture(autouse=True)
def level_info() -> Iterator[None]:
    """At level debug every message is logged, so none is handled at once."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(wrapper_class=before)


def script(seed: int) -> list[list[Step]]:
    """Rounds of steps: nearly all of them are data."""
    chance = random.Random(seed)
    rounds = []
    for _ in range(12):
        steps: list[Step] = []
        for _ in range(chance.randint(1, 6)):
            who = chance.randrange(CLIENTS)
            kind = chance.choices(["say", "mute", "kick"], [40, 2, 1])[0]
            options: dict[str, Any] = {"data": b"%d" % chance.randrange(1000)}
            if chance.random() < 0.4:
                options["key"] = chance.choice(["pose", "x" * 300, "face"])
            if chance.random() < 0.2:
                options["at"] = chance.randrange(5)
            if chance.random() < 0.3:
                options["state"] = b"7"
            if chance.random() < 0.2:
                options["to"] = [
                    chance.randrange(CLIENTS) for _ in range(chance.choice([1, 2, 70]))
                ]
            if chance.random() < 0.05:
                options["data"] = b'"%b"' % (b"x" * PART_BYTES)
            steps.append((kind, who, options))
        rounds.append(steps)
    chance.choice(rounds).append(("crash", 0, {}))
    return rounds


async def play(
    monkeypatch: pytest.MonkeyPatch,
    rounds: Sequence[Sequence[Step]],
    *,
    at_once: bool,
    **settings: Any,
) -> tuple[list[list[Any]], int]:
    """What each client got, with names instead of player ids, and how much was handled at once."""
    handled = 0
    async with open_harness(monkeypatch, **settings) as harness:
        clients = await harness.crowd(*range(1, CLIENTS + 1))
        players = [client.sink.seats[ROOM].player for client in clients]
        for steps in rounds:
            if at_once:
                harness.node.rounds.begin(trio.current_time())
            for kind, who, options in steps:
                act(harness, clients, players, kind, who, options)
            if at_once:
                handled += harness.instance.depth == 0
                while harness.node.rounds.end() is not None:
                    await trio.sleep(REST_S)
                    harness.node.rounds.begin(trio.current_time())
            await settle()
            await trio.sleep(1)  # a crash is over
        texts = []
        for client in clients:
            text = b"\n".join(payload_of(frame) for frame in client.sink.frames)
            for number, player in enumerate(players):
                text = text.replace(player.encode(), b"player%d" % number)
            text = re.sub(rb'"joined_at":\d+', b'"joined_at":0', text)
            texts.append([msgspec.json.decode(line) for line in text.split(b"\n") if line])
    return texts, handled


def act(
    harness: NodeHarness,
    clients: Sequence[Client],
    players: Sequence[str],
    kind: str,
    who: int,
    options: dict[str, Any],
) -> None:
    client = clients[who]
    if kind == "crash":
        harness.crash()
    elif kind != "say":

        def moderate(room: InspectableInstance) -> None:
            with suppress(PlayerNotFound):
                room.moderate(user_at(who + 1), kind)

        harness.act(moderate)
    elif ROOM in client.sink.seats:
        to = options.get("to")
        given = None if to is None else tuple(players[one] for one in to)
        client.say(**{**options, "to": given})


@pytest.mark.parametrize("seed", range(12))
async def test_everyone_gets_the_same(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, seed: int
) -> None:
    rounds = script(seed)
    expected, _ = await play(monkeypatch, rounds, at_once=False)
    found, handled = await play(monkeypatch, rounds, at_once=True)
    assert found == expected
    assert handled  # else this test shows nothing


@pytest.mark.parametrize("seed", range(12))
async def test_everyone_gets_the_same_in_turns(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, seed: int
) -> None:
    rounds = script(seed)
    expected, _ = await play(monkeypatch, rounds, at_once=False)
    turns = count_turns(monkeypatch)
    found, _ = await play(monkeypatch, rounds, at_once=True)
    assert found == expected
    assert max(turns) > 1  # else this test shows nothing


async def test_with_compression_all_are_written_to_so_that_frames_are_compressed_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    turns = count_turns(monkeypatch)
    _, handled = await play(monkeypatch, script(0), at_once=True, deflate=True)
    assert handled
    assert not turns


def count_turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Writes in turns wherever an instance may; returns in how many, for each turn."""
    turns: list[int] = []
    flush_turn = Fanout.flush_turn

    def counted(fanout: Fanout) -> int:
        turns.append(fanout.turns)
        return flush_turn(fanout)

    monkeypatch.setattr("actors.delivery.fanout.TURN_SINKS", 1)
    monkeypatch.setattr(Fanout, "flush_turn", counted)
    monkeypatch.setattr(CoreLoad, "share", lambda _: 0.8)
    monkeypatch.setattr(CoreLoad, "rest_s", lambda _, took_s: REST_S)
    return turns
