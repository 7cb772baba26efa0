"""The benchmark of two servers, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.federation import FederationResult, main, measure
from benchmarks.stats import Latency
from tests.benchmarks.test_command_lines import invoke


def test_wrong_use_is_said() -> None:
    status, said = invoke(main, "--rounds", "0")
    assert status == 2
    assert "--rounds" in said


def test_differences_are_those_of_medians() -> None:
    one, other = Latency(9, 10.0, 90.0, 90.0), Latency(9, 4.0, 95.0, 95.0)
    result = FederationResult(other, one, None, other, one, other, None)
    assert (result.challenge_ms, result.cached_more_ms) == (6.0, 6.0)
    assert result.uncached_more_ms is None


@pytest.mark.slow
def test_it_measures(data_folder: Path) -> None:
    data_folder.chmod(0o755)
    result = measure(data_folder, 1, 2, lambda share: None)
    assert None not in (result.introduction, result.introduction_with_challenge)
    assert None not in (result.local_read, result.cached_read, result.uncached_read)
