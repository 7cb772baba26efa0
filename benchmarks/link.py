"""A room on an instance node, over its link and directly, compared with one at the server.

    python -m benchmarks.link [--players 8 --rate 20 --rounds 5]

Starts a server and an instance node of its own, on loopback: both on one core, the load on another
one. The same players send the same messages in three rooms, in alternating rounds: at the server;
on the node, whose link each message goes over twice; and on the node over direct connections.
"""

from __future__ import annotations

import json as json_
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import httpx
import msgspec
import typer

from benchmarks import worker
from benchmarks.cluster import answers, free_port
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import Reileta, authorization
from benchmarks.errors import BenchmarkError
from benchmarks.frames import Template, payload
from benchmarks.load import Load, LoadResult, Plan, Player
from benchmarks.machine import cores, pinned
from benchmarks.servers import REILETA, Servers

PAYLOAD_BYTES: Final = 150
STARTED_S: Final = 60.0
NAMES: Final = ("at the server", "over the link", "directly")


class LinkRow(msgspec.Struct, frozen=True):
    """One kind of room: medians over the rounds."""

    room: str
    p50_ms: float
    p99_ms: float
    more_p50_ms: float
    """The median of the differences to the room at the server, of the same round."""
    more_p99_ms: float
    least_p99_ms: float
    most_p99_ms: float
    delivered: float


class LinkResult(msgspec.Struct, frozen=True):
    """What a link adds."""

    players: int
    rate: float
    rounds: int
    load_average: float
    """Of the machine, at the end: other work makes every figure larger."""
    rows: list[LinkRow]


@dataclass(frozen=True)
class Hosted:
    """A server, a node with a link to it, and accounts; the first one owns the node."""

    target: Target
    node: str
    where: Target
    tokens: Sequence[str]


@dataclass(frozen=True)
class AtNode:
    """Clients that show a ticket, as `benchmarks.connect.Dialect`."""

    tickets: Mapping[int, str]

    def path(self, number: int) -> str:
        return "/api/ws"

    def headers(self, number: int) -> dict[str, str]:
        return {}

    def greeting(self, number: int) -> bytes | None:
        shown = {"state": 0, "command": "authenticate", "data": {"ticket": self.tickets[number]}}
        return json_.dumps(shown).encode()

    def greeted(self, number: int, message: bytes) -> bool:
        if b'"error"' in message:
            raise BenchmarkError(f"the node refused a ticket: {message.decode()}")
        return b'"authenticate"' in message

    def message(self, number: int, payload: bytes) -> bytes:
        return b'{"command":"instance-data","data":' + payload + b"}"


def _ask(client: Client, command: str, instance: str, **more: object) -> object:
    """The data of the answer at the server."""
    client.send(
        json_.dumps({"state": "ask", "command": command, "subgroup": instance, **more}).encode()
    )
    while True:
        told = json_.loads(client.receive())
        if told.get("state") == "ask":
            if "error" in told:
                raise BenchmarkError(f"{command} was refused: {told['error']}")
            return told["data"]


def seat_directly(hosted: Hosted, instance: str, clients: Sequence[Client]) -> list[Client]:
    """Connects the clients of the server to the node, too; returns these connections once all data
    goes over them."""
    tickets: dict[int, str] = {}
    for number, client in enumerate(clients):
        way = _ask(client, "instance-ticket", instance)
        assert isinstance(way, dict)
        tickets[number] = way["ticket"]
    direct = open_all(hosted.where, AtNode(tickets), range(len(clients)))
    try:
        for client in clients:
            while b'"begun"' not in client.receive():
                pass
            _ask(client, "instance-data", instance, data=None, to=[])
    except BaseException:
        for client in direct:
            client.close()
        raise
    return direct


def room(hosted: Hosted, name: str, players: int, plan: Plan) -> LoadResult:
    """All send, and all others get it."""
    body: dict[str, object] = {"capacity": max(2, players), "tags": ["avr:public"]}
    if name != NAMES[0]:
        body["node"] = hosted.node
    with _http(hosted.target, hosted.tokens[0]) as http:
        body["world"] = _made(http.put("/api/worlds", json={"title": "Benchmark"}))["id"]
        instance = str(_made(http.put("/api/instances", json=body))["id"])
        dialect = Reileta(hosted.tokens, [instance], players)
        clients = open_all(hosted.target, dialect, range(players))
        try:
            direct = seat_directly(hosted, instance, clients) if name == NAMES[2] else []
            message = AtNode({}).message if direct else dialect.message
            seated = [
                Player(
                    client, Template(message(number, payload(number, PAYLOAD_BYTES))), players - 1
                )
                for number, client in enumerate(direct or clients)
            ]
            try:
                return Load(seated, plan).run()
            finally:
                for client in direct:
                    client.close()
        finally:
            for client in clients:
                client.close()
            http.delete(f"/api/instances/{instance}")  # a node has a capacity


