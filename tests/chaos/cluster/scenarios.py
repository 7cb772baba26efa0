"""Failures of a cluster, one after another, under clients that write down what they see.

Each scenario is a function of the ground, of how often it repeats its failure, and of a seed; it
returns what was broken. `tests/cluster/checker.py` judges all of them alike; a scenario adds what
only it can know.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
import trio
from trio_websocket import open_websocket

from reileta.store.database import Database, asyncio_loop
from tests.cluster.checker import Heard, Joined, Sent
from tests.cluster.clients import LOST, Ended, Line, Visitor, now
from tests.cluster.ground import Ground, Node, Refused, data, eventually, url
from tests.conftest import PATIENCE_S
from tests.e2e.test_sessions import get
from tests.nats_server import NatsServer

CALM_S: Final = 1.0
"""Between two failures, for messages of calm times."""
SHORT: Final = 3
"""So many failures are a short form, which `make test` plays beside other tests."""
SAME_S: Final = 10.0
"""Who is back so soon after a failure of its own node is the same player: its seat is kept for 10 s
from the moment on when the instance has a host."""
OWN_S: Final = 2.0
"""A node that was paused for less does not fall."""


@dataclass
class Result:
    """What a scenario found."""

    wrong: list[str] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    """How long each concerned player heard nothing, by failure."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    """Other things that were measured, by what they are."""

    def figure(self, what: str, value: float) -> None:
        self.figures.setdefault(what, []).append(value)

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
        await eventually(partial(ground.places.__contains__, instance))
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


async def deaths(
    ground: Ground,
    times: int,
    seed: int,
    *,
    rooms: int = 4,
    people: int = 6,
    every_s: float = 0.5,
) -> Result:
    """`kill -9` of a node that hosts; players come in again, as the same players."""
    chance, result = random.Random(seed), Result()
    instances = await town(ground, rooms=rooms, people=people, every_s=every_s)
    for _ in range(times):
        await trio.sleep(CALM_S)
        node = await ground.until_hosted(chance.choice(instances))
        fallen = {room for room in instances if ground.host(room) is node}
        concerned = inside(ground, fallen)
        ids = {one.name: one.player for one in concerned}
        beside = _players_beside(ground, concerned, node)
        died = now()
        await node.kill()
        result.back_s += [one.since - died for one in await _again(concerned, died)]
        _expect_same(result, _soon_back(concerned, beside, died), ids)
        await node.start()
    result.wrong += await ground.judge()
    return result


async def crowded(ground: Ground, times: int, seed: int) -> Result:
    """The same with many players, who talk less."""
    return await deaths(ground, times, seed, rooms=20, people=10, every_s=2)


def _players_beside(ground: Ground, visitors: list[Visitor], node: Node) -> dict[str, str]:
    """The players of those whose socket is at another node: they stay the same players."""
    return {one.name: one.player for one in visitors if ground.crowd.urls[one.at] != node.url}


def _soon_back(visitors: list[Visitor], beside: dict[str, str], since: float) -> list[Visitor]:
    """Those who must be the same players: those beside the node, and those who were back soon."""
    return [one for one in visitors if one.name in beside or one.since - since <= SAME_S]


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
        ids = {one.name: one.player for one in concerned}
        beside = _players_beside(ground, concerned, node)
        paused = now()
        await node.pause()
        await trio.sleep(chance.uniform(4.5, 10))
        node.resume()
        await _again(concerned, paused)
        result.back_s += [one.since - paused for one in concerned if not one.patient]
        _expect_same(result, _soon_back(concerned, beside, paused), ids)
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


async def nats_restart(ground: Ground, times: int, seed: int) -> Result:
    """NATS is killed, and started at once: how long players at other nodes than the host hear
    nothing that is said after that. Nothing is lost."""
    result = Result()
    await town(ground, rooms=3, people=6, every_s=0.1)
    for _ in range(times):
        await trio.sleep(3 * CALM_S)
        away = now()
        for server in ground.nats:
            await server.kill()
        for server in ground.nats:
            await server.start()
        await trio.sleep(3 * CALM_S)
        sent = {
            (one.client, one.number)
            for one in ground.crowd.records
            if isinstance(one, Sent) and one.at > away
        }
        heard: dict[str, float] = {}
        for one in ground.crowd.records:
            if isinstance(one, Heard) and one.at > away and (one.sender, one.number) in sent:
                heard.setdefault(one.client, one.at)
        for visitor in ground.visitors:
            if not _at_host(ground, visitor):
                result.expect(visitor.name in heard, f"{visitor.name} heard nothing more")
                result.back_s.append(heard.get(visitor.name, now()) - away)
        result.expect(not restored_since(ground, away), "an instance began anew")
    result.expect(not ground.falls, f"fell: {ground.falls}")
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
        await ground.stop_postgres()
        await trio.sleep(2.5 * OWN_S)
        result.expect(not restored_since(ground, away), "an instance began anew without cause")
        dies = number % 2 == 1
        if dies:
            await node.kill()
            await trio.sleep(2 * OWN_S)
            result.expect(not restored_since(ground, away), "taken over without the database")
        await ground.start_postgres()
        if dies:
            await _again(inside(ground, fallen), away)
            await node.start()
    result.expect(times > 1 or not ground.falls, f"fell: {ground.falls}")
    result.wrong += await ground.judge()
    return result


BUCKET: Final = "avr_reileta_nodes"
"""Of the nodes' records."""
ELECTED: Final = (*LOST, trio.TooSlowError)
ASK_S: Final = 2.0


