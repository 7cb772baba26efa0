"""The ground of the cluster's tests: PostgreSQL, NATS and nodes, all real, and ways to break them.

    clients ── 127.0.1.1 ── node a ──┬── gate ── NATS
               127.0.1.2 ── node b ──┼── gate ── PostgreSQL
               127.0.1.3 ── node c ──┘

Each node has a gate of its own to each server, so every pair can be cut, both ways or one way. With
network namespaces (`spaces.py`) there are no gates: the system's own network is cut. A death is
SIGKILL, a pause SIGSTOP. Nodes keep their ports: what is started again is where it was.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final
from urllib.parse import quote

import httpx
import psutil
import trio

from reileta.errors import DatabaseUnavailable
from reileta.store.database import Database, asyncio_loop
from tests.chaos.soak.postgres import PORT, SUPERUSER, Postgres
from tests.cluster.checker import Fell, check
from tests.cluster.clients import Crowd, Visitor, now
from tests.cluster.gate import Gate, listen_on, tcp, unix
from tests.cluster.spaces import NET, Cable, Spaces, network_of, within
from tests.conftest import PATIENCE_S
from tests.forked import ForkedProcess, run, start
from tests.nats_server import NatsServer
from tests.ports import free_port

Json = dict[str, Any]

ENVIRONMENT: Final = {name: text for name, text in os.environ.items() if "REILETA" not in name}
NAMES: Final = "abcdefgh"
READY: Final = "server.ready"
POLL_S: Final = 0.05
IMPORTED_S: Final = 60.0
"""For another version, which is not forked."""
RETURN_S: Final = 5.0
"""Within so long after a death, everybody is inside again: a promise."""
MAX_PAYLOAD_BYTES: Final = 1024 * 1024
NODE_PORT: Final = 3032
"""Of each node that has a machine of its own."""
Link = Gate | Cable
FAULTS: Final = ("request.failed", "actor.crashed", "connection.failed")
"""Events of the log that no failure of other machines explains."""
EXPLAINED: Final = ("database.callback_failed",)
"""What the database's library says of connections that were cut while it made them."""


