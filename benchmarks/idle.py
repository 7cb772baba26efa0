"""Memory of idle authenticated connections.

python -m benchmarks.idle --url ws://host:3032 --tokens bots.txt --connections 5000 --pid PID
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import Reileta, decode, read_tokens
from benchmarks.errors import BenchmarkError, ConnectionLost
from benchmarks.machine import Usage, usage

_WARM: int = 50
"""Connections that are opened and closed first, so that one-time costs are not counted."""
_AT_ONCE: int = 500
"""After so many new connections, pings on the earlier ones are answered."""
_CHECKED: int = 20
"""Connections that must answer a `ping` at the end: they must be open and authenticated."""


class IdleResult(msgspec.Struct, frozen=True):
    """`bytes_each` is the growth of the server's resident memory per connection; `…_all` includes
    its child processes (PostgreSQL). None without the server's pid."""

    connections: int
    users: int
    seconds_to_open: float
    bytes_each: float | None
    bytes_each_all: float | None
    rss_before_bytes: int | None
    rss_after_bytes: int | None
    idle_cpu: float | None
    """Cores that the server uses while nothing happens."""


def measure(
    target: Target,
    tokens: Sequence[str],
    connections: int,
    settle_s: float,
    pid: int | None,
    progress: worker.Share,
) -> IdleResult:
    """Opens the connections, waits until the server is quiet, and measures its memory."""
    dialect = Reileta(tokens)
    for client in open_all(target, dialect, range(min(_WARM, connections))):
        client.close()
    time.sleep(settle_s)
    before = usage(pid)
    began = time.monotonic()
    clients: list[Client] = []
    try:
        while len(clients) < connections:
            numbers = range(len(clients), min(connections, len(clients) + _AT_ONCE))
            clients += open_all(target, dialect, numbers)
            tend(clients, 0)
            progress(0.8 * len(clients) / connections)
        opened_s = time.monotonic() - began
        tend(clients, settle_s)
        settled, settled_at = usage(pid), time.monotonic()
        tend(clients, settle_s)
        after = usage(pid)
        idle_s = time.monotonic() - settled_at
        for client in clients[:: max(1, connections // _CHECKED)]:
            check_alive(client)
        progress(1.0)
    finally:
        for client in clients:
            client.close()
    return IdleResult(
        connections=connections,
        users=min(connections, len(tokens)),
        seconds_to_open=opened_s,
        bytes_each=_each(before, after, connections, children=False),
        bytes_each_all=_each(before, after, connections, children=True),
        rss_before_bytes=None if before is None else before.rss_bytes,
        rss_after_bytes=None if after is None else after.rss_bytes,
        idle_cpu=None if not (settled and after) else (after.cpu_s - settled.cpu_s) / idle_s,
    )


def tend(clients: Sequence[Client], seconds: float) -> None:
    """Answers the server's pings for that long, and at least those that have arrived.

    Raises ConnectionLost if the server closes a connection.
    """
    by_fd = {client.sock.fileno(): client for client in clients}
    deadline = time.monotonic() + seconds
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        while True:
            ready = epoll.poll(max(0.0, deadline - time.monotonic()), len(by_fd))
            for fd, _ in ready:
                data = by_fd[fd].sock.recv(1 << 16)
                if not data:
                    raise ConnectionLost("the server hung up on an idle connection")
                by_fd[fd].take(data)
            if not ready and time.monotonic() >= deadline:
                return


def check_alive(client: Client) -> None:
    """Sends a `ping` command and expects its answer. Raises BenchmarkError."""
    client.send(b'{"state":"alive","command":"ping","data":{"time":1}}')
    while True:
        answer = decode(client.receive())
        if answer.error is not None:
            raise BenchmarkError(f"an idle connection does not work: {answer.error.message}")
        if answer.state == "alive":
            return


def _each(
    before: Usage | None, after: Usage | None, connections: int, *, children: bool
) -> float | None:
    if before is None or after is None:
        return None
    if children:
        return (after.rss_bytes_all - before.rss_bytes_all) / connections
    return (after.rss_bytes - before.rss_bytes) / connections


def main(
    url: worker.Url,
    tokens: worker.Tokens,
    connections: Annotated[int, typer.Option(min=1)] = 5000,
    settle: Annotated[float, typer.Option(min=0, help="Seconds of quiet before measuring.")] = 3,
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """Memory per idle authenticated connection."""

    def job(progress: worker.Share) -> IdleResult:
        known = read_tokens(tokens)
        return measure(Target.parse(url), known, connections, settle, pid, progress)

    worker.work(f"{connections} idle connections", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