async def leader(ground: Ground) -> NatsServer:
    """The NATS server that leads the nodes' records, once there is one."""
    with trio.fail_after(2 * PATIENCE_S):
        while True:
            for server in ground.nats:
                with suppress(*ELECTED), trio.fail_after(ASK_S):
                    told = await server.ask(f"$JS.API.STREAM.INFO.KV_{BUCKET}")
                    name = told.get("cluster", {}).get("leader")
                    for number, one in enumerate(ground.nats):
                        if name == f"n{number}" and one.runs:
                            return one
            await trio.sleep(0.1)


async def elections(ground: Ground, times: int, seed: int) -> Result:
    """Three NATS servers: the one that leads the nodes' records dies, or it and another one. Nobody
    falls, players stay inside, and all is in order again once two are there."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    for number in range(times):
        await trio.sleep(CALM_S)
        first = await leader(ground)
        dead = [first]
        if number % 2:
            dead.append(chance.choice([one for one in ground.nats if one is not first]))
        for server in dead:
            await server.kill()
        await trio.sleep(chance.uniform(4, 9))
        await ground.until_inside()
        for server in dead:
            await server.start()
        began = now()
        await leader(ground)
        await _begins(ground, at=number)
        result.figure("NATS has a quorum → a new instance is joined, s", now() - began)
    result.expect(not ground.falls, f"fell: {ground.falls}")
    for room in rooms:
        result.expect(ground.places[room][1] == 1, f"an epoch is {ground.places[room]}")
    result.wrong += await ground.judge()
    return result


async def _begins(ground: Ground, at: int) -> None:
    """A new instance can be made at one node, and joined through another one."""
    many = len(ground.nodes)
    instance = await ground.instance(at=at % many)
    line = await Line.open(ground.nodes[(at + 1) % many].url, ground.owner)
    try:
        with trio.fail_after(PATIENCE_S):
            while "error" in await line.ask("instance-join", {"instance": instance}):
                await trio.sleep(0.1)
        await line.ask("instance-leave", {"instance": instance})
    finally:
        await line.aclose()


# The lease


async def record(ground: Ground, incarnation: str) -> dict[str, Any] | None:
    """What NATS has of a node, as its leader says."""
    answer = await (ground.nats[0] if len(ground.nats) == 1 else await leader(ground)).ask(
        f"$JS.API.STREAM.MSG.GET.KV_{BUCKET}", {"last_by_subj": f"$KV.{BUCKET}.{incarnation}"}
    )
    if "message" not in answer:
        return None
    data = base64.b64decode(answer["message"].get("data", ""))
    told: dict[str, Any] = json.loads(data) if data else {}
    return told or None


async def _none_rose(ground: Ground, result: Result) -> None:
    """No node that was taken over says in NATS that it is up."""
    fallen = (await ground.sql("SELECT id FROM nodes WHERE fenced_by <> id")).split()
    for incarnation in fallen:
        told = await record(ground, incarnation)
        state = None if told is None else told.get("state", "up")
        result.expect(state in (None, "buried"), f"{incarnation} fell and is {state} in NATS")


async def ghosts(ground: Ground, times: int, seed: int) -> Result:
    """A renewal that was given up arrives later. If its node still lives, the node takes it for
    its own; if the node was buried meanwhile, nothing rises."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    for number in range(times):
        await trio.sleep(CALM_S)
        fallen = len(ground.falls)
        if number % 2:
            # Renewals are in the sockets of a server that hangs.
            for server in ground.nats:
                await server.pause()
            await trio.sleep(4.5)
            for server in ground.nats:
                server.resume()
            await trio.sleep(2 * CALM_S)
            result.expect(len(ground.falls) == fallen, f"fell by its own ghost: {ground.falls}")
            continue
        node = await ground.until_hosted(chance.choice(rooms))
        concerned = inside(ground, {room for room in rooms if ground.host(room) is node})
        cut, fell = now(), len(node.events("node.fell"))
        for gate in node.gates:
            gate.forth.cut()
        result.back_s += [one.since - cut for one in await _again(concerned, cut)]
        node.heal()
        await node.until_logged("node.fell", fell + 1)
        await trio.sleep(CALM_S)
        await _none_rose(ground, result)
    result.wrong += await ground.judge()
    return result