class Node:
    """A process `reileta serve --nats …`."""

    def __init__(
        self,
        name: str,
        host: str,
        folder: Path,
        options: Sequence[str],
        nursery: trio.Nursery,
        *,
        machine: str | None = None,
    ) -> None:
        """`machine`: the one of its own that it runs on, if there are namespaces."""
        self.name = name
        self.host = host
        self.port = NODE_PORT if machine else 0
        self.log: list[Json] = []
        self.errors = ""
        self.nats: list[Link] = []
        self.postgres: Link | None = None
        self.clock_s = 0.0
        """How fast the wall clock is, from the next start on."""
        self.checkout: Path | None = None
        """Of another version, which runs from the next start on, with its own `.venv`."""
        self.observed = folder.with_suffix(".observe")
        """Where it tells what it holds in memory: `tests.chaos.soak.observed.ask`."""
        self._machine = machine
        self._data = folder
        self._options = options
        self._nursery = nursery
        self._process: ForkedProcess | trio.Process | None = None
        self._said = trio.Event()
        self._from = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def process(self) -> ForkedProcess | trio.Process:
        assert self._process is not None
        return self._process

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status of its process, if that has ended; minus a signal's number."""
        return None if self._process is None else self._process.poll()

    async def start(self, *more: str) -> None:
        """Starts it; returns once it takes connections."""
        await self.launch(*more)
        with trio.move_on_after(0 if self.checkout is None else IMPORTED_S):
            while not self.events(READY) and self.runs:  # it imports everything first
                await trio.sleep(POLL_S)
        await self.until_logged(READY)

    async def launch(self, *more: str) -> None:
        """Starts it, and does not wait."""
        self._from = len(self.log)
        if not self.port:
            self.port = free_port(self.host)
        options = {
            "--host": self.host,
            "--port": str(self.port),
            "--data": str(self._data),
            "--node-name": self.name,
            "--address": "play.example.org",
            "--log-format": "json",
            "--rate-limits": "off",
        }
        words = [word for option in options.items() for word in option]
        self.observed.unlink(missing_ok=True)
        world: Json = {"clock_s": self.clock_s, "observe": str(self.observed)}
        if self._machine is not None:
            world["network"] = str(network_of(self._machine))
        arguments = ("serve", *words, *self._options, *more)
        if self.checkout is None:
            self._process = await start(*arguments, env=ENVIRONMENT, world=world)
        else:
            self._process = await self._start_other(*arguments)
        self._nursery.start_soon(self._read_log, self._process.stdout)
        self._nursery.start_soon(self._read_errors, self._process.stderr)

    async def _start_other(self, *arguments: str) -> trio.Process:
        """Runs the version of the checkout."""
        assert self.checkout is not None
        python = self.checkout / ".venv" / "bin" / "python"
        words = [str(python), "-m", "reileta", *arguments]
        network = None if self._machine is None else network_of(self._machine)
        if network is not None:
            words = ["nsenter", f"--net={network}", *words]
        return await trio.lowlevel.open_process(
            words, stdout=PIPE, stderr=PIPE, env=ENVIRONMENT, cwd=self.checkout
        )

    async def _read_log(self, stream: trio.abc.ReceiveStream | None) -> None:
        assert stream is not None
        rest = b""
        async with stream:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                self.log += [{**json.loads(line), "at": now()} for line in lines]
                self._said.set()
                self._said = trio.Event()
        self._said.set()

    async def _read_errors(self, stream: trio.abc.ReceiveStream | None) -> None:
        assert stream is not None
        async with stream:
            async for chunk in stream:
                self.errors += chunk.decode()

    def forget(self) -> None:
        """Empties its log."""
        self.log.clear()
        self._from = 0

    def events(self, name: str) -> list[Json]:
        """What it logged of that name since it was started."""
        return [event for event in self.log[self._from :] if event["event"] == name]

    async def until_logged(self, name: str, many: int = 1) -> Json:
        """Waits for an event, or for so many of them; the last."""
        with trio.fail_after(PATIENCE_S):
            while len(found := self.events(name)) < many:
                said = "\n".join([*map(str, self.log[-20:]), self.errors[-2000:]])
                assert self.runs, said
                with trio.move_on_after(1):
                    await self._said.wait()
        return found[-1]

    async def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Ends it in order; its exit status."""
        self.process.terminate()
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()

    async def pause(self) -> None:
        """Stops it; returns once it does nothing more."""
        self.process.send_signal(signal.SIGSTOP)
        status = psutil.Process(self.process.pid).status
        with trio.fail_after(PATIENCE_S):
            while status() != psutil.STATUS_STOPPED:
                await trio.sleep(0.001)

    def resume(self) -> None:
        """Lets it go on; if it was not paused, nothing changes."""
        self.process.send_signal(signal.SIGCONT)

    def cut(self) -> None:
        """Cuts it off from NATS and PostgreSQL, not from its clients."""
        for gate in self.gates:
            gate.cut()

    def heal(self) -> None:
        for gate in self.gates:
            gate.heal()

    @property
    def gates(self) -> list[Link]:
        assert self.postgres is not None
        return [*self.nats, self.postgres]

    def ask(self, token: str = "") -> httpx.AsyncClient:
        """A client of its HTTP API."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(
            base_url=self.url, timeout=PATIENCE_S, headers=headers, verify=False
        )


