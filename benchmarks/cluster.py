"""Several nodes as one server: what it costs to be at another node than the host, and to move.

    python -m benchmarks.cluster [--quick] [--table]

Starts PostgreSQL, NATS and three nodes of its own. They share one core, and the load has the other
one; only for the room over two gateways on two cores, each gateway has its own. Failovers are
measured by `tests.chaos.cluster`, with its clients. `--table` prints what `docs/benchmarks.md` has.
"""

from __future__ import annotations

import json
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import httpx
import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import Reileta, authorization, is_join_answer, join, make_instances
from benchmarks.errors import BenchmarkError, ConnectionLost
from benchmarks.frames import PING, PONG, FrameReader, Template, client_frame, payload
from benchmarks.load import Load, LoadResult, Plan, Player
from benchmarks.machine import cores, pinned, usage
from benchmarks.servers import REILETA, Running, Servers
from benchmarks.stats import Latency
from benchmarks.sustained import highest

NODES: Final = 3
PAYLOAD_BYTES: Final = 150
LOADS: Final = ((50, 20.4), (100, 20.2))
"""Players and rates of a room: 50,000 and 200,000 deliveries a second."""
TALK_S: Final = 0.02
DATA: Final = b'"instance-data"'
STARTED_S: Final = 30.0
MOVED_S: Final = 120.0
ASKED_EVERY_S: Final = 0.25


class Relayed(msgspec.Struct, frozen=True):
    """The same room with all players at the host's node, and with all but one at another one."""

    local: LoadResult
    remote: LoadResult

    @property
    def more_ms(self) -> float | None:
        if self.local.latency is None or self.remote.latency is None:
            return None
        return self.remote.latency.p99_ms - self.local.latency.p99_ms

    @property
    def cpu_ratio(self) -> float | None:
        """The gateway's CPU for a delivery, compared with that of a host whose players are all
        its own."""
        local, remote = self.local.cpu_s_per_million, self.remote.cpu_s_per_million
        return None if not local or remote is None else remote / local


class Carried(msgspec.Struct, frozen=True):
    """What NATS carries for a room at three gateways, a second."""

    players: int
    messages_per_s: float
    publishes_per_s: float
    """Of all nodes."""
    bytes_out_per_s: float
    """To all nodes."""
    delivered: float


class Moved(msgspec.Struct, frozen=True):
    """A node was drained."""

    instances: int
    players: int
    seconds: float
    """Until it hosted nothing."""
    pause: Latency | None
    """The longest silence of each player, without the usual time between two messages."""


class Spread(msgspec.Struct, frozen=True):
    """The highest rate of one room, in deliveries a second, in alternating rounds."""

    players: int
    one_gateway: list[float]
    two_gateways: list[float]


class Failovers(msgspec.Struct, frozen=True):
    """As the clients of `tests.chaos.cluster` saw it, in seconds."""

    deaths: int
    players: int
    median_s: float
    worst_s: float
    nats_restarts: int
    nats_median_s: float
    nats_worst_s: float
    violations: int


class ClusterResult(msgspec.Struct, frozen=True):
    """All of it; None for what was not measured."""

    relayed: list[Relayed]
    many: Carried
    few: Carried
    running_join: Latency | None
    placed_join: Latency | None
    revocation: Latency | None
    lease_core_share: float
    """Of a core, for each node: an idle node of three, without what a server alone needs."""
    moved: Moved
    spread: Spread
    failovers: Failovers | None

    @property
    def bytes_ratio(self) -> float:
        """Bytes on NATS for many players, compared with few that send as much."""
        per = [one.bytes_out_per_s / one.messages_per_s for one in (self.many, self.few)]
        return per[0] / per[1]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    seconds: float
    rounds: int
    joins: int
    revocations: int
    instances: int
    players: int
    """In each instance that moves."""
    many: int
    probes: int
    deaths: int
    pair: tuple[int, int] | None
    """Cores of the servers and of the load."""

    @classmethod
    def of(cls, *, quick: bool, pair: tuple[int, int] | None = None) -> Scale:
        if quick:
            return cls(2, 1, 30, 3, 10, 4, 60, 3, 1, pair)
        return cls(5, 3, 300, 20, 100, 10, 300, 8, 20, pair)

    @property
    def bots(self) -> int:
        return max(self.many, self.instances * self.players, 200) + self.revocations + 1


