"""Many sockets watch one document that changes at a steady rate.

    python -m benchmarks.watchers --url ws://host:3032 --tokens bots.txt --watchers 1000 --rate 50

The first bot owns the document, shares it with the others, holds it, and writes to it over HTTP;
every bot has several sockets that watch it. A version has arrived at a socket with the first event
of that version or a later one, since changes that come close together share an event. Each version
is measured until the last socket has it: `from_commit` begins at the `updated_at` of the version,
which the server sets (in whole ms) just before it writes and commits, and `from_request` when the
request was due. The server must run on the same machine, for the clock. Each socket's patches must
apply to the version that it has; another one is a gap.
"""

from __future__ import annotations

import re
import select
import time
from collections import deque
from datetime import datetime
from typing import Annotated, Final

import httpx
import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import Reileta, authorization, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.frames import PING, PONG, client_frame
from benchmarks.machine import usage
from benchmarks.stats import Latency

_PATIENCE_S: Final = 30.0
_VERSION: Final = re.compile(rb'"version":(\d+)')
_UPDATED_AT: Final = re.compile(rb'"updated_at":"([^"]+)"')
_EVENT: Final = re.compile(rb'"from":(\d+),"patch":{"version":(\d+)')
_PING_HEAD: Final = 0x80 | PING
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class WatchersResult(msgspec.Struct, frozen=True):
    """Latencies are until the last of all watchers has a version."""

    watchers: int
    changes: int
    changes_per_s: float
    from_commit: Latency | None
    from_request: Latency | None
    events: int
    gaps: int
    all_arrived: bool
    server_cpu_s: float | None


class Writer:
    """Writes to the document over one HTTP connection, one request after the other."""

    def __init__(self, target: Target, token: str, number: int) -> None:
        self.sock = target.connect()
        self.sock.setblocking(False)
        self._head = (
            f"PATCH /resource/document/{number} HTTP/1.1\r\nHost: {target.authority}\r\n"
            f"Authorization: {authorization(token)['Authorization']}\r\n"
            "Content-Type: application/json\r\n"
        )
        self._received = b""
        self.due: deque[int] = deque()
        """When the requests were due that have no answer yet, ns."""
        self.busy = False

    def write(self, count: int) -> None:
        body = b'{"data":{"door":{"width":%d,"open":%s}}}' % (count, (b"true", b"false")[count % 2])
        self.sock.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.busy = True

    def answers(self) -> tuple[int, int] | None:
        """The version that the answer has and its `updated_at` (ns), once the answer is complete.

        Raises BenchmarkError.
        """
        data = self.sock.recv(1 << 16)
        if not data:
            raise BenchmarkError("the server hung up")
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return None
        self._received = b""
        self.busy = False
        version, updated = _VERSION.search(body), _UPDATED_AT.search(body)
        if not head.startswith(b"HTTP/1.1 200") or version is None or updated is None:
            raise BenchmarkError(f"a write was refused: {body[:200]!r}")
        at = datetime.fromisoformat(updated[1].decode())
        return int(version[1]), int(at.timestamp() * 1e6) * 1000


class Watch:
    """The sockets that watch, and the versions that they have."""

    def __init__(self, clients: list[Client], writer: Writer, first: int) -> None:
        self._clients = {client.sock.fileno(): client for client in clients}
        self._has = dict.fromkeys(self._clients, first)
        self._behind = {first: len(clients)}
        """How many sockets have exactly that version."""
        self._lowest = first
        self._writer = writer
        self._due: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._complete: dict[int, tuple[int, int]] = {}
        """When all sockets had a version that is not measured yet: monotonic and wall time, ns."""
        self.from_request: list[int] = []
        self.from_commit: list[int] = []
        self.events = self.gaps = 0
        self._epoll = select.epoll()
        for client in clients:
            client.sock.setblocking(False)
            self._epoll.register(client.sock, select.EPOLLIN)
        self._epoll.register(writer.sock, select.EPOLLIN)

    def run(self, rate: float, seconds: float, progress: worker.Share) -> int:
        """Writes for so long; returns how many changes there were. Raises BenchmarkError."""
        began = time.monotonic_ns()
        count = 0
        deadline = time.monotonic() + seconds + _PATIENCE_S
        total = int(rate * seconds)
        while self._due or count < total:
            now = time.monotonic_ns()
            due = began + int(count / rate * 1e9)
            if count < total and not self._writer.busy and now >= due:
                self._writer.write(count)
                self._writer.due.append(due)
                count += 1
            self._take(0.001)
            progress(count / total)
            if time.monotonic() > deadline:
                break
            if count == total and not self._writer.busy and not self._due:
                break
        return count

    @property
    def all_arrived(self) -> bool:
        return not self._due and not self._writer.busy

    def close(self) -> None:
        self._epoll.close()

    def _take(self, wait_s: float) -> None:
        for fd, _ in self._epoll.poll(wait_s, 256):
            if fd == self._writer.sock.fileno():
                answer = self._writer.answers()
                if answer is not None:
                    version, at = answer
                    self._due[version] = self._writer.due.popleft()
                    self._committed[version] = at
                    self._measure()
                continue
            data = self._clients[fd].sock.recv(1 << 16)
            if not data:
                raise BenchmarkError("the server hung up")
            if data[0] == _PING_HEAD:
                self._clients[fd].sock.send(client_frame(b"", PONG))
                data = data[2 + data[1] :]
            self._events(fd, data, time.monotonic_ns())

    def _events(self, fd: int, data: bytes, now: int) -> None:
        """Takes the events in received bytes.

        It does not parse them: that would cost the load more than the events cost the server. An
        event is small and written at once, so it comes whole.
        """
        before = after = self._has[fd]
        for origin, version in _EVENT.findall(data):
            self.events += 1
            self.gaps += int(origin) != after
            after = int(version)
        if after == before:
            return
        self._has[fd] = after
        self._behind[before] -= 1
        self._behind[after] = self._behind.get(after, 0) + 1
        if not self._behind[before]:
            del self._behind[before]
            lowest = min(self._behind)
            for complete in range(self._lowest + 1, lowest + 1):
                self._complete[complete] = now, time.time_ns()
            self._lowest = lowest
            self._measure()

    def _measure(self) -> None:
        """Measures the versions that all sockets have; the answer to a write can come later."""
        for version in [one for one in self._due if one in self._complete]:
            steady, wall = self._complete.pop(version)
            self.from_request.append(steady - self._due.pop(version))
            self.from_commit.append(wall - self._committed.pop(version))


