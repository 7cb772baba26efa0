"""A join storm: everybody joins one instance at once.

    python -m benchmarks.joins --url ws://host:3032 --tokens bots.txt --players 1000

All sockets are open and authenticated when the clock starts. What arrives is kept and only counted
until the clock stops; then every message is read, and each joiner must have been told of all that
joined before it (in its answer) and after it (by `instance-joined`).
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import JOIN_STATE, Reileta, decode, join, make_instances, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.frames import PING, PONG, TEXT, FrameReader, client_frame
from benchmarks.machine import usage

_JOINED: Final = b'"instance-joined"'
_ANSWER: Final = f'"{JOIN_STATE}"'.encode()
_QUIET_S: Final = 3.0
_PATIENCE_S: Final = 60.0


class _Player(msgspec.Struct):
    player: str


class _Answer(msgspec.Struct):
    player: str
    players: list[_Player]


class JoinsResult(msgspec.Struct, frozen=True):
    """`complete` says that every joiner knows all others, each told once."""

    players: int
    seconds: float
    """From the first join sent to the last answer received."""
    seconds_until_all_know: float
    """Until every joiner has been told of every other."""
    events: int
    complete: bool
    told_of_all_before: int
    """Joiners whose answer listed everyone who had joined before them."""
    received_bytes: int
    server_cpu_s: float | None


@dataclass(slots=True)
class Joiner:
    """One socket, and everything it has received."""

    client: Client
    received: bytearray = field(default_factory=bytearray)
    events: int = 0
    answered: bool = False

    def take(self, data: bytes) -> int:
        """Keeps the bytes; how many `instance-joined` ended in them."""
        seen = len(self.received)
        self.received += data
        count = self.received.count(_JOINED, max(0, seen - len(_JOINED) + 1))
        self.events += count
        if not self.answered:
            self.answered = self.received.find(_ANSWER, max(0, seen - len(_ANSWER) + 1)) != -1
        return count


@dataclass(frozen=True, slots=True)
class Told:
    """What one joiner was told: the players in its answer, and those that came later."""

    player: str
    listed: frozenset[str]
    later: tuple[str, ...]


def storm(joiners: Sequence[Joiner], instance: str, progress: worker.Share) -> tuple[float, float]:
    """Everybody joins; seconds until the last answer, and until the last `instance-joined`."""
    by_fd = {joiner.client.sock.fileno(): joiner for joiner in joiners}
    epoll = select.epoll()
    for joiner in joiners:
        joiner.client.sock.setblocking(False)
        epoll.register(joiner.client.sock, select.EPOLLIN)
    request = client_frame(join(instance))
    count, answered, events = len(joiners), 0, 0
    expected = count * (count - 1) // 2
    began = answered_at = told_at = time.monotonic()
    for joiner in joiners:
        joiner.client.sock.send(request)
    try:
        while answered < count or events < expected:
            now = time.monotonic()
            if now - began > _PATIENCE_S or now - max(answered_at, told_at) > _QUIET_S:
                break
            for fd, _ in epoll.poll(0.2, count):
                joiner = by_fd[fd]
                before = joiner.answered
                data = joiner.client.sock.recv(1 << 18)
                if not data:
                    epoll.unregister(fd)
                    continue
                fresh = joiner.take(data)
                if joiner.answered and not before:
                    answered, answered_at = answered + 1, time.monotonic()
                if fresh:
                    events, told_at = events + fresh, time.monotonic()
            progress(events / max(1, expected))
    finally:
        epoll.close()
    if answered < count:
        raise BenchmarkError(f"only {answered} of {count} joins were answered")
    return answered_at - began, max(answered_at, told_at) - began


def read(joiner: Joiner) -> Told:
    """Reads all that a joiner received. Raises BenchmarkError when its join was refused."""
    answer: _Answer | None = None
    later: list[str] = []
    for frame in FrameReader().feed(joiner.received):
        if frame.opcode == PING:
            joiner.client.sock.send(client_frame(frame.data, PONG))
        if frame.opcode != TEXT:
            continue
        message = decode(frame.data)
        if message.error is not None:
            raise BenchmarkError(f"a join was refused: {message.error.message}")
        if message.state == JOIN_STATE:
            answer = msgspec.json.decode(message.data, type=_Answer)
        elif message.command == "instance-joined":
            later.append(msgspec.json.decode(message.data, type=_Player).player)
    if answer is None:
        raise BenchmarkError("a join was never answered")
    return Told(answer.player, frozenset(p.player for p in answer.players), tuple(later))


def complete(told: Mapping[str, Told]) -> bool:
    """Whether each knows all, and was told of each of the others exactly once."""
    everybody = frozenset(told)
    return all(
        one.listed | set(one.later) | {one.player} == everybody
        and len(set(one.later)) == len(one.later)
        and not (one.listed - {one.player}) & set(one.later)
        for one in told.values()
    )


def told_of_all_before(told: Mapping[str, Told]) -> int:
    """How many answers listed all that had joined before.

    Of two joiners, one came first: the other's answer must list it, or else its own lists the
    other. So an answer is whole if everyone it leaves out was listed as a newcomer or lists it.
    """
    return sum(
        all(
            other in one.listed or one.player in told[other].listed
            for other in told
            if other != one.player
        )
        for one in told.values()
    )


def measure(
    target: Target,
    tokens: Sequence[str],
    players: int,
    instance: str | None,
    pid: int | None,
    progress: worker.Share,
) -> JoinsResult:
    """Opens the sockets, lets the storm loose, and reads what everybody was told."""
    if len(tokens) < players:
        raise BenchmarkError(f"{players} players need {players} tokens; there are {len(tokens)}")
    if instance is None:
        instance = make_instances(target, tokens[0], 1, players)[0]
    clients = open_all(target, Reileta(tokens), range(players), worker.part(progress, 0, 0.5))
    try:
        joiners = [Joiner(client) for client in clients]
        before = usage(pid)
        seconds, all_know = storm(joiners, instance, worker.part(progress, 0.5, 0.9))
        after = usage(pid)
        told = {one.player: one for one in map(read, joiners)}
        progress(1.0)
    finally:
        for client in clients:
            client.close()
    return JoinsResult(
        players=players,
        seconds=seconds,
        seconds_until_all_know=all_know,
        events=sum(joiner.events for joiner in joiners),
        complete=len(told) == players and complete(told),
        told_of_all_before=told_of_all_before(told),
        received_bytes=sum(len(joiner.received) for joiner in joiners),
        server_cpu_s=after.cpu_s - before.cpu_s if before and after else None,
    )


def main(
    url: worker.Url,
    tokens: worker.Tokens,
    players: Annotated[int, typer.Option(min=2, max=1024)] = 1000,
    instance: Annotated[str | None, typer.Option(help="Join this, not a new one.")] = None,
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """How long a storm of joins into one instance takes."""

    def job(progress: worker.Share) -> JoinsResult:
        known = read_tokens(tokens)
        return measure(Target.parse(url), known, players, instance, pid, progress)

    worker.work(f"{players} joins", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