@dataclass
class Ground:
    """A running cluster, and everything that was seen in it."""

    nodes: list[Node]
    nats: list[NatsServer]
    postgres: Postgres
    tokens: list[str]
    crowd: Crowd
    nursery: trio.Nursery
    falls: list[Fell] = field(default_factory=list)
    places: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    """By instance: its node, an incarnation, and its epoch, as last seen in the database."""
    names: dict[str, str] = field(default_factory=dict)
    """Of incarnations: which node they are."""
    capacity: dict[str, int] = field(default_factory=dict)
    visitors: list[Visitor] = field(default_factory=list)
    looked_at: float = 0.0
    """When the database was last asked for places, and answered."""
    spaces: Spaces | None = None
    """The machines, if there are network namespaces."""
    other: Path | None = None
    """A checkout of another version."""

    @property
    def owner(self) -> str:
        """The token of whoever owns the instances."""
        return self.tokens[0]

    # Clients and instances

    async def instance(self, *, capacity: int = 64, at: int = 0) -> str:
        """A public instance; its id."""
        async with self.nodes[at].ask(self.owner) as client:
            world = await data(client.put("/api/worlds", json={"title": "Harbour"}))
            wanted = {"world": world["id"], "capacity": capacity, "tags": ["avr:public"]}
            made = await data(client.put("/api/instances", json=wanted))
        self.capacity[made["id"]] = capacity
        id_: str = made["id"]
        return id_

    def visitor(self, instance: str, at: int, *, every_s: float = 0.5) -> Visitor:
        """Another client, which comes at once, to the node of that number."""
        number = len(self.visitors) + 1
        visitor = Visitor(
            self.crowd, f"v{number}", self.tokens[number], instance, at=at, every_s=every_s
        )
        self.visitors.append(visitor)
        self.nursery.start_soon(visitor.run)
        return visitor

    async def players(self, instance: str, *, at: Node) -> list[str]:
        """The users inside, as a node says."""
        async with at.ask(self.owner) as client:
            told = await data(client.get(f"/api/instances/{instance}/players?limit=100"))
        return [one["user"] for one in told["items"]]

    async def until_inside(self, within_s: float = PATIENCE_S) -> float:
        """Waits until all visitors are inside; for how long."""
        began = now()
        with trio.fail_after(within_s):
            while not all(one.inside or one.stays_away for one in self.visitors):
                await trio.sleep(0.01)
        return now() - began

    async def until_again(self, since: float, within_s: float = PATIENCE_S) -> list[float]:
        """Waits until all visitors began to hear anew after that moment; after how long each."""
        with trio.fail_after(within_s):
            while not all(one.inside and one.since > since for one in self.visitors):
                await trio.sleep(0.01)
        return [one.since - since for one in self.visitors]

    def host(self, instance: str) -> Node | None:
        """The node that hosts an instance, as the database says."""
        incarnation, _ = self.places.get(instance, (None, 0))
        name = self.names.get(incarnation or "")
        return next((node for node in self.nodes if node.name == name), None)

    async def until_hosted(self, instance: str, *, beside: Node | None = None) -> Node:
        """Waits until a node hosts it, another one than that."""
        with trio.fail_after(PATIENCE_S):
            while (node := self.host(instance)) is None or node is beside:
                await trio.sleep(POLL_S)
        return node

    async def sql(self, statement: str) -> str:
        """Asks PostgreSQL directly."""
        said: str = await blocking(lambda: self.postgres.sql(statement))
        return said

    async def start_postgres(self) -> None:
        await start_postgres(self.postgres, self.spaces)

    async def stop_postgres(self) -> None:
        """At once, as a crash."""
        await blocking(partial(self.postgres.stop, signal.SIGQUIT))

    # The end

    async def judge(self) -> list[str]:
        """Waits until everybody agrees, lets the last messages arrive, and judges the run."""
        for one in self.visitors:
            one.quiet = True
        wrong = await self._until_agreed()
        found = check(self.crowd.records, capacity=self.capacity, falls=self.falls, ended=now())
        for node in self.nodes:
            for event in node.log:
                if event["event"] in EXPLAINED:
                    continue
                if event["event"] in FAULTS or "exception" in event:
                    found.append(f"node {node.name} logged {event}")
        return wrong + found + self.ended()

    def ended(self) -> list[str]:
        """The nodes that ended by themselves, and why."""
        return [
            f"node {node.name} ended with status {status}: {node.errors[-2000:]}"
            for node in self.nodes
            if (status := node.status) is not None and status > 0
        ]

    async def _until_agreed(self) -> list[str]:
        """Nobody sees ghosts 30 s after the last failure."""
        wrong: list[str] = []
        with trio.move_on_after(PATIENCE_S):
            while True:
                await trio.sleep(0.2)
                wrong = await self._disagreements()
                if not wrong:
                    break
        return wrong

    async def _disagreements(self) -> list[str]:
        wrong: list[str] = []
        for instance in {one.instance for one in self.visitors}:
            inside = [one for one in self.visitors if one.instance == instance and one.inside]
            players = {one.player for one in inside}
            wrong += [
                f"{one.name} sees {len(one.players)} players, {len(players)} are inside"
                for one in inside
                if one.players != players
            ]
            for node in self.nodes:
                if not node.runs:
                    continue
                try:
                    async with node.ask(self.owner) as client:
                        told = await data(
                            client.get(f"/api/instances/{instance}/players?limit=100")
                        )
                except (httpx.HTTPError, Refused) as error:
                    wrong.append(f"node {node.name} says {error!r}")
                    continue
                shown = {one["player"] for one in told["items"]}
                if len(players) <= 100 and shown != players:
                    wrong.append(
                        f"node {node.name} shows {sorted(shown)}, inside are {sorted(players)}"
                    )
        return wrong


