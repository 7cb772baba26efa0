"""Two servers on one database do no harm to each other."""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest
import trio

from reileta.store.cluster_leases import ClusterLeases
from reileta.store.database import Database, asyncio_loop
from tests.cluster.conftest import Ground
from tests.conftest import PATIENCE_S
from tests.e2e.clients import connected
from tests.e2e.processes import Bot, ServerProcess, eventually, new_instance, serving
from tests.e2e.test_database_faults import refused
from tests.forked import run


async def nodes_of(database: Database) -> list[str]:
    """The names of the nodes that are not fenced."""
    rows = await database.fetch("SELECT name FROM nodes WHERE fenced_at IS NULL ORDER BY name")
    return [row["name"] for row in rows]


async def host_of(database: Database, instance: str) -> str | None:
    """The name of the node that hosts the instance."""
    name: str | None = await database.value(
        "SELECT name FROM places JOIN nodes ON nodes.id = node WHERE instance_id = $1", instance
    )
    return name


async def epoch_of(database: Database, instance: str) -> int:
    epoch: int = await database.value("SELECT epoch FROM places WHERE instance_id = $1", instance)
    return epoch


async def count(database: Database, sql: str) -> int:
    number: int = await database.value(sql)
    return number


async def test_two_nodes_are_one_cluster_and_leave_it_in_order(ground: Ground) -> None:
    async with asyncio_loop() as loop, ground.node("a") as a:
        database = Database(loop, ground.database_url, connections=2)
        async with ground.node("b") as b:
            assert await nodes_of(database) == ["a", "b"]
            a.process.terminate()
            assert await a.ended() == 0
            assert await nodes_of(database) == ["b"]
            await b.until_logged("node.joined")
        assert await nodes_of(database) == []
        await database.close()


async def test_an_instance_that_is_in_use_survives_the_start_and_the_sweep_of_another_node(
    ground: Ground,
) -> None:
    quick = ("--empty-instance-s", "0.2", "--unused-instance-s", "0.2")
    (owner,) = await ground.bots(1)
    async with asyncio_loop() as loop, ground.node("a") as a:
        database = Database(loop, ground.database_url, connections=2)
        room = await new_instance(a, owner)
        async with connected(a, owner) as player:
            await player.join(room)
            async with ground.node("b", *quick) as b:
                other = await new_instance(b, owner)
                # B sweeps: it deletes what nobody uses, and nothing else.
                await eventually(partial(_gone, database, other))
                assert await host_of(database, room) == "a"
                unmarked = "SELECT count(*) FROM instances WHERE empty_since IS NULL"
                assert await count(database, unmarked) == 1
                assert (await player.ask("ping"))["command"] == "ping"
        await database.close()


async def _gone(database: Database, instance: str) -> bool:
    there = await database.fetch("SELECT 1 FROM instances WHERE id = $1", instance)
    return not there


async def test_an_instance_of_a_node_that_died_gets_another_host_and_keeps_its_bans(
    ground: Ground,
) -> None:
    owner, guest, other = await ground.bots(3)
    async with asyncio_loop() as loop, ground.node("a") as a:
        database = Database(loop, ground.database_url, connections=2)
        room = await new_instance(a, owner)
        async with connected(a, owner) as player, connected(a, other) as speaker:
            await player.join(room)
            await speaker.join(room)
            b = await ground.start("b")
            epoch = await epoch_of(database, room)
            me = await _me(a, guest)
            banned = await player.ask(
                "instance-moderate", {"type": "ban", "user": me}, subgroup=room
            )
            assert "error" not in banned, banned
            muted = await player.ask(
                "instance-moderate", {"type": "mute", "user": await _me(a, other)}, subgroup=room
            )
            assert "error" not in muted, muted
        a.process.kill()
        await a.ended()
        taken = await b.until_logged("node.taken_over")
        assert taken["instances"] == 1
        assert await host_of(database, room) is None
        async with connected(b, owner) as player:
            await player.join(room)
        assert await host_of(database, room) == "b"
        assert await epoch_of(database, room) > epoch
        async with connected(b, other) as player:
            await player.join(room)
            refused_data = await player.ask("instance-data", {"x": 1}, subgroup=room)
            assert "error" in refused_data, refused_data
        async with connected(b, guest) as player:
            answer = await player.ask("instance-join", {"instance": room})
            assert answer["error"]["code"] == 123, answer  # banned
        await database.close()


