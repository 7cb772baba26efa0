"""Runs one scenario on a ground of its own."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.chaos.cluster import scenarios
from tests.chaos.cluster.scenarios import Result, Scenario
from tests.cluster.ground import Ground, ground


@dataclass(frozen=True)
class Course:
    """A scenario, and how often its failure comes in a short and in a long run."""

    scenario: Scenario
    short: int
    long: int
    clients: int = 24
    nodes: int = 3
    nats_servers: int = 1
    options: tuple[str, ...] = ()


COURSES: Final[Mapping[str, Course]] = MappingProxyType(
    {
        "at_the_door": Course(scenarios.at_the_door, 1, 5, clients=200),
        "two_sockets": Course(scenarios.two_sockets, 1, 10),
        "deaths": Course(scenarios.deaths, 1, 50),
        "long_pauses": Course(scenarios.long_pauses, 1, 100),
        "short_pauses": Course(scenarios.short_pauses, 4, 200),
        "nats_away": Course(scenarios.nats_away, 1, 30),
        "postgres_away": Course(scenarios.postgres_away, 1, 10),
        "cuts": Course(scenarios.cuts, 2, 18),
        "rolling": Course(scenarios.rolling, 3, 12),
        "seen_everywhere": Course(scenarios.seen_everywhere, 1, 1),
        "resources": Course(scenarios.resources, 1, 1),
        "guesses": Course(scenarios.guesses, 40, 200, options=("--rate-limits", "on")),
        "mutes_survive": Course(scenarios.mutes_survive, 1, 1),
    }
)


def _write_down(standing: Ground, path: Path) -> None:
    """Everything that was seen, in its order."""
    told: list[tuple[float, object]] = [(one.at, one) for one in standing.crowd.records]
    told += [(fall.at, fall) for fall in standing.falls]
    told += [(at, (client, message)) for at, client, message in standing.crowd.events]
    told += [
        (event["at"], {"node": node.name, **event}) for node in standing.nodes for event in node.log
    ]
    path.write_text(
        "".join(f"{at:.3f} {one}\n" for at, one in sorted(told, key=lambda one: one[0]))
    )
    print(f"everything that was seen: {path}")


async def play(
    name: str, folder: Path, *, times: int, seed: int = 1, keep: Path | None = None
) -> Result:
    """What the scenario found; if anything, all that was seen goes to the file `keep`."""
    course = COURSES[name]
    async with ground(
        folder,
        nodes=course.nodes,
        clients=course.clients,
        nats_servers=course.nats_servers,
        options=course.options,
    ) as standing:
        result = await course.scenario(standing, times, seed)
        print(f"refused, by code: {dict(standing.crowd.codes)}")
        print(f"closed, by code: {dict(standing.crowd.closes)}")
        if result.wrong and keep is not None:
            _write_down(standing, keep)
    if result.back_s:
        print(
            f"heard again after: median {statistics.median(result.back_s):.2f} s, "
            f"worst {max(result.back_s):.2f} s of {len(result.back_s)}"
        )
    return result
