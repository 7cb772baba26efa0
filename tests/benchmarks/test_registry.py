"""The benchmark of lists, small. Which indexes answer, tests/reileta/store/test_plans.py holds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.registry import main, measure, questions
from tests.benchmarks.test_command_lines import invoke


def test_questions_are_the_same_each_time() -> None:
    for path in questions(1000, 1000).values():
        one, other = random.Random(1), random.Random(1)
        assert [path(one) for _ in range(5)] == [path(other) for _ in range(5)]


def test_wrong_use_is_said() -> None:
    status, said = invoke(main, "--users", "0")
    assert status == 2
    assert "--users" in said


@pytest.mark.slow
def test_it_measures(data_folder: Path) -> None:
    data_folder.chmod(0o755)
    result = measure(data_folder, 1000, 1000, 0.05, lambda share: None)
    found = {one.what: one.found for one in result.asked}
    assert found["users, by what all have"] == 1000
    assert found["worlds, by a rare tag"] == 10
    assert found["users, by a whole name"] >= 1
    assert all(one.latency is not None for one in result.asked)