class Refused(Exception):
    """An answer with an error."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(status, code, text)
        self.status = status
        self.code = code


async def data(answer: Awaitable[httpx.Response]) -> Any:
    """The data of an answer. Raises Refused."""
    response = await answer
    body = response.json()
    if "error" in body:
        raise Refused(response.status_code, body["error"]["code"], response.text)
    return body.get("data", body)


async def eventually(so: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Waits until something is so."""
    with trio.fail_after(within_s):
        while not so():
            await trio.sleep(0.01)


async def blocking(work: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(work)


@dataclass
class Machines:
    """PostgreSQL, NATS and the nodes: what scenarios may share."""

    nodes: list[Node]
    nats: list[NatsServer]
    postgres: Postgres
    tokens: list[str]
    spaces: Spaces | None = None
    other: Path | None = None
    """A checkout of another version."""

    @asynccontextmanager
    async def scene(self, clients: int) -> AsyncIterator[Ground]:
        """The ground of one scenario, which has seen nothing yet, with so many tokens of its own
        and one for the owner. Everything runs and is connected."""
        tokens, self.tokens = self.tokens[: clients + 1], self.tokens[clients + 1 :]
        async with trio.open_nursery() as starting:
            for node in self.nodes:
                node.heal()
                node.forget()
                node.resume()
                if not node.runs:
                    starting.start_soon(node.start)
        crowd = Crowd([node.url for node in self.nodes])
        async with trio.open_nursery() as running:
            standing = Ground(
                self.nodes,
                self.nats,
                self.postgres,
                tokens,
                crowd,
                running,
                spaces=self.spaces,
                other=self.other,
            )
            running.start_soon(_watch_places, standing, url(self.postgres.socket))
            yield standing
            running.cancel_scope.cancel()


@asynccontextmanager
async def ground(
    folder: Path,
    *,
    nodes: int = 3,
    clients: int = 16,
    nats_servers: int = 1,
    options: Sequence[str] = (),
    nats_options: str = "",
    spaces: Spaces | None = None,
) -> AsyncIterator[Ground]:
    """A running cluster in a folder that all accounts may pass; its nodes take connections."""
    async with (
        machines(
            folder,
            nodes=nodes,
            accounts=clients + 1,
            nats_servers=nats_servers,
            options=options,
            nats_options=nats_options,
            spaces=spaces,
        ) as made,
        made.scene(clients) as standing,
    ):
        yield standing


@asynccontextmanager
async def machines(
    folder: Path,
    *,
    nodes: int = 3,
    accounts: int = 17,
    nats_servers: int = 1,
    options: Sequence[str] = (),
    nats_options: str = "",
    spaces: Spaces | None = None,
) -> AsyncIterator[Machines]:
    """A running cluster in a folder that all accounts may pass; its nodes take connections."""
    network = None if spaces is None else (spaces.add("sql", 9), f"{NET}.0/24")
    postgres = Postgres(folder / "postgres", network=network)
    servers = [_nats(folder, number, nats_options, spaces) for number in range(nats_servers)]
    if nats_servers > 1:
        routes = [f"{server.host}:{free_port()}" for server in servers]
        for number, (server, route) in enumerate(zip(servers, routes, strict=True)):
            server.join(f"n{number}", int(route.rpartition(":")[2]), routes)
    made = Machines([], servers, postgres, [], spaces)
    async with trio.open_nursery() as nursery:
        try:
            async with trio.open_nursery() as starting:
                for server in servers:
                    starting.start_soon(server.start)
                starting.start_soon(blocking, postgres.make)
            await start_postgres(postgres, spaces)
            for number in range(nodes):
                node = await _node(folder, number, made, options, nursery)
                made.nodes.append(node)
            # The first makes the tables and the key, and the accounts need both.
            await made.nodes[0].start()
            async with trio.open_nursery() as starting:
                for node in made.nodes[1:]:
                    starting.start_soon(node.start)
                made.tokens = await _accounts(accounts, folder, postgres)
            yield made
        finally:
            with trio.CancelScope(shield=True):
                await _end(postgres, servers, made.nodes)
        nursery.cancel_scope.cancel()


async def start_postgres(postgres: Postgres, spaces: Spaces | None) -> None:
    """Starts it on its machine."""

    def begin() -> None:
        with within(None if spaces is None else "sql"):
            postgres.start()

    await blocking(begin)


def _nats(folder: Path, number: int, options: str, spaces: Spaces | None) -> NatsServer:
    home, machine = folder / f"nats{number}", f"nats{number}"
    if spaces is None:
        return NatsServer(home, max_payload_bytes=MAX_PAYLOAD_BYTES, options=options)
    return NatsServer(
        home,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        options=options,
        host=spaces.add(machine, number + 1),
        under=("ip", "netns", "exec", machine),
    )


def url(socket: Path) -> str:
    """The database, by the socket in that folder."""
    return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(socket), safe='')}&port={PORT}"