async def emptied(ground: Ground, times: int, seed: int) -> Result:
    """NATS loses its data twice while a node is paused, and numbers its writes anew."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    for number in range(times):
        await trio.sleep(CALM_S)
        node = await ground.until_hosted(chance.choice(rooms))
        concerned = inside(ground, {room for room in rooms if ground.host(room) is node})
        fallen, paused = len(ground.falls), now()
        await node.pause()
        for _ in range(2):
            for server in ground.nats:
                await server.kill()
                server.forget()
            for server in ground.nats:
                await server.start()
            if number % 2:
                await trio.sleep(chance.uniform(0.5, 3))
        if number % 2:
            await trio.sleep(chance.uniform(4.5, 7))
        node.resume()
        if number % 2:
            await _again(concerned, paused)
        elif now() - paused < OWN_S:
            await trio.sleep(2 * CALM_S)
            result.expect(len(ground.falls) == fallen, f"fell: {ground.falls[fallen:]}")
        await ground.until_inside()
        await trio.sleep(CALM_S)
        await _none_rose(ground, result)
    result.wrong += await ground.judge()
    return result


async def unheard(ground: Ground, times: int, seed: int) -> Result:
    """A node hears everything, and nobody hears it: it does not take what it reads for a
    confirmation, and is silent before others host its instances."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    for _ in range(times):
        await trio.sleep(CALM_S)
        node = await ground.until_hosted(chance.choice(rooms))
        lost = {room for room in rooms if ground.host(room) is node}
        concerned = inside(ground, lost)
        silent, fell = len(node.events("lease.ran_out")), len(node.events("node.fell"))
        cut = now()
        for gate in node.gates:
            gate.forth.cut()
        ran_out = await node.until_logged("lease.ran_out", silent + 1)
        result.figure("a node is not heard → it is silent, s", ran_out["at"] - cut)
        for room in lost:
            await ground.until_hosted(room, beside=node)
        result.back_s += [one.since - cut for one in await _again(concerned, cut)]
        node.heal()
        await node.until_logged("node.fell", fell + 1)
        await ground.until_inside()
    result.wrong += await ground.judge()
    return result


