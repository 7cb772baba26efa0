"""Trust between two servers: challenges, introductions, and reads of the other server's objects.

    python -m benchmarks.federation [--rounds 100] [--reads 1000]

Starts two servers of its own at 127.0.0.2 and 127.0.0.3, which reach each other without TLS. They
share a core, so a time that both work for is the sum of their work.

- A user of the first server gets a token for the second one. With a new challenge: the second
  server has revoked the first one's token before. The difference is the challenge, both its ways.
- Challenges that are refused, because nobody is at the address that they claim.
- The same list from the server itself, from the other server through it with and without its cache,
  and from the other server directly.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from benchmarks import worker
from benchmarks.errors import BenchmarkError
from benchmarks.machine import cores, usage
from benchmarks.servers import REILETA, Running, Servers
from benchmarks.stats import Latency

HOSTS: Final = ("127.0.0.2", "127.0.0.3")
STRANGERS: Final = 8
"""Connections that send challenges which are refused."""
NOWHERE: Final = "127.0.0.4:1025"
"""An address of a server at which nobody listens. It may be connected to, as ports below 1024 may
not."""
PASSWORD: Final = "only a benchmark"
WARM_UP: Final = 3


class FederationResult(msgspec.Struct, frozen=True):
    """Latencies of requests, from the client to its answer."""

    introduction: Latency | None
    introduction_with_challenge: Latency | None
    refused_challenge_cpu_ms: float | None
    """CPU time of the server that refuses, for each."""
    local_read: Latency | None
    cached_read: Latency | None
    direct_read: Latency | None
    """Of the other server, asked by the client itself."""
    uncached_read: Latency | None

    @property
    def challenge_ms(self) -> float | None:
        """Both ways of a challenge, from medians."""
        return _difference(self.introduction_with_challenge, self.introduction)

    @property
    def cached_more_ms(self) -> float | None:
        """By how much a cached read is slower than a local one."""
        return _difference(self.cached_read, self.local_read)

    @property
    def uncached_more_ms(self) -> float | None:
        """By how much an uncached read is slower than a direct one."""
        return _difference(self.uncached_read, self.direct_read)


def _difference(one: Latency | None, other: Latency | None) -> float | None:
    return None if one is None or other is None else one.p50_ms - other.p50_ms


@dataclass
class Api:
    """A server's HTTP API over one connection, for one account."""

    address: str
    token: str = ""

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(self.address, timeout=60)

    def call(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
        """`data` of the answer. Raises BenchmarkError for another status."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent = None
        if body is not None:
            sent, headers["Content-Type"] = json.dumps(body), "application/json"
        self._connection.request(method, path, sent, headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.status != status:
            raise BenchmarkError(f"{method} {path}: {answer.status} {raw[:300]!r}")
        return json.loads(raw).get("data")

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def register(self, username: str) -> None:
        """Makes an account, and uses it."""
        account = {"username": username, "password": PASSWORD}
        self.token = self.call("POST", "/api/auth/register", account)["token"]


def timed(work: Callable[[], object], count: int, before: Callable[[], object]) -> Latency | None:
    """How long the work takes; `before` comes before each time, and does not count."""
    times_ns = []
    for number in range(count + WARM_UP):
        before()
        began_ns = time.monotonic_ns()
        work()
        if number >= WARM_UP:
            times_ns.append(time.monotonic_ns() - began_ns)
    return Latency.of(times_ns)


def nothing() -> None:
    """No preparation."""


def introductions(a: Api, b: Api, rounds: int) -> tuple[Latency | None, Latency | None]:
    """Without and with a challenge. `b` is an admin of its server."""
    wanted = {"server": b.address}

    def introduce() -> None:
        a.call("POST", "/api/integrity", wanted)

    def revoke() -> None:
        for token in b.call("GET", f"/api/servers/{a.address}")["tokens"]:
            b.call("DELETE", f"/api/challenges/{token['id']}")

    introduce()
    return timed(introduce, rounds, nothing), timed(introduce, rounds, revoke)


def refused_challenges(address: str, running: Running, rounds: int) -> float | None:
    """CPU time of the server for each, in ms, without what it uses in the same time anyway.

    They come from several connections: each answer waits for a quarter of a second, in which the
    server would use as much without any challenge.
    """

    def refuse(_: int) -> None:
        with closing(Api(address)) as stranger:
            for _ in range(rounds):
                challenge = {
                    "server": NOWHERE,
                    "id": secrets.token_urlsafe(32),
                    "nonce": secrets.token_urlsafe(32),
                }
                stranger.call("PUT", "/api/challenges", challenge, status=403)

    def refuse_all() -> None:
        with ThreadPoolExecutor(STRANGERS) as threads:
            list(threads.map(refuse, range(STRANGERS)))

    began_s = time.monotonic()
    busy_s = cpu_of(running, refuse_all)
    seconds = time.monotonic() - began_s
    idle_s = cpu_of(running, lambda: time.sleep(seconds))
    if busy_s is None or idle_s is None:
        return None
    return (busy_s - idle_s) * 1000 / (rounds * STRANGERS)


def cpu_of(running: Running, work: Callable[[], object]) -> float | None:
    """CPU seconds of the server and its PostgreSQL during the work."""
    before = usage(running.pid)
    work()
    after = usage(running.pid)
    return None if before is None or after is None else after.cpu_s - before.cpu_s


def reads(a: Api, b: Api, count: int) -> dict[str, Latency | None]:
    """Lists of worlds. Without a cache: each with another text to search for."""
    numbers = iter(range(10**9))

    def read(api: Api, query: str, *, fresh: bool = False) -> None:
        text = f"&query=w{next(numbers)}" if fresh else ""
        api.call("GET", f"/api/worlds?limit=20{query}{text}")

    elsewhere = f"&server={b.address}"
    return {
        "local_read": timed(lambda: read(a, ""), count, nothing),
        "cached_read": timed(lambda: read(a, elsewhere), count, nothing),
        "direct_read": timed(lambda: read(b, "", fresh=True), count, nothing),
        "uncached_read": timed(lambda: read(a, elsewhere, fresh=True), count, nothing),
    }


def free_port(host: str) -> int:
    """A port that nobody listens on, and that nobody else is given: it stays bound."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a server can listen there
    sock.bind((host, 0))
    port: int = sock.getsockname()[1]
    sock.detach()
    return port


@contextmanager
def two_servers(folder: Path) -> Iterator[tuple[tuple[str, Running], tuple[str, Running]]]:
    """Addresses and processes of two servers, with an admin `operator` at the second one."""
    pair = cores()
    ports = [free_port(host) for host in HOSTS]
    addresses = [f"{host}:{port}" for host, port in zip(HOSTS, ports, strict=True)]
    shared = ["--federation-allow", "127.0.0.0/8"]
    shared += ["--federation-insecure", ",".join([*addresses, NOWHERE])]
    servers = []
    for host, port, address in zip(HOSTS, ports, addresses, strict=True):
        place = folder / host
        place.mkdir(mode=0o755)
        options = ["--host", host, "--port", str(port), "--address", address, *shared]
        servers.append(Servers(place, pair[0] if pair else None, options=options))
    first, second = servers
    with first.run(REILETA) as a, second.run(REILETA) as b:
        yield (addresses[0], a), (addresses[1], b)


def make_admin(api: Api, folder: Path) -> None:
    """Registers an admin of the server, whose data is in the folder."""
    api.register("operator")
    command = [sys.executable, "-m", "reileta", "admin", "grant", "operator"]
    done = subprocess.run(
        [*command, "--data", str(folder / "data")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchmarkError(f"no admin could be made: {done.stderr.strip()}")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            api.call("GET", "/api/servers")
        except BenchmarkError:
            time.sleep(0.2)  # the server notices within a second
        else:
            return
    raise BenchmarkError("the server did not notice its new admin")


def measure(folder: Path, rounds: int, count: int, progress: worker.Share) -> FederationResult:
    with (
        two_servers(folder) as ((first, _), (second, running)),
        closing(Api(first)) as a,
        closing(Api(second)) as b,
    ):
        a.register("ann")
        make_admin(b, folder / HOSTS[1])
        for api in (a, b):
            for number in range(20):
                api.call("PUT", "/api/worlds", {"title": f"World {number}"})
        progress(0.1)
        known, new = introductions(a, b, rounds)
        progress(0.5)
        refused_ms = refused_challenges(second, running, min(rounds, 50))
        progress(0.7)
        return FederationResult(known, new, refused_ms, **reads(a, b, count))


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Introductions of each kind.")] = 100,
    count: Annotated[int, typer.Option("--reads", min=1, help="Reads of each kind.")] = 1000,
    json: worker.Json = False,
    core: worker.Core = None,
) -> None:
    """Trust between two servers, which are started for it."""

    def job(progress: worker.Share) -> FederationResult:
        with tempfile.TemporaryDirectory(prefix="reileta-bench-") as place:
            Path(place).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            return measure(Path(place), rounds, count, progress)

    worker.work(f"{rounds} introductions, {count} reads", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
