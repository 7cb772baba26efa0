"""The benchmark of a gateway: that it says what it found."""

from __future__ import annotations

from benchmarks.gateway import GatewayResult, main
from tests.benchmarks.test_command_lines import invoke


def test_wrong_use_is_said() -> None:
    status, said = invoke(main, "--mib", "1")
    assert status == 2
    assert "--mib" in said


def test_shares_are_of_the_direct_speed() -> None:
    result = GatewayResult(512, 3, 200.0, 400.0, 100.0, 300.0, 1.0)
    assert (result.up_share, result.down_share) == (0.5, 0.75)
