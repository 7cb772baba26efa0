"""The benchmark of a node's link: that it says what it found."""

from __future__ import annotations

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.link import AtNode, main, row
from benchmarks.load import LoadResult
from benchmarks.stats import Latency
from tests.benchmarks.test_command_lines import invoke


def result(p50_ms: float, p99_ms: float, share: float = 1.0) -> LoadResult:
    return LoadResult(
        players=8,
        rate=20.0,
        seconds=4.0,
        warm_up_s=1.0,
        messages_per_s=160.0,
        expected=1120,
        delivered=1120,
        share=share,
        deliveries_per_s=1120.0,
        received_bytes_per_s=1.0,
        latency=Latency(9, p50_ms, p99_ms, p99_ms),
        late_p99_ms=0.1,
        generator_cpu=0.1,
        lost_connections=0,
        close_codes={},
        server_cpu=None,
        cpu_s_per_million=None,
        rss_bytes=None,
        rss_bytes_all=None,
    )


def test_wrong_use_is_said() -> None:
    status, said = invoke(main, "--players", "1")
    assert status == 2
    assert "--players" in said


def test_differences_are_to_the_same_round() -> None:
    whole = [result(1.0, 2.0), result(5.0, 50.0), result(1.0, 3.0)]
    found = row(
        "over the link", [result(2.0, 3.0), result(7.0, 53.0), result(2.0, 5.0, 0.9)], whole
    )
    assert (found.p50_ms, found.p99_ms) == (2.0, 5.0)
    assert (found.more_p50_ms, found.more_p99_ms) == (1.0, 2.0)
    assert (found.least_p99_ms, found.most_p99_ms, found.delivered) == (1.0, 3.0, 0.9)
    assert row("at the server", whole, whole).more_p99_ms == 0


def test_a_refused_ticket_ends_it() -> None:
    dialect = AtNode({0: "ticket"})
    assert b'"ticket"' in (dialect.greeting(0) or b"")
    assert dialect.greeted(0, b'{"state":0,"command":"authenticate","data":{}}')
    assert not dialect.greeted(0, b'{"command":"instance-data"}')
    with pytest.raises(BenchmarkError, match="131"):
        dialect.greeted(0, b'{"command":"authenticate","error":{"code":131}}')
