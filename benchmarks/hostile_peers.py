"""What the users of a server notice while servers that they ask for do their worst.

    python -m benchmarks.hostile_peers [--rounds 6] [--seconds 5]

Starts a server, and in another process hostile peers and users who read from them all the time:
100 peers that hang, and others that answer a byte at a time, without an end, with redirects, and
with a million items. In alternating rounds, with them and without, it measures reads of this
server's own list and `instance-data` from one socket to another. A difference of p99 within a fifth
is none; on a machine with other work, rounds of one kind differ by more.
"""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import trio
import typer
from websockets.sync.client import ClientConnection, connect

from benchmarks import worker
from benchmarks.federation import HOSTS, Api, free_port
from benchmarks.machine import cores, usage
from benchmarks.servers import REILETA, Running, Servers
from benchmarks.stats import Latency

HOST: Final = HOSTS[0]
PEERS: Final = "127.0.0.9"
HANGING: Final = 100
USERS: Final = 10
AT_ONCE: Final = 4
"""Requests that each hostile user has under way."""
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_ITEMS: Final = b'{"data": {"items": [' + b"0," * 500_000 + b"0]}}"


class HostilePeersResult(msgspec.Struct, frozen=True):
    """Latencies without and with hostile peers, and the server's memory at the end."""

    read_alone: Latency | None
    read: Latency | None
    data_alone: Latency | None
    data: Latency | None
    hostile_answers: int
    rss_alone_mib: float | None
    rss_mib: float | None


