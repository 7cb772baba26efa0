"""CPU of a message in that is one of many, for this version and others in alternating rounds.

    python -m benchmarks.bursts --against ../other-checkout --peer socketio [--each 16]

How many messages a server finds when it looks decides most of their cost, and a slower server finds
more. So each server is paused while the messages are sent, and all servers find the same number:
`--each` on every socket. One on each is what a server meets at a low rate, and sixteen near the
highest.
"""

from __future__ import annotations

import os
import select
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.connect import Client, Target, open_all
from benchmarks.errors import BenchmarkError
from benchmarks.http_rounds import Against
from benchmarks.machine import describe, lift_file_limit
from benchmarks.ratios import ratios, spread, turned
from benchmarks.room_rounds import Contender, Group, Peers, Players, contenders
from benchmarks.rooms import Rooms
from benchmarks.tally import Tally

PATIENCE_S: Final = 30.0


class Row(msgspec.Struct, frozen=True):
    """One server: the CPU of a message in microseconds, for each round."""

    server: str
    cpu_us: list[float]


def busy_s(pid: int) -> float:
    """How long the threads of a process have run, in seconds."""
    folder = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in folder.iterdir()) / 1e9


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """The process does nothing inside."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Bursts:
    """Players in rooms, who send bursts."""

    def __init__(self, contender: Contender, players: int, group: int) -> None:
        target = Target.parse(contender.running.url)
        rooms = Rooms(target, contender.dialect, players, group)
        self._pid = contender.running.pid
        self._clients: list[Client] = open_all(
            target, contender.dialect, range(players), lambda _: None
        )
        self._players = rooms.seat(self._clients)
        self._tally = Tally(sample_every=1 << 60)
        for number, player in enumerate(self._players):
            player.stream = self._tally.stream(number)
            player.client.sock.setblocking(False)

    def burst(self, each: int) -> float:
        """Sends `each` messages on every socket, and waits until all are delivered. Returns the
        server's CPU for all of them, in seconds.

        Raises:
            BenchmarkError: a connection was lost, or something did not arrive.
        """
        expected = self._tally.delivered
        began_s = busy_s(self._pid)
        with paused(self._pid):
            for player in self._players:
                frame = bytes(player.template.stamped(time.monotonic_ns())) * each
                if player.client.sock.send(frame) < len(frame):
                    raise BenchmarkError("the messages of a burst do not fit into a socket")
                expected += each * player.audience
        self._wait_for(expected)
        return busy_s(self._pid) - began_s

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _wait_for(self, expected: int) -> None:
        tally, by_fd = self._tally, {one.client.sock.fileno(): one for one in self._players}
        until = time.monotonic() + PATIENCE_S
        with select.epoll() as epoll:
            for fd in by_fd:
                epoll.register(fd, select.EPOLLIN)
            while tally.delivered < expected:
                if time.monotonic() > until:
                    raise BenchmarkError(f"{expected - tally.delivered} messages did not arrive")
                for fd, _ in epoll.poll(0.1, len(by_fd)):
                    player = by_fd[fd]
                    size = player.client.sock.recv_into(tally.space)
                    if not size:
                        raise BenchmarkError("the server has closed a connection")
                    tally.arrived(player.stream, size, 0)


def table(rows: list[Row]) -> Table:
    """The medians, and the ratios of this version (the first row) to the others."""
    shown = Table("server", "CPU of a message, µs", "this / it")
    for row in rows:
        ratio = "" if row is rows[0] else spread(ratios(rows[0].cpu_us, row.cpu_us))
        shown.add_row(row.server, f"{statistics.median(row.cpu_us):.1f}", ratio)
    return shown


def main(
    against: Against = None,
    peer: Peers = None,
    players: Players = 200,
    group: Group = 2,
    each: Annotated[int, typer.Option(min=1, max=64, help="Messages on each socket.")] = 4,
    bursts: Annotated[int, typer.Option(min=1, help="Bursts in a round.")] = 10,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file for all results.")] = None,
) -> None:
    """CPU of a message in, in alternating rounds."""
    console = Console() if Console().is_terminal else Console(width=120)
    lift_file_limit()
    try:
        with contenders(against or (), peer or (), players, group) as there:
            found: dict[str, list[float]] = {one.title: [] for one in there}
            for number in range(rounds):
                for one in turned(there, number):
                    load = Bursts(one, players, group)
                    try:
                        load.burst(each)  # so that every sender is known
                        cpu_s = sum(load.burst(each) for _ in range(bursts))
                    finally:
                        load.close()
                    found[one.title].append(cpu_s / (bursts * players * each) * 1e6)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    rows = [Row(server, values) for server, values in found.items()]
    console.print(table(rows))
    console.print(
        f"{players} players in rooms of {group}, bursts of {each} messages each; "
        f"{rounds} rounds of {bursts} bursts; {describe()}",
        highlight=False,
    )
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


if __name__ == "__main__":
    typer.run(main)
