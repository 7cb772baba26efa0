"""Results of a run of all benchmarks: JSON, tables, and comparison with the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.cluster import ClusterResult, rows
from benchmarks.federation import FederationResult
from benchmarks.gateway import GatewayResult
from benchmarks.http import HTTP_PATH, HttpResult
from benchmarks.idle import IdleResult
from benchmarks.interest import InterestResult
from benchmarks.joins import JoinsResult
from benchmarks.link import LinkResult
from benchmarks.load import LoadResult
from benchmarks.machine import MIB
from benchmarks.queue import QueueResult
from benchmarks.ratios import UNSTEADY, ratios, spread, steady
from benchmarks.slow import SlowResult
from benchmarks.sustained import SustainedResult
from benchmarks.watchers import WatchersResult

KIB = 1024


class RoomRun(msgspec.Struct, frozen=True):
    """One server with that many players in one room.

    `result` is that of the round whose p99 is the median; None if the server was given up. `rounds`
    are all of them, in order.
    """

    server: str
    players: int
    result: LoadResult | None
    rounds: list[LoadResult] = []

    @classmethod
    def of(cls, server: str, players: int, rounds: list[LoadResult]) -> RoomRun:
        """The run of these rounds; none: the server was given up."""
        ordered = sorted(rounds, key=lambda one: p99_of(one) or float("inf"))
        middle = ordered[(len(ordered) - 1) // 2] if ordered else None
        return cls(server, players, middle, rounds)

    def figures(self, of: Callable[[LoadResult], float | None]) -> list[float | None]:
        """A figure of each round."""
        return [of(one) for one in self.rounds]


def p99_of(result: LoadResult) -> float | None:
    return None if result.latency is None else result.latency.p99_ms


def cpu_of(result: LoadResult) -> float | None:
    return result.cpu_s_per_million


class Sustained(msgspec.Struct, frozen=True):
    """The highest rate that a server sustained, in deliveries or messages per second: the median
    of the `rounds`."""

    server: str
    per_s: float
    at_least: bool
    """The load could go no higher."""
    players: int
    rate: float
    search: SustainedResult | None
    rounds: list[float] = []


class HttpRun(msgspec.Struct, frozen=True):
    """Requests per second of one server. `result` is the median of the `rounds`."""

    server: str
    result: HttpResult
    rounds: list[HttpResult] = []

    def figures(self, path: str) -> list[float | None]:
        """Requests a second on a path in each round."""
        return [
            next((one.requests_per_s for one in found.paths if one.path == path), None)
            for found in self.rounds
        ]


class Report(msgspec.Struct):
    """A run of `benchmarks.run`. Lists are empty, and values None, for what was not measured."""

    when: str
    machine: str
    pinned: bool
    quick: bool
    servers: list[str]
    missing: dict[str, str] = {}
    failed: dict[str, str] = {}
    rooms: list[RoomRun] = []
    sustained: list[Sustained] = []
    inbound: list[Sustained] = []
    idle: IdleResult | None = None
    joins: JoinsResult | None = None
    queue: QueueResult | None = None
    watchers: WatchersResult | None = None
    http: list[HttpRun] = []
    slow: SlowResult | None = None
    federation: FederationResult | None = None
    cluster: ClusterResult | None = None
    interest: InterestResult | None = None
    gateway: GatewayResult | None = None
    link: LinkResult | None = None

    def room(self, server: str, players: int) -> LoadResult | None:
        found = (run for run in self.rooms if run.server == server and run.players == players)
        return next((run.result for run in found), None)

    def requests_per_s(self, server: str, path: str) -> float | None:
        """The result of a server on one path."""
        found = (
            one.requests_per_s
            for run in self.http
            if run.server == server
            for one in run.result.paths
            if one.path == path
        )
        return next(found, None)

    def compared(self, us: str = "Reileta") -> Iterator[Compared]:
        """How this server compares with each other one, by the ratios of rounds."""
        for mine in self.rooms:
            for its in self.rooms:
                if mine.server != us or its.server == us or its.players != mine.players:
                    continue
                for what, of in (("p99", p99_of), ("CPU of a delivery", cpu_of)):
                    found = ratios(mine.figures(of), its.figures(of))
                    if found:
                        yield Compared(f"{what}, {mine.players} players", its.server, found)
        for what, found_rates in (
            ("highest rate", self.sustained),
            ("messages in", self.inbound),
        ):
            ours = next((one for one in found_rates if one.server == us), None)
            for other in found_rates:
                if ours is not None and other is not ours:
                    found = ratios(ours.rounds, other.rounds)
                    if found:
                        yield Compared(what, other.server, found)
        http = next((one for one in self.http if one.server == us), None)
        for run in self.http:
            if http is not None and run is not http:
                found = ratios(http.figures(HTTP_PATH), run.figures(HTTP_PATH))
                if found:
                    yield Compared(f"requests a second on {HTTP_PATH}", run.server, found)

    def ratio(self, what: str, server: str) -> float | None:
        """The median of the rounds' ratios, or None."""
        found = (one.ratios for one in self.compared() if (one.what, one.server) == (what, server))
        values = next(found, None)
        return None if values is None else statistics.median(values)