async def hang(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def drip(stream: trio.SocketStream) -> None:
    await stream.send_all(_OK + b"Content-Length: 1000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.2)


async def never_end(stream: trio.SocketStream) -> None:
    await stream.send_all(_OK + b"\r\n")
    while True:
        await stream.send_all(bytes(65536))


async def redirect(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1/\r\n\r\n")


async def many_items(stream: trio.SocketStream) -> None:
    await stream.send_all(_OK + b"Content-Length: %d\r\n\r\n%b" % (len(_ITEMS), _ITEMS))


BEHAVIOURS: Final = (drip, never_end, redirect, many_items)


async def play(ports: Sequence[int]) -> None:
    """The hostile peers: one at each port, most of which hang."""

    async def serve(
        behave: Callable[[trio.SocketStream], object], stream: trio.SocketStream
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                await stream.receive_some()
                await behave(stream)  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        for port, behave in zip(ports, (*(hang,) * HANGING, *BEHAVIOURS), strict=True):
            await nursery.start(partial(trio.serve_tcp, partial(serve, behave), port, host=PEERS))


def free_ports(count: int) -> list[int]:
    """As many ports of the peers that nobody listens on."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port(PEERS))
    return sorted(found)


def ask(
    address: str, token: str, ports: Iterator[int], on: Event, count: Callable[[], None]
) -> None:
    """Reads from one hostile peer after the other while the event is set."""
    for number, port in enumerate(ports):
        on.wait()
        connection = http.client.HTTPConnection(address, timeout=30)
        path = f"/api/users?server={PEERS}:{port}&query=q{number}"
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            connection.getresponse().read()
            count()
        connection.close()


def attack(address: str, tokens: Sequence[str], ports: Sequence[int], on: Event, done: Any) -> None:
    """The process of the hostile peers and users."""
    lock = threading.Lock()

    def count() -> None:
        with lock:
            done.value += 1

    # Every other request is to a peer that does not just hang.
    turns = [
        port for pair in zip(ports[:HANGING], itertools.cycle(ports[HANGING:])) for port in pair
    ]
    for number, token in enumerate(token for token in tokens for _ in range(AT_ONCE)):
        own = itertools.islice(itertools.cycle(turns), number * 7, None)
        threading.Thread(target=ask, args=(address, token, own, on, count), daemon=True).start()
    trio.run(play, ports)


@contextmanager
def hostile(
    address: str, tokens: Sequence[str], ports: Sequence[int]
) -> Iterator[tuple[Event, Any]]:
    """Hostile peers and users, which work while the event is set."""
    spawn = multiprocessing.get_context("spawn")
    on, done = spawn.Event(), spawn.Value("i", 0)
    process = spawn.Process(target=attack, args=(address, tokens, ports, on, done), daemon=True)
    process.start()
    try:
        yield on, done
    finally:
        process.kill()
        process.join()


def exchange(socket: ClientConnection, command: str, data: object, **more: object) -> None:
    """Sends a command, and waits for its answer."""
    socket.send(json.dumps({"command": command, "data": data, "state": 1, **more}))
    while json.loads(socket.recv(30)).get("state") != 1:
        pass


def visitor(stack: ExitStack, address: str, token: str, instance: str) -> ClientConnection:
    socket = stack.enter_context(connect(f"ws://{address}/api/ws"))
    exchange(socket, "authenticate", {"token": token})
    exchange(socket, "instance-join", {"instance": instance})
    return socket


def measure(
    folder: Path, rounds: int, seconds: float, progress: worker.Share
) -> HostilePeersResult:
    ports = free_ports(HANGING + len(BEHAVIOURS))
    pair = cores()
    port = free_port(HOST)
    address = f"{HOST}:{port}"
    insecure = ",".join(f"{PEERS}:{port}" for port in ports)
    options = ["--host", HOST, "--port", str(port), "--address", address, "--rate-limits", "off"]
    options += ["--federation-allow", "127.0.0.0/8", "--federation-insecure", insecure]
    with ExitStack() as stack:
        running = stack.enter_context(
            Servers(folder, pair[0] if pair else None, options=options).run(REILETA)
        )
        users = [stack.enter_context(closing(Api(address))) for _ in range(USERS + 2)]
        for number, user in enumerate(users):
            user.register(f"user{number}")
        first, second, *enemies = users
        world = first.call("PUT", "/api/worlds", {"title": "World"})["id"]
        room = first.call("PUT", "/api/instances", {"world": world, "tags": ["avr:public"]})["id"]
        sender, receiver = (visitor(stack, address, one.token, room) for one in (first, second))
        on, done = stack.enter_context(hostile(address, [one.token for one in enemies], ports))
        reads: dict[bool, list[int]] = {False: [], True: []}
        data: dict[bool, list[int]] = {False: [], True: []}
        alone_mib = None
        for number in range(rounds * 2):
            under_attack = number % 2 == 1
            (on.set if under_attack else on.clear)()
            time.sleep(1 if under_attack else 6)  # what is under way ends within 5 s
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                reads[under_attack].append(_time(lambda: first.call("GET", "/api/worlds?limit=20")))
                data[under_attack].append(_time(partial(_pass_on, sender, receiver, room)))
                time.sleep(0.005)
            if not number:
                alone_mib = _rss_mib(running)
            progress((number + 1) / rounds / 2)
        return HostilePeersResult(
            Latency.of(reads[False]),
            Latency.of(reads[True]),
            Latency.of(data[False]),
            Latency.of(data[True]),
            done.value,
            alone_mib,
            _rss_mib(running),
        )


def _time(work: Callable[[], object]) -> int:
    began_ns = time.monotonic_ns()
    work()
    return time.monotonic_ns() - began_ns


def _pass_on(sender: ClientConnection, receiver: ClientConnection, room: str) -> None:
    sender.send(json.dumps({"command": "instance-data", "data": 1, "subgroup": room}))
    while json.loads(receiver.recv(30)).get("command") != "instance-data":
        pass


def _rss_mib(running: Running) -> float | None:
    used = usage(running.pid)
    return None if used is None else used.rss_bytes / 2**20


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each kind.")] = 6,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each round.")] = 5,
    json: worker.Json = False,
    core: worker.Core = None,
) -> None:
    """Local reads and data while other servers do their worst."""

    def job(progress: worker.Share) -> HostilePeersResult:
        with tempfile.TemporaryDirectory(prefix="reileta-bench-") as place:
            Path(place).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            return measure(Path(place), rounds, seconds, progress)

    worker.work(f"{rounds} rounds with hostile peers", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
