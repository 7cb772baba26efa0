"""The benchmarks of `make bench`: servers, runs, and what goes into the report.

Each run is a process of its own (`python -m benchmarks.<file> --json`), on the load's core.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from benchmarks.cluster import ClusterResult
from benchmarks.errors import BenchmarkError
from benchmarks.federation import FederationResult
from benchmarks.http import HttpResult
from benchmarks.idle import IdleResult
from benchmarks.joins import JoinsResult
from benchmarks.load import LoadResult
from benchmarks.queue import QueueResult
from benchmarks.report import HTTP_PATH, HttpRun, Report, RoomRun, Sustained
from benchmarks.screen import Screen
from benchmarks.servers import REILETA, Kind, Running, Servers
from benchmarks.slow import SlowResult
from benchmarks.sustained import PROBES, SustainedResult
from benchmarks.watchers import WatchersResult

ROOT: Final = Path(__file__).parent.parent
RATE: Final = 20.0
"""Messages per second of each player."""
GIVE_UP: Final = 0.9
"""A server that delivers a smaller share is not measured with more players."""

Result = TypeVar("Result", bound=msgspec.Struct)


class Line(msgspec.Struct):
    """A line of a run's output."""

    progress: float | None = None
    result: msgspec.Raw = msgspec.Raw(b"")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. Times in seconds."""

    quick: bool
    seconds: float
    probe_s: float
    probes: int
    players: tuple[int, ...]
    idle: int
    joins: int
    candidates: int
    watchers: int
    slow_turn_s: float
    slow_rounds: int
    introductions: int
    reads: int

    @classmethod
    def of(cls, *, quick: bool, seconds: float | None) -> Self:
        if quick:
            return cls(True, seconds or 3, 1.5, 4, (100, 300), 1000, 300, 500, 300, 2, 1, 20, 300)
        return cls(
            False,
            seconds or 10,
            4,
            PROBES,
            (100, 200, 300, 400),
            5000,
            1000,
            2000,
            1000,
            4,
            4,
            100,
            1000,
        )

    @property
    def bots(self) -> int:
        """Number of accounts that the runs need."""
        return max(self.idle, self.joins, self.candidates, *self.players)


class Runner:
    """Runs the processes of the benchmarks against servers that it starts."""

    def __init__(
        self,
        servers: Servers,
        kinds: Sequence[Kind],
        http_kinds: Sequence[Kind],
        scale: Scale,
        core: int | None,
        screen: Screen,
        report: Report,
    ) -> None:
        self.kinds = kinds
        self.http_kinds = http_kinds
        self.scale = scale
        self.report = report
        self._servers = servers
        self._core = core
        self._screen = screen
        self._has_bots = False

    def ask(
        self, kind: Kind, file: str, what: str, result: type[Result], **options: float | str
    ) -> Result:
        """One run against a server that is started for it. Raises BenchmarkError."""
        self._screen.begin(f"{kind.title}: {what}")
        if kind is REILETA and not self._has_bots:
            self._servers.make_bots(self.scale.bots)
            self._has_bots = True
        with self._servers.run(kind) as running:
            return self._call(kind, running, file, result, options)

    def alone(
        self,
        file: str,
        what: str,
        result: type[Result],
        *flags: str,
        **options: float | str,
    ) -> Result:
        """A run that starts its servers itself. Raises BenchmarkError."""
        self._screen.begin(what)
        command = [sys.executable, "-m", f"benchmarks.{file}", "--json", *flags]
        return self._run(command, file, result, options)

    def note(self, what: str, error: BenchmarkError) -> None:
        """A run failed. The benchmark continues without it."""
        self.report.failed[what] = str(error)
        self._screen.say(f"[red]{what}: {error}[/]")

    def _call(
        self,
        kind: Kind,
        running: Running,
        file: str,
        result: type[Result],
        options: Mapping[str, float | str],
    ) -> Result:
        command = [sys.executable, "-m", f"benchmarks.{file}", "--json", "--url", running.url]
        command += ["--pid", str(running.pid)]
        if kind is REILETA:
            command += ["--tokens", str(self._servers.tokens)]
        if file in ("rooms", "sustained", "inbound"):
            command += ["--protocol", kind.protocol]
        return self._run(command, file, result, options)

    def _run(
        self,
        command: list[str],
        file: str,
        result: type[Result],
        options: Mapping[str, float | str],
    ) -> Result:
        if self._core is not None:
            command += ["--core", str(self._core)]
        for name, value in options.items():
            text = value if isinstance(value, str) else f"{value:g}"
            command += [f"--{name.replace('_', '-')}", text]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT)
            assert process.stdout is not None
            outcome: Result | None = None
            try:
                for output in process.stdout:
                    line = msgspec.json.decode(output, type=Line)
                    if line.progress is not None:
                        self._screen.share(line.progress)
                    if line.result:
                        outcome = msgspec.json.decode(line.result, type=result)
            finally:
                if process.poll() is None and outcome is None:
                    process.terminate()
                process.wait()
            if outcome is None:
                errors.seek(0)
                output_text = errors.read().decode(errors="replace").strip()
                raise BenchmarkError(f"{file} ended without a result: {output_text[-1500:]}")
        return outcome


def rooms(runner: Runner) -> None:
    """One room with more and more players; then, the highest rate that each server sustains."""
    given_up: set[str] = set()
    for players in runner.scale.players:
        for kind in runner.kinds:
            if kind.title in given_up:
                runner.report.rooms.append(RoomRun(kind.title, players, None))
                continue
            what = f"{players} players"
            try:
                outcome = runner.ask(
                    kind, "rooms", what, LoadResult,
                    players=players, rate=RATE, seconds=runner.scale.seconds,
                )  # fmt: skip
            except BenchmarkError as error:
                runner.note(f"{kind.title}, {what}", error)
                given_up.add(kind.title)
                continue
            runner.report.rooms.append(RoomRun(kind.title, players, outcome))
            if outcome.share < GIVE_UP:
                given_up.add(kind.title)
    for kind in runner.kinds:
        try:
            runner.report.sustained.append(_most(runner, kind))
        except BenchmarkError as error:
            runner.note(f"{kind.title}, highest rate", error)


def _most(runner: Runner, kind: Kind) -> Sustained:
    """Searches at the largest number of players that the server sustained. Takes the best of all
    its runs."""
    held = [
        run.result
        for run in runner.report.rooms
        if run.server == kind.title and run.result is not None and run.result.sustained
    ]
    players = max((run.players for run in held), default=runner.scale.players[0])
    first = RATE * 1.25 if held else RATE / 2
    search = runner.ask(
        kind, "sustained", f"the highest rate with {players} players", SustainedResult,
        players=players, first=first, limit=max(40.0, 40_000 / players / 2),
        seconds=runner.scale.probe_s, probes=runner.scale.probes,
    )  # fmt: skip
    runs = [*held, *([search.best] if search.best else [])]
    best = max(runs, key=lambda run: run.deliveries_per_s, default=None)
    return Sustained(
        server=kind.title,
        per_s=best.deliveries_per_s if best else 0.0,
        at_least=search.at_limit,
        players=best.players if best else players,
        rate=best.rate if best else 0.0,
        search=search,
    )


def inbound(runner: Runner) -> None:
    """Inbound messages, in many rooms of two, on all servers."""
    for kind in runner.kinds:
        try:
            outcome = runner.ask(
                kind, "inbound", "messages in", SustainedResult,
                seconds=runner.scale.probe_s, probes=runner.scale.probes,
            )  # fmt: skip
        except BenchmarkError as error:
            runner.note(f"{kind.title}, messages in", error)
            continue
        best = outcome.best
        runner.report.inbound.append(
            Sustained(
                server=kind.title,
                per_s=best.messages_per_s if best else 0.0,
                at_least=outcome.at_limit,
                players=best.players if best else 0,
                rate=best.rate if best else 0.0,
                search=outcome,
            )
        )


def idle(runner: Runner) -> None:
    """Memory of idle connections."""
    count = runner.scale.idle
    what = f"{count:,} idle connections"
    runner.report.idle = runner.ask(REILETA, "idle", what, IdleResult, connections=count)


def joins(runner: Runner) -> None:
    """A join storm."""
    count = runner.scale.joins
    what = f"{count:,} joins at once"
    runner.report.joins = runner.ask(REILETA, "joins", what, JoinsResult, players=count)


def queue(runner: Runner) -> None:
    """A long queue for a full instance."""
    count = runner.scale.candidates
    what = f"{count:,} candidates for 50 seats"
    runner.report.queue = runner.ask(REILETA, "queue", what, QueueResult, candidates=count)


def watchers(runner: Runner) -> None:
    """Many watchers of a document that changes."""
    count = runner.scale.watchers
    runner.report.watchers = runner.ask(
        REILETA, "watchers", f"{count:,} watchers of a document", WatchersResult,
        watchers=count, seconds=runner.scale.seconds,
    )  # fmt: skip


def http(runner: Runner) -> None:
    """HTTP requests per second; of the peers, on the one path that all have."""
    for kind in runner.http_kinds:
        options: dict[str, float | str] = {} if kind is REILETA else {"path": HTTP_PATH}
        try:
            outcome = runner.ask(
                kind, "http", "HTTP requests", HttpResult, seconds=runner.scale.probe_s, **options
            )
        except BenchmarkError as error:
            runner.note(f"{kind.title}, HTTP requests", error)
            continue
        runner.report.http.append(HttpRun(kind.title, outcome))


def slow(runner: Runner) -> None:
    """A slow reader among fast ones."""
    scale = runner.scale
    runner.report.slow = runner.ask(
        REILETA, "slow", "one slow reader", SlowResult,
        turn=scale.slow_turn_s, rounds=scale.slow_rounds,
    )  # fmt: skip


def federation(runner: Runner) -> None:
    """Two servers that trust each other."""
    scale = runner.scale
    runner.report.federation = runner.alone(
        "federation", "two servers", FederationResult,
        rounds=scale.introductions, reads=scale.reads,
    )  # fmt: skip


def cluster(runner: Runner) -> None:
    """Several nodes of one server."""
    quick = ("--quick",) if runner.scale.quick else ()
    runner.report.cluster = runner.alone("cluster", "several nodes", ClusterResult, *quick)


QUESTIONS: Final[Mapping[str, Callable[[Runner], None]]] = {
    "rooms": rooms,
    "inbound": inbound,
    "idle": idle,
    "joins": joins,
    "queue": queue,
    "watchers": watchers,
    "http": http,
    "slow": slow,
    "federation": federation,
    "cluster": cluster,
}