async def _me(node: ServerProcess, account: Bot) -> str:
    async with node.ask() as client:
        me = await client.get(
            "/api/users/@me", headers={"Authorization": f"Bearer {account.token}"}
        )
        id_: str = me.json()["data"]["id"]
        return id_


async def test_a_node_that_was_paused_sends_nothing_more_and_goes_on_as_another_one(
    ground: Ground,
) -> None:
    owner, other = await ground.bots(2)
    async with asyncio_loop() as loop, ground.node("a") as a:
        database = Database(loop, ground.database_url, connections=2)
        room = await new_instance(a, owner)
        async with connected(a, owner) as one, connected(a, other) as two:
            await one.join(room)
            await two.join(room)
            b = await ground.start("b")
            a.process.send_signal(signal.SIGSTOP)
            try:
                await b.until_logged("node.taken_over")
                await two.say(room, {"late": True})
                async with connected(b, owner) as back:
                    await back.join(room)
                    assert await host_of(database, room) == "b"
            finally:
                a.process.send_signal(signal.SIGCONT)
            await a.until_logged("node.fell")
            await a.until_logged("node.joined", many=2)
            assert await host_of(database, room) == "b"
            heard = [one.get("command") for one in one.skipped]
            assert "instance-data" not in heard
        assert not a.events("write.fenced")
        assert not a.events("actor.crashed")
        await database.close()


async def test_a_short_pause_makes_nobody_fall(ground: Ground) -> None:
    owner, other = await ground.bots(2)
    async with ground.node("a") as a:
        room = await new_instance(a, owner)
        async with connected(a, owner) as one, connected(a, other) as two:
            await one.join(room)
            await two.join(room)
            b = await ground.start("b")
            a.process.send_signal(signal.SIGSTOP)
            await trio.sleep(1.0)
            a.process.send_signal(signal.SIGCONT)
            await two.say(room, {"after": True})
            assert (await one.hear())["data"] == {"after": True}
        assert not a.events("node.fell")
        assert not b.events("node.taken_over")


async def test_servers_with_and_without_a_cluster_never_share_a_database(ground: Ground) -> None:
    async with ground.node("a"):
        line = await refused(*ground.alone("b"))
        assert "another server uses the database" in line
        assert "--nats" in line
    async with asyncio_loop() as loop:
        database = Database(loop, ground.database_url, connections=1)
        await ClusterLeases(database).register("c_dead", name="dead", roles=(), version="0")
        async with serving(*ground.alone("b")):
            assert await nodes_of(database) == []
            line = await refused(*ground.options("a"))
            assert "uses the database alone" in line
        await database.close()


FAST = """
import pathlib
import time
pathlib.Path(__file__).with_name("fast").touch()
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + 300
time.time_ns = lambda: real_ns() + 300 * 10**9
"""
"""A clock that is five minutes fast."""


async def test_a_node_of_a_newer_version_with_a_fast_clock_takes_nothing_from_others(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It joins those of before; a version that they can't run beside is refused."""
    holder, rival = await ground.bots(2)
    away = ("--away-s", "0.5")
    newer = (
        "INSERT INTO schema_migrations (version, name, applied_at, compatible_from) "
        "VALUES ($1, 'newer', 0, $2)"
    )
    async with asyncio_loop() as loop, ground.node("a", *away) as a:
        database = Database(loop, ground.database_url, connections=2)
        await database.execute(newer, 9998, 1)
        (ground.folder / "sitecustomize.py").write_text(FAST)
        monkeypatch.setenv("PYTHONPATH", str(ground.folder))
        options = (*ground.options("b"), *away)
        async with serving(*options, fresh=True) as b, connected(a, holder), b.ask() as there:
            shown = await there.get("/api/time")
            assert (ground.folder / "fast").exists()
            assert abs(shown.json()["data"] / 1000 - time.time()) < 100  # PostgreSQL's clock
            async with a.ask() as here:
                token = {"Authorization": f"Bearer {holder.token}"}
                made = await here.post("/resource/document", json={"title": "x"}, headers=token)
                path = f"/resource/document/{made.json()['resource']['id']}"
                assert (await here.post(f"{path}/acquire", headers=token)).status_code == 200
                other = (await here.get("/api/users/@me", headers=bearer(rival))).json()["data"]
                shared = await here.post(f"{path}/share", json={"user": other["id"]}, headers=token)
                assert shared.status_code == 200, shared.text
            for _ in range(5):  # B tends all leases meanwhile
                refused = await there.post(f"{path}/acquire", headers=bearer(rival))
                assert refused.json()["error"]["code"] == 113, refused.text
                await trio.sleep(0.4)
        await database.execute(newer, 9999, 9999)
        with pytest.RaisesGroup(AssertionError, flatten_subgroups=True, allow_unwrapped=True) as no:
            async with ground.node("c"):
                pass
        assert "newer" in repr(no.value)
        await database.close()


def bearer(account: Bot) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.token}"}


