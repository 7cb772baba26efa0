"""Interest: a room whose players want everything, and one whose players want 20 near ones.

    python -m benchmarks.interest [--players 300 --near 20 --far-rate 1 --rounds 5]

Both are rooms of one server, in alternating rounds: the same players, the same messages, all with a
key. In the second, each socket asks for at most `--far-rate` values a second of each player that is
not near. A third asks for at most `--rate` values a second of near players, too, so that values
that are due together share a write.
"""

from __future__ import annotations

import json as json_
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all
from benchmarks.dialects import Reileta, decode, is_join_answer, make_instances
from benchmarks.frames import client_frame
from benchmarks.http_rounds import versions
from benchmarks.load import Load, LoadResult, Plan
from benchmarks.machine import cores
from benchmarks.rooms import PAYLOAD_BYTES, Rooms

WARM_UP_S: Final = 1.5
DRAIN_S: Final = 1.0
NAMES: Final = ("everything", "near at once, far at a rate", "near and far at rates")


class Ratio(msgspec.Struct, frozen=True):
    """The median of the ratios of each round, with the lowest and the highest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        return cls(statistics.median(ratios), min(ratios), max(ratios))


class InterestRow(msgspec.Struct, frozen=True):
    """One kind of room: medians over the rounds, and ratios to the room that wants everything."""

    wants: str
    kib_per_s: float
    """To each client."""
    deliveries_per_s: float
    server_cpu: float | None
    """Cores."""
    cpu_s_per_million: float | None
    fewer_bytes: Ratio
    """How many times as many bytes a client gets that wants everything."""
    cpu_each: Ratio | None
    """CPU of a delivery, as a multiple of the same there."""
    cpu: Ratio | None
    """CPU, as a multiple of the same there."""


class InterestResult(msgspec.Struct, frozen=True):
    """What interest saves."""

    players: int
    near: int
    rate: float
    far_rate: float
    rounds: int
    rows: list[InterestRow]


class _Answer(msgspec.Struct):
    player: str


@dataclass(frozen=True)
class InterestedBots(Reileta):
    """Bots that send with a key, and know the ids of their players."""

    players: dict[int, str] = field(default_factory=dict)

    def greeted(self, number: int, message: bytes) -> bool:
        if not is_join_answer(message):
            return False
        self.players[number] = msgspec.json.decode(decode(message).data, type=_Answer).player
        return True

    def wish(self, number: int, near: int, rate: float | None, far_rate: float) -> bytes:
        """The request of a player to whom its neighbours in the order of joining are near."""
        count = len(self.players)
        distances = [one for one in range(-(near // 2), near - near // 2 + 1) if one]
        ids = [self.players[(number + one) % count] for one in distances]
        data: dict[str, object] = {"near": ids, "far_rate": far_rate}
        if rate is not None:
            data["rate"] = rate
        message = {
            "command": "instance-interest",
            "subgroup": self.instance(number),
            "data": data,
        }
        return client_frame(json_.dumps(message).encode())


@dataclass(frozen=True)
class InterestedRooms(Rooms):
    """A room whose players ask for something before they send; `wish` gives the frame."""

    wish: Callable[[int], bytes] | None = None

    def run(self, plan: Plan, progress: worker.Share) -> LoadResult:
        clients: list[Client] = open_all(self.target, self.dialect, range(self.players))
        try:
            if self.wish is not None:
                for number, client in enumerate(clients):
                    client.sock.sendall(self.wish(number))
            return Load(self.seat(clients), plan, progress).run()
        finally:
            for client in clients:
                client.close()


def main(
    players: Annotated[int, typer.Option(min=3, help="Players in the room.")] = 300,
    near: Annotated[int, typer.Option(min=2, help="How many are near each.")] = 20,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages/s per player.")] = 20,
    far_rate: Annotated[float, typer.Option(min=0.1, help="Values/s of far players.")] = 1,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: worker.Seconds = 4,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """Bytes to each client and CPU of a delivery, with and without interest."""

    def job(progress: worker.Share) -> InterestResult:
        pair = cores()
        found: dict[str, list[LoadResult]] = {name: [] for name in NAMES}
        with tempfile.TemporaryDirectory(prefix="reileta-bench-") as made:
            folder = Path(made)
            folder.chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            with versions(folder, (), players, pair[0] if pair else None) as started:
                [(_, running, tokens)] = started
                if pair:
                    os.sched_setaffinity(0, {pair[1]})
                target = Target.parse(running.url)
                plan = Plan(rate, seconds, WARM_UP_S, DRAIN_S, running.pid)
                steps = rounds * len(NAMES)
                for number in range(steps):
                    turn, place = divmod(number, len(NAMES))
                    name = NAMES[(turn + place) % len(NAMES)]
                    room = make_instances(target, tokens[0], 1, players)
                    bots = InterestedBots(tokens, room, players, "pose")
                    limited = NAMES.index(name)

                    def wish(
                        one: int, bots: InterestedBots = bots, limited: int = limited
                    ) -> bytes:
                        return bots.wish(one, near, rate if limited == 2 else None, far_rate)

                    rooms = InterestedRooms(
                        target, bots, players, players, PAYLOAD_BYTES, wish if limited else None
                    )
                    part = worker.part(progress, number / steps, (number + 1) / steps)
                    found[name].append(rooms.run(plan, part))
        rows = [_row(name, found[name], found[NAMES[0]], players) for name in NAMES]
        return InterestResult(players, near, rate, far_rate, rounds, rows)

    worker.work(f"{players} players, of whom {near} are near", job, as_json=json, core=core)


def _row(name: str, rounds: list[LoadResult], whole: list[LoadResult], players: int) -> InterestRow:
    def middle(of: Callable[[LoadResult], float | None]) -> float | None:
        values = [value for value in map(of, rounds) if value is not None]
        return statistics.median(values) if values else None

    def ratio(of: Callable[[LoadResult], float | None]) -> Ratio | None:
        pairs = [(of(mine), of(its)) for mine, its in zip(rounds, whole, strict=True)]
        ratios = [mine / its for mine, its in pairs if mine and its]
        return Ratio.of(ratios) if ratios else None

    return InterestRow(
        wants=name,
        kib_per_s=(middle(lambda one: one.received_bytes_per_s) or 0.0) / players / 1024,
        deliveries_per_s=middle(lambda one: one.deliveries_per_s) or 0.0,
        server_cpu=middle(lambda one: one.server_cpu),
        cpu_s_per_million=middle(lambda one: one.cpu_s_per_million),
        fewer_bytes=Ratio.of(
            [
                its.received_bytes_per_s / max(mine.received_bytes_per_s, 1e-9)
                for mine, its in zip(rounds, whole, strict=True)
            ]
        ),
        cpu_each=ratio(lambda one: one.cpu_s_per_million),
        cpu=ratio(lambda one: one.server_cpu),
    )


if __name__ == "__main__":
    typer.run(main)
