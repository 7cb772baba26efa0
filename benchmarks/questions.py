"""The benchmarks of `make bench`: servers, runs, and what goes into the report.

Each run is a process of its own (`python -m benchmarks.<file> --json`), on the load's core.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from benchmarks.cluster import ClusterResult
from benchmarks.errors import BenchmarkError
from benchmarks.federation import FederationResult
from benchmarks.gateway import GatewayResult
from benchmarks.http import HTTP_PATH, HttpResult
from benchmarks.idle import IdleResult
from benchmarks.interest import InterestResult
from benchmarks.joins import JoinsResult
from benchmarks.link import LinkResult
from benchmarks.load import LoadResult
from benchmarks.queue import QueueResult
from benchmarks.ratios import turned
from benchmarks.report import HttpRun, Report, RoomRun, Sustained
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
    rounds: int
    searches: int

    @classmethod
    def of(cls, *, quick: bool, seconds: float | None) -> Self:
        if quick:
            return cls(
                True, seconds or 3, 1.5, 4, (100, 300), 1000, 300, 500, 300, 2, 1, 20, 300, 3, 1
            )
        return cls(
            False,
            seconds or 4,
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
            5,
            3,
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

    def rounds(
        self,
        kinds: Sequence[Kind],
        file: str,
        what: str,
        result: type[Result],
        options: Callable[[Kind], Mapping[str, float | str]],
        rounds: int,
        goes_on: Callable[[Result], bool] = lambda _: True,
    ) -> dict[str, list[Result]]:
        """Runs against all kinds in alternating rounds, each of which begins with another one. The
        servers run side by side, and one at a time gets messages. A kind whose run fails, or that
        does not go on, is left out of later rounds. Returns the results of each by title."""
        found: dict[str, list[Result]] = {}
        if REILETA in kinds and not self._has_bots:
            self._servers.make_bots(self.scale.bots)
            self._has_bots = True
        with ExitStack() as stack:
            running: dict[Kind, Running] = {}
            for kind in kinds:
                self._screen.begin(f"{kind.title}: {what}")
                try:
                    running[kind] = stack.enter_context(self._servers.run(kind))
                except BenchmarkError as error:
                    self.note(f"{kind.title}, {what}", error)
            for number in range(rounds):
                for kind in turned(list(running), number):
                    self._screen.begin(f"{kind.title}: {what}, {number + 1} of {rounds}")
                    try:
                        outcome = self._call(kind, running[kind], file, result, options(kind))
                    except BenchmarkError as error:
                        self.note(f"{kind.title}, {what}", error)
                        del running[kind]
                        continue
                    found.setdefault(kind.title, []).append(outcome)
                    if not goes_on(outcome):
                        del running[kind]
        return found

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
    """One room with more and more players; then, the highest rate that each server sustains. All in
    alternating rounds."""
    given_up: set[str] = set()
    for players in runner.scale.players:
        kinds = [kind for kind in runner.kinds if kind.title not in given_up]
        options: dict[str, float | str] = {
            "players": players,
            "rate": RATE,
            "seconds": runner.scale.seconds,
        }
        found = runner.rounds(
            kinds,
            "rooms",
            f"{players} players",
            LoadResult,
            dict.fromkeys(kinds, options).__getitem__,
            runner.scale.rounds,
            lambda outcome: outcome.share >= GIVE_UP,
        )
        for kind in runner.kinds:
            rounds = found.get(kind.title, [])
            runner.report.rooms.append(RoomRun.of(kind.title, players, rounds))
            if not rounds or min(one.share for one in rounds) < GIVE_UP:
                given_up.add(kind.title)
    held = {kind.title: _held(runner, kind) for kind in runner.kinds}

    def searching(kind: Kind) -> dict[str, float | str]:
        """Searches at the largest number of players that the server sustained."""
        players = max((run.players for run in held[kind.title]), default=runner.scale.players[0])
        return {
            "players": players,
            "first": RATE * 1.25 if held[kind.title] else RATE / 2,
            "limit": max(40.0, 60_000 / players),
            "seconds": runner.scale.probe_s,
            "probes": runner.scale.probes,
        }

    found_most = runner.rounds(
        runner.kinds, "sustained", "the highest rate", SustainedResult, searching,
        runner.scale.searches,
    )  # fmt: skip
    for kind in runner.kinds:
        searches = found_most.get(kind.title)
        if searches:
            runner.report.sustained.append(
                _most(kind, searches, lambda run: run.deliveries_per_s, held[kind.title])
            )


def _held(runner: Runner, kind: Kind) -> list[LoadResult]:
    """The runs in one room that the server sustained."""
    return [
        run.result
        for run in runner.report.rooms
        if run.server == kind.title and run.result is not None and run.result.sustained
    ]


def _most(
    kind: Kind,
    searches: list[SustainedResult],
    per_s: Callable[[LoadResult], float],
    held: Sequence[LoadResult] = (),
) -> Sustained:
    """The median of the searches, each with the best of its runs; `held` count for all of them."""
    bests = []
    for search in searches:
        runs = [*held, *([search.best] if search.best else [])]
        bests.append((max(runs, key=per_s, default=None), search))
    ordered = sorted(bests, key=lambda one: 0.0 if one[0] is None else per_s(one[0]))
    best, search = ordered[(len(ordered) - 1) // 2]
    return Sustained(
        server=kind.title,
        per_s=per_s(best) if best else 0.0,
        at_least=search.at_limit,
        players=best.players if best else 0,
        rate=best.rate if best else 0.0,
        search=search,
        rounds=[0.0 if one is None else per_s(one) for one, _ in bests],
    )


def inbound(runner: Runner) -> None:
    """Inbound messages, in many rooms of two, on all servers, in alternating rounds."""
    found = runner.rounds(
        runner.kinds, "inbound", "messages in", SustainedResult,
        lambda _: {"seconds": runner.scale.probe_s, "probes": runner.scale.probes},
        runner.scale.searches,
    )  # fmt: skip
    for kind in runner.kinds:
        searches = found.get(kind.title)
        if searches:
            runner.report.inbound.append(_most(kind, searches, lambda run: run.messages_per_s))


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
    """HTTP requests per second, in alternating rounds; of the peers, on the path that all have."""

    def options(kind: Kind) -> dict[str, float | str]:
        path: dict[str, float | str] = {} if kind is REILETA else {"path": HTTP_PATH}
        return {"seconds": runner.scale.probe_s, **path}

    found = runner.rounds(
        runner.http_kinds, "http", "HTTP requests", HttpResult, options, runner.scale.rounds
    )
    for kind in runner.http_kinds:
        rounds = found.get(kind.title)
        if rounds:
            ordered = sorted(rounds, key=lambda one: one.paths[0].requests_per_s)
            middle = ordered[(len(ordered) - 1) // 2]
            runner.report.http.append(HttpRun(kind.title, middle, rounds))


def interest(runner: Runner) -> None:
    """A room whose players want less of far players."""
    scale = runner.scale
    runner.report.interest = runner.alone(
        "interest", "interest", InterestResult, rounds=scale.rounds, seconds=scale.seconds
    )


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


def gateway(runner: Runner) -> None:
    """A file through a gateway, and straight to the registry behind it."""
    mib, rounds = (64, 1) if runner.scale.quick else (512, 3)
    runner.report.gateway = runner.alone(
        "gateway", "a file through a gateway", GatewayResult, mib=mib, rounds=rounds
    )


def link(runner: Runner) -> None:
    """A room on an instance node, over its link and directly."""
    scale = runner.scale
    runner.report.link = runner.alone(
        "link", "a room on a node", LinkResult, rounds=scale.rounds, seconds=scale.seconds
    )


QUESTIONS: Final[Mapping[str, Callable[[Runner], None]]] = {
    "rooms": rooms,
    "inbound": inbound,
    "idle": idle,
    "joins": joins,
    "queue": queue,
    "watchers": watchers,
    "http": http,
    "slow": slow,
    "interest": interest,
    "federation": federation,
    "cluster": cluster,
    "gateway": gateway,
    "link": link,
}
