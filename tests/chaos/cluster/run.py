"""Runs scenarios: one on a ground of its own, or several one after another on shared machines."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx
import trio

from tests.chaos.cluster import scenarios, soak
from tests.chaos.cluster.scenarios import Result, Scenario
from tests.chaos.soak.observed import ask
from tests.cluster.ground import Ground, Machines, Refused, machines
from tests.cluster.spaces import Spaces


@dataclass(frozen=True)
class Kind:
    """Machines that scenarios may share."""

    nodes: int = 3
    nats_servers: int = 1
    options: tuple[str, ...] = ()


PLAIN: Final = Kind()
THREE_NATS: Final = Kind(nats_servers=3)
LIMITED: Final = Kind(options=("--rate-limits", "on"))
HASTY: Final = Kind(options=("--away-s", "1", "--empty-instance-s", "1"))


@dataclass(frozen=True)
class Course:
    """A scenario, how often its failure comes in a short and in a long run, and what its name is in
    the list of scenarios."""

    scenario: Scenario
    short: int
    long: int
    what: str
    clients: int = 24
    few_clients: int = 24
    """In a short run."""
    kind: Kind = PLAIN


COURSES: Final[Mapping[str, Course]] = MappingProxyType(
    {
        "deaths": Course(scenarios.deaths, 1, 50, "a host dies"),
        "long_pauses": Course(scenarios.long_pauses, 1, 100, "a host is paused for 4.5 to 10 s"),
        "short_pauses": Course(scenarios.short_pauses, 3, 200, "a node is paused for up to 1.8 s"),
        "nats_away": Course(scenarios.nats_away, 1, 30, "NATS dies, loses its data, hangs"),
        "elections": Course(
            scenarios.elections, 1, 12, "one or two of three NATS servers die", kind=THREE_NATS
        ),
        "postgres_away": Course(scenarios.postgres_away, 1, 10, "PostgreSQL is away"),
        "cuts": Course(scenarios.cuts, 1, 27, "a node is cut off for 1.5, 6 or 60 s"),
        "unheard": Course(scenarios.unheard, 1, 20, "a node hears, and is not heard"),
        "rolling": Course(scenarios.rolling, 3, 12, "all nodes are restarted in turn"),
        "mixed": Course(scenarios.mixed, 1, 12, "nodes of two versions", clients=25),
        "alone": Course(scenarios.alone, 1, 12, "a node stops, and nobody takes over"),
        "newcomer": Course(
            scenarios.newcomer, 1, 10, "a node starts while instances are full", kind=HASTY
        ),
        "held_rows": Course(scenarios.held_rows, 1, 20, "a host is paused within a transaction"),
        "ghosts": Course(scenarios.ghosts, 1, 20, "a renewal arrives late"),
        "emptied": Course(scenarios.emptied, 1, 20, "NATS loses its data twice during a pause"),
        "mutes_survive": Course(scenarios.mutes_survive, 1, 1, "a host dies: mutes and bans hold"),
        "at_the_door": Course(
            scenarios.at_the_door,
            1,
            5,
            "200 join an instance that runs nowhere",
            clients=200,
            few_clients=60,
        ),
        "two_sockets": Course(scenarios.two_sockets, 1, 10, "a session has sockets at two nodes"),
        "seen_everywhere": Course(scenarios.seen_everywhere, 1, 1, "all nodes say the same"),
        "resources": Course(scenarios.resources, 1, 1, "a resource has one holder"),
        "clocks": Course(scenarios.clocks, 1, 5, "clocks of nodes are 5 minutes apart", kind=HASTY),
        "guesses": Course(scenarios.guesses, 40, 200, "guesses of a password", kind=LIMITED),
        "crowded": Course(
            scenarios.crowded, 1, 50, "one of 20 instances' hosts dies, 200 players", clients=201
        ),
        "nats_restart": Course(scenarios.nats_restart, 1, 20, "NATS is killed and started"),
        "soak": Course(soak.soak, 1, 90, "a failure at random every 20 s"),
    }
)


@dataclass(frozen=True)
class Played:
    """How a scenario went."""

    name: str
    times: int
    seed: int
    took_s: float
    result: Result


def rows(played: Sequence[Played]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| scenario | failures | heard again, median | worst | violations |"
    yield "|---|---|---|---|---|"
    for one in played:
        back = one.result.back_s
        median = f"{statistics.median(back):.2f} s" if back else ""
        worst = f"{max(back):.2f} s" if back else ""
        what = f"`{one.name}`: {COURSES[one.name].what}"
        yield f"| {what} | {one.times} | {median} | {worst} | {len(one.result.wrong)} |"
    for one in played:
        for what, values in one.result.figures.items():
            median, worst = f"{statistics.median(values):.2f}", f"{max(values):.2f}"
            yield f"| `{one.name}`: {what} | {len(values)} | {median} | {worst} | |"


@asynccontextmanager
async def stage(
    kind: Kind,
    folder: Path,
    accounts: int,
    spaces: Spaces | None = None,
    other: Path | None = None,
) -> AsyncIterator[Machines]:
    """Machines for scenarios of that kind, which need so many accounts in all. `other`: a checkout
    of another version."""
    async with machines(
        folder,
        nodes=kind.nodes,
        accounts=accounts,
        nats_servers=kind.nats_servers,
        options=kind.options,
        spaces=spaces,
    ) as made:
        made.other = other
        yield made


def accounts_for(names: Sequence[str], *, short: bool = False) -> int:
    """Each scenario has its own, and one for the owner."""
    return sum(_clients(name, short=short) + 1 for name in names)


def _clients(name: str, *, short: bool) -> int:
    course = COURSES[name]
    return min(course.clients, course.few_clients) if short else course.clients


async def _waits(standing: Ground) -> list[str]:
    """What each node waits for."""
    lines = []
    for node in standing.nodes:
        with suppress(OSError, trio.TooSlowError, trio.BrokenResourceError), trio.fail_after(5):
            for what, many in (await ask(node.observed, "waits")).items():
                lines.append(f"node {node.name}, {many} times: {what}")
    return lines


def _write_down(standing: Ground, waits: Sequence[str], path: Path) -> None:
    """Everything that was seen, in its order; and what the nodes wait for."""
    told: list[tuple[float, object]] = [(one.at, one) for one in standing.crowd.records]
    told += [(fall.at, fall) for fall in standing.falls]
    told += [(at, (client, message)) for at, client, message in standing.crowd.events]
    told += [
        (event["at"], {"logged by": node.name, **event})
        for node in standing.nodes
        for event in node.log
    ]
    lines = [f"{at:.3f} {one}" for at, one in sorted(told, key=lambda one: one[0])]
    path.write_text("\n".join([*lines, *waits, ""]))
    print(f"everything that was seen: {path}")


async def play_on(
    made: Machines,
    name: str,
    *,
    times: int,
    seed: int = 1,
    keep: Path | None = None,
    short: bool = False,
) -> Played:
    """How the scenario went; if anything was wrong, all that was seen goes to the file `keep`."""
    course = COURSES[name]
    began = time.monotonic()
    async with made.scene(_clients(name, short=short)) as standing:
        result, waits = Result(), list[str]()
        try:
            result = await course.scenario(standing, times, seed)
        except* (AssertionError, OSError, httpx.HTTPError, Refused, trio.TooSlowError) as group:
            waits = await _waits(standing)
            result.wrong.append("".join(traceback.format_exception(group)))
            result.wrong += standing.ended()
        print(f"refused, by code: {dict(standing.crowd.codes)}")
        print(f"closed, by code: {dict(standing.crowd.closes)}")
        if result.wrong and keep is not None:
            _write_down(standing, waits, keep)
    if result.back_s:
        print(
            f"heard again after: median {statistics.median(result.back_s):.2f} s, "
            f"worst {max(result.back_s):.2f} s of {len(result.back_s)}"
        )
    for what, values in result.figures.items():
        print(f"{what}: median {statistics.median(values):.2f}, worst {max(values):.2f}")
    return Played(name, times, seed, time.monotonic() - began, result)


async def play(
    name: str,
    folder: Path,
    *,
    times: int,
    seed: int = 1,
    keep: Path | None = None,
    spaces: Spaces | None = None,
    other: Path | None = None,
) -> Played:
    """The same on machines of its own."""
    accounts = accounts_for([name])
    async with stage(COURSES[name].kind, folder, accounts, spaces, other) as made:
        played = await play_on(made, name, times=times, seed=seed, keep=keep)
        await trio.lowlevel.checkpoint()
    return played
