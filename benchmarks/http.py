"""HTTP requests per second over keep-alive connections.

    python -m benchmarks.http --url ws://host:3032 --tokens bots.txt

A closed loop: each connection sends its next request as soon as it has the answer.
"""

from __future__ import annotations

import re
import select
import socket
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Target
from benchmarks.dialects import authorization, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.machine import usage
from benchmarks.stats import Latency

PATHS: Final = ("/api/time", "/api/instances", "/api/users/@me")
_WARM_UP_S: Final = 0.5
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HTTP_PATH: Final = "/api/time"
"""The path that all servers answer."""


class PathResult(msgspec.Struct, frozen=True):
    path: str
    requests_per_s: float
    latency: Latency | None
    statuses: dict[str, int]
    server_cpu_ms_each: float | None
    generator_cpu: float
    """The generator's share of its core. Near 1, the generator was the limit and not the server."""


class HttpResult(msgspec.Struct, frozen=True):
    connections: int
    seconds: float
    paths: list[PathResult]


@dataclass(slots=True)
class HttpConnection:
    """One connection with one request in progress."""

    sock: socket.socket
    request: bytes
    asked_ns: int = 0
    received: bytes = b""


def answer_status(received: bytes) -> int | None:
    """The status of a complete answer; None while bytes are missing.

    Raises BenchmarkError for an answer without Content-Length.
    """
    head = received.find(b"\r\n\r\n")
    if head == -1:
        return None
    length = _LENGTH.search(received, 0, head + 2)
    if length is None:
        raise BenchmarkError("the server answered without Content-Length")
    complete = len(received) >= head + 4 + int(length[1])
    return int(received[9:12]) if complete else None


def request(target: Target, path: str, token: str | None) -> bytes:
    """A GET request, with a bot's token if there is one."""
    headers = {"Host": target.authority, "Accept": "application/json"}
    if token is not None:
        headers |= authorization(token)
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def measure(
    target: Target,
    path: str,
    tokens: Sequence[str],
    connections: int,
    seconds: float,
    pid: int | None,
    progress: worker.Share,
) -> PathResult:
    """Requests one path as fast as answers arrive."""
    open_connections: dict[int, HttpConnection] = {}
    epoll = select.epoll()
    statuses: Counter[str] = Counter()
    latency_ns = array("q")
    try:
        for number in range(connections):
            sock = target.connect(number)
            token = tokens[number % len(tokens)] if tokens else None
            open_connections[sock.fileno()] = HttpConnection(sock, request(target, path, token))
            epoll.register(sock, select.EPOLLIN)
        for connection in open_connections.values():
            connection.asked_ns = time.monotonic_ns()
            connection.sock.sendall(connection.request)
        begin = measured = time.monotonic()
        before, own_cpu_s, end = None, 0.0, begin + _WARM_UP_S + seconds
        while (now := time.monotonic()) < end:
            if measured == begin and now >= begin + _WARM_UP_S:
                before, own_cpu_s, measured = usage(pid), time.process_time(), now
                statuses.clear()
                del latency_ns[:]
            progress((now - begin) / (end - begin))
            for fd, _ in epoll.poll(0.1, connections):
                connection = open_connections[fd]
                data = connection.sock.recv(1 << 16)
                if not data:
                    raise BenchmarkError("the server closed a keep-alive connection")
                received = connection.received + data
                status = answer_status(received)
                if status is None:
                    connection.received = received
                    continue
                done_ns = time.monotonic_ns()
                statuses[str(status)] += 1
                latency_ns.append(done_ns - connection.asked_ns)
                connection.received = b""
                connection.asked_ns = done_ns
                connection.sock.sendall(connection.request)
        span_s, after = time.monotonic() - measured, usage(pid)
        own_cpu_s = time.process_time() - own_cpu_s
    except OSError as error:
        raise BenchmarkError(f"GET {path}: {error}") from error
    finally:
        epoll.close()
        for connection in open_connections.values():
            connection.sock.close()
    count = statuses.total()
    cpu_s = after.cpu_s - before.cpu_s if before and after else None
    return PathResult(
        path=path,
        requests_per_s=count / span_s,
        latency=Latency.of(latency_ns),
        statuses=dict(statuses),
        server_cpu_ms_each=None if cpu_s is None or not count else cpu_s / count * 1000,
        generator_cpu=own_cpu_s / span_s,
    )


def main(
    url: worker.Url,
    tokens: worker.Tokens = None,
    path: Annotated[list[str] | None, typer.Option(help="Paths to request.")] = None,
    connections: Annotated[int, typer.Option(min=1)] = 32,
    seconds: worker.Seconds = 5,
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """Requests per second over keep-alive connections."""

    def job(progress: worker.Share) -> HttpResult:
        target, known, paths = Target.parse(url), read_tokens(tokens), path or list(PATHS)
        results = []
        for number, requested in enumerate(paths):
            share = worker.part(progress, number / len(paths), (number + 1) / len(paths))
            results.append(measure(target, requested, known, connections, seconds, pid, share))
        return HttpResult(connections, seconds, results)

    worker.work(f"HTTP over {connections} connections", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
