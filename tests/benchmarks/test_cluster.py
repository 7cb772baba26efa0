"""The benchmark of several nodes: what is made of its figures. `make bench` measures."""

from __future__ import annotations

import msgspec

from benchmarks.cluster import (
    Carried,
    ClusterResult,
    Failovers,
    Listener,
    Moved,
    Relayed,
    Scale,
    Spread,
    main,
    markdown,
    rows,
)
from benchmarks.connect import Client
from benchmarks.stats import Latency
from tests.benchmarks.reports import load_result
from tests.benchmarks.test_command_lines import invoke

FOUND = ClusterResult(
    relayed=[Relayed(load_result(p99_ms=4.0), load_result(p99_ms=6.5))],
    many=Carried(300, 450.0, 90.0, 900_000.0, 1.0),
    few=Carried(6, 450.0, 90.0, 880_000.0, 1.0),
    running_join=Latency(9, 3.0, 9.0, 12.0),
    placed_join=Latency(9, 20.0, 61.0, 70.0),
    revocation=Latency(9, 40.0, 90.0, 120.0),
    lease_core_share=0.004,
    moved=Moved(100, 1000, 9.0, Latency(900, 40.0, 90.0, 150.0)),
    spread=Spread(100, [1e6, 2e6, 3e6], [3e6, 4e6, 2e6]),
    failovers=Failovers(50, 200, 3.7, 4.6, 20, 0.4, 1.2, 0),
)


def test_what_is_missed_is_said() -> None:
    lines = list(markdown(FOUND))
    assert len(lines) == 2 + len(list(rows(FOUND)))
    (missed,) = [line for line in lines if "(missed)" in line]
    assert "to be placed" in missed
    text = "\n".join(lines)
    for figure in ("3.70 s, 4.60 s", "+ 2.5", "1.02", "0.40%", "1.50 (3,000,000 and 2,000,000"):
        assert figure in text


def test_what_was_not_measured_has_no_row() -> None:
    found = msgspec.structs.replace(FOUND, failovers=None, revocation=None)
    text = "\n".join(markdown(found))
    assert "dies" not in text
    assert "token" not in text
    assert msgspec.json.decode(msgspec.json.encode(found), type=ClusterResult) == found


def test_a_listener_notes_its_longest_silence() -> None:
    listener = Listener(Client.__new__(Client))
    data = b'{"command":"instance-data"}'
    frame = bytes([0x81, len(data)]) + data
    for at in (10, 20, 100, 110):
        listener.take(frame, at)
    assert listener.longest_ns == 80
    other = b'{"command":"instance-left"}'
    listener.take(bytes([0x81, len(other)]) + other, 1000)
    assert (listener.longest_ns, listener.heard_ns) == (80, 110)


def test_there_are_accounts_enough() -> None:
    for quick in (True, False):
        scale = Scale.of(quick=quick)
        assert scale.bots > scale.revocations + max(scale.many, scale.instances * scale.players)


def test_wrong_use_is_said() -> None:
    status, said = invoke(main, "--nonsense")
    assert status == 2
    assert "--nonsense" in said