async def _node(
    folder: Path, number: int, made: Machines, options: Sequence[str], nursery: trio.Nursery
) -> Node:
    """A node with its gates or cables; it does not run yet."""
    name = NAMES[number]
    home = folder / name
    home.mkdir()
    shared = ("--key", str(folder / "server.key"), "--files", str(folder / "files"))
    if (spaces := made.spaces) is not None:
        nats = [f"nats://{server.host}:{server.port}" for server in made.nats]
        database = f"postgresql://{SUPERUSER}@{spaces.address('sql')}:{PORT}/postgres"
        words = ("--nats", ",".join(nats), "--database", database, *shared, *options)
        host = spaces.add(name, 11 + number)
        node = Node(name, host, home / "data", words, nursery, machine=name)
        node.nats = [Cable(spaces, name, f"nats{one}") for one in range(len(made.nats))]
        node.postgres = Cable(spaces, name, "sql")
        return node
    host = f"127.0.1.{number + 1}"
    gates: list[Link] = []
    nats = []
    for server in made.nats:
        gate = Gate(tcp(server.host, server.port))
        listeners = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(gate.serve, listeners)
        nats.append("nats://{}:{}".format(*listeners[0].socket.getsockname()[:2]))
        gates.append(gate)
    way = Gate(unix(made.postgres.socket / f".s.PGSQL.{PORT}"))
    nursery.start_soon(way.serve, await listen_on(home / f".s.PGSQL.{PORT}"))
    words = ("--nats", ",".join(nats), "--database", url(home), *shared, *options)
    node = Node(name, host, home / "data", words, nursery)
    node.nats = gates
    node.postgres = way
    return node


async def _accounts(many: int, folder: Path, postgres: Postgres) -> list[str]:
    """Tokens of new accounts."""
    tokens = folder / "tokens"
    made = ["bots", "create", "--count", str(many), "--tokens", str(tokens)]
    done = await run(*made, "--database", url(postgres.socket), env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return tokens.read_text().split()


async def _watch_places(standing: Ground, where: str) -> None:
    """Notes which node hosts what, and when an instance falls, as the database says; for ever."""
    async with asyncio_loop() as loop:
        database = Database(loop, where, connections=1)
        try:
            while True:
                with suppress(DatabaseUnavailable):
                    began = now()
                    names = await database.fetch("SELECT id, name FROM nodes")
                    places = await database.fetch("SELECT instance_id, node, epoch FROM places")
                    _note(standing, names, places)
                    standing.looked_at = began
                await trio.sleep(POLL_S)
        finally:
            with trio.CancelScope(shield=True):
                await database.close()


def _note(standing: Ground, names: Iterable[Any], places: Iterable[Any]) -> None:
    standing.names.update({row["id"]: row["name"] for row in names})
    for row in places:
        _note_place(standing, row["instance_id"], row["node"], row["epoch"])


def _note_place(standing: Ground, instance: str, node: str | None, epoch: int) -> None:
    before = standing.places.get(instance)
    standing.places[instance] = (node, epoch)
    if before is None or before == (node, epoch) or before[0] is None:
        return
    # From one node to another in one step is a hand-over, unless there were steps between.
    if node is None or epoch > before[1] + 1:
        standing.falls.append(Fell(standing.looked_at, now(), instance))


async def _end(postgres: Postgres, servers: Sequence[NatsServer], nodes: Sequence[Node]) -> None:
    for node in nodes:
        if node.runs:
            await node.kill()
    for server in servers:
        await server.kill()
    await blocking(partial(postgres.stop, signal.SIGQUIT))