async def held_rows(ground: Ground, times: int, seed: int) -> Result:
    """A host is paused within a transaction that has the row of a place: others take it over in
    the usual time."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    async with asyncio_loop() as loop, trio.open_nursery() as asking:
        database = Database(loop, url(ground.postgres.socket), connections=2)
        try:
            for number in range(times):
                await trio.sleep(CALM_S)
                room = chance.choice(rooms)
                node = await ground.until_hosted(room)
                concerned = inside(ground, {one for one in rooms if ground.host(one) is node})
                muted = (await ground.players(room, at=node))[number % 6]
                async with database.transaction() as first:
                    await first.value(
                        "SELECT epoch FROM places WHERE instance_id = $1 FOR UPDATE", room
                    )
                    asking.start_soon(_mute, ground, room, node, muted)
                    # The host's transaction waits for this one,
                    with trio.fail_after(PATIENCE_S):
                        while not await first.value(
                            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                        ):
                            await trio.sleep(0.01)
                    await node.pause()
                paused = now()
                # and now has the row, with nobody to end it.
                open_ = 0
                with trio.move_on_after(CALM_S):
                    while not open_:
                        open_ = await database.value(
                            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in tr%'"
                        )
                result.expect(open_ > 0, "the paused node left no transaction open")
                result.back_s += [one.since - paused for one in await _again(concerned, paused)]
                node.resume()
                await ground.until_inside()
        finally:
            with trio.CancelScope(shield=True):
                await database.close()
        asking.cancel_scope.cancel()
    result.wrong += await ground.judge()
    return result


async def _mute(ground: Ground, room: str, node: Node, user: str) -> None:
    """Tries it; the node may be paused meanwhile."""
    with suppress(httpx.HTTPError, Refused):
        async with node.ask(ground.owner) as client:
            order = {"user": user, "type": "mute"}
            await data(client.post(f"/api/instances/{room}/moderate", json=order))


async def newcomer(ground: Ground, times: int, seed: int) -> Result:
    """A node starts while instances are full: nobody is sent away, and nothing is emptied, moved or
    deleted, though the nodes close empty instances after a second."""
    result = Result()
    *others, late = ground.nodes
    await late.kill()
    instance = await ground.instance(capacity=4)
    for number in range(4):
        ground.visitor(instance, number % len(others), every_s=0.2)
    await ground.until_inside()
    await ground.until_hosted(instance)
    began = now()
    for _ in range(times):
        await late.start()
        await trio.sleep(3 * CALM_S)  # its sweeps
        await late.kill()
    result.expect(not restored_since(ground, began), "the instance began anew")
    result.expect(ground.places[instance][1] == 1, f"its epoch is {ground.places[instance]}")
    empty = await ground.sql(f"SELECT empty_since FROM instances WHERE id = '{instance}'")
    result.expect(empty == "", f"it is marked as empty since {empty}")
    await late.start()
    result.wrong += await ground.judge()
    result.expect(all(one.inside for one in ground.visitors), "somebody is outside")
    return result


async def alone(ground: Ground, times: int, seed: int) -> Result:
    """A node stops, and nobody takes its instances: it is the last one, or the one that takes them
    dies meanwhile. Players are told 1001, nothing hangs, and they come back with the nodes."""
    chance, result = random.Random(seed), Result()
    rooms = await town(ground, rooms=3, people=6)
    for number in range(times):
        await trio.sleep(CALM_S)
        if number % 2 == 0:
            closed = ground.crowd.closes[1001]
            order = chance.sample(ground.nodes, len(ground.nodes))
            for node in order:
                status = await node.stop()
                result.expect(status == 0, f"node {node.name} ended with {status}")
            told = ground.crowd.closes[1001] - closed
            result.expect(told >= len(ground.visitors), f"only {told} were told 1001")
        else:
            node = await ground.until_hosted(chance.choice(rooms))
            taker = chance.choice([one for one in ground.nodes if one is not node])
            order = [node, taker]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.stop)
                await trio.sleep(chance.uniform(0, 0.5))
                await taker.kill()
        async with trio.open_nursery() as nursery:
            for node in order:
                nursery.start_soon(node.start)
        await ground.until_inside()
    result.wrong += await ground.judge()
    return result


# D7

WAYS: Final = ("both", "forth", "back")
PAIRS: Final = ("nats", "postgres", "nats and postgres")
LONG_S: Final = 20.0
"""Within so long, all are inside again, though the cut goes on."""


async def cuts(
    ground: Ground, times: int, seed: int, *, seconds: tuple[float, ...] = (1.5, 6.0, 60.0)
) -> Result:
    """Every pair of a node and a server is cut in silence, both ways and each single way."""
    chance, result = random.Random(seed), Result()
    await town(ground, rooms=3, people=6)
    courses = [(pair, way, s) for s in seconds for pair in PAIRS for way in WAYS]
    # All of a length before the next one: a few times are short.
    courses = [one for s in seconds for one in chance.sample(courses, len(courses)) if one[2] == s]
    if times < len(courses):
        courses = chance.sample([one for one in courses if one[2] < LONG_S], times)
    for pair, way, long_s in courses:
        await trio.sleep(CALM_S)
        node = chance.choice(ground.nodes)
        gates = [*(node.nats if "nats" in pair else ()), *node.gates[-1:] * ("postgres" in pair)]
        fallen = len(ground.falls)
        for gate in gates:
            if way != "back":
                gate.forth.cut()
            if way != "forth":
                gate.back.cut()
        what = f"{way} of {node.name} and {pair} for {long_s:g} s"
        cut = now()
        await trio.sleep(min(long_s, LONG_S / 2))
        if long_s > LONG_S:
            # Nobody waits for the cut to heal.
            with trio.move_on_after(LONG_S):
                await ground.until_inside()
            away = [one.name for one in ground.visitors if not one.inside]
            result.expect(not away, f"{away} are outside: {what}")
            await trio.sleep(long_s - (now() - cut))
        for gate in gates:
            gate.heal()
        if pair == "postgres" or long_s < OWN_S:
            result.expect(len(ground.falls) == fallen, f"fell although it had a witness: {what}")
        await ground.until_inside()
    result.wrong += await ground.judge()
    return result


# D8


async def rolling(ground: Ground, times: int, seed: int) -> Result:
    """All nodes are restarted one after another, under load: everybody stays the same player, and
    nobody's instance begins anew."""
    result = Result()
    await town(ground, rooms=3, people=6)
    began = now()  # the clock of the records; that of trio is another one
    players = {one.name: one.player for one in ground.visitors}
    for number in range(times):
        node = ground.nodes[number % len(ground.nodes)]
        await trio.sleep(CALM_S)
        status = await node.stop()
        result.expect(status == 0, f"node {node.name} ended with {status}")
        await node.start()
        await ground.until_inside()
    _expect_same(result, ground.visitors, players)
    restored = restored_since(ground, began)
    result.figure("players whose instance began anew in a hand-over", len(restored))
    # On a machine that is busy, a gateway may answer the next host too late.
    result.expect(times <= SHORT or not restored, f"an instance began anew: {restored[:3]}")
    result.wrong += await ground.judge()
    return result


