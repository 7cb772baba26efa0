"""A client that reads too slowly, or not at all: its own loss, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import trio

from api.listen import server
from tests.e2e.clients import CLOSE, TEXT, Frame, Player, RawClient, connected, frame, text, until
from tests.e2e.servers import running

KIB = 1024
LIMIT = 64 * KIB
"""`backlog_limit_bytes` of these tests; what the system itself buffers comes on top."""


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SEND_BUFFER", 16 * KIB)


async def flood(player: Player, place: str, count: int, key: str | None) -> AsyncIterator[int]:
    """Says numbers, 4 KiB each; gives each once it was said."""
    for number in range(count):
        more = {} if key is None else {"key": f"{key}{number % 3}"}
        await player.say(place, {"n": number, "filler": "x" * 4 * KIB}, **more)
        yield number


def numbers(frames: list[Frame], player: str) -> list[tuple[int, str | None]]:
    """What the player's messages among the frames said: number and key."""
    said = []
    for one in frames:
        message = json.loads(one.payload)
        if message["command"] == "instance-data" and message["data"]["player"] == player:
            said.append((message["data"]["data"]["n"], message["data"].get("key")))
    return said


async def read(client: RawClient, last: object) -> list[Frame]:
    """All frames until the one whose data is `last`, or the close frame."""
    frames: list[Frame] = []
    while True:
        one = await client.frame()
        if one.opcode == CLOSE:
            return [*frames, one]
        if one.opcode == TEXT:
            message = json.loads(one.payload)
            if message["command"] == "instance-data" and message["data"]["data"] == last:
                return frames
            frames.append(one)


async def test_one_that_does_not_read_gets_the_newest_of_each_key(database_url: str) -> None:
    async with running(database_url, backlog_limit_bytes=LIMIT, rate_limits="off") as harness:
        ada, bob, eve = [await harness.account() for _ in range(3)]
        place = (await harness.instance(ada)).id
        async with (
            connected(harness, ada) as one,
            connected(harness, bob) as fast,
            RawClient.connected(harness, receive_buffer=8 * KIB) as slow,
        ):
            await one.join(place)
            await fast.join(place)
            await slow.enter(eve, place)
            count = 200  # 800 KiB, of which no more than the buffers hold
            # In step with the fast one, which a busy machine would make a slow one otherwise.
            async for number in flood(one, place, count, "k"):
                assert (await fast.hear())["data"]["n"] == number
            assert harness.metrics.conflated > 0
            assert harness.metrics.backlog_bytes <= 2 * LIMIT
            assert len(harness.gateway) == 3
            await one.say(place, "end")
            frames = await read(slow, "end")
            said = numbers(frames, one.id)
            assert said == sorted(said), "out of order"
            assert len(said) < count
            newest = {key: n for n, key in said}
            assert newest == {"k0": 198, "k1": 199, "k2": 197}
            await until(lambda: harness.metrics.backlog_bytes == 0)


async def test_all_without_a_key_arrive_or_it_is_told_that_it_is_too_slow(
    database_url: str,
) -> None:
    async with running(database_url, backlog_limit_bytes=LIMIT, rate_limits="off") as harness:
        ada, bob, eve = [await harness.account() for _ in range(3)]
        place = (await harness.instance(ada)).id
        async with (
            connected(harness, ada) as one,
            connected(harness, bob) as fast,
            RawClient.connected(harness, receive_buffer=8 * KIB) as slow,
        ):
            await one.join(place)
            await fast.join(place)
            await slow.enter(eve, place)
            async for number in flood(one, place, 100, None):
                assert (await fast.hear())["data"]["n"] == number
            assert harness.metrics.too_slow == 1
            frames = await read(slow, "never said")
            assert frames[-1].close_code == 4008, "who reads again learns why it was closed"
            await slow.send(frame(CLOSE, frames[-1].payload[:2]))
            said = numbers(frames[:-1], one.id)
            assert said == [(number, None) for number in range(len(said))], "none is left out"
            assert 0 < len(said) < 100
            await until(lambda: len(harness.gateway) == 2)
            assert harness.metrics.backlog_bytes == 0


async def test_pauses_short_of_the_limit_cost_nothing(database_url: str) -> None:
    async with running(database_url, backlog_limit_bytes=512 * KIB, rate_limits="off") as harness:
        ada, eve = [await harness.account() for _ in range(2)]
        place = (await harness.instance(ada)).id
        async with (
            connected(harness, ada) as one,
            RawClient.connected(harness, receive_buffer=8 * KIB) as slow,
        ):
            await one.join(place)
            await slow.enter(eve, place)
            async for _ in flood(one, place, 100, None):
                pass
            await one.ask("ping")
            assert harness.metrics.backlog_bytes > 0
            await one.say(place, "end")
            frames = await read(slow, "end")
            assert numbers(frames, one.id) == [(number, None) for number in range(100)]


async def test_one_that_asks_much_and_never_reads_is_closed(database_url: str) -> None:
    """Its own questions, too, count against what may wait for it: pings, joins, errors."""
    async with running(database_url, backlog_limit_bytes=LIMIT, rate_limits="off") as harness:
        ada = await harness.account("ada")
        place = (await harness.instance(ada)).id
        leave = {"command": "instance-leave", "state": "l" * 2 * KIB, "data": {"instance": place}}
        for question in (
            text({"command": "ping", "state": "s" * 4 * KIB}),
            text({"command": "dance" * KIB, "state": 1}),
            text({"command": "instance-join", "state": 1, "data": {"instance": place}})
            + text(leave),
        ):
            async with RawClient.connected(harness, receive_buffer=8 * KIB) as client:
                assert (await client.upgrade(ada)).status == 101
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pour, client, question * 120)
                    before = harness.metrics.too_slow
                    await until(lambda: harness.metrics.too_slow > before)  # noqa: B023
                    assert harness.metrics.backlog_bytes <= 2 * LIMIT
                    while (one := await client.frame()).opcode != CLOSE:
                        pass
                    assert one.close_code == 4008
                    nursery.cancel_scope.cancel()
            await until(lambda: not len(harness.gateway))


async def pour(client: RawClient, data: bytes) -> None:
    try:
        await client.send(data)
    except trio.BrokenResourceError:
        return
