"""A cluster to try: three nodes, NATS and PostgreSQL on loopback, until Ctrl+C.

`make cluster` runs it. All programs come from the locked wheels; their data is in a folder that is
removed at the end. `--seconds` ends it by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import trio

from reileta.observability import log_events
from reileta.store.embedded.cluster import Cluster
from tests.nats_server import nats_server
from tests.ports import free_port

NODES: Final = ("one", "two", "three")
ROLES: Final = ("eta", "ins", "reil")
ADDRESS: Final = "localhost"
STARTED_S: Final = 120.0


class TriedNode:
    """A node whose output goes to a file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    async def ready(self) -> str:
        """Its URL, once it is ready."""
        with trio.fail_after(STARTED_S):
            while True:
                for line in self.log.read_text().splitlines():
                    event = json.loads(line)
                    if event["event"] == log_events.SERVER_READY:
                        url: str = event["url"]
                        return url
                if self.process.poll() is not None:
                    raise SystemExit(f"node {self.name} ended: {self.errors}")
                await trio.sleep(0.05)

    @property
    def errors(self) -> str:
        return self.log.with_suffix(".err").read_text()


def _start(name: str, folder: Path, database: str, nats: str, *more: str) -> TriedNode:
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "reileta", "serve", "--port", "0", "--log-format", "json"]
    command += ["--database", database, "--nats", nats, "--node-name", name]
    command += ["--address", ADDRESS, "--data", str(folder / name), "--key", str(folder / "key")]
    command += ["--files", str(folder / "files"), *more]
    with log.open("wb") as out, log.with_suffix(".err").open("wb") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True)
    return TriedNode(name, process, log)


async def _stop(node: TriedNode) -> None:
    node.process.terminate()
    with trio.move_on_after(15.0):
        while node.process.poll() is None:
            await trio.sleep(0.05)
        return
    node.process.kill()
    node.process.wait()


async def _until_stopped(seconds: float | None) -> None:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.move_on_after(math.inf if seconds is None else seconds),
    ):
        async for _ in signals:
            return


def _role(name: str, folder: Path, urls: dict[str, str]) -> list[str]:
    """The options of a process with one role. The gateway starts last."""
    secret = folder / "gateway-secret"
    if not secret.exists():
        secret.write_text(secrets.token_hex(32))
    options = ["--role", name]
    if name == "eta":
        options += ["--trusted-proxies", "127.0.0.1", "--gateway-secret", str(secret)]
    if name == "reil":
        port = str(free_port())  # it must know it, for the URLs in its answers
        options += ["--eta", urls["eta"], "--gateway-secret", str(secret)]
        options += ["--port", port, "--gateway-address", f"127.0.0.1:{port}"]
    return options


def _show(
    urls: dict[str, str], nodes: list[TriedNode], folder: Path, where: str, *, roles: bool
) -> None:
    if roles:
        print(f"Three processes of one server. Clients use the gateway, {urls['reil']}:\n")
    else:
        print("Three nodes of one server:\n")
    for node in nodes:
        print(f"  {node.name:6} {urls[node.name]:24} pid {node.process.pid}  log {node.log}")
    for line in nodes[0].errors.splitlines():
        if "password" in line:
            print(f"\n{line}")
    program = f"{Path(sys.executable).with_name('reileta')}"
    tries = (
        f"""\
  curl -i {urls["reil"]}/api/worlds      # answered by the registry
  kill {nodes[0].process.pid}; curl -i {urls["reil"]}/api/worlds      # 503, from the gateway
  {program} clients block agent 'curl*' {where.partition(" --nats")[0]}"""
        if roles
        else f"""\
  {program} bots create --count 2 --tokens {folder}/tokens {where.partition(" --nats")[0]}
  kill -9 {nodes[0].process.pid}      # its instances have another host within 4 s
  {program} node drain two {where}"""
    )
    print(
        f"""
Try it (in another terminal):

  {program} node list {where}
  {program} cluster status {where}
{tries}

Ctrl+C stops all of it, and removes {folder}.""",
        flush=True,
    )


async def run(seconds: float | None, roles: bool) -> None:
    """Starts it, and stops it at a signal or after so many seconds."""
    with tempfile.TemporaryDirectory(prefix="reileta-cluster-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another account if this is root
        postgresql = Cluster(folder / "postgresql")
        await trio.to_thread.run_sync(postgresql.start)
        nodes: list[TriedNode] = []
        try:
            (folder / "nats").mkdir()
            async with nats_server(folder / "nats", max_payload_bytes=1024 * 1024) as nats:
                try:
                    urls: dict[str, str] = {}
                    # One by one: the first one makes the database's tables.
                    for each in ROLES if roles else NODES:
                        more = _role(each, folder, urls) if roles else []
                        node = _start(each, folder, postgresql.url(), nats.url, *more)
                        nodes.append(node)
                        urls[each] = await node.ready()
                    where = f"--database '{postgresql.url()}' --nats {nats.url}"
                    _show(urls, nodes, folder, where, roles=roles)
                    await _until_stopped(seconds)
                finally:
                    with trio.CancelScope(shield=True):
                        async with trio.open_nursery() as nursery:
                            for node in nodes:
                                nursery.start_soon(_stop, node)
        finally:
            postgresql.stop()
    print("Stopped.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs a cluster of three nodes on loopback.")
    parser.add_argument("--seconds", type=float, help="stop by itself after so long")
    parser.add_argument("--roles", action="store_true", help="one process for each role")
    arguments = parser.parse_args()
    trio.run(run, arguments.seconds, arguments.roles)


if __name__ == "__main__":
    main()
