"""Measurements of processes, CPU pinning and file limits of the machine."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psutil

MIB = 1024 * 1024


class Usage(msgspec.Struct, frozen=True):
    """CPU and memory of a server at one moment. `…_all` includes child processes (PostgreSQL)."""

    cpu_s: float
    cpu_s_all: float
    rss_bytes: int
    rss_bytes_all: int


def usage(pid: int | None) -> Usage | None:
    """The usage of a process on this machine; None without a pid, or if the process has ended."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        cpu, rss = _one(process)
        cpu_all, rss_all = cpu, rss
        for child in process.children(recursive=True):
            try:
                child_cpu, child_rss = _one(child)
            except psutil.NoSuchProcess:
                continue
            cpu_all, rss_all = cpu_all + child_cpu, rss_all + child_rss
    except psutil.Error:
        return None
    return Usage(cpu_s=cpu, cpu_s_all=cpu_all, rss_bytes=rss, rss_bytes_all=rss_all)


def cpu_seconds(pid: int | None) -> float | None:
    """The CPU of a process alone. It takes a tenth of a millisecond, where `usage` takes several,
    because it looks for children among all processes."""
    if pid is None:
        return None
    try:
        return _one(psutil.Process(pid))[0]
    except psutil.Error:
        return None


def _one(process: psutil.Process) -> tuple[float, int]:
    times = process.cpu_times()
    return times.user + times.system, int(process.memory_info().rss)


def cores() -> tuple[int, int] | None:
    """Cores for the server and for the load; None if this process may use only one core."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else None


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started in this context run on that core."""
    before = os.sched_getaffinity(0)
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        yield
    finally:
        os.sched_setaffinity(0, before)


def lift_file_limit() -> int:
    """Lets this process and its children open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> str:
    """A line about the machine, for the report."""
    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    model = line.partition(":")[2].strip()
                    break
    except OSError:
        model = os.uname().machine
    memory = psutil.virtual_memory().total // MIB // 1024
    system = os.uname()
    return f"{os.cpu_count()} cores, {model}, {memory} GiB, {system.sysname} {system.release}"
