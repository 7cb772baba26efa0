"""A soak: starts everything, lets visitors come while the database fails, and judges the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from tests.chaos.soak import nginx
from tests.chaos.soak.judge import (
    MIB,
    Quiet,
    Sample,
    grown_tables,
    growth,
    judge,
    percentile,
    top,
)
from tests.chaos.soak.observed import OBSERVE, ask
from tests.chaos.soak.postgres import Pair, PostgresFailed
from tests.chaos.soak.town import GONE, Fault, Town, Way, data
from tests.chaos.soak.visitors import (
    AWAY_S,
    CLOSED_GRACE_S,
    CROWD,
    GRACE_S,
    Holder,
    Pinger,
    Visitor,
)
from tests.conftest import new_certificate

ADMIN_ADDRESS: Final = "127.0.0.9"
SAMPLE_S: Final = 2.0
QUIET_S: Final = 90.0
"""The longest wait until the server has forgotten its visitors."""
CHECKPOINT_S: Final = 300.0
"""The load between two checkpoints: quiet moments, in which the memory is compared."""
WARM_S: Final = 240.0
"""The load before the baseline. A shorter run is less warm, and may grow more."""
READY_S: Final = 60.0
"""The longest time until it is ready again after a fault."""
OPTIONS: Final = {
    "--host": "127.0.0.1",
    "--port": "0",
    "--log-format": "json",
    "--read-cache": "on",
    "--trusted-proxies": "127.0.0.1",
    "--seat-grace-s": f"{GRACE_S:g}",
    "--closed-seat-grace-s": f"{CLOSED_GRACE_S:g}",
}
FORGETFUL: Final = {
    "--empty-instance-s": "5",
    "--queue-grace-s": "5",
    "--hold-s": "5",
    "--away-s": f"{AWAY_S:g}",
    "--keepalive-interval-s": "5",
    "--keepalive-timeout-s": "5",
    "--credential-deadline-s": "5",
    "--http-idle-s": "15",
    "--access-lifetime-s": "120",
    "--refresh-lifetime-s": "240",
}
"""Short times, so that much is forgotten in a short time."""
BRIEF: Final = {"--empty-instance-s": "1", "--queue-grace-s": "1", "--hold-s": "1", "--away-s": "1"}
"""For a soak of seconds: all deadlines of clients are as usual, however busy the machine is."""
DURING_FAULTS: Final = (
    "database.lost",
    "database.back",
    "database.locked",
    "changes.postponed",
    "sweep.postponed",
    "leases.postponed",
    "files.postponed",
    "database.callback_failed",
)
"""Warnings and errors of the log that a fault of the database explains."""
ALWAYS: Final = ("token.reused", "log.limited")
"""Those that clients can bring about."""
FORGOTTEN: Final = ("users", "sessions", "tokens", "worlds", "assets", "instances", "leases")
"""Tables that hold as many rows at the end as at the start."""


class Log:
    """The server's output: counts of its events, and what should not be in it."""

    def __init__(self, keep: Path | None) -> None:
        self._file = None if keep is None else keep.open("w")
        self.ready = trio.Event()
        self.url = ""
        self.password = ""
        self.events: Counter[str] = Counter()
        self.suspicious: list[tuple[float, dict[str, Any]]] = []
        self.other: list[str] = []
        """Lines that are not events; and what came on standard error."""

    async def read(self, stream: trio.abc.ReceiveStream) -> None:
        """Reads standard output."""
        async for line in _lines(stream):
            if self._file is not None:
                print(line, file=self._file)
            try:
                event = json.loads(line)
            except ValueError:
                self.other.append(line)
                continue
            self.events[event["event"]] += 1
            if event["event"] == "server.ready":
                self.url = event["url"]
                self.ready.set()
            if event["level"] not in ("info", "debug") or "exception" in event:
                self.suspicious.append((trio.current_time(), event))

    async def read_errors(self, stream: trio.abc.ReceiveStream) -> None:
        """Reads standard error."""
        async for line in _lines(stream):
            if found := re.search(r"password: (\S+)", line):
                self.password = found[1]
            elif line.strip() and "keep it" not in line:
                self.other.append(line)

    def unexplained(self, town: Town) -> list[str]:
        """What neither faults nor clients explain."""
        wrong = [f"output: {line}" for line in self.other]
        for at, event in self.suspicious:
            name = event["event"]
            if name in ALWAYS and "exception" not in event:
                continue
            if name in DURING_FAULTS and town.explains(at - 1, at):
                continue
            wrong.append(f"log: {json.dumps(event)[:1500]}")
        return wrong


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")


