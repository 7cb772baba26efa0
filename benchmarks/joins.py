"""A join storm: all players join one instance at once.

    python -m benchmarks.joins --url ws://host:3032 --tokens bots.txt --players 1000

All sockets are open and authenticated when the clock starts. While it runs, messages are only
stored and counted. Afterwards all are read: each player must know all that joined before it (from
its answer) and all that joined after it (from `instance-joined`).
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
    """`complete`: every player knows all others, and learned of each of them once."""

    players: int
    seconds: float
    """From the first join sent to the last answer received."""
    seconds_until_all_know: float
    """Until every player knows every other one."""
    events: int
    complete: bool
    listed_all_before: int
    """Players whose answer listed all players that had joined before."""
    received_bytes: int
    server_cpu_s: float | None


@dataclass(slots=True)
class Joiner:
    """One socket and all its received data."""

    client: Client
    received: bytearray = field(default_factory=bytearray)
    events: int = 0
    answered: bool = False

    def take(self, data: bytes) -> int:
        """Stores the bytes. Returns how many `instance-joined` ended in them."""
        seen = len(self.received)
        self.received += data
        count = self.received.count(_JOINED, max(0, seen - len(_JOINED) + 1))
        self.events += count
        if not self.answered:
            self.answered = self.received.find(_ANSWER, max(0, seen - len(_ANSWER) + 1)) != -1
        return count


@dataclass(frozen=True, slots=True)
class Known:
    """The players that one player knows: those in its answer, and those that joined later."""

    player: str
    listed: frozenset[str]
    later: tuple[str, ...]


def storm(joiners: Sequence[Joiner], instance: str, progress: worker.Share) -> tuple[float, float]:
    """All players join. Returns the seconds to the last answer and the last `instance-joined`."""
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


def read(joiner: Joiner) -> Known:
    """Parses the data of one player. Raises BenchmarkError if its join was refused."""
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
    return Known(answer.player, frozenset(p.player for p in answer.players), tuple(later))


def complete(known: Mapping[str, Known]) -> bool:
    """Whether each player knows all, and learned of each of the others exactly once."""
    everybody = frozenset(known)
    return all(
        joined.listed | set(joined.later) | {joined.player} == everybody
        and len(set(joined.later)) == len(joined.later)
        and not (joined.listed - {joined.player}) & set(joined.later)
        for joined in known.values()
    )


def listed_all_before(known: Mapping[str, Known]) -> int:
    """How many answers listed all players that had joined before.

    Of two players, one joined first: either the other's answer lists it, or its own answer lists
    the other. So an answer is complete if each player that it leaves out joined later or lists it.
    """
    return sum(
        all(
            other in joined.listed or joined.player in known[other].listed
            for other in known
            if other != joined.player
        )
        for joined in known.values()
    )


def measure(
    target: Target,
    tokens: Sequence[str],
    players: int,
    instance: str | None,
    pid: int | None,
    progress: worker.Share,
) -> JoinsResult:
    """Opens the sockets, runs the storm, and reads all messages."""
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
        known = {joined.player: joined for joined in map(read, joiners)}
        progress(1.0)
    finally:
        for client in clients:
            client.close()
    return JoinsResult(
        players=players,
        seconds=seconds,
        seconds_until_all_know=all_know,
        events=sum(joiner.events for joiner in joiners),
        complete=len(known) == players and complete(known),
        listed_all_before=listed_all_before(known),
        received_bytes=sum(len(joiner.received) for joiner in joiners),
        server_cpu_s=after.cpu_s - before.cpu_s if before and after else None,
    )


def main(
    url: worker.Url,
    tokens: worker.Tokens,
    players: Annotated[int, typer.Option(min=2, max=1024)] = 1000,
    instance: Annotated[str | None, typer.Option(help="Join this instance.")] = None,
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """Duration of a storm of joins into one instance."""

    def job(progress: worker.Share) -> JoinsResult:
        known = read_tokens(tokens)
        return measure(Target.parse(url), known, players, instance, pid, progress)

    worker.work(f"{players} joins", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
