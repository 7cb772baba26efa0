"""A full instance with a long queue, and seats that become free at a steady rate.

    python -m benchmarks.queue --url ws://host:3032 --tokens bots.txt --candidates 2000 --seats 50

All players become candidates over HTTP, in turn. The first ones take the reserved seats. Then
players leave at a steady rate, those inside longest first, and each admitted player joins at once,
until the queue is empty. The latency is from sending `instance-leave` to receiving the `admitted`
that follows from it: the n-th free seat is for the n-th in the queue. Another order is counted.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import httpx
import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import (
    Reileta,
    authorization,
    decode,
    is_join_answer,
    join,
    make_instances,
    read_tokens,
)
from benchmarks.errors import BenchmarkError
from benchmarks.frames import PING, PONG, TEXT, client_frame
from benchmarks.machine import usage
from benchmarks.stats import Latency

_PATIENCE_S: Final = 30.0
_QUEUE: Final = b'"instance-queue"'
_CANDIDATE: Final = b'"instance-candidate"'
_LEAVE: Final = b'{"command":"instance-leave","data":{"instance":"%b"}}'


class QueueResult(msgspec.Struct, frozen=True):
    """`latency` is from a free seat to `admitted`; None if nobody was promoted."""

    candidates: int
    seats: int
    promotions: int
    promotions_per_s: float
    latency: Latency | None
    in_order: bool
    """Whether the seats went to the players in the order of their requests."""
    all_entered: bool
    knew_their_position: int
    """Players that learned their position before they were admitted."""
    queue_events: int
    server_cpu_s: float | None


class _Entry(msgspec.Struct):
    state: str
    position: int | None = None


class _QueueData(msgspec.Struct):
    reason: str = ""
    entry: _Entry | None = None


@dataclass(slots=True)
class Candidate:
    """One socket and its state."""

    client: Client
    place: int
    waits: bool = False
    told: int = 0
    admitted: bool = False
    inside: bool = False


class Turnover:
    """The seats of one instance that change players, in one thread."""

    def __init__(self, candidates: Sequence[Candidate], instance: str) -> None:
        self._by_fd = {candidate.client.sock.fileno(): candidate for candidate in candidates}
        self._name = instance.encode()
        self._join = client_frame(join(instance))
        self._leave = client_frame(_LEAVE % instance.encode())
        self._inside: deque[Candidate] = deque()
        self._freed: deque[int] = deque()
        self.waited_ns: list[int] = []
        self.admissions: list[int] = []
        self._epoll = select.epoll()
        for candidate in candidates:
            candidate.client.sock.setblocking(False)
            self._epoll.register(candidate.client.sock, select.EPOLLIN)

    def run(self, promotions: int, rate: float, progress: worker.Share) -> float:
        """Frees `promotions` seats, `rate` per second. Returns the seconds that it took.

        Raises BenchmarkError if nothing happens any more.
        """
        began = moved = time.monotonic()
        left = 0
        try:
            while len(self.admissions) < promotions:
                now = time.monotonic()
                while left < promotions and self._inside and now - began >= left / rate:
                    self._let_go()
                    left += 1
                if self._take(0.001):
                    moved = time.monotonic()
                elif time.monotonic() - moved > _PATIENCE_S:
                    raise BenchmarkError(f"nobody was admitted after {len(self.admissions)}")
                progress(len(self.admissions) / promotions)
        finally:
            seconds = time.monotonic() - began
        deadline = time.monotonic() + _PATIENCE_S
        while not all(candidate.inside for candidate in self._by_fd.values() if candidate.admitted):
            if time.monotonic() > deadline:
                break
            self._take(0.05)
        return seconds

    def fill(self, seats: int) -> None:
        """Takes the seats that are reserved at first. Raises BenchmarkError after a while."""
        deadline = time.monotonic() + _PATIENCE_S
        while len(self._inside) < seats:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"only {len(self._inside)} of {seats} players joined")
            self._take(0.05)
        self.waited_ns.clear()
        self.admissions.clear()

    def read(self) -> None:
        """Reads all received data, so that no socket seems to be dead."""
        self._take(0)

    def close(self) -> None:
        self._epoll.close()

    def _let_go(self) -> None:
        candidate = self._inside.popleft()
        self._freed.append(time.monotonic_ns())
        candidate.client.sock.send(self._leave)

    def _take(self, wait_s: float) -> int:
        """Reads received data. Returns how many were admitted by it."""
        before = len(self.admissions)
        for fd, _ in self._epoll.poll(wait_s, 256):
            candidate = self._by_fd[fd]
            data = candidate.client.sock.recv(1 << 16)
            now = time.monotonic_ns()
            if not data:
                raise BenchmarkError("the server hung up")
            for payload in _texts(candidate.client, data):
                self._handle(candidate, payload, now)
        return len(self.admissions) - before

    def _handle(self, candidate: Candidate, payload: bytes, now_ns: int) -> None:
        head = payload[:128]
        if self._name not in head and _CANDIDATE[:10] in head:
            return  # of an instance of an earlier run, in whose queue the bot still is
        if _QUEUE in head:
            candidate.told += not candidate.admitted
        elif _CANDIDATE in head:
            message = msgspec.json.decode(decode(payload).data, type=_QueueData)
            if message.entry is None:
                return
            if message.entry.state == "waiting":
                candidate.waits = True
            elif message.entry.state == "admitted" and not candidate.admitted:
                candidate.admitted = True
                self.admissions.append(candidate.place)
                if self._freed:
                    self.waited_ns.append(now_ns - self._freed.popleft())
                candidate.client.sock.send(self._join)
        elif is_join_answer(payload):
            candidate.inside = True
            self._inside.append(candidate)


def _texts(client: Client, data: bytes) -> Iterator[bytes]:
    for frame in client.frames.feed(data):
        if frame.opcode == PING:
            client.sock.send(client_frame(frame.data, PONG))
        elif frame.opcode == TEXT:
            yield frame.data


def ask(
    target: Target,
    tokens: Sequence[str],
    instance: str,
    meanwhile: Callable[[], object],
    progress: worker.Share,
) -> None:
    """All players become candidates, in turn. `meanwhile` reads from the sockets.

    Raises BenchmarkError if one is refused.
    """
    path = f"/api/instances/{instance}/candidate"
    with httpx.Client(base_url=target.http, timeout=_PATIENCE_S) as http:
        for place, token in enumerate(tokens):
            response = http.post(path, headers=authorization(token))
            if response.status_code != 200:
                raise BenchmarkError(f"POST {path}: {response.status_code} {response.text[:200]}")
            meanwhile()
            progress((place + 1) / len(tokens))


def measure(
    target: Target,
    tokens: Sequence[str],
    seats: int,
    rate: float,
    pid: int | None,
    progress: worker.Share,
) -> QueueResult:
    """Fills the instance and its queue, and frees seats until the queue is empty."""
    instance = make_instances(target, tokens[0], 1, seats)[0]
    count = len(tokens)
    clients = open_all(target, Reileta(tokens), range(count), worker.part(progress, 0, 0.2))
    try:
        candidates = [Candidate(client, place) for place, client in enumerate(clients)]
        turnover = Turnover(candidates, instance)
        read = turnover.read
        ask(target, tokens[:seats], instance, read, worker.part(progress, 0.2, 0.25))
        turnover.fill(seats)
        ask(target, tokens[seats:], instance, read, worker.part(progress, 0.25, 0.5))
        before = usage(pid)
        promotions = count - seats
        seconds = turnover.run(promotions, rate, worker.part(progress, 0.5, 1))
        after = usage(pid)
        turnover.close()
    finally:
        for client in clients:
            client.close()
    line = turnover.admissions
    return QueueResult(
        candidates=count,
        seats=seats,
        promotions=len(line),
        promotions_per_s=len(line) / seconds,
        latency=Latency.of(turnover.waited_ns),
        in_order=line == sorted(line),
        all_entered=all(candidate.inside for candidate in candidates),
        knew_their_position=sum(candidate.told > 0 for candidate in candidates[seats:]),
        queue_events=sum(candidate.told for candidate in candidates),
        server_cpu_s=after.cpu_s - before.cpu_s if before and after else None,
    )


def main(
    url: worker.Url,
    tokens: worker.Tokens,
    candidates: Annotated[int, typer.Option(min=2, max=4096)] = 2000,
    seats: Annotated[int, typer.Option(min=1, max=1024)] = 50,
    rate: Annotated[float, typer.Option(min=1, help="Seats freed per second.")] = 100,
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """How soon a free seat goes to the next player of a long queue."""

    def job(progress: worker.Share) -> QueueResult:
        known = read_tokens(tokens)
        if not seats < candidates <= len(known):
            raise BenchmarkError("a queue needs more candidates than seats, and a token for each")
        return measure(Target.parse(url), known[:candidates], seats, rate, pid, progress)

    worker.work(f"{candidates} candidates for {seats} seats", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