def _http(target: Target, token: str) -> httpx.Client:
    return httpx.Client(base_url=target.http, headers=authorization(token), timeout=60)


def _made(answer: httpx.Response) -> dict[str, object]:
    if answer.status_code != 200:
        raise BenchmarkError(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")
    data: dict[str, object] = answer.json()["data"]
    return data


@contextmanager
def running(folder: Path, players: int, core: int | None) -> Iterator[Hosted]:
    """A server and a node for the block."""
    port = free_port()
    options = ("--federation-allow", "127.0.0.0/8", "--federation-insecure", f"127.0.0.1:{port}")
    servers = Servers(folder, core, options=options)
    servers.make_bots(players)
    tokens = servers.tokens.read_text().split()
    with ExitStack() as stack:
        target = Target.parse(stack.enter_context(servers.run(REILETA)).url)
        direct = {"address": f"127.0.0.1:{port}", "secure": False}
        http = stack.enter_context(_http(target, tokens[0]))
        made = _made(http.put("/api/nodes", json={"title": "Attic", "direct": direct}))
        command = [sys.executable, "-m", "reileta", "ins", "--direct", f"127.0.0.1:{port}"]
        command += ["--gateway", target.http.replace("http", "ws", 1)]
        log = stack.enter_context((folder / "node.log").open("wb"))
        with pinned(core):
            node = subprocess.Popen(
                command,
                env={**os.environ, "REILETA_NODE_TOKEN": str(made["token"])},
                stdout=log,
                stderr=log,
            )
        stack.callback(node.wait)
        stack.callback(node.terminate)

        def online() -> bool:
            status = _made(http.get(f"/api/nodes/{made['id']}"))["status"]
            return status == "online" and answers(port)

        _until(online, "the node has no link")
        time.sleep(1)  # the server looks whether the node can be reached
        yield Hosted(target, str(made["id"]), Target.parse(f"ws://127.0.0.1:{port}"), tokens)


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + STARTED_S
    while not holds():
        if time.monotonic() > deadline:
            raise BenchmarkError(otherwise)
        time.sleep(0.05)


def row(name: str, rounds: Sequence[LoadResult], whole: Sequence[LoadResult]) -> LinkRow:
    """`whole`: the rooms at the server, of the same rounds."""
    pairs = [
        (mine.latency, its.latency)
        for mine, its in zip(rounds, whole, strict=True)
        if mine.latency is not None and its.latency is not None
    ]
    if not pairs:
        raise BenchmarkError(f"no message came in the room {name}")
    more_p99 = [mine.p99_ms - its.p99_ms for mine, its in pairs]
    return LinkRow(
        room=name,
        p50_ms=statistics.median(mine.p50_ms for mine, _ in pairs),
        p99_ms=statistics.median(mine.p99_ms for mine, _ in pairs),
        more_p50_ms=statistics.median(mine.p50_ms - its.p50_ms for mine, its in pairs),
        more_p99_ms=statistics.median(more_p99),
        least_p99_ms=min(more_p99),
        most_p99_ms=max(more_p99),
        delivered=min(one.share for one in rounds),
    )


def main(
    players: Annotated[int, typer.Option(min=2, help="Players in each room.")] = 8,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages/s per player.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Alternating rounds.")] = 5,
    seconds: worker.Seconds = 4,
    json: worker.Json = False,
) -> None:
    """Starts a server and a node, and measures how much latency the node's link adds to a room."""

    def job(progress: worker.Share) -> LinkResult:
        pair = cores()
        found: dict[str, list[LoadResult]] = {name: [] for name in NAMES}
        with tempfile.TemporaryDirectory(prefix="reileta-bench-") as made:
            Path(made).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            with running(Path(made), players, pair[0] if pair else None) as hosted:
                if pair:
                    os.sched_setaffinity(0, {pair[1]})
                plan = Plan(rate, seconds, 1.0, 1.0)
                steps = rounds * len(NAMES)
                for number in range(steps):
                    turn, place = divmod(number, len(NAMES))
                    name = NAMES[(turn + place) % len(NAMES)]
                    found[name].append(room(hosted, name, players, plan))
                    progress((number + 1) / steps)
        rows = [row(name, found[name], found[NAMES[0]]) for name in NAMES]
        return LinkResult(players, rate, rounds, os.getloadavg()[0], rows)

    worker.work(f"{players} players on a node", job, as_json=json)


if __name__ == "__main__":
    typer.run(main)
