"""What the machine says of processes, and pinning."""

from __future__ import annotations

import os

import pytest

from benchmarks.machine import cores, describe, pinned, usage


def test_this_process_uses_memory() -> None:
    found = usage(os.getpid())
    assert found is not None
    assert found.rss_bytes > 1 << 20
    assert found.rss_bytes_all >= found.rss_bytes


def test_no_process_has_no_usage() -> None:
    assert usage(None) is None
    assert usage(2**22 + 1) is None


def test_two_cores_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 3, 4})
    assert cores() == (3, 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert cores() is None


def test_pinning_ends() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with pinned(core):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


def test_the_machine_is_one_line() -> None:
    assert "cores" in describe()
    assert "\n" not in describe()
