"""Failures of a cluster, one after another, under clients that write down what they see.

Each scenario is a function of the ground, of how often it repeats its failure, and of a seed; it
returns what was broken. `tests/cluster/checker.py` judges all of them alike; a scenario adds what
only it can know.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
import trio

from tests.cluster.checker import Joined
from tests.cluster.clients import Ended, Line, Visitor, now
from tests.cluster.ground import Ground, Node, Refused, data, eventually
from tests.conftest import PATIENCE_S

CALM_S: Final = 1.0
"""Between two failures, for messages of calm times."""
OWN_S: Final = 2.0
"""A node that was paused for less does not fall."""


@dataclass
class Result:
    """What a scenario found."""

    wrong: list[str] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    """How long each concerned player heard nothing, by failure."""

    def expect(self, held: bool, what: str) -> None:
        if not held:
            self.wrong.append(what)


Scenario = Callable[[Ground, int, int], Awaitable[Result]]


async def town(ground: Ground, *, rooms: int, people: int, every_s: float = 0.5) -> list[str]:
    """Rooms with people of all nodes in each; waits until all are inside. The rooms."""
    instances = [await ground.instance(at=number % len(ground.nodes)) for number in range(rooms)]
    for instance in instances:
        for person in range(people):
            ground.visitor(instance, person % len(ground.nodes), every_s=every_s)
    await ground.until_inside()
    for instance in instances:
        await ground.until_hosted(instance)
    return instances


def inside(ground: Ground, instances: set[str]) -> list[Visitor]:
    return [one for one in ground.visitors if one.instance in instances]


def restored_since(ground: Ground, since: float) -> list[Joined]:
    """The times that a client was told that its instance began anew."""
    return [
        one
        for one in ground.crowd.records
        if isinstance(one, Joined) and one.restored and one.at > since
    ]


# D9, D10


async def at_the_door(ground: Ground, times: int, seed: int) -> Result:
    """Everybody joins one instance that runs nowhere, through all nodes at once: one host, one
    epoch, no seat too many."""
    result = Result()
    for _ in range(times):
        capacity = 12
        instance = await ground.instance(capacity=capacity)
        began = len(ground.visitors)
        for number in range(len(ground.tokens) // times - 1):
            ground.visitor(instance, number % len(ground.nodes))
        here = ground.visitors[began:]
        await eventually(partial(_so_many_inside, here, capacity))
        await trio.sleep(CALM_S)
        result.expect(ground.places[instance][1] == 1, f"the epoch is {ground.places[instance]}")
        rows = await ground.sql(f"SELECT count(*) FROM places WHERE instance_id = '{instance}'")
        result.expect(rows == "1", f"{rows} places")
        for one in here:
            one.stays_away = not one.inside
    result.wrong += await ground.judge()
    return result


def _so_many_inside(visitors: list[Visitor], many: int) -> bool:
    return sum(one.inside for one in visitors) == many


async def until(line: Line, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    with trio.fail_after(PATIENCE_S):
        while not wanted(message := await line.receive()):
            pass
    return message


async def close_code(line: Line) -> int:
    """Reads until it is closed; the code."""
    try:
        with trio.fail_after(PATIENCE_S):
            while True:
                await line.receive()
    except Ended as ended:
        return ended.code


async def two_sockets(ground: Ground, times: int, seed: int) -> Result:
    """One session on two nodes is one player; both sockets hear what happens to it; and a token
    that is killed at the third closes both."""
    result = Result()
    a, b, c = ground.nodes[:3]
    for number in range(times):
        instance = await ground.instance(at=number % 3)
        token, other = ground.tokens[1 + 2 * number], ground.tokens[2 + 2 * number]
        one, two, third = [
            await Line.open(node.url, who) for node, who in ((a, token), (b, token), (c, other))
        ]
        join = ("instance-join", {"instance": instance})
        first = (await one.ask(*join))["data"]
        second = (await two.ask(*join))["data"]
        result.expect(first["player"] == second["player"], f"two players: {first} {second}")
        watcher = (await third.ask(*join))["data"]
        players = {player["player"] for player in watcher["players"]}
        result.expect(len(players) == 2, f"{players} are inside")
        await third.send({"command": "instance-data", "subgroup": instance, "data": "hello"})
        for line in (one, two):
            heard = await until(line, lambda told: told.get("command") == "instance-data")
            result.expect(heard["data"]["data"] == "hello", f"heard {heard}")
        left = await two.ask("instance-leave", {"instance": instance})
        result.expect("error" not in left, f"could not leave: {left}")
        for line in (one, third):
            told = await until(line, lambda told: told.get("command") == "instance-left")
            result.expect(told["data"]["player"] == first["player"], f"told {told}")
        async with c.ask(token) as client:
            await data(client.delete("/api/auth/logout"))
        codes = [await close_code(line) for line in (one, two)]
        result.expect(codes == [4000, 4000], f"a killed token closed the sockets with {codes}")
        for line in (one, two, third):
            await line.aclose()
    return result


# D1, D2, D3


async def deaths(ground: Ground, times: int, seed: int) -> Result:
    """`kill -9` of a node that hosts; players come in again, as the same players."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=4, people=6)
    for _ in range(times):
        await trio.sleep(CALM_S)
        node = await ground.until_hosted(chance.choice(rooms))
        fallen = {room for room in rooms if ground.host(room) is node}
        concerned = inside(ground, fallen)
        ids = _players_beside(ground, concerned, node)
        died = now()
        await node.kill()
        result.back_s += [one.since - died for one in await _again(concerned, died)]
        _expect_same(result, concerned, ids)
        await node.start()
    result.wrong += await ground.judge()
    return result


