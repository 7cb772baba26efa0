"""Each scenario of a cluster, short; `make chaos` runs them longer, with other seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.cluster.run import COURSES, play


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSES)
async def test_a_cluster_keeps_its_promises(name: str, data_folder: Path) -> None:
    result = await play(name, data_folder, times=COURSES[name].short)
    assert result.wrong == []