async def mixed(ground: Ground, times: int, seed: int) -> Result:
    """Nodes of two versions act as one server: each in turn is stopped in order, or dies, and goes
    on as the other version. All can do what players do; those beside a node that dies stay the same
    players. Others do if both versions promise it: their number is a figure."""
    chance, result = random.Random(seed), Result()
    assert ground.other is not None, "it needs --other, a checkout of another version"
    rooms = await town(ground, rooms=3, people=6)
    for number in range(times):
        node = ground.nodes[number % len(ground.nodes)]
        await trio.sleep(CALM_S)
        players = {one.name: one.player for one in ground.visitors}
        concerned = inside(ground, {room for room in rooms if ground.host(room) is node})
        beside = _players_beside(ground, concerned, node)
        began = now()
        if chance.random() < 0.5:
            await node.kill()
            result.back_s += [one.since - began for one in await _again(concerned, began)]
            _expect_same(result, concerned, beside)
        else:
            status = await node.stop()
            result.expect(status == 0, f"node {node.name} ended with {status}")
            await ground.until_inside()
            restored = restored_since(ground, began)
            result.figure("players whose instance began anew in a hand-over", len(restored))
        changed = [one for one in ground.visitors if players[one.name] != one.player]
        result.figure("players who came back as others", len(changed))
        node.checkout = ground.other if node.checkout is None else None
        await node.start()
        await ground.until_inside()
        for room in rooms:
            await _served(ground, result, room)
    for node in ground.nodes:
        node.checkout = None
    result.wrong += await ground.judge()
    return result


