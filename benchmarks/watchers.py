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
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Final, NamedTuple

import httpx
import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import Reileta, authorization, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.frames import PING, PONG, TEXT, client_frame
from benchmarks.machine import Usage, usage
from benchmarks.stats import Latency

_PATIENCE_S: Final = 30.0
_VERSION: Final = re.compile(rb'"version":(\d+)')
_UPDATED_AT: Final = re.compile(rb'"updated_at":"([^"]+)"')
_UPDATED: Final = b'"resource-updated"'
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_WRITERS: Final = 16
"""Connections that write, so that a write need not wait for the answer to the one before."""
_READ_BYTES: Final = 1 << 16
_ROUND: Final = 1024
"""Sockets that are read in a round, at most."""
_REST_S: Final = 0.0005
"""Between two rounds. It adds up to 0.5 ms to the latencies."""
_KNOWN_LIMIT: Final = 64
_Change = tuple[int | None, int]
"""The version that a patch applies to (None: the event has the whole view), and the new one."""


class _Update(msgspec.Struct):
    version: int
    from_: int | None = msgspec.field(name="from", default=None)


class _Event(msgspec.Struct):
    data: _Update


class WatchersResult(msgspec.Struct, frozen=True):
    """Latencies are until the last of all watchers has a version."""

    watchers: int
    rate: float
    """How many changes were due per second."""
    changes: int
    changes_per_s: float
    from_commit: Latency | None
    from_request: Latency | None
    events: int
    events_per_s: float
    gaps: int
    all_arrived: bool
    generator_cpu: float
    """The load's share of its core."""
    server_cpu: float | None
    """The share of a core that the server used, without PostgreSQL."""
    server_cpu_us_per_event: float | None
    """The same CPU time for each event, in µs; it includes the writes."""


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
        self.due: int | None = None
        """When the request was due that has no answer yet, ns."""

    def write(self, count: int, due: int) -> None:
        body = b'{"data":{"door":{"width":%d,"open":%s}}}' % (count, (b"true", b"false")[count % 2])
        self.sock.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.due = due

    def answer(self) -> Written | None:
        """What was written, once the answer is complete. Raises BenchmarkError."""
        data = self.sock.recv(_READ_BYTES)
        if not data:
            raise BenchmarkError("the server hung up")
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return None
        self._received = b""
        version, updated = _VERSION.search(body), _UPDATED_AT.search(body)
        if not head.startswith(b"HTTP/1.1 200") or version is None or updated is None:
            raise BenchmarkError(f"a write was refused: {body[:200]!r}")
        assert self.due is not None
        due, self.due = self.due, None
        at = datetime.fromisoformat(updated[1].decode())
        return Written(int(version[1]), due, int(at.timestamp() * 1e6) * 1000)


class Written(NamedTuple):
    """A version, when its request was due (monotonic, ns), and its `updated_at` (wall time, ns)."""

    version: int
    due: int
    updated_at: int


class Arrivals:
    """Which versions have arrived at all sockets, and when. Every socket has `first` at the
    beginning."""

    def __init__(self, clients: Iterable[Client], first: int) -> None:
        self._has = dict.fromkeys(clients, first)
        self._at = {first: len(self._has)}
        """How many sockets have exactly that version."""
        self._lowest = first
        self._known: dict[bytes, tuple[_Change, ...]] = {}
        """The events in received bytes."""
        self._written: dict[int, Written] = {}
        self._complete: dict[int, tuple[int, int]] = {}
        """When all sockets had a version that is not measured yet: monotonic and wall time, ns."""
        self.from_request: list[int] = []
        self.from_commit: list[int] = []
        self.events = self.gaps = 0

    def written(self, written: Written) -> None:
        """The server has answered a write, perhaps after its events."""
        self._written[written.version] = written

    @property
    def waiting(self) -> bool:
        """Whether a version that was written has not arrived everywhere."""
        return bool(self._written)

    def take(self, client: Client, data: bytes) -> None:
        """Takes what a socket received.

        All sockets get the same bytes, so these are parsed once: to parse them for each socket
        would cost the load more than the events cost the server.
        """
        events = self._known.get(data) if client.frames.empty else None
        if events is None:
            events = self._parsed(client, data)
        before = after = self._has[client]
        for origin, version in events:
            self.gaps += origin not in (None, after)
            after = version
        self.events += len(events)
        if after != before:
            self._has[client] = after
            if self._at[before] == 1:
                del self._at[before]
            else:
                self._at[before] -= 1
            self._at[after] = self._at.get(after, 0) + 1

    def _parsed(self, client: Client, data: bytes) -> tuple[_Change, ...]:
        shared = client.frames.empty
        changes = []
        for frame in client.frames.feed(data):
            if frame.opcode == PING:
                shared = False
                client.sock.send(client_frame(frame.data, PONG))
            elif frame.opcode == TEXT and _UPDATED in frame.data:
                update = msgspec.json.decode(frame.data, type=_Event).data
                changes.append((update.from_, update.version))
        events = tuple(changes)
        if shared and client.frames.empty:
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            self._known[data] = events
        return events

    def measure(self) -> None:
        """Measures the versions that all sockets have by now, and that the server has answered."""
        lowest = min(self._at)
        if lowest != self._lowest:
            now = time.monotonic_ns(), time.time_ns()
            for version in range(self._lowest + 1, lowest + 1):
                self._complete[version] = now
            self._lowest = lowest
        for version in [one for one in self._written if one in self._complete]:
            steady, wall = self._complete.pop(version)
            written = self._written.pop(version)
            self.from_request.append(steady - written.due)
            self.from_commit.append(wall - written.updated_at)


