"""A cluster under one failure after another, chosen at random: what grows?

The other scenarios look for promises that are broken by one kind of failure. This one plays all
kinds, for as long as it is told to, and compares at the end what the nodes and NATS hold with what
they held at the beginning, under the same players: tasks, tables, subscriptions, consumers, memory.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import psutil
import trio

from tests.chaos.cluster.scenarios import BUCKET, CALM_S, Result, town
from tests.chaos.soak.observed import ask
from tests.cluster.clients import now
from tests.cluster.ground import Ground
from tests.conftest import PATIENCE_S

EVERY_S: Final = 20.0
MIB: Final = 1024 * 1024
GROWTH: Final = 1.1
GROWTH_BYTES: Final = 16 * MIB
SPARE: Final = 3
"""So much more of anything may be there: what just happens to run."""

Failure = Callable[[Ground, random.Random], Awaitable[None]]


async def dies(ground: Ground, chance: random.Random) -> None:
    node = chance.choice(ground.nodes)
    await node.kill()
    await trio.sleep(chance.uniform(0, 6))
    await node.start()


async def is_restarted(ground: Ground, chance: random.Random) -> None:
    node = chance.choice(ground.nodes)
    await node.stop()
    await node.start()


async def is_paused(ground: Ground, chance: random.Random) -> None:
    node = chance.choice(ground.nodes)
    await node.pause()
    await trio.sleep(chance.choice((0.5, 1.5, 5.0, 9.0)))
    node.resume()


async def is_cut_off(ground: Ground, chance: random.Random) -> None:
    node = chance.choice(ground.nodes)
    for gate in chance.sample(node.gates, chance.randint(1, len(node.gates))):
        way = chance.choice((gate, gate.forth, gate.back))
        way.cut()
    await trio.sleep(chance.choice((1.0, 4.0, 9.0)))
    node.heal()


async def nats_dies(ground: Ground, chance: random.Random) -> None:
    server = chance.choice(ground.nats)
    await server.kill()
    if chance.random() < 0.5:
        server.forget()
    await trio.sleep(chance.uniform(0, 4))
    await server.start()


async def nats_hangs(ground: Ground, chance: random.Random) -> None:
    server = chance.choice(ground.nats)
    await server.pause()
    await trio.sleep(chance.uniform(1, 6))
    server.resume()


async def postgres_dies(ground: Ground, chance: random.Random) -> None:
    await ground.stop_postgres()
    await trio.sleep(chance.uniform(0, 5))
    await ground.start_postgres()


FAILURES: Final[tuple[Failure, ...]] = (
    dies,
    is_restarted,
    is_paused,
    is_cut_off,
    nats_dies,
    nats_hangs,
    postgres_dies,
)


@dataclass(frozen=True)
class Held:
    """What nodes and NATS hold. `tables`: all nodes together."""

    tables: Counter[str]
    rss_bytes: int
    """Of the node that has the most."""


async def held(ground: Ground) -> Held:
    tables: Counter[str] = Counter()
    for node in ground.nodes:
        tables.update(await ask(node.observed, "counts"))
    for server in ground.nats:
        tables["subscriptions"] += await server.subscriptions()
        told = await server.ask(f"$JS.API.STREAM.INFO.KV_{BUCKET}")
        tables["consumers"] += told["state"]["consumer_count"]
    sizes = [psutil.Process(node.process.pid).memory_info().rss for node in ground.nodes]
    return Held(tables, max(sizes))


def grown(before: Held, after: Held) -> list[str]:
    """What is not flat."""
    wrong = [
        f"{name}: {before.tables[name]} before, {many} at the end"
        for name, many in after.tables.items()
        if many > GROWTH * before.tables[name] + SPARE
    ]
    if after.rss_bytes > GROWTH * before.rss_bytes + GROWTH_BYTES:
        wrong.append(
            f"memory of a node: {before.rss_bytes / MIB:.0f} MiB before, "
            f"{after.rss_bytes / MIB:.0f} at the end"
        )
    return wrong


async def soak(ground: Ground, times: int, seed: int, *, every_s: float = EVERY_S) -> Result:
    """A failure at random every so often: nothing that was promised is broken, and nothing
    grows."""
    chance, result = random.Random(seed), Result()
    print(f"the soak's seed is {seed}")
    await town(ground, rooms=3, people=6)
    await trio.sleep(2 * CALM_S)
    before = await held(ground)
    for number in range(times):
        began, failure = now(), chance.choice(FAILURES)
        await failure(ground, chance)
        await ground.until_inside(2 * PATIENCE_S)
        if number == times // 4:  # warm
            before = Held(before.tables, max(before.rss_bytes, (await held(ground)).rss_bytes))
        if number + 1 < times:
            await trio.sleep(max(CALM_S, every_s - (now() - began)))
    wrong: list[str] = []
    with trio.move_on_after(2 * PATIENCE_S):
        while True:
            after = await held(ground)
            wrong = grown(before, after)
            if not wrong:
                break
            await trio.sleep(1)
    result.wrong += wrong
    result.figure("memory of a node, MiB", after.rss_bytes / MIB)
    result.wrong += await ground.judge()
    return result