@dataclass(frozen=True, slots=True)
class Compared:
    """This server's figure as a multiple of another one's, round by round, in order of size."""

    what: str
    server: str
    ratios: list[float]


@dataclass(frozen=True, slots=True)
class Check:
    """A target of Reileta and the measured value."""

    what: str
    target: str
    found: str
    good: bool


def checks(report: Report, us: str = "Reileta") -> Iterator[Check]:
    """The targets, as far as they were measured."""
    for players, limit_ms in ((300, 15.0), (400, None)):
        run = report.room(us, players)
        if run is None:
            continue
        what = f"{players} players, {run.rate:g} messages a second each"
        yield Check(f"{what}: delivered", "≥ 99.9%", f"{run.share:.2%}", run.share >= 0.999)
        if limit_ms is not None:
            p99 = run.latency.p99_ms if run.latency else float("inf")
            yield Check(f"{what}: p99", f"≤ {limit_ms:g} ms", f"{p99:.1f} ms", p99 <= limit_ms)
    ours = next((one for one in report.sustained if one.server == us), None)
    for peer in report.sustained:
        if ours is not None and peer.server in ("Node ws", "Socket.IO") and peer.per_s:
            times = report.ratio("highest rate", peer.server) or ours.per_s / peer.per_s
            what = f"highest rate / that of {peer.server}"
            yield Check(what, "≥ 6", f"{times:.1f}", times >= 6)
    mine, bun = report.room(us, 300), report.room("Bun", 300)
    if mine and bun and mine.latency and bun.latency:
        times = mine.latency.p99_ms / bun.latency.p99_ms
        times = report.ratio("p99, 300 players", "Bun") or times
        yield Check("p99 at 300 players / Bun's", "≤ 4", f"{times:.1f}", times <= 4)
    if report.idle is not None and report.idle.bytes_each is not None:
        each = report.idle.bytes_each / KIB
        what = f"memory of each of {report.idle.connections:,} idle connections"
        yield Check(what, "≤ 40 KiB", f"{each:.1f} KiB", each <= 40)
    if report.joins is not None:
        joins = report.joins
        what = f"{joins.players:,} joins into one instance"
        yield Check(what, "≤ 5 s", f"{joins.seconds:.2f} s", joins.seconds <= 5)
        found = f"{joins.listed_all_before:,}"
        whole = joins.complete and joins.listed_all_before == joins.players
        yield Check("joiners that got all players before them", f"{joins.players:,}", found, whole)
    if report.queue is not None:
        queue = report.queue
        order = queue.in_order and queue.all_entered
        yield Check("candidates admitted in their order", "all", "yes" if order else "no", order)
        if queue.latency is not None:
            p99 = queue.latency.p99_ms
            yield Check("p99 from a free seat to `admitted`", "≤ 20 ms", f"{p99:.1f} ms", p99 <= 20)
    if report.watchers is not None:
        watchers = report.watchers
        what = f"changes that all of {watchers.watchers:,} watchers got, none with a gap"
        whole = watchers.all_arrived and not watchers.gaps
        yield Check(what, "all", "yes" if whole else "no", whole)
        if watchers.from_commit is not None:
            p99 = watchers.from_commit.p99_ms
            what = f"p99 until all have one of {watchers.rate:g} changes/s"
            yield Check(what, "≤ 50 ms", f"{p99:.1f} ms", p99 <= 50)
    ours_per_s, theirs = (
        report.requests_per_s(us, HTTP_PATH),
        report.requests_per_s("FastAPI", HTTP_PATH),
    )
    if ours_per_s and theirs:
        times = report.ratio(f"requests a second on {HTTP_PATH}", "FastAPI") or ours_per_s / theirs
        yield Check(
            f"requests a second on {HTTP_PATH} / FastAPI's", "≥ 1", f"{times:.2f}", times >= 1
        )
    if report.slow is not None:
        slow = report.slow
        found = f"{slow.ratio:.2f}"
        yield Check(
            "fast readers' p99 with / without a slow one", "≤ 1.2", found, slow.ratio <= 1.2
        )
        newest = slow.keys_newest == slow.keys
        found = f"{slow.keys_newest} of {slow.keys}"
        yield Check("newest values that the slow one has", "all", found, newest)
        good = slow.unkeyed_outcome in ("all", "closed 4008")
        yield Check(
            "unkeyed messages at the slow one", "all, or closed 4008", slow.unkeyed_outcome, good
        )
    if report.interest is not None and len(report.interest.rows) > 1:
        row = report.interest.rows[1]
        what = f"{report.interest.players} players, {report.interest.near} near"
        fewer = row.fewer_bytes.median
        yield Check(f"{what}: bytes to all / to each client", "≥ 5", f"{fewer:.1f}", fewer >= 5)
        if row.cpu_each is not None:
            each = row.cpu_each.median
            yield Check(f"{what}: CPU of a delivery", "≤ 1.3", f"{each:.2f}", each <= 1.3)
    if report.cluster is not None:
        for what, goal, figure, met in rows(report.cluster):
            if met is not None:
                yield Check(what, goal, figure, met)
    if report.gateway is not None:
        passed_on = report.gateway
        for way, share in (("up", passed_on.up_share), ("down", passed_on.down_share)):
            what = f"{passed_on.mib} MiB {way} through a gateway / straight to the registry"
            yield Check(what, "≥ 70 %", f"{share:.0%}", share >= 0.7)
        found = f"+ {passed_on.memory_mib:.1f} MiB"
        yield Check(
            "memory of the gateway meanwhile", "≤ + 40 MiB", found, passed_on.memory_mib <= 40
        )
    if report.link is not None:
        for one in report.link.rows[1:]:
            what = f"p99 in a room on a node, {one.room} / at the server"
            found = f"{one.more_p99_ms:+.1f} ms"
            yield Check(what, "≤ + 2 ms", found, one.more_p99_ms <= 2)
    if report.federation is not None:
        found_ms = report.federation
        for what, limit_ms, ms in (
            ("a challenge, both ways", 50, found_ms.challenge_ms),
            ("CPU of a challenge that is refused", 2, found_ms.refused_challenge_cpu_ms),
            ("a cached read of another server / a local one", 1, found_ms.cached_more_ms),
            ("an uncached one / asking the other server", 5, found_ms.uncached_more_ms),
        ):
            if ms is not None:
                more = "+ " if " / " in what else ""
                target = f"≤ {more}{limit_ms} ms"
                yield Check(what, target, f"{more}{ms:.1f} ms", ms <= limit_ms)


