"""File uploads and downloads: many at once, a large one, and the latency of other clients.

    python -m benchmarks.uploads [--files 20] [--mib 64] [--large-mib 1024] [--folder DIR]

Starts a server of its own, with its data in `--folder`. First it uploads that many files at once
while a socket pings: all hashes must be right. For comparison, it measures how long the machine
needs to write as many bytes with `dd` onto the same disk and to read them with `sha256sum`. Then it
uploads and downloads one large file, and measures the additional memory of the server.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import multiprocessing
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from websockets.sync.client import connect

from benchmarks import worker
from benchmarks.errors import BenchmarkError
from benchmarks.machine import MIB, cores, usage
from benchmarks.servers import REILETA, Running, Servers
from benchmarks.stats import Latency

PING_EVERY_S: Final = 0.01
CHUNK: Final = 1 * MIB


class UploadsResult(msgspec.Struct, frozen=True):
    """`…_s` in seconds, `…_mib` in MiB. Memory is in addition to that of the idle server."""

    files: int
    file_mib: int
    hashes_right: int
    seconds: float
    mib_per_s: float
    dd_seconds: float
    times_dd: float
    idle_ping: Latency | None
    ping: Latency | None
    parallel_memory_mib: float
    large_mib: int
    large_up_mib_per_s: float
    large_down_mib_per_s: float
    large_memory_mib: float


class Site:
    """A client of the server's registry API, with a world to add assets to."""

    def __init__(self, running: Running, token: str) -> None:
        self.authority = running.url.split("/")[2]
        self.token = token
        self._world = self.done("PUT", "/api/worlds", {"title": "Uploads"})["id"]

    def asset(self, version: str) -> str:
        """The path of a new asset's file."""
        path = f"/api/worlds/{self._world}/assets"
        build = {"version": version, "engine": "none", "platform": "none"}
        return f"{path}/{self.done('PUT', path, build)['id']}/file"

    def done(self, method: str, path: str, body: object) -> dict[str, Any]:
        connection = self.connect()
        headers = {"Authorization": self.token, "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body), headers)
        return _data(connection)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.authority, timeout=600)

    def upload(self, path: str, head: bytes, rest: memoryview, times: int = 1) -> str:
        """Sends `head`, then `rest` that many times. Returns the hash that the server computed."""
        connection = self.connect()
        connection.putrequest("POST", path)
        connection.putheader("Authorization", self.token)
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(len(head) + times * len(rest)))
        connection.endheaders(head)
        for _ in range(times):
            for at in range(0, len(rest), CHUNK):
                connection.send(rest[at : at + CHUNK])
        return str(_data(connection)["hash"])

    def download(self, path: str) -> int:
        """Downloads a file. Returns the number of bytes."""
        connection = self.connect()
        connection.request("GET", path)
        answer = connection.getresponse()
        buffer, size = bytearray(CHUNK), 0
        while got := answer.readinto(buffer):
            size += got
        connection.close()
        return size


def _data(connection: http.client.HTTPConnection) -> dict[str, Any]:
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise BenchmarkError(f"the server answered {answer.status}: {body[:200]!r}")
    data: dict[str, Any] = json.loads(body)["data"]
    return data