class Watch:
    """The sockets that watch, and the connections that write.

    `connect` makes such a connection. It is called when it is needed, since the server closes a
    connection that sends nothing.
    """

    def __init__(self, clients: list[Client], connect: Callable[[], Writer], first: int) -> None:
        self._clients = {client.sock.fileno(): client for client in clients}
        self._connect = connect
        self._writers: dict[int, Writer] = {}
        self.arrivals = Arrivals(clients, first)
        self._epoll = select.epoll()
        for client in clients:
            client.sock.setblocking(False)
            self._epoll.register(client.sock, select.EPOLLIN)

    def run(self, rate: float, seconds: float, progress: worker.Share) -> int:
        """Writes for so long; returns how many changes there were. Raises BenchmarkError.

        It reads in rounds: if it waited for each event, every event would wake it up, which costs
        the server and the load more than the event.
        """
        began = time.monotonic_ns()
        count, total = 0, int(rate * seconds)
        patience = time.monotonic() + seconds + _PATIENCE_S
        while (count < total or not self.all_arrived) and time.monotonic() < patience:
            now = time.monotonic_ns()
            due = began + int(count / rate * 1e9)
            if count < total and now >= due:
                writer = self._free_writer()
                if writer is not None:
                    writer.write(count, due)
                    count += 1
            self._read()
            progress(count / total)
            time.sleep(_REST_S)
        return count

    @property
    def all_arrived(self) -> bool:
        written = all(writer.due is None for writer in self._writers.values())
        return written and not self.arrivals.waiting

    def close(self) -> None:
        self._epoll.close()
        for writer in self._writers.values():
            writer.sock.close()

    def _free_writer(self) -> Writer | None:
        """A connection that has the answer to its last request; None if there are too many."""
        for writer in self._writers.values():
            if writer.due is None:
                return writer
        if len(self._writers) >= _WRITERS:
            return None
        writer = self._connect()
        self._writers[writer.sock.fileno()] = writer
        self._epoll.register(writer.sock, select.EPOLLIN)
        return writer

    def _read(self) -> None:
        take = self.arrivals.take
        for fd, _ in self._epoll.poll(0, _ROUND):
            writer = self._writers.get(fd)
            if writer is not None:
                written = writer.answer()
                if written is not None:
                    self.arrivals.written(written)
                continue
            client = self._clients[fd]
            data = client.sock.recv(_READ_BYTES)
            if not data:
                raise BenchmarkError("the server hung up")
            take(client, data)
        self.arrivals.measure()


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
    watch = None
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
        watch = Watch(clients, lambda: Writer(target, tokens[0], number), 1)
        before, load_before = usage(pid), time.process_time()
        began = time.monotonic()
        count = watch.run(rate, seconds, worker.part(progress, 0.2, 1))
        took = time.monotonic() - began
        after, load_after = usage(pid), time.process_time()
    finally:
        if watch is not None:
            watch.close()
        for client in clients:
            client.close()
    return WatchersResult(
        watchers=watchers,
        rate=rate,
        changes=count,
        changes_per_s=count / took,
        from_commit=Latency.of(watch.arrivals.from_commit),
        from_request=Latency.of(watch.arrivals.from_request),
        events=watch.arrivals.events,
        events_per_s=watch.arrivals.events / took,
        gaps=watch.arrivals.gaps,
        all_arrived=watch.all_arrived,
        generator_cpu=(load_after - load_before) / took,
        server_cpu=(after.cpu_s - before.cpu_s) / took if before and after else None,
        server_cpu_us_per_event=_per_event(before, after, watch.arrivals.events),
    )


def _per_event(before: Usage | None, after: Usage | None, events: int) -> float | None:
    if before is None or after is None or not events:
        return None
    return (after.cpu_s - before.cpu_s) / events * 1e6


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