async def test_a_node_with_another_key_is_refused(ground: Ground) -> None:
    async with ground.node("a"):
        line = await refused(*ground.options("b"), "--key", str(ground.folder / "other"))
        assert "key" in line
        assert str(ground.folder / "other") in line


async def test_two_nodes_that_start_at_once_agree_on_the_key(ground: Ground) -> None:
    nodes: list[ServerProcess] = []

    async def start(name: str) -> None:
        nodes.append(await ground.start(name))

    async with trio.open_nursery() as starting:
        starting.start_soon(start, "a")
        starting.start_soon(start, "b")
    keys = set()
    for node in nodes:
        async with node.ask() as client:
            keys.add((await client.get("/.well-known/avr")).json()["data"]["public_key"])
    assert len(keys) == 1


async def test_it_starts_without_nats_and_says_so(ground: Ground) -> None:
    (owner,) = await ground.bots(1)
    await ground.nats.kill()
    async with ground.node("a") as a:
        room = await new_instance(a, owner)
        async with connected(a, owner) as player:
            await player.join(room)
        await ground.nats.start()
        await a.until_logged("bus.connected")


async def test_many_who_join_at_two_nodes_at_once_find_one_host(ground: Ground) -> None:
    accounts = await ground.bots(9)
    async with ground.node("a") as a, ground.node("b") as b, asyncio_loop() as loop:
        database = Database(loop, ground.database_url, connections=1)
        room = await new_instance(a, accounts[0])
        players: list[str] = []

        async def join(account: Bot, node: ServerProcess) -> None:
            async with connected(node, account) as player:
                joined = await player.join(room)
                players.append(joined["player"])
                with trio.fail_after(PATIENCE_S):
                    while len(players) < len(accounts) - 1:
                        await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for number, account in enumerate(accounts[1:]):
                nursery.start_soon(join, account, (a, b)[number % 2])
        assert len(set(players)) == 8
        assert await epoch_of(database, room) == 1
        assert await host_of(database, room) in ("a", "b")
        await database.close()


# Operating ----------------------------------------------------------------------------------------


async def command(ground: Ground, *words: str, nats: bool = True) -> str:
    """What `reileta …` says of the cluster."""
    where = ["--database", ground.database_url]
    if nats:
        where += ["--nats", ground.nats.url]
    ended = await run(*words, *where)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode()


async def readiness(node: ServerProcess) -> tuple[int, str]:
    async with node.ask() as client:
        answer = await client.get("/readyz")
        return answer.status_code, answer.text


async def test_operators_see_drain_and_yield_nodes(ground: Ground) -> None:
    (owner,) = await ground.bots(1)
    async with ground.node("a") as a, asyncio_loop() as loop:
        database = Database(loop, ground.database_url, connections=1)
        room = await new_instance(a, owner)
        async with connected(a, owner) as player:
            await player.join(room)
            assert "instances=1" in await command(ground, "node", "list")
            assert "takes no more" in await command(ground, "node", "drain", "a")
            status, text = await readiness(a)
            assert (status, "drained" in text) == (503, True)
            assert "takes instances again" in await command(ground, "node", "drain", "a", "--undo")
            status, text = await readiness(a)
            assert status == 200, text
            shown_status = await command(ground, "cluster", "status")
            assert "record=up" in shown_status
            assert "gaps=" in shown_status
        await command(ground, "node", "yield", "a", nats=False)
        await a.until_logged("node.fell")
        await a.until_logged("node.joined", many=2)
        assert await host_of(database, room) is None
        assert "by=itself" in await command(ground, "cluster", "status")
        async with a.ask() as client:
            shown = (await client.get("/metrics")).text
        assert "reileta_node_falls_total 1.0" in shown
        assert "reileta_fenced_writes_total 0.0" in shown
        await database.close()


