"""Sessions fight for resources while the server is killed: no promise is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contest import History, Hold, contest


# A server that is killed leaves sockets behind that the clients' library does not close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_no_rule_is_broken_while_the_server_is_killed(data_folder: Path) -> None:
    history = await contest(data_folder / "data", sessions=12, resources=4, seconds=6, kills=2)
    assert history.violations == []
    assert history.holds
    assert history.writes
    assert sum(history.patches.values()) > 12


def test_the_check_finds_two_holders_and_a_version_twice() -> None:
    history = History(holds=[Hold(1, 7, 0.0, 2.0), Hold(2, 7, 1.0, 3.0), Hold(3, 8, 0.0, 9.0)])
    history.versions[7] = [2, 3, 3]
    history.check_holds()
    history.check_versions()
    assert len(history.violations) == 2