@dataclass
class Soak:
    """A running soak."""

    folder: Path
    pair: Pair
    process: trio.Process
    log: Log
    town: Town
    visitors: list[Visitor]
    began: float
    samples: list[Sample] = field(default_factory=list)
    recovered: list[tuple[str, float]] = field(default_factory=list)
    """Faults, and seconds until the server was ready again."""
    checkpoints: list[Quiet] = field(default_factory=list)
    fault_number: int = 0

    # Looking ----------------------------------------------------------------------------------

    async def sample(self) -> Sample:
        """One look at the server."""
        pid = self.process.pid
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        connections = 0
        if not self._in_fault():
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'reileta %'"
            with suppress(PostgresFailed):  # a fault has just begun
                connections = int(await self.pair.sql(query))
        return Sample(
            at_s=trio.current_time() - self.began,
            resident_bytes=int(fields["VmRSS"].split()[0]) * 1024,
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            threads=int(fields["Threads"]),
            database_connections=connections,
            counts=await ask(self.folder / "observe", "counts"),
        )

    def _in_fault(self) -> bool:
        return bool(self.town.faults) and self.town.faults[-1].ended is None

    async def look(self) -> None:
        """Takes samples, forever."""
        while True:
            self.samples.append(await self.sample())
            await trio.sleep(SAMPLE_S)

    async def quiet(self) -> Quiet:
        """Waits until the server has forgotten its visitors, and looks at what is left."""
        deadline = trio.current_time() + QUIET_S
        before: dict[str, int] = {}
        same = 0
        while trio.current_time() < deadline and same < 3:
            await trio.sleep(1)
            counts = await ask(self.folder / "observe", "counts")
            rest = [count for name, count in counts.items() if name != "tasks"]
            same = same + 1 if counts == before and not any(rest) else 0
            before = counts
        sample = await self.sample()
        memory = await ask(self.folder / "observe", "memory")
        tables = await ask(self.folder / "observe", "tables")
        classes = await ask(self.folder / "observe", "classes")
        quiet = Quiet(sample, tables, classes, await self.rows(), memory)
        self.checkpoints.append(quiet)
        return quiet

    async def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        names = await self.pair.sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        return {
            name: int(await self.pair.sql(f'SELECT count(*) FROM "{name}"'))
            for name in sorted(names.split())
        }

    # Load and faults --------------------------------------------------------------------------

    async def load(self, seconds: float, fault_every_s: float) -> None:
        """Visitors come for so long, while faults come one after another."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.look)
                nursery.start_soon(self.town.watch_lateness)
                for visitor in self.visitors:
                    name = type(visitor).__name__.lower()
                    nursery.start_soon(self.town.forever, name, visitor.visit)
                end = trio.current_time() + seconds
                while trio.current_time() + fault_every_s < end:
                    await trio.sleep(fault_every_s)
                    await self.fault()
                await trio.sleep_until(end)
        self.town.rooms.clear()
        print(f"{trio.current_time() - self.began:.0f} s: the visitors are gone", flush=True)

    async def fault(self) -> None:
        """The next fault, until the server is ready again."""
        kinds = ("failover", "restart", "connections ended", "hang", "reload")
        kind = kinds[self.fault_number % len(kinds)]
        self.fault_number += 1
        fault = Fault(kind, trio.current_time())
        print(f"{fault.began - self.began:.0f} s: {kind}", flush=True)
        if kind == "reload":  # explains nothing
            self.process.send_signal(signal.SIGHUP)
            return
        self.town.faults.append(fault)
        with trio.CancelScope(shield=True):  # the load may end meanwhile
            match kind:
                case "failover":
                    await self.pair.fail_over()
                case "restart":
                    await self.pair.restart()
                case "connections ended":
                    await self.pair.end_connections()
                case "hang":
                    await self.pair.hang(5.0)
            repaired = trio.current_time()
            took = await self._until_ready() - repaired
            self.recovered.append((kind, took))
            if kind == "failover":
                await self.pair.repair()
                await self._until_ready()
            fault.ended = trio.current_time()

    async def _until_ready(self) -> float:
        deadline = trio.current_time() + READY_S
        async with self.town.http(self.town.direct, "127.0.0.1") as http:
            while True:
                with suppress(*GONE):
                    if (await http.get("/readyz")).status_code == 200:
                        return trio.current_time()
                if trio.current_time() > deadline:
                    self.town.tally.broken.append(f"not ready {READY_S:g} s after a fault")
                    return trio.current_time()
                await trio.sleep(0.1)

    # The end ----------------------------------------------------------------------------------

    async def check_kept(self) -> int:
        """Checks that everything that was acknowledged is there; how many values that are."""
        checked = 0
        for visitor in self.visitors:
            if not isinstance(visitor, Holder) or not visitor.document:
                continue
            async with visitor.client() as http:
                shown = (await data(http.get("/session")))["session"]
                if shown["state"].get("n", 0) < visitor.acknowledged:
                    self.town.tally.broken.append(f"{visitor.name} lost a change of its state")
                path = f"/resource/document/{visitor.document}"
                await data(http.post(f"{path}/acquire"), 114)
                held = (await data(http.get(f"{path}/view")))["resource"]["data"]["n"]
                if held < visitor.confirmed:
                    self.town.tally.broken.append(f"{path} has {held}, not {visitor.confirmed}")
                await data(http.post(f"{path}/release"))
                checked += 2
        return checked

    async def log_in(self) -> str:
        """A token of the admin."""
        async with self.town.http(self.town.direct, ADMIN_ADDRESS) as http:
            body = {"username": "admin", "password": self.log.password}
            token: str = (await data(http.post("/api/auth/login", json=body)))["token"]
            return token

    async def clear(self, token: str) -> None:
        """Deletes all accounts and what they left."""
        async with self.town.http(self.town.direct, ADMIN_ADDRESS, token=token) as http:
            for what in ("instances", "worlds", "users"):
                while True:
                    left = [
                        one["id"]
                        for one in (await data(http.get(f"/api/{what}?limit=100")))["items"]
                        if one.get("username") not in ("admin", "server")
                    ]
                    if not left:
                        break
                    for id_ in left:
                        await data(http.delete(f"/api/{what}/{id_}"), 36, 25, 17)
                        await trio.sleep(0.2)  # as the rate limits want it


@asynccontextmanager
async def soaking(
    folder: Path, scale: float, seed: int, times: Mapping[str, str], keep: Path | None
) -> AsyncIterator[Soak]:
    """Starts the databases, the server and nginx."""
    certificate = new_certificate(folder)
    pair = Pair(folder)
    log = Log(keep)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_shielded, pair)
        await pair.start()
        cert, key = certificate
        options = {
            **OPTIONS,
            **times,
            "--data": str(folder / "data"),
            "--database": pair.url,
            "--tls-cert": str(cert),
            "--tls-key": str(key),
        }
        command = [sys.executable, "-m", "tests.chaos.soak.observed", "serve"]
        process = await trio.lowlevel.open_process(
            [*command, *(word for option in options.items() for word in option)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **{name: text for name, text in os.environ.items() if "REILETA" not in name},
                OBSERVE: str(folder / "observe"),
            },
        )
        try:
            async with trio.open_nursery() as nursery:
                assert process.stdout is not None
                assert process.stderr is not None
                nursery.start_soon(log.read, process.stdout)
                nursery.start_soon(log.read_errors, process.stderr)
                with trio.fail_after(READY_S):
                    await log.ready.wait()
                port = int(log.url.rpartition(":")[2])
                ways = [Way("direct", port)]
                if nginx.found():
                    behind = stack.enter_context(nginx.serving(folder, port, certificate))
                    ways.append(Way("nginx", behind))
                else:
                    print("nginx is missing: nothing goes through a proxy")
                town = Town(ways, certificate[0], seed)
                crowd = [
                    kind(town, number)
                    for kind, many in CROWD.items()
                    for number in range(many if kind is Pinger else max(1, round(many * scale)))
                ]
                yield Soak(folder, pair, process, log, town, crowd, trio.current_time())
                process.terminate()
                with trio.fail_after(READY_S):
                    if await process.wait() != 0:
                        town.tally.broken.append(f"exit status {process.returncode}")
                nursery.cancel_scope.cancel()
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await pair.stop()


async def _shielded(pair: Pair) -> None:
    with trio.CancelScope(shield=True):
        await pair.stop()


async def soak(
    minutes: float,
    scale: float,
    seed: int,
    folder: Path,
    *,
    times: Mapping[str, str] = FORGETFUL,
    keep: Path | None = None,
) -> list[str]:
    """Runs a soak and prints its figures; what is wrong."""
    seconds = minutes * 60
    warm_s = min(WARM_S, seconds / 4)
    every_s = max(4.0, min(45.0, seconds / 12))
    async with soaking(folder, scale, seed, times, keep) as running:
        town = running.town
        token = await running.log_in()
        rows = await running.rows()
        print(f"pid {running.process.pid}; {len(running.visitors)} visitors, seed {seed}")
        await running.load(warm_s, every_s)
        kept = 0
        after = before = await running.quiet()
        _say("warm", before.sample)
        first = len(running.samples)
        parts = max(1, round((seconds - warm_s) / CHECKPOINT_S))
        for part in range(1, parts + 1):
            await running.load((seconds - warm_s) / parts, every_s)
            if part == parts:
                kept = await running.check_kept()
            after = await running.quiet()
            _say(f"checkpoint {part} of {parts}", after.sample)
        loaded = running.samples[first:]
        checkpoints = tuple(running.checkpoints)
        await running.clear(token)
        await running.quiet()
        cleared = await running.rows()
        wrong = judge(loaded, before, after, spare=1.0 if warm_s >= WARM_S else 4.0)
        wrong += [
            f"{cleared[name]} rows in {name}, {rows[name]} at the start"
            for name in FORGOTTEN
            if name in rows and cleared[name] > rows[name]
        ]
    wrong += running.log.unexplained(town) + town.tally.broken + town.tally.unexplained
    _checkpoints(checkpoints, running.samples)
    _report(running, before, after, loaded, rows, cleared, kept)
    return wrong


def _say(when: str, sample: Sample) -> None:
    print(
        f"{sample.at_s:.0f} s, {when}: {sample.resident_bytes / MIB:.1f} MiB, "
        f"{sample.descriptors} descriptors, {sample.threads} threads, {dict(sample.counts)}",
        flush=True,
    )


def _checkpoints(checkpoints: Sequence[Quiet], samples: Sequence[Sample]) -> None:
    """Prints what the server held in its quiet moments, one after another."""
    print("\n| at, s | " + " | ".join(f"{one.sample.at_s:.0f}" for one in checkpoints) + " |")
    print("|---|" + "---|" * len(checkpoints))

    def line(name: str, values: Sequence[float], form: str = ",.0f") -> None:
        print(f"| {name} | " + " | ".join(f"{value:{form}}" for value in values) + " |")

    line("memory, MiB", [one.sample.resident_bytes / MIB for one in checkpoints], ".1f")
    highest = []
    for before, after in zip((None, *checkpoints[:-1]), checkpoints, strict=True):
        since = 0.0 if before is None else before.sample.at_s
        between = [s.resident_bytes for s in samples if since < s.at_s < after.sample.at_s]
        highest.append(max(between, default=0) / MIB)
    line("highest under load since, MiB", highest, ".1f")
    for name in ("heap used", "heap free", "large blocks"):
        line(f"{name}, MiB", [one.memory.get(name, 0) / MIB for one in checkpoints], ".1f")
    line(
        "blocks of Python's allocator", [one.memory.get("python blocks", 0) for one in checkpoints]
    )
    line("objects", [sum(one.classes.values()) for one in checkpoints])
    line("tasks", [one.sample.counts["tasks"] for one in checkpoints])
    for name in ("descriptors", "threads", "database_connections"):
        line(name.replace("_", " "), [getattr(one.sample, name) for one in checkpoints])


def _report(
    running: Soak,
    before: Quiet,
    after: Quiet,
    loaded: list[Sample],
    rows: dict[str, int],
    cleared: dict[str, int],
    kept: int,
) -> None:
    town = running.town
    print("\n| | warm | load, highest | end |\n|---|---|---|---|")

    def line(name: str, old: float, most: float, new: float, form: str = ",.0f") -> None:
        print(f"| {name} | {old:{form}} | {most:{form}} | {new:{form}} |")

    memory = [one.resident_bytes / MIB for one in loaded]
    line(
        "memory, MiB",
        before.sample.resident_bytes / MIB,
        max(memory),
        after.sample.resident_bytes / MIB,
        ".1f",
    )
    old, new = sum(before.classes.values()), sum(after.classes.values())
    print(f"| objects | {old:,} | | {new:,} |")
    for name in before.sample.counts:
        line(
            name,
            before.sample.counts[name],
            max(one.counts[name] for one in loaded),
            after.sample.counts[name],
        )
    for name in ("descriptors", "threads", "database_connections"):
        line(
            name.replace("_", " "),
            getattr(before.sample, name),
            max(getattr(one, name) for one in loaded),
            getattr(after.sample, name),
        )
    half = loaded[len(loaded) // 2 :]
    print(f"\nmemory in the second half of the load: {growth(half) / MIB:+.1f} MiB")
    calm = [took for at, took in town.pings if not town.explains(at, at + took)]
    rest = [took for at, took in town.pings if town.explains(at, at + took)]
    for name, values in (("calm", calm), ("during faults", rest)):
        if values:
            p50, p99 = (percentile(values, share) * 1000 for share in (0.5, 0.99))
            print(f"ping, {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {max(values) * 1000:.0f} max")
    kinds = sorted({kind for kind, _ in running.recovered})
    for kind in kinds:
        took = [s for one, s in running.recovered if one == kind]
        print(f"{kind}: {len(took)} times, ready again after {max(took):.1f} s at most")
    late = [late_s for _, late_s in town.late]
    print(f"the visitors were late: {len(late)} times, {max(late, default=0):.1f} s at most")
    print(f"acknowledged values checked: {kept}")
    print("done:", dict(sorted(town.tally.done.items())))
    print("errors during faults:", dict(sorted(town.tally.explained.items())))
    print("log:", dict(running.log.events))
    print("objects that are more:", top(before, after, 15) or "none")
    for grown in grown_tables(before, after):
        print(f"  table {grown}")
    print("rows:", {name: (rows.get(name), cleared[name]) for name in cleared})


def run(minutes: float, scale: float, seed: int, log: Path | None) -> int:
    """Runs a soak; 1 if anything is wrong."""
    # Ctrl-C and SIGTERM end what was started, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another account
        wrong = trio.run(partial(soak, minutes, scale, seed, folder, keep=log))
    alike = Counter(re.sub(r"\d[\d.:TZ-]*", "0", line) for line in wrong)
    for line, times in alike.items():
        print(f"WRONG {times} times {line}" if times > 1 else f"WRONG {line}")
    print(f"{len(wrong)} wrong")
    return min(1, len(wrong))