async def _served(ground: Ground, result: Result, room: str) -> None:
    """Through each node: a stranger can be admitted, muted, heard and kicked."""
    versions = [node.checkout is not None for node in ground.nodes]
    for node, other in zip(ground.nodes, ground.nodes[1:] + ground.nodes[:1], strict=True):
        where = f"{room} at {node.name} and {other.name}, other versions: {versions}"
        token = ground.tokens[-1]
        async with other.ask(token) as client:
            me = (await data(client.get("/api/users/@me")))["id"]
        line = await Line.open(other.url, token)
        try:
            joined = await line.ask("instance-join", {"instance": room})
            if "error" in joined:
                result.expect(False, f"could not join: {joined} {where}")
                continue
            path = f"/api/instances/{room}"
            async with node.ask(ground.owner) as client:
                for order in ("mute", "unmute", "warn"):
                    done = await client.post(f"{path}/moderate", json={"user": me, "type": order})
                    result.expect(done.status_code == 200, f"{order}: {done.text} {where}")
                for read in ("players", "queue", "mutes", "bans"):
                    done = await client.get(f"{path}/{read}")
                    result.expect(done.status_code == 200, f"{read}: {done.text} {where}")
                done = await client.post(f"{path}/moderate", json={"user": me, "type": "kick"})
                result.expect(done.status_code == 200, f"kick: {done.text} {where}")
            player = joined["data"]["player"]
            left = await until(
                line,
                lambda told, player=player: (  # type: ignore[misc]
                    told.get("command") == "instance-left" and told["data"]["player"] == player
                ),
            )
            result.expect(left["data"]["reason"] == "kicked", f"left: {left} {where}")
        finally:
            await line.aclose()


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


async def clocks(ground: Ground, times: int, seed: int) -> Result:
    """The wall clocks of nodes are ten minutes apart: a session that is there keeps its resource,
    one that is away loses it in time, and a token is good at once and everywhere."""
    result = Result()
    for node, fast_s in zip(ground.nodes, (0.0, 300.0, -300.0), strict=True):
        if fast_s:
            await node.stop()
            node.clock_s = fast_s
            await node.start()
    await town(ground, rooms=1, people=3)
    holder, rival = ground.tokens[-2:]
    async with ground.nodes[0].ask(rival) as client:
        me = (await data(client.get("/api/users/@me")))["id"]
    for number in range(times):
        here, *others = ground.nodes[number % 3 :] + ground.nodes[: number % 3]
        async with here.ask(holder) as client, trio.open_nursery() as nursery:
            socket = await nursery.start(_present, here, holder)
            made = (await client.post("/resource/document", json={"title": "Plan"})).json()
            path = f"/resource/document/{made['resource']['id']}"
            for step, body in (("acquire", {}), ("share", {"user": me})):
                answer = await client.post(f"{path}/{step}", json=body)
                assert answer.status_code == 200, answer.text
            for _ in range(2):
                for node in others:
                    async with node.ask(rival) as other:
                        answer = await other.post(f"{path}/acquire")
                        code = answer.json().get("error", {}).get("code")
                        result.expect(code == 113, f"node {node.name} answered {answer.text}")
                await trio.sleep(1.5 * OWN_S)  # three times as long as a session may be away
            written = await client.patch(path, json={"title": "Still mine"})
            result.expect(written.status_code == 200, f"its holder lost it: {written.text}")
            socket.cancel()
        async with others[0].ask(rival) as other:

            async def gets(other: httpx.AsyncClient = other, path: str = path) -> bool:
                return (await other.post(f"{path}/acquire")).status_code == 200

            result.expect(await _soon(gets), "who is away for long keeps its resource")
            await other.post(f"{path}/release")
        name = f"clock{seed}x{number}"
        async with others[0].ask() as client:
            account = {"username": name, "password": "a quite long password"}
            token = (await data(client.post("/api/auth/register", json=account)))["token"]
        for node in ground.nodes:
            async with node.ask(token) as client:
                shown = await client.get("/api/users/@me")
                result.expect(shown.status_code == 200, f"at {node.name}: {shown.text}")
    for node in ground.nodes:
        node.clock_s = 0.0
    result.expect(not ground.falls, f"fell: {ground.falls}")
    result.wrong += await ground.judge()
    return result


