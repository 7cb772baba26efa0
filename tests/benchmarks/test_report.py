"""The report: its verdicts, its tables, and that its JSON reads back."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from benchmarks.report import Report, RoomRun, Sustained, checks, show
from tests.benchmarks.reports import full_report, load_result


def said(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_good_run_passes_every_check() -> None:
    found = {check.what: check for check in checks(full_report())}
    assert all(check.good for check in found.values())
    assert found["highest rate / that of Node ws"].found == "13.9"
    assert found["p99 at 300 players / Bun's"].found == "2.9"
    assert found["requests a second on /api/time / FastAPI's"].found == "1.12"
    assert len(found) == 25


def test_a_bad_run_fails_the_check_that_it_fails() -> None:
    report = full_report()
    report.rooms = [RoomRun("Reileta", 300, load_result(300, p99_ms=15.5, share=0.5))]
    bad = [check.what for check in checks(report) if not check.good]
    assert bad == [
        "300 players, 20 messages a second each: delivered",
        "300 players, 20 messages a second each: p99",
    ]


def test_watchers_that_missed_a_change_fail_the_check() -> None:
    report = full_report()
    assert report.watchers is not None
    report.watchers = msgspec.structs.replace(report.watchers, gaps=1)
    (bad,) = [check.what for check in checks(report) if not check.good]
    assert "watchers" in bad


def test_what_was_not_measured_is_not_judged() -> None:
    empty = Report(when="now", machine="here", pinned=True, quick=False, servers=[])
    assert list(checks(empty)) == []


def test_tables_name_servers_figures_and_what_is_missing() -> None:
    report = full_report()
    report.failed["idle"] = "no room"
    text = said(report)
    for words in (
        "Node ws", "given up", "6.3", "≥ 3,190,000", "30.0 KiB", "GET /api/time", "48,000 events/s",
        "not measured: Socket.IO: socket.io is not installed", "failed: idle: no room",
    ):  # fmt: skip
        assert words in text


def test_one_core_alone_is_said() -> None:
    report = full_report()
    assert "not pinned" not in said(report)
    report.pinned = False
    assert "not pinned" in said(report)


def test_only_ratios_that_differ_between_rounds_are_not_to_be_trusted() -> None:
    report = full_report()
    slow_machine = [load_result(300, p99_ms=ms, late_ms=60.0) for ms in (20.0, 60.0, 40.0)]
    theirs = [load_result(300, p99_ms=ms / 2) for ms in (20.0, 60.0, 40.0)]
    report.rooms = [
        RoomRun.of("Reileta", 300, slow_machine),
        RoomRun.of("Bun", 300, theirs),
        RoomRun.of("Node ws", 300, []),
    ]
    assert report.ratio("p99, 300 players", "Bun") == 2.0
    assert "2.00 (2.00-2.00)" in said(report)
    assert "to be trusted" not in said(report)
    assert report.rooms[0].result == slow_machine[2]
    assert report.rooms[2].result is None
    theirs[0] = load_result(300, p99_ms=20.0)
    assert "1 ratios differ" in said(report)


def test_searches_are_compared_round_by_round() -> None:
    report = full_report()
    report.inbound = [
        Sustained("Reileta", 2.0, False, 2, 1.0, None, [1.0, 2.0, 3.0]),
        Sustained("Bun", 4.0, False, 2, 1.0, None, [2.0, 4.0, 6.0]),
    ]
    assert report.ratio("messages in", "Bun") == 0.5
    assert report.ratio("messages in", "Socket.IO") is None


def test_the_json_reads_back_as_it_was() -> None:
    report = full_report()
    again = msgspec.json.decode(msgspec.json.encode(report), type=Report)
    assert again == report
