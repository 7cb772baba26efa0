"""Rooms: every player sends, and every other player in its room receives.

python -m benchmarks.rooms --url ws://host:3032 --tokens bots.txt --players 300 --rate 20
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from benchmarks import worker
from benchmarks.connect import Client, Dialect, Target, open_all
from benchmarks.dialects import choose, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.frames import Template, payload
from benchmarks.load import Load, LoadResult, Plan, Player

PAYLOAD_BYTES = 150


@dataclass(frozen=True)
class Rooms:
    """`players` in rooms of `group` each. The last room may be smaller."""

    target: Target
    dialect: Dialect
    players: int
    group: int
    payload_bytes: int = PAYLOAD_BYTES

    def audience(self, number: int) -> int:
        """Number of other players in that player's room."""
        first = number - number % self.group
        return min(self.group, self.players - first) - 1

    def run(self, plan: Plan, progress: worker.Share) -> LoadResult:
        """Opens all connections, runs the load, closes them."""
        clients = open_all(
            self.target, self.dialect, range(self.players), worker.part(progress, 0, 0.2)
        )
        try:
            return Load(self.seat(clients), plan, worker.part(progress, 0.2, 1)).run()
        finally:
            for client in clients:
                client.close()

    def seat(self, clients: Sequence[Client]) -> list[Player]:
        """A player for each connection, in order."""
        return [
            Player(client, Template(self._message(number)), self.audience(number))
            for number, client in enumerate(clients)
        ]

    def _message(self, number: int) -> bytes:
        return self.dialect.message(number, payload(number, self.payload_bytes))


def main(
    url: worker.Url,
    tokens: worker.Tokens = None,
    players: Annotated[int, typer.Option(min=2, help="Players in all.")] = 100,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages/s per player.")] = 20,
    group: Annotated[int, typer.Option(min=0, help="Players per room; 0: one room.")] = 0,
    seconds: worker.Seconds = 10,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds before measuring.")] = 1,
    drain: Annotated[float, typer.Option(min=0, help="Seconds to wait for late messages.")] = 2,
    payload_bytes: Annotated[int, typer.Option(help="Bytes of a payload.")] = PAYLOAD_BYTES,
    instance: Annotated[str | None, typer.Option(help="Join this instance.")] = None,
    protocol: worker.Protocol = "reileta",
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """Delivered share, deliveries per second, latency, CPU and memory for players in a room."""

    def job(progress: worker.Share) -> LoadResult:
        target = Target.parse(url)
        try:
            payload(0, payload_bytes)
        except ValueError as error:
            raise BenchmarkError(str(error)) from error
        size = group or players
        dialect = choose(protocol, target, read_tokens(tokens), players, size, instance)
        rooms = Rooms(target, dialect, players, size, payload_bytes)
        return rooms.run(Plan(rate, seconds, warm_up, drain, pid), progress)

    worker.work(f"{players} players, {rate:g} messages a second each", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