@contextmanager
def memory_above_idle(pid: int) -> Iterator[list[float]]:
    """The highest additional memory of the server, in MiB; known at the end."""
    before, most, over = usage(pid), [0.0], threading.Event()
    idle = 0 if before is None else before.rss_bytes

    def watch() -> None:
        while not over.wait(0.02):
            now = usage(pid)
            if now is not None:
                most[0] = max(most[0], (now.rss_bytes - idle) / MIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def _ping(url: str, token: str, connected: Event, over: Event, latencies: Any) -> None:
    """Pings at a steady rate, from a process of its own that nothing here can delay."""
    found = []
    with connect(f"{url}/api/ws", additional_headers={"Authorization": token}) as socket:
        connected.set()
        number = 0
        while not over.is_set():
            number += 1
            began_ns = time.monotonic_ns()
            socket.send(json.dumps({"command": "ping", "state": number}))
            while json.loads(socket.recv()).get("state") != number:
                pass
            found.append(time.monotonic_ns() - began_ns)
            time.sleep(max(0.0, PING_EVERY_S - found[-1] / 1e9))
    latencies.put(found)


@contextmanager
def pinging(url: str, token: str) -> Iterator[list[Latency | None]]:
    """Latency of answers to `ping` in the meantime; known at the end."""
    context = multiprocessing.get_context("spawn")
    connected, over, latencies = context.Event(), context.Event(), context.Queue()
    process = context.Process(target=_ping, args=(url, token, connected, over, latencies))
    result: list[Latency | None] = []
    process.start()
    try:
        if not connected.wait(timeout=30):
            raise BenchmarkError("no socket could be opened within 30 s")
        yield result
    finally:
        over.set()
        result.append(Latency.of(latencies.get(timeout=30)))
        process.join()


def by_hand(folder: Path, content: Path, files: int) -> float:
    """Seconds that `dd` needs to write the file that many times, with a `sha256sum` beside it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        target = f"{place}/written"
        write = f"for i in $(seq {files}); do cat {content}; done | dd of={target} bs=1M"
        read = f"for i in $(seq {files}); do cat {content}; done | sha256sum"
        both = [
            subprocess.Popen(["sh", "-c", f"{write} iflag=fullblock conv=fsync status=none"]),
            subprocess.Popen(["sh", "-c", f"{read} > {place}/sum"]),
        ]
        if any(process.wait() for process in both):
            raise BenchmarkError("dd or sha256sum failed")
        return time.monotonic() - began


def measure(
    folder: Path, files: int, mib: int, large_mib: int, progress: worker.Share
) -> UploadsResult:
    pair = cores()
    os.environ["REILETA_FILE_LIMIT_BYTES"] = str(max(512, large_mib + 1) * MIB)
    servers = Servers(folder, pair[0] if pair else None)
    servers.make_bots(1)
    content = os.urandom(mib * MIB - 8)
    source = folder / "content"
    source.write_bytes(content)
    heads = [number.to_bytes(8) for number in range(files)]
    right = [hashlib.sha256(head + content).hexdigest() for head in heads]
    dd_s = by_hand(folder, source, files)
    progress(0.3)
    with servers.run(REILETA) as running:
        token = servers.tokens.read_text().split()[0]
        site = Site(running, token)
        paths = [site.asset(str(number)) for number in range(files)]
        with pinging(running.url, token) as idle_ping:
            time.sleep(2)
        rest = memoryview(content)
        with (
            pinging(running.url, token) as ping,
            memory_above_idle(running.pid) as parallel,
            ThreadPoolExecutor(files) as threads,
        ):
            time.sleep(1)
            began = time.monotonic()
            hashes = list(
                threads.map(
                    lambda two: site.upload(two[0], two[1], rest), zip(paths, heads, strict=True)
                )
            )
            seconds = time.monotonic() - began
        progress(0.7)
        large, path = memoryview(content[: 16 * MIB]), site.asset("large")
        times = large_mib * MIB // len(large)
        with memory_above_idle(running.pid) as most:
            began = time.monotonic()
            site.upload(path, b"", large, times)
            up_s, began = time.monotonic() - began, time.monotonic()
            size = site.download(path)
            down_s = time.monotonic() - began
        if size != times * len(large):
            raise BenchmarkError(f"received {size} bytes of {times * len(large)}")
    return UploadsResult(
        files=files,
        file_mib=mib,
        hashes_right=sum(one == other for one, other in zip(hashes, right, strict=True)),
        seconds=seconds,
        mib_per_s=files * mib / seconds,
        dd_seconds=dd_s,
        times_dd=seconds / dd_s,
        idle_ping=idle_ping[0],
        ping=ping[0],
        parallel_memory_mib=parallel[0],
        large_mib=large_mib,
        large_up_mib_per_s=large_mib / up_s,
        large_down_mib_per_s=large_mib / down_s,
        large_memory_mib=most[0],
    )


def main(
    files: Annotated[int, typer.Option(min=1, max=32, help="Number of files at once.")] = 20,
    mib: Annotated[int, typer.Option(min=16, help="Size of each file, in MiB.")] = 64,
    large_mib: Annotated[int, typer.Option(min=16, help="Size of the large file.")] = 1024,
    folder: Annotated[Path | None, typer.Option(help="Folder for all data.")] = None,
    json: worker.Json = False,
) -> None:
    """Uploads at once and one large file, against a server that is started for it."""

    def job(progress: worker.Share) -> UploadsResult:
        with tempfile.TemporaryDirectory(prefix="reileta-bench-", dir=folder) as place:
            Path(place).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            return measure(Path(place), files, mib, large_mib, progress)

    worker.work(f"{files} uploads of {mib} MiB", job, as_json=json)


if __name__ == "__main__":
    typer.run(main)
