"""A file through a gateway, compared with the same file straight to the registry behind it.

    python -m benchmarks.gateway [--mib 512] [--rounds 3]

Starts PostgreSQL, NATS, a registry and a gateway of its own, on all cores. Uploads and downloads
the file in alternating rounds, and measures the additional memory of the gateway.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import typer

from benchmarks import worker
from benchmarks.cluster import Nats
from benchmarks.errors import BenchmarkError
from benchmarks.machine import MIB
from benchmarks.servers import REILETA, Running, Servers
from benchmarks.uploads import Site, memory_above_idle


class GatewayResult(msgspec.Struct, frozen=True):
    """Medians of all rounds, in MiB/s. Memory, in MiB, is the most of all rounds, in addition to
    that of the idle gateway."""

    mib: int
    rounds: int
    direct_up_mib_per_s: float
    direct_down_mib_per_s: float
    up_mib_per_s: float
    down_mib_per_s: float
    memory_mib: float

    @property
    def up_share(self) -> float:
        """The speed through the gateway, compared with the direct one."""
        return self.up_mib_per_s / self.direct_up_mib_per_s

    @property
    def down_share(self) -> float:
        return self.down_mib_per_s / self.direct_down_mib_per_s


@contextmanager
def running(folder: Path, limit_mib: int) -> Iterator[tuple[Running, Running, str]]:
    """A registry and a gateway for the block, and a user's token."""
    # The server's own tool for a PostgreSQL from the wheel.
    from reileta.store.embedded.cluster import Cluster as Postgres

    secret = folder / "gateway-secret"
    secret.write_text(secrets.token_hex(32))
    postgres = Postgres(folder / "postgresql")
    with ExitStack() as stack:
        postgres.start()
        stack.callback(postgres.stop)
        nats = Nats(folder)
        stack.callback(nats.stop)

        def start(role: str, *more: str) -> Running:
            home = folder / role
            home.mkdir()
            options = ["--role", role, "--database", postgres.url(), "--nats", nats.url]
            options += ["--address", "localhost", "--key", str(folder / "key"), "--node-name", role]
            options += ["--gateway-secret", str(secret), "--files", str(folder / "files")]
            options += ["--file-limit-bytes", str(limit_mib * MIB), *more]
            return stack.enter_context(Servers(home, None, options=options).run(REILETA))

        eta = start("eta", "--trusted-proxies", "127.0.0.1")
        reil = start("reil", "--eta", eta.url.replace("ws://", "http://"))
        tokens = folder / "tokens"
        command = [sys.executable, "-m", "reileta", "bots", "create", "--count", "1"]
        command += ["--tokens", str(tokens), "--database", postgres.url()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"no bots: {done.stderr[-500:]}")
        yield eta, reil, tokens.read_text().split()[0]


def transfer(site: Site, version: str, content: memoryview, times: int) -> tuple[float, float]:
    """The speed up and down, in MiB/s."""
    path, mib = site.asset(version), times * len(content) / MIB
    began = time.monotonic()
    site.upload(path, b"", content, times)
    up_s, began = time.monotonic() - began, time.monotonic()
    if site.download(path) != times * len(content):
        raise BenchmarkError("the file is not whole")
    return mib / up_s, mib / (time.monotonic() - began)


def measure(folder: Path, mib: int, rounds: int, progress: worker.Share) -> GatewayResult:
    """Alternating rounds, after one that only warms up."""
    content = memoryview(os.urandom(min(mib, 16) * MIB))
    times = mib * MIB // len(content)
    with running(folder, max(512, mib + 1)) as (eta, reil, token):
        direct, through = Site(eta, token), Site(reil, token)
        for number, site in enumerate((direct, through)):
            transfer(site, f"warm{number}", content, 1)
        found: list[tuple[float, float, float, float]] = []
        memory = 0.0
        for number in range(rounds):
            straight = transfer(direct, f"direct{number}", content, times)
            with memory_above_idle(reil.pid) as most:
                passed_on = transfer(through, f"gateway{number}", content, times)
            memory = max(memory, most[0])
            found.append((*straight, *passed_on))
            progress((number + 1) / rounds)
    direct_up, direct_down, up, down = (median(each) for each in zip(*found, strict=True))
    return GatewayResult(mib, rounds, direct_up, direct_down, up, down, memory)


def main(
    mib: Annotated[int, typer.Option(min=16, help="Size of the file, in MiB.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    folder: Annotated[Path | None, typer.Option(help="Folder for all data.")] = None,
    json: worker.Json = False,
) -> None:
    """A file through a gateway, against a gateway and a registry that are started for it."""

    def job(progress: worker.Share) -> GatewayResult:
        with tempfile.TemporaryDirectory(prefix="reileta-bench-", dir=folder) as place:
            Path(place).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            return measure(Path(place), mib, rounds, progress)

    worker.work(f"{mib} MiB through a gateway", job, as_json=json)


if __name__ == "__main__":
    typer.run(main)
