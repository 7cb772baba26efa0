"""The benchmark of hostile peers, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hostile_peers import BEHAVIOURS, HANGING, free_ports, main, measure
from tests.benchmarks.test_command_lines import invoke


def test_wrong_use_is_said() -> None:
    status, said = invoke(main, "--rounds", "0")
    assert status == 2
    assert "--rounds" in said


def test_each_peer_has_a_port_of_its_own() -> None:
    count = HANGING + len(BEHAVIOURS)
    assert len(set(free_ports(count))) == count


@pytest.mark.slow
def test_it_measures(data_folder: Path) -> None:
    data_folder.chmod(0o755)
    result = measure(data_folder, 1, 1, lambda share: None)
    assert None not in (result.read_alone, result.read, result.data_alone, result.data)