async def _knows(node: ServerProcess, nodes: int) -> bool:
    """Whether the node knows of so many."""
    async with node.ask() as client:
        return f"reileta_cluster_nodes {nodes}.0" in (await client.get("/metrics")).text


async def test_a_node_that_is_drained_keeps_its_players_and_gives_its_instances_away(
    ground: Ground,
) -> None:
    owner, other = await ground.bots(2)
    async with ground.node("a") as a, asyncio_loop() as loop:
        database = Database(loop, ground.database_url, connections=1)
        room = await new_instance(a, owner)
        async with connected(a, owner) as one, connected(a, other) as two:
            await one.join(room)
            await two.join(room)
            b = await ground.start("b")
            await eventually(partial(_knows, a, 2))
            assert "it has 0" in await command(ground, "node", "drain", "a")
            assert await host_of(database, room) == "b"
            await one.say(room, {"still": "here"})
            assert (await two.hear())["data"] == {"still": "here"}
        assert not a.events("write.fenced")
        assert not b.events("node.taken_over")
        await database.close()


async def test_a_node_that_stops_leaves_its_instances_to_the_players_of_others(
    ground: Ground,
) -> None:
    owner, other = await ground.bots(2)
    a = await ground.start("a")
    async with asyncio_loop() as loop, ground.node("b") as b, connected(b, other) as player:
        database = Database(loop, ground.database_url, connections=1)
        room = await new_instance(a, owner)
        async with connected(a, owner) as host:
            await host.join(room)
            await player.join(room)
            first = await host_of(database, room)
            a.process.terminate()
            assert (await host.closed())[0] == 1001
        assert await a.ended() == 0
        assert not b.events("node.taken_over")
        if first == "a":
            back = await player.event("instance-restored")
            assert back["data"]["player"] == player.id
        assert await host_of(database, room) == "b"
        async with connected(b, owner) as again:
            await again.join(room)
            await again.say(room, {"still": "here"})
            assert (await player.hear())["data"] == {"still": "here"}
        await database.close()


class Gap:
    """A way to NATS that can be cut without a word."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.open = True
        self._changed = trio.Event()

    def cut(self) -> None:
        self.open = False

    def mend(self) -> None:
        self.open = True
        self._changed.set()
        self._changed = trio.Event()

    async def serve(self, task_status: trio.TaskStatus[int]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            task_status.started(listener.socket.getsockname()[1])
            await trio.serve_listeners(self._pipe, [listener], handler_nursery=nursery)

    async def _pipe(self, client: trio.SocketStream) -> None:
        nats = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with client, nats, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, client, nats, nursery.cancel_scope)
            nursery.start_soon(self._copy, nats, client, nursery.cancel_scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, over: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                while not self.open:
                    await self._changed.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        over.cancel()


async def test_a_node_that_only_nats_does_not_reach_gives_its_instances_back(
    ground: Ground,
) -> None:
    (owner,) = await ground.bots(1)
    gap = Gap(int(ground.nats.url.rpartition(":")[2]))
    async with trio.open_nursery() as nursery, asyncio_loop() as loop:
        port = await nursery.start(gap.serve)
        database = Database(loop, ground.database_url, connections=1)
        options = (*ground.options("a"), "--nats", f"nats://127.0.0.1:{port}")
        async with serving(*options) as a, connected(a, owner) as player:
            room = await new_instance(a, owner)
            await player.join(room)
            b = await ground.start("b")
            gap.cut()
            fell = await a.until_logged("node.fell")
            assert (fell["isolated"], fell["of_itself"]) == (True, True)
            code, reason = await player.closed()
            assert code == 1001
            assert "come back" in reason
            status, text = await readiness(a)
            assert (status, "isolated" in text) == (503, True)
            async with connected(b, owner) as again:
                await again.join(room)
            assert await host_of(database, room) == "b"
            assert not b.events("node.taken_over")
            gap.mend()
            await a.until_logged("lease.confirmed", many=2)
            status, text = await readiness(a)
            assert status == 200, text
        await database.close()
        nursery.cancel_scope.cancel()