def tables(report: Report) -> Iterator[Table]:
    """All results, as tables for a terminal."""
    if report.rooms:
        yield _rooms(report)
    if report.sustained:
        yield _sustained("The most a server sustains in one room", "deliveries/s", report.sustained)
    if report.inbound:
        yield _sustained("Messages in, rooms of two", "messages/s", report.inbound)
    compared = list(report.compared())
    if compared:
        table = Table("figure", "other", "Reileta / other", title="Ratios of alternating rounds")
        for one in compared:
            table.add_row(one.what, one.server, spread(one.ratios))
        yield table
    singles = _singles(report)
    if singles.row_count:
        yield singles
    found = list(checks(report))
    if found:
        table = Table("what it must show", "target", "found", "", title="Reileta")
        for check in found:
            mark = "[green]yes[/]" if check.good else "[red]no[/]"
            table.add_row(check.what, check.target, check.found, mark)
        yield table


def show(report: Report, console: Console) -> None:
    """Prints the tables, and what is missing or failed."""
    for table in tables(report):
        console.print(table)
    for server, why in report.missing.items():
        console.print(f"[yellow]not measured: {server}: {why}[/]")
    for what, why in report.failed.items():
        console.print(f"[red]failed: {what}: {why}[/]", highlight=False)
    unsteady = [one for one in report.compared() if not steady(one.ratios)]
    if unsteady:
        console.print(
            f"[yellow]! {len(unsteady)} ratios differ by more than {UNSTEADY:g} times between"
            " rounds: something else used the machine, and they are not to be trusted[/]",
            highlight=False,
        )
    console.print(f"{report.machine}{'' if report.pinned else '; not pinned: one core alone'}")


def _rooms(report: Report) -> Table:
    table = Table(title="One room: everybody sends, everybody else gets it")
    for name in ("players", "server", "delivered", "deliveries/s", "p50 ms", "p99 ms", "max ms"):
        whole = name in ("server", "delivered", "deliveries/s")
        side: Literal["left", "right"] = "left" if name == "server" else "right"
        table.add_column(name, justify=side, no_wrap=whole, min_width=9 if whole else None)
    for name in ("CPU s/million", "memory MiB", "load's CPU", "load late ms"):
        table.add_column(name, justify="right")
    for run in report.rooms:
        found = run.result
        if found is None:
            table.add_row(f"{run.players}", run.server, "given up")
            continue
        latency = found.latency
        times = [latency.p50_ms, latency.p99_ms, latency.max_ms] if latency else [None] * 3
        table.add_row(
            f"{run.players}",
            run.server,
            f"{found.share:.2%}",
            f"{found.deliveries_per_s:,.0f}",
            *("-" if ms is None else f"{ms:,.1f}" for ms in times),
            "-" if found.cpu_s_per_million is None else f"{found.cpu_s_per_million:.2f}",
            "-" if found.rss_bytes is None else f"{found.rss_bytes / MIB:.0f}",
            f"{found.generator_cpu:.0%}",
            f"{found.late_p99_ms:.1f}",
        )
    return table