async def _present(
    node: Node,
    token: str,
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A session that is connected to a node, until the scope is cancelled."""
    headers = [(b"Authorization", f"Bearer {token}".encode())]
    with trio.CancelScope() as scope:
        async with open_websocket(
            node.host, node.port, "/ws/user", use_ssl=False, extra_headers=headers
        ) as socket:
            while True:
                await get(socket)
                task_status.started(scope)
                task_status = trio.TASK_STATUS_IGNORED


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


@dataclass
class _Orders:
    """Gives one order after another through a node; each again until it is known how it went."""

    node: Node
    token: str
    instance: str
    user: str
    over: bool = False
    given: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> None:
        async with self.node.ask(self.token) as client:
            while not self.over:
                reason = f"warning {len(self.given)}"
                order = {"user": self.user, "type": "warn", "reason": reason}
                path = f"/api/instances/{self.instance}/moderate"
                while (answer := await client.post(path, json=order)).status_code == 503:
                    await trio.sleep(0.05)
                if answer.status_code != 200:
                    self.wrong.append(f"an order was answered {answer.text}")
                self.given.append(reason)
                await trio.sleep(0.05)


async def mutes_survive(ground: Ground, times: int, seed: int) -> Result:
    """Whoever was muted stays mute when the instance's host dies; a ban holds from the first
    moment, at every node. Orders that are given meanwhile stand in the log once."""
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
    through = next(one for one in ground.nodes if one is not node)
    warned = users[ground.visitors[2].player]
    async with trio.open_nursery() as nursery:
        orders = _Orders(through, ground.owner, instance, warned)
        nursery.start_soon(orders.run)
        await eventually(lambda: len(orders.given) > 2)
        died = now()
        await node.kill()
        await _again([one for one in ground.visitors if one is not banned], died)
        many = len(orders.given)
        await eventually(lambda: len(orders.given) > many + 2)
        orders.over = True
    result.wrong += orders.wrong
    async with through.ask(ground.owner) as client:
        log = await data(client.get(f"/api/instances/{instance}/moderations?limit=100"))
    reasons = [one.get("reason") for one in log["items"] if one["type"] == "warn"]
    newest = orders.given[-80:]
    missing = [one for one in newest if reasons.count(one) != 1]
    result.expect(not missing, f"not once in the log: {missing} of {reasons}")
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
    "alone",
    "at_the_door",
    "clocks",
    "crowded",
    "cuts",
    "deaths",
    "elections",
    "emptied",
    "ghosts",
    "guesses",
    "held_rows",
    "long_pauses",
    "mixed",
    "mutes_survive",
    "nats_away",
    "nats_restart",
    "newcomer",
    "postgres_away",
    "resources",
    "rolling",
    "seen_everywhere",
    "short_pauses",
    "two_sockets",
    "unheard",
]
