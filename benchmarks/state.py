"""Two sockets of one session change its state: the time from a patch to its Ack.

    python -m benchmarks.state [--rate 200] [--seconds 10]

Each socket sends that many patches per second to a server with its own durable embedded database on
another core. At the end both sockets and the database must have the same state and version.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from benchmarks.killable import Server, ack, event
from benchmarks.machine import cores
from benchmarks.stats import percentile
from reileta.rules.resource.merge_patch import apply_object

PASSWORD = "correct horse battery staple"


@dataclass
class Socket:
    """One of the two sockets, with its copy of the state."""

    name: str
    wire: WebSocketConnection
    state: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    waiting: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    took_ns: list[int] = field(default_factory=list)

    async def send(self, rate: float, seconds: float) -> None:
        """Sends patches at a steady rate."""
        began = trio.current_time()
        for number in range(int(rate * seconds)):
            await trio.sleep_until(began + number / rate)
            patch = {self.name: number, f"{self.name}{number % 16}": {"at": number}}
            message = event(patch)
            self.waiting[message["id"]] = (time.perf_counter_ns(), patch)
            await self.wire.send_message(json.dumps(message))

    async def read(self) -> None:
        """Receives messages and acknowledges them."""
        while True:
            message = json.loads(await self.wire.get_message())
            if message["type"] == "ack":
                sent_ns, patch = self.waiting.pop(message["id"])
                self.took_ns.append(time.perf_counter_ns() - sent_ns)
                self._change(patch)
                continue
            await self.wire.send_message(json.dumps(ack(message["id"])))
            payload = message["payload"]
            if payload["kind"] == "state":
                self._change(payload["patch"])

    def _change(self, patch: dict[str, Any]) -> None:
        self.state = apply_object(self.state, patch)
        self.version += 1


async def measure(data: Path, rate: float, seconds: float) -> int:
    """Runs the benchmark, prints the result, and returns the exit status."""
    pair = cores()
    server = Server(data, core=pair[0] if pair else None)
    await server.start()
    if pair:
        os.sched_setaffinity(0, {pair[1]})
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        account = {"username": "ada", "password": PASSWORD}
        await client.post("/api/auth/register", json=account)
        first = (await client.post("/auth/login", json=account)).json()["token"]
        recovered = {**account, "session_id": first["session"]["id"]}
        second = (await client.post("/auth/login", json=recovered)).json()["token"]
        url = server.url.replace("http", "ws", 1) + "/ws/user"
        ways = [[(b"Authorization", f"Bearer {one['access']}".encode())] for one in (first, second)]
        async with (
            open_websocket_url(url, extra_headers=ways[0]) as one,
            open_websocket_url(url, extra_headers=ways[1]) as two,
            trio.open_nursery() as nursery,
        ):
            sockets = [Socket("a", one), Socket("b", two)]
            nursery.start_soon(server.read)
            for socket in sockets:
                nursery.start_soon(socket.read)
            async with trio.open_nursery() as sending:
                for socket in sockets:
                    sending.start_soon(socket.send, rate, seconds)
            total = 2 * int(rate * seconds)
            with trio.move_on_after(10):
                while any(one.waiting or one.version < total for one in sockets):
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        headers = {"Authorization": f"Bearer {first['access']}"}
        kept = (await client.get("/session", headers=headers)).json()["session"]["state"]
    await server.stop()
    same = all(one.state == kept and one.version == total for one in sockets)
    took = sorted(ns for one in sockets for ns in one.took_ns)
    figures = {f"p{int(share * 100)}": percentile(took, share) / 1e6 for share in (0.5, 0.99)}
    summary = ", ".join(f"{name} {ms:.1f} ms" for name, ms in figures.items())
    print(
        f"{len(took)} of {total} patches acknowledged: {summary}, longest {took[-1] / 1e6:.1f} ms"
    )
    print(
        "both sockets and the database have the same state"
        if same
        else "THE SOCKETS AND THE DATABASE DIFFER"
    )
    return 0 if same and len(took) == total else 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reileta-state-") as folder:
        Path(folder).chmod(0o711)
        return trio.run(measure, Path(folder) / "data", given.rate, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