def prepare(target: Target, tokens: list[str]) -> int:
    """A document of the first bot, which holds it, shared with the others; its number."""
    with httpx.Client(base_url=target.http, timeout=_PATIENCE_S) as http:

        def ask(method: str, path: str, token: str, body: object = None) -> httpx.Response:
            response = http.request(method, path, json=body, headers=authorization(token))
            if response.status_code != 200:
                raise BenchmarkError(f"{path}: {response.status_code} {response.text[:200]}")
            return response

        held = ask("GET", "/session", tokens[0]).json()["session"]["resource"]
        if held is not None:  # of an earlier run
            ask("POST", f"/resource/document/{held['id']}/release", tokens[0])
        made = ask("POST", "/resource/document", tokens[0], {"title": "Door", "data": {}})
        number = int(made.json()["resource"]["id"])
        path = f"/resource/document/{number}"
        for token in tokens[1:]:
            user = ask("GET", "/session", token).json()["session"]["user"]["username"]
            ask("POST", f"{path}/share", tokens[0], {"user": user})
        ask("POST", f"{path}/acquire", tokens[0])
    return number


def measure(
    target: Target,
    tokens: list[str],
    watchers: int,
    rate: float,
    seconds: float,
    pid: int | None,
    progress: worker.Share,
) -> WatchersResult:
    number = prepare(target, tokens)
    clients = open_all(target, Reileta(tokens), range(watchers), worker.part(progress, 0, 0.2))
    writer = Writer(target, tokens[0], number)
    try:
        for client in clients:
            client.send(
                b'{"state":1,"command":"watch","data":{"type":"document","id":%d}}' % number
            )
        for client in clients:
            while b'"watch"' not in (answer := client.receive()):
                pass
            if b'"view"' not in answer:
                raise BenchmarkError(f"the watch was refused: {answer[:200]!r}")
        watch = Watch(clients, writer, 1)
        before = usage(pid)
        began = time.monotonic()
        count = watch.run(rate, seconds, worker.part(progress, 0.2, 1))
        took = time.monotonic() - began
        after = usage(pid)
        watch.close()
    finally:
        for client in clients:
            client.close()
        writer.sock.close()
    return WatchersResult(
        watchers=watchers,
        changes=count,
        changes_per_s=count / took,
        from_commit=Latency.of(watch.from_commit),
        from_request=Latency.of(watch.from_request),
        events=watch.events,
        gaps=watch.gaps,
        all_arrived=watch.all_arrived,
        server_cpu_s=after.cpu_s - before.cpu_s if before and after else None,
    )


def main(
    url: worker.Url,
    tokens: worker.Tokens,
    watchers: Annotated[int, typer.Option(min=1, max=10_000)] = 1000,
    rate: Annotated[float, typer.Option(min=1, help="Changes per second.")] = 50,
    seconds: worker.Seconds = 10,
    users: Annotated[int, typer.Option(min=1, max=500, help="Bots that share the sockets.")] = 250,
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """How soon all watchers of a document have a change."""

    def job(progress: worker.Share) -> WatchersResult:
        known = list(read_tokens(tokens))[:users]
        return measure(Target.parse(url), known, watchers, rate, seconds, pid, progress)

    worker.work(f"{watchers} watchers, {rate:.0f} changes/s", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