def _sustained(title: str, unit: str, rows: list[Sustained]) -> Table:
    table = Table("server", unit, "players", "messages/s each", title=title)
    for row in rows:
        more = "≥ " if row.at_least else ""
        table.add_row(row.server, f"{more}{row.per_s:,.0f}", f"{row.players}", f"{row.rate:.1f}")
    return table


def _singles(report: Report) -> Table:
    table = Table("question", "found", title="Reileta alone")
    idle, joins, slow = report.idle, report.joins, report.slow
    if idle is not None and idle.bytes_each is not None and idle.bytes_each_all is not None:
        table.add_row(
            f"memory of each of {idle.connections:,} idle connections",
            f"{idle.bytes_each / KIB:.1f} KiB, {idle.bytes_each_all / KIB:.1f} with PostgreSQL",
        )
    if joins is not None:
        table.add_row(
            f"{joins.players:,} joins into one instance",
            f"{joins.seconds:.2f} s; all know all after {joins.seconds_until_all_know:.2f} s",
        )
    if report.queue is not None and report.queue.latency is not None:
        queue = report.queue
        assert queue.latency is not None
        table.add_row(
            f"{queue.candidates:,} candidates for {queue.seats} seats",
            f"{queue.promotions_per_s:.0f} promotions/s, {queue.latency.p50_ms:.1f} ms, "
            f"p99 {queue.latency.p99_ms:.1f} ms from a free seat to `admitted`",
        )
    if report.watchers is not None and report.watchers.from_commit is not None:
        watchers = report.watchers
        assert watchers.from_commit is not None
        table.add_row(
            f"{watchers.watchers:,} watchers of a document, {watchers.rate:g} changes/s",
            f"{watchers.from_commit.p50_ms:.1f} ms, p99 {watchers.from_commit.p99_ms:.1f} ms from "
            f"the commit to the last watcher; {watchers.events_per_s:,.0f} events/s, load's CPU "
            f"{watchers.generator_cpu:.0%}",
        )
    for run in report.http:
        for path in run.result.paths:
            p99 = f", p99 {path.latency.p99_ms:.1f} ms" if path.latency else ""
            statuses = ", ".join(f"{count:,} with {code}" for code, count in path.statuses.items())
            limit = f", load's CPU {path.generator_cpu:.0%}"
            table.add_row(
                f"{run.server}: GET {path.path}",
                f"{path.requests_per_s:,.0f}/s{p99} ({statuses}{limit})",
            )
    if slow is not None:
        table.add_row(
            f"fast readers' p99 without and with a slow one among {slow.players}",
            f"{slow.fast_p99_without_ms:.2f} ms, {slow.fast_p99_with_ms:.2f} ms",
        )
        if slow.rss_before_bytes is not None and slow.rss_max_bytes is not None:
            grown = (slow.rss_max_bytes - slow.rss_before_bytes) / MIB
            table.add_row("the server's memory meanwhile", f"grew by {grown:.1f} MiB at most")
    if report.interest is not None:
        for one in report.interest.rows:
            cpu = "" if one.server_cpu is None else f", {one.server_cpu:.2f} cores"
            each = "" if one.cpu_s_per_million is None else f", {one.cpu_s_per_million:.2f} CPU s"
            table.add_row(
                f"{report.interest.players} players, {report.interest.near} near: {one.wants}",
                f"{one.kib_per_s:.0f} KiB/s to each{cpu}{each} for a million deliveries",
            )
    if report.cluster is not None:
        for what, _, figure, good in rows(report.cluster):
            if good is None:
                table.add_row(what, figure)
    if report.federation is not None:
        for what, latency in (
            ("a token at another server", report.federation.introduction),
            ("the same with a new challenge", report.federation.introduction_with_challenge),
            ("a list of this server", report.federation.local_read),
            ("the same of another server, from the cache", report.federation.cached_read),
            ("a list of another server, without the cache", report.federation.uncached_read),
            ("the same, asked there", report.federation.direct_read),
        ):
            if latency is not None:
                table.add_row(what, f"{latency.p50_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms")
    return table
