"""The benchmark of files, small: that it measures, and says what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.uploads import by_hand, main, measure
from tests.benchmarks.test_command_lines import invoke


def test_what_the_machine_needs_itself(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(100_000))
    assert by_hand(tmp_path, content, 2) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["content"]


def test_wrong_use_is_said() -> None:
    status, said = invoke(main, "--files", "0")
    assert status == 2
    assert "--files" in said


@pytest.mark.slow
def test_it_measures(data_folder: Path) -> None:
    # The server runs as itself, its PostgreSQL as another account.
    data_folder.chmod(0o755)
    result = measure(data_folder, 3, 16, 32, lambda share: None)
    assert (result.files, result.hashes_right, result.large_mib) == (3, 3, 32)
    assert result.ping is not None
    assert min(result.mib_per_s, result.large_up_mib_per_s, result.large_down_mib_per_s) > 0
    # However large a file is, no more of it is in memory than this; the bound of 64 MiB for a file
    # of 1 GiB is looked at with the real figures, in docs/benchmarks.md.
    assert result.large_memory_mib < 24
    assert result.parallel_memory_mib < 40
