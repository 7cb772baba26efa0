"""Each scenario of a cluster, short; `make chaos` runs them longer, with other seeds.

Those that allow it share their machines: to start a cluster takes longer than many a scenario.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import trio

from tests.chaos.cluster.run import (
    COURSES,
    HASTY,
    LIMITED,
    PLAIN,
    THREE_NATS,
    accounts_for,
    play_on,
    stage,
)

_LONG_ONLY: Final = ("crowded", "nats_restart", "mixed")
"""The failures of the first two are those of others, and they only measure more; the last one needs
a checkout of another version."""
_QUICK: Final = (
    "at_the_door",
    "two_sockets",
    "seen_everywhere",
    "resources",
    "short_pauses",
    "rolling",
)
_SHORT: Final = [name for name in COURSES if name not in _LONG_ONLY]
_HARD: Final = [name for name in _SHORT if COURSES[name].kind is PLAIN and name not in _QUICK]
GROUPS: Final = {
    "quick": list(_QUICK),
    "hard": _HARD[::2],
    "harder": _HARD[1::2],
    "hasty": [name for name in _SHORT if COURSES[name].kind is HASTY],
    "limited": [name for name in _SHORT if COURSES[name].kind is LIMITED],
    "three servers of NATS": [name for name in _SHORT if COURSES[name].kind is THREE_NATS],
}


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
async def test_a_cluster_keeps_its_promises(group: str, data_folder: Path) -> None:
    names = GROUPS[group]
    wrong: dict[str, list[str]] = {}
    async with stage(COURSES[names[0]].kind, data_folder, accounts_for(names, short=True)) as made:
        for name in names:
            print(f"{name}: {trio.current_time():.1f}")
            played = await play_on(made, name, times=COURSES[name].short, short=True)
            if played.result.wrong:
                wrong[name] = played.result.wrong
    assert wrong == {}


def test_every_scenario_is_in_one_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(_SHORT)