def _players_beside(ground: Ground, visitors: list[Visitor], node: Node) -> dict[str, str]:
    """The players of those whose socket is at another node: they stay the same players."""
    return {one.name: one.player for one in visitors if ground.crowd.urls[one.at] != node.url}


def _expect_same(result: Result, visitors: list[Visitor], players: dict[str, str]) -> None:
    changed = [one.name for one in visitors if players.get(one.name, one.player) != one.player]
    result.expect(not changed, f"other players than before: {changed}")


async def _again(visitors: list[Visitor], since: float) -> list[Visitor]:
    """Waits until they hear their instances anew."""
    await eventually(lambda: all(one.inside and one.since > since for one in visitors))
    return visitors


async def long_pauses(ground: Ground, times: int, seed: int) -> Result:
    """SIGSTOP for longer than others wait, then SIGCONT: not one frame of what has fallen, also for
    clients that stayed with the paused node."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    for one in ground.visitors[::2]:
        one.patient = True
    for _ in range(times):
        await trio.sleep(CALM_S)
        node = await ground.until_hosted(chance.choice(rooms))
        concerned = inside(ground, {room for room in rooms if ground.host(room) is node})
        ids = _players_beside(ground, concerned, node)
        paused = now()
        await node.pause()
        await trio.sleep(chance.uniform(4.5, 10))
        node.resume()
        await _again(concerned, paused)
        result.back_s += [one.since - paused for one in concerned if not one.patient]
        _expect_same(result, concerned, ids)
    result.wrong += await ground.judge()
    return result


async def short_pauses(ground: Ground, times: int, seed: int) -> Result:
    """SIGSTOP for less than a lease: a pause, and nothing else."""
    chance, result = random.Random(seed), Result()
    await town(ground, rooms=3, people=6)
    began = now()
    for _ in range(times):
        node = chance.choice(ground.nodes)
        await node.pause()
        await trio.sleep(chance.uniform(0.2, 0.9 * OWN_S))
        node.resume()
        await trio.sleep(CALM_S * chance.random())
    result.expect(not ground.falls, f"fell: {ground.falls}")
    result.expect(not restored_since(ground, began), "an instance began anew")
    result.expect(not ground.crowd.closes, f"sockets were closed: {ground.crowd.closes}")
    result.wrong += await ground.judge()
    return result


# D4, D5, D6


async def nats_away(ground: Ground, times: int, seed: int) -> Result:
    """NATS dies and comes back, with and without its data; or hangs. Nobody falls, and players at
    their host's node notice nothing."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    (server,) = ground.nats
    for number in range(times):
        await trio.sleep(CALM_S)
        local = [one for one in ground.visitors if _at_host(ground, one)]
        away = now()
        match number % 3:
            case 0:
                await server.kill()
                await trio.sleep(chance.uniform(0.5, 1.5))
                await server.start()
            case 1:
                await server.kill()
                server.forget()
                await trio.sleep(chance.uniform(3, 5))
                await server.start()
            case _:
                await server.pause()
                await trio.sleep(4.5)
                server.resume()
        await trio.sleep(2 * CALM_S)
        moved = [one.name for one in local if one.since > away]
        result.expect(not moved, f"local players noticed: {moved}")
    result.expect(not ground.falls, f"fell: {ground.falls}")
    for room in rooms:
        result.expect(ground.places[room][1] == 1, f"an epoch is {ground.places[room]}")
    result.wrong += await ground.judge()
    return result