class Nats:
    """A NATS server with JetStream that can be asked what it carries."""

    def __init__(self, folder: Path) -> None:
        beside = Path(sys.executable).with_name("nats-server")
        program = str(beside) if beside.exists() else shutil.which("nats-server")
        if program is None:
            raise BenchmarkError("nats-server is not installed")
        port, self._monitored = free_port(), free_port()
        self.url = f"nats://127.0.0.1:{port}"
        config = folder / "nats.conf"
        config.write_text(
            f"listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{self._monitored}\n"
            f'jetstream {{ store_dir: "{folder / "nats"}", max_file_store: 64MB }}\n'
        )
        with (folder / "nats.log").open("wb") as log:
            self._process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + STARTED_S
        while not answers(port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise BenchmarkError(f"NATS did not start: {(folder / 'nats.log').read_text()}")
            time.sleep(0.02)

    def carried(self) -> tuple[int, int]:
        """Publishes of clients so far, and bytes to them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitored}/varz") as answer:
            told = json.loads(answer.read())
        return int(told["in_msgs"]), int(told["out_bytes"])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given: it stays bound."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a server can listen there
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    sock.detach()
    return port


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Cluster:
    """Running nodes, and accounts."""

    nodes: Sequence[Running]
    nats: Nats
    database: str
    tokens: Sequence[str]

    def target(self, node: int) -> Target:
        return Target.parse(self.nodes[node].url)

    def instances(self, node: int, count: int, capacity: int) -> list[str]:
        """New instances; the first who joins lets them be placed."""
        return make_instances(self.target(node), self.tokens[0], count, max(2, capacity))

    def seat(self, dialect: Reileta, where: Sequence[int]) -> list[Client]:
        """A client inside for each number, at that node; the first one comes first."""
        clients: dict[int, Client] = {}
        try:
            for numbers in ([0], range(1, len(where))):
                for node in range(len(self.nodes)):
                    at = [number for number in numbers if where[number] == node]
                    if at:
                        found = open_all(self.target(node), dialect, at)
                        clients.update(zip(at, found, strict=True))
        except BaseException:
            for client in clients.values():
                client.close()
            raise
        return [clients[number] for number in range(len(where))]


@contextmanager
def running(
    folder: Path, scale: Scale, placed: Sequence[int | None] | None = None
) -> Iterator[Cluster]:
    """A cluster for the block. `placed`: the core of each node; None: that of servers."""
    # The server's own tool for a PostgreSQL from the wheel.
    from reileta.store.embedded.cluster import Cluster as Postgres

    shared = scale.pair[0] if scale.pair else None
    postgres = Postgres(folder / "postgresql")
    with ExitStack() as stack:
        with pinned(shared):
            postgres.start()
            stack.callback(postgres.stop)
            nats = Nats(folder)
            stack.callback(nats.stop)
        nodes = []
        for number, core in enumerate(placed or [shared] * NODES):
            home = folder / f"node{number}"
            home.mkdir()
            options = ["--database", postgres.url(), "--nats", nats.url, "--node-name", f"{number}"]
            options += ["--address", "localhost", "--key", str(folder / "key")]
            options += ["--files", str(folder / "files")]
            servers = Servers(home, core, options=options)
            nodes.append(stack.enter_context(servers.run(REILETA)))
        tokens = folder / "tokens"
        command = [sys.executable, "-m", "reileta", "bots", "create", "--count", str(scale.bots)]
        command += ["--tokens", str(tokens), "--database", postgres.url()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"no bots: {done.stderr[-500:]}")
        yield Cluster(nodes, nats, postgres.url(), tokens.read_text().split())


def room(
    cluster: Cluster, where: Sequence[int], plan: Plan, actions: Sequence[Callable[[], None]] = ()
) -> LoadResult:
    """All send, and all others get it. The first player's node is the host. `actions`: at the
    beginning of what is measured, and at its end."""
    (instance,) = cluster.instances(where[0], 1, len(where))
    dialect = Reileta(cluster.tokens, [instance], len(where))
    clients = cluster.seat(dialect, where)
    at = (plan.warm_up_s, plan.warm_up_s + plan.seconds - 0.2)  # while it still sends
    plan = Plan(
        plan.rate, plan.seconds, plan.warm_up_s, plan.drain_s, plan.server_pid,
        tuple(zip(at, actions, strict=False)),
    )  # fmt: skip
    try:
        players = [
            Player(
                client,
                Template(dialect.message(number, payload(number, PAYLOAD_BYTES))),
                len(where) - 1,
            )
            for number, client in enumerate(clients)
        ]
        return Load(players, plan).run()
    finally:
        for client in clients:
            client.close()


def relayed(cluster: Cluster, players: int, rate: float, scale: Scale) -> Relayed:
    """Alternating rounds; of each kind, the one with the median p99."""
    local, remote = [], []
    for _ in range(scale.rounds):
        here = Plan(rate, scale.seconds, server_pid=cluster.nodes[0].pid)
        local.append(room(cluster, [0] * players, here))
        there = Plan(rate, scale.seconds, server_pid=cluster.nodes[1].pid)
        remote.append(room(cluster, [0] + [1] * (players - 1), there))
    return Relayed(_middle(local), _middle(remote))


def _middle(runs: Sequence[LoadResult]) -> LoadResult:
    def p99(run: LoadResult) -> float:
        return run.latency.p99_ms if run.latency else float("inf")

    return sorted(runs, key=p99)[len(runs) // 2]


def carried(cluster: Cluster, players: int, messages_per_s: float, seconds: float) -> Carried:
    """What NATS carries for a room whose players are at all nodes."""
    told: list[tuple[float, int, int]] = []

    def mark() -> None:
        told.append((time.monotonic(), *cluster.nats.carried()))

    where = [number % len(cluster.nodes) for number in range(players)]
    run = room(cluster, where, Plan(messages_per_s / players, seconds), (mark, mark))
    span_s = told[1][0] - told[0][0]
    return Carried(
        players,
        run.messages_per_s,
        (told[1][1] - told[0][1]) / span_s,
        (told[1][2] - told[0][2]) / span_s,
        run.share,
    )


def _open(cluster: Cluster, node: int, token: str) -> Client:
    (client,) = open_all(cluster.target(node), Reileta([token]), [0], greet=False)
    return client


def _timed_join(client: Client, instance: str) -> int:
    began = time.monotonic_ns()
    client.send(join(instance))
    while not is_join_answer(client.receive()):
        pass
    return time.monotonic_ns() - began


def joins(cluster: Cluster, count: int) -> tuple[Latency | None, Latency | None]:
    """Joins at a node that is not the host: of an instance that runs, and of new ones."""
    (instance,) = cluster.instances(0, 1, 8)
    keeper, client = _open(cluster, 0, cluster.tokens[1]), _open(cluster, 1, cluster.tokens[2])
    times: list[int] = []
    placed: list[int] = []
    try:
        _timed_join(keeper, instance)
        for _ in range(count + 3):
            times.append(_timed_join(client, instance))
            leave = (
                f'{{"state":"go","command":"instance-leave","data":{{"instance":"{instance}"}}}}'
            )
            client.send(leave.encode())
            while b'"go"' not in client.receive():
                pass
            keeper.sock.setblocking(False)
            try:
                while keeper.sock.recv(1 << 16):
                    pass
            except BlockingIOError:
                pass
        placed = [_timed_join(client, one) for one in cluster.instances(0, min(count, 50), 8)]
    finally:
        keeper.close()
        client.close()
    return Latency.of(times[3:]), Latency.of(placed)


def revocation(cluster: Cluster, count: int) -> Latency | None:
    """From the request at one node until the sockets at all nodes are closed."""
    times: list[int] = []
    for token in cluster.tokens[-count:]:
        clients = [_open(cluster, node, token) for node in range(len(cluster.nodes))]
        for client in clients:
            client.receive()  # it is authenticated
        began = time.monotonic_ns()
        with httpx.Client(base_url=cluster.target(2).http, headers=authorization(token)) as http:
            http.delete("/api/auth/logout").raise_for_status()
        for client in clients:
            try:
                while True:
                    client.receive()
            except ConnectionLost:
                client.close()
        times.append(time.monotonic_ns() - began)
    return Latency.of(times)


def lease_share(folder: Path, cluster: Cluster, scale: Scale) -> float:
    """The share of a core that an idle node needs, without what a server alone needs."""
    seconds, home = 2 * scale.seconds, folder / "alone"
    home.mkdir()
    with Servers(home, scale.pair[0] if scale.pair else None).run(REILETA) as alone:
        time.sleep(1)
        pids = [alone.pid, *(node.pid for node in cluster.nodes)]
        before = [usage(pid) for pid in pids]
        time.sleep(seconds)
        after = [usage(pid) for pid in pids]
    shares = [
        (late.cpu_s - early.cpu_s) / seconds
        for early, late in zip(before, after, strict=True)
        if early is not None and late is not None
    ]
    return statistics.mean(shares[1:]) - shares[0]


class Listener:
    """A player who notes how long it hears nothing."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.frames = FrameReader()
        self.heard_ns = 0
        self.longest_ns = 0

    def take(self, data: bytes, now_ns: int) -> None:
        for frame in self.frames.feed(data):
            if frame.opcode == PING:
                self.client.sock.send(client_frame(frame.data, PONG))
            elif DATA in frame.data:
                if self.heard_ns:
                    self.longest_ns = max(self.longest_ns, now_ns - self.heard_ns)
                self.heard_ns = now_ns


def _hosted(cluster: Cluster, node: int) -> int:
    """How many instances live at that node."""
    with urllib.request.urlopen(f"{cluster.target(node).http}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("reileta_instances "):
                return int(float(line.split()[1]))
    raise BenchmarkError("the node does not say how many instances it has")


def moved(cluster: Cluster, scale: Scale) -> Moved:
    """One player of each instance talks all the time; the others listen, half of them at the node
    that is drained."""
    instances = cluster.instances(0, scale.instances, scale.players)
    dialect = Reileta(cluster.tokens, instances, scale.players)
    total = scale.instances * scale.players
    where = [0 if number % 2 == 0 else 1 for number in range(total)]
    clients = []
    for number, node in enumerate(where):  # the first of each room places it
        clients += open_all(cluster.target(node), dialect, [number])
    listeners = {client.sock.fileno(): Listener(client) for client in clients}
    quiet = {clients[first].sock.fileno() for first in range(0, total, scale.players)}
    talk = [
        (clients[first], client_frame(dialect.message(first, b'"talk"')))
        for first in range(0, total, scale.players)
    ]
    epoll = select.epoll()
    for client in clients:
        client.sock.setblocking(False)
        epoll.register(client.sock, select.EPOLLIN)
    drain = [sys.executable, "-m", "reileta", "node", "drain", "0"]
    drain += ["--database", cluster.database, "--nats", cluster.nats.url]
    process: subprocess.Popen[bytes] | None = None
    began = due = time.monotonic()
    moved_at = asked_at = began
    done_at: float | None = None
    turn = 0
    try:
        while True:
            now = time.monotonic()
            if process is None and now > began + 1:
                for one in listeners.values():
                    one.longest_ns = 0
                process, moved_at = subprocess.Popen(drain, stdout=subprocess.DEVNULL), now
            if now > due:
                # A part of them each time, so that the load has no peaks.
                for client, frame in talk[turn::10]:
                    client.sock.send(frame)
                turn, due = (turn + 1) % 10, due + TALK_S / 10 * max(1, scale.instances / 20)
            for fd, _ in epoll.poll(0.001):
                data = listeners[fd].client.sock.recv(1 << 18)
                listeners[fd].take(data, time.monotonic_ns())
            if process is not None and done_at is None and now > asked_at + ASKED_EVERY_S:
                asked_at = now
                if not _hosted(cluster, 0):
                    done_at = now
            if done_at is not None and now > done_at + 1:  # what was still to be heard
                break
            if now > began + MOVED_S:
                raise BenchmarkError(f"not all of {scale.instances} instances have moved")
    finally:
        epoll.close()
        for client in clients:
            client.close()
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    usual_ns = int(TALK_S * 1e9 * max(1, scale.instances / 20))
    seconds = done_at - moved_at
    pauses = [max(0, one.longest_ns - usual_ns) for fd, one in listeners.items() if fd not in quiet]
    return Moved(scale.instances, total, seconds, Latency.of(pauses))


def spread(folder: Path, scale: Scale) -> Spread:
    """One room at one gateway, and over two on two cores; the load shares the second core."""
    pair, players = scale.pair, 100
    found: tuple[list[float], list[float]] = ([], [])
    placed = [pair[0], pair[1]] if pair else [None, None]
    with running(folder, scale, placed) as cluster:
        for _ in range(scale.rounds):
            for rates, many in zip(found, (1, 2), strict=True):
                best: list[LoadResult] = []
                where = [number % many for number in range(players)]

                def holds(
                    rate: float, where: Sequence[int] = where, best: list[LoadResult] = best
                ) -> bool:
                    run = room(cluster, where, Plan(rate, scale.seconds))
                    if run.sustained:
                        best.append(run)
                    return run.sustained

                highest(holds, 40, 640, scale.probes)
                rates.append(max((run.deliveries_per_s for run in best), default=0.0))
    return Spread(players, *found)


def failovers(deaths: int) -> Failovers:
    """By `tests.chaos.cluster`, whose clients come back by themselves."""
    with tempfile.TemporaryDirectory(prefix="reileta-bench-") as place:
        figures = Path(place) / "figures.json"
        command = [sys.executable, "-m", "tests.chaos.cluster", "crowded", "nats_restart"]
        command += ["--times", str(deaths), "--figures", str(figures), "--gates"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not figures.exists():
            raise BenchmarkError(f"no failover was measured: {done.stdout[-800:]}")
        told = json.loads(figures.read_text())
    died, away = told["crowded"], told["nats_restart"]
    return Failovers(
        died["times"],
        200,
        statistics.median(died["back_s"]),
        max(died["back_s"]),
        away["times"],
        statistics.median(away["back_s"]),
        max(away["back_s"]),
        died["violations"] + away["violations"],
    )


def measure(folder: Path, scale: Scale, progress: worker.Share, *, deaths: bool) -> ClusterResult:
    one, two = folder / "three", folder / "two"
    for each in (one, two):
        each.mkdir(mode=0o755)
    with running(one, scale) as cluster:
        lease = lease_share(one, cluster, scale)
        progress(0.05)
        overheads = [relayed(cluster, *load, scale) for load in LOADS]
        progress(0.3)
        per_s = 1.5 * scale.many
        many = carried(cluster, scale.many, per_s, scale.seconds)
        few = carried(cluster, 2 * NODES, per_s, scale.seconds)
        progress(0.4)
        run_join, place_join = joins(cluster, scale.joins)
        ended = revocation(cluster, scale.revocations)
        progress(0.5)
        pause = moved(cluster, scale)
    progress(0.55)
    wide = spread(two, scale)
    progress(0.8)
    found = failovers(scale.deaths) if deaths else None
    return ClusterResult(
        overheads, many, few, run_join, place_join, ended, lease, pause, wide, found
    )


def rows(found: ClusterResult) -> Iterator[tuple[str, str, str, bool | None]]:
    """What was measured: the goal, the figure, and whether the goal is met."""
    if found.failovers is not None:
        fail = found.failovers
        yield (
            f"a node dies → its {fail.players} players hear again ({fail.deaths} deaths)",
            "≤ 4.0 s median, < 5 s worst",
            f"{fail.median_s:.2f} s, {fail.worst_s:.2f} s",
            fail.median_s <= 4 and fail.worst_s < 5,
        )
        yield (
            f"NATS restarts → players at other nodes hear again ({fail.nats_restarts} times)",
            "≤ 1.5 s, none restored",
            f"median {fail.nats_median_s:.2f} s, worst {fail.nats_worst_s:.2f} s",
            fail.nats_worst_s <= 1.5,
        )
        yield "violations in both", "0", f"{fail.violations}", fail.violations == 0
    move = found.moved
    if move.pause is not None:
        yield (
            f"pause when {move.instances} instances with {move.players} players move, p99",
            "≤ 100 ms",
            f"{move.pause.p99_ms:.0f} ms (p50 {move.pause.p50_ms:.0f} ms)",
            move.pause.p99_ms <= 100,
        )
    yield "until all have moved", "≤ 15 s", f"{move.seconds:.1f} s", move.seconds <= 15
    for one, limit_ms in zip(found.relayed, (3, 5), strict=False):
        local, remote = one.local.latency, one.remote.latency
        if local is not None and remote is not None and one.more_ms is not None:
            yield (
                (
                    f"p99 of a remote player, of a local one, {one.local.deliveries_per_s:,.0f} "
                    "deliveries/s"
                ),
                f"≤ + {limit_ms} ms",
                f"{remote.p99_ms:.1f} ms, {local.p99_ms:.1f} ms (+ {one.more_ms:.1f})",
                one.more_ms <= limit_ms,
            )
        if one.cpu_ratio is not None:
            yield (
                "a gateway's CPU for a delivery / a local host's",
                "≤ 1.15",
                f"{one.cpu_ratio:.2f}",
                one.cpu_ratio <= 1.15,
            )
    many, few = found.many, found.few
    yield (
        f"bytes on NATS, {many.players} players at three gateways / {few.players} who send as much",
        "0.95 to 1.05",
        (
            f"{found.bytes_ratio:.2f} ({many.bytes_out_per_s / 1024:,.0f} KiB/s and "
            f"{many.publishes_per_s:,.0f} publishes/s for {many.messages_per_s:,.0f} messages/s)"
        ),
        0.95 <= found.bytes_ratio <= 1.05,
    )
    for what, latency, limit_ms in (
        ("join of an instance at another node, p99", found.running_join, 15),
        ("join of an instance that is to be placed, p99", found.placed_join, 60),
        ("a token ends → its sockets at three nodes are closed, worst", found.revocation, 1000),
    ):
        if latency is not None:
            ms = latency.max_ms if "worst" in what else latency.p99_ms
            figure = f"{ms:.1f} ms (p50 {latency.p50_ms:.1f} ms)"
            yield what, f"≤ {limit_ms} ms", figure, ms <= limit_ms
    yield (
        "an idle node of three, without what a server alone needs",
        "< 0.5 % of a core",
        f"{found.lease_core_share:.2%}",
        found.lease_core_share < 0.005,
    )
    wide = found.spread
    one_rate, two_rate = (
        statistics.median(rates) for rates in (wide.one_gateway, wide.two_gateways)
    )
    yield (
        f"one room of {wide.players}: the highest rate over two gateways on two cores / at one",
        "",
        f"{two_rate / one_rate:.2f} ({two_rate:,.0f} and {one_rate:,.0f} deliveries/s)"
        if one_rate
        else "-",
        None,
    )


def markdown(found: ClusterResult) -> Iterator[str]:
    """The table of `docs/benchmarks.md`."""
    yield "| question | goal | found |"
    yield "|---|---|---|"
    for what, goal, figure, good in rows(found):
        yield f"| {what} | {goal} | {figure}{'' if good is not False else ' (missed)'} |"


def main(
    quick: Annotated[bool, typer.Option(help="Short runs, for a first test.")] = False,
    table: Annotated[bool, typer.Option(help="Print the table of the documentation.")] = False,
    deaths: Annotated[bool, typer.Option(help="Measure failovers, too.")] = True,
    json: worker.Json = False,
    core: worker.Core = None,
) -> None:
    """Three nodes of one server, which are started for it."""

    pair = cores()

    def job(progress: worker.Share) -> ClusterResult:
        with tempfile.TemporaryDirectory(prefix="reileta-bench-") as place:
            Path(place).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            scale = Scale.of(quick=quick, pair=pair)
            return measure(Path(place), scale, progress, deaths=deaths)

    chosen = core if core is not None else (pair[1] if pair else None)
    found = worker.work("several nodes", job, as_json=json, core=chosen)
    if table:
        print("\n".join(markdown(found)))


if __name__ == "__main__":
    typer.run(main)