def _at_host(ground: Ground, one: Visitor) -> bool:
    host = ground.host(one.instance)
    return host is not None and ground.crowd.urls[one.at] == host.url


async def postgres_away(ground: Ground, times: int, seed: int) -> Result:
    """PostgreSQL stops at once and is back later: running instances go on; moderation takes effect
    and is written later. If a node dies meanwhile, its instances come back with the database."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    for number in range(times):
        await trio.sleep(CALM_S)
        away = now()
        node = await ground.until_hosted(chance.choice(rooms))
        fallen = {room for room in rooms if ground.host(room) is node}
        await _stop_postgres(ground)
        await trio.sleep(2.5 * OWN_S)
        result.expect(not restored_since(ground, away), "an instance began anew without cause")
        dies = number % 2 == 1
        if dies:
            await node.kill()
            await trio.sleep(2 * OWN_S)
            result.expect(not restored_since(ground, away), "taken over without the database")
        await trio.to_thread.run_sync(ground.postgres.start)
        if dies:
            await _again(inside(ground, fallen), away)
            await node.start()
    result.expect(times > 1 or not ground.falls, f"fell: {ground.falls}")
    result.wrong += await ground.judge()
    return result


async def _stop_postgres(ground: Ground) -> None:
    await trio.to_thread.run_sync(ground.postgres.stop, signal.SIGQUIT)


# D7

WAYS: Final = ("both", "forth", "back")
PAIRS: Final = ("nats", "postgres", "nats and postgres")


async def cuts(
    ground: Ground, times: int, seed: int, *, seconds: tuple[float, ...] = (1.5, 6.0)
) -> Result:
    """Every pair of a node and a server is cut in silence, both ways and each single way."""
    chance, result = random.Random(seed), Result()
    await town(ground, rooms=3, people=6)
    courses = [(pair, way, s) for pair in PAIRS for way in WAYS for s in seconds]
    chance.shuffle(courses)
    for pair, way, long_s in courses[:times]:
        await trio.sleep(CALM_S)
        node = chance.choice(ground.nodes)
        gates = [*(node.nats if "nats" in pair else ()), *node.gates[-1:] * ("postgres" in pair)]
        cut = now()
        fallen = len(ground.falls)
        for gate in gates:
            if way != "back":
                gate.forth.cut()
            if way != "forth":
                gate.back.cut()
        await trio.sleep(long_s)
        for gate in gates:
            gate.heal()
        what = f"{way} of {node.name} and {pair} for {long_s:g} s"
        if pair == "postgres" or long_s < OWN_S:
            result.expect(len(ground.falls) == fallen, f"fell although it had a witness: {what}")
        await ground.until_inside()
        del cut
    result.wrong += await ground.judge()
    return result


# D8


async def rolling(ground: Ground, times: int, seed: int) -> Result:
    """All nodes are restarted one after another, under load: everybody stays the same player."""
    result = Result()
    await town(ground, rooms=3, people=6)
    players = {one.name: one.player for one in ground.visitors}
    for number in range(times):
        node = ground.nodes[number % len(ground.nodes)]
        await trio.sleep(CALM_S)
        status = await node.stop()
        result.expect(status == 0, f"node {node.name} ended with {status}")
        await node.start()
        await ground.until_inside()
    _expect_same(result, ground.visitors, players)
    result.wrong += await ground.judge()
    return result


# D11, D12, D13


async def seen_everywhere(ground: Ground, times: int, seed: int) -> Result:
    """What one node knows, all know within a moment: status, free seats, places in the queue."""
    result = Result()
    instance = await ground.instance(capacity=2)
    one, two = ground.visitor(instance, 0), ground.visitor(instance, 1)
    await ground.until_inside()
    waiting = ground.tokens[5]
    async with ground.nodes[2].ask(waiting) as client:
        asked = await data(client.post(f"/api/instances/{instance}/candidate"))
        result.expect(asked["state"] == "waiting", f"a candidate of a full instance: {asked}")
    for node in ground.nodes:
        async with node.ask(ground.owner) as client:

            async def agrees(client: httpx.AsyncClient = client, node: Node = node) -> bool:
                shown = await data(client.get(f"/api/instances/{instance}"))
                queue = await data(client.get(f"/api/instances/{instance}/queue"))
                free = await data(client.get("/api/instances?free=true&limit=100"))
                return (
                    shown["connected"] == 2
                    and queue["total"] == 1
                    and instance not in {item["id"] for item in free["items"]}
                )

            result.expect(await _soon(agrees), f"node {node.name} does not know who is inside")
    one.stays_away = two.stays_away = True
    result.wrong += await ground.judge()
    return result


async def _soon(so: Callable[[], Awaitable[bool]]) -> bool:
    with trio.move_on_after(PATIENCE_S):
        while not await so():
            await trio.sleep(0.02)
        return True
    return False


async def resources(ground: Ground, times: int, seed: int) -> Result:
    """A resource that a session holds through one node is refused to another one at every node, and
    free once it is released at any."""
    result = Result()
    a, *others = ground.nodes
    holder, rival = ground.tokens[1], ground.tokens[2]
    async with a.ask(holder) as client:
        made = (await client.post("/resource/document", json={"title": "Plan"})).json()
        path = f"/resource/document/{made['resource']['id']}"
        answer = await client.post(f"{path}/acquire")
        assert answer.status_code == 200, answer.text
        async with a.ask(rival) as other:
            me = await data(other.get("/api/users/@me"))
        answer = await client.post(f"{path}/share", json={"user": me["id"]})
        assert answer.status_code == 200, answer.text
    for node in others:
        async with node.ask(rival) as client:
            answer = await client.post(f"{path}/acquire")
            code = answer.json().get("error", {}).get("code")
            result.expect(code == 113, f"node {node.name} answered {answer.text}")
    async with others[0].ask(holder) as client:
        await client.post(f"{path}/release")
    async with others[-1].ask(rival) as client:
        answer = await client.post(f"{path}/acquire")
        result.expect(answer.status_code == 200, f"released, and refused: {answer.text}")
    return result


async def guesses(ground: Ground, times: int, seed: int) -> Result:
    """Guesses of a password, spread over all nodes, get no more tries than at one node, but for one
    burst."""
    result = Result()
    tried = 0
    async with trio.open_nursery() as nursery:

        async def guess(node: Node) -> None:
            nonlocal tried
            async with node.ask() as client:
                for number in range(times):
                    body = {"username": "ada", "password": f"wrong horse {number}"}
                    answer = await client.post("/api/auth/login", json=body)
                    tried += answer.status_code == 401

        for node in ground.nodes:
            nursery.start_soon(guess, node)
    result.expect(tried < times, f"{tried} guesses of {times} at each node were judged")
    return result


async def mutes_survive(ground: Ground, times: int, seed: int) -> Result:
    """Whoever was muted stays mute when the instance's host dies; a ban holds from the first
    moment, at every node."""
    result = Result()
    instance = await ground.instance()
    for number in range(3):
        ground.visitor(instance, number)
    await ground.until_inside()
    victim, banned = ground.visitors[:2]
    users = {}
    async with ground.nodes[2].ask(ground.owner) as client:
        told = await data(client.get(f"/api/instances/{instance}/players"))
        users = {one["player"]: one["user"] for one in told["items"]}
        for player, kind in ((victim.player, "mute"), (banned.player, "ban")):
            order = {"user": users[player], "type": kind}
            await data(client.post(f"/api/instances/{instance}/moderate", json=order))
    await eventually(lambda: not banned.inside)
    node = await ground.until_hosted(instance)
    died = now()
    await node.kill()
    await _again([one for one in ground.visitors if one is not banned], died)
    before = ground.crowd.codes[49]
    await eventually(lambda: ground.crowd.codes[49] > before)
    result.expect(not banned.inside, "a banned player came back")
    for other in ground.nodes:
        if other.runs:
            async with other.ask(ground.owner) as client:
                for what in ("mutes", "bans"):
                    shown = await data(client.get(f"/api/instances/{instance}/{what}"))
                    names = [item["user"] for item in shown["items"]]
                    result.expect(len(names) == 1, f"{what} at {other.name}: {json.dumps(shown)}")
    banned.stays_away = True
    await node.start()
    result.wrong += await ground.judge()
    return result


__all__ = [
    "Refused",
    "Result",
    "Scenario",
    "at_the_door",
    "cuts",
    "deaths",
    "guesses",
    "long_pauses",
    "mutes_survive",
    "nats_away",
    "postgres_away",
    "resources",
    "rolling",
    "seen_everywhere",
    "short_pauses",
    "two_sockets",
]
