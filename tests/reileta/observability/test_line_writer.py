"""The log's thread: it never makes its caller wait."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from threading import Event

import pytest

from reileta.observability.line_writer import LineWriter

LINE = "x" * 1023 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        os.close(end)


def read_to(reading: int, end: bytes) -> bytes:
    text = b""
    while not text.endswith(end):
        text += os.read(reading, 65_536)
    return text


def test_lines_come_out_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing, "ascii", lambda _: None)
    for number in range(1000):
        writer.write(f"{number}\n")
    writer.write("Zoë\n")
    text = read_to(reading, b"Zo\\xeb\n").decode()
    assert text.split() == [*map(str, range(1000)), "Zo\\xeb"]
    assert writer.drain()
    assert writer.dropped == 0


def test_what_nobody_reads_is_dropped_counted_and_reported(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    reported, counts = Event(), list[int]()

    def report(lines: int) -> None:
        counts.append(lines)
        writer.write("dropped\n")
        reported.set()

    writer = LineWriter(writing, "ascii", report, limit=256 * 1024)
    for _ in range(2000):
        writer.write(LINE)  # more than the pipe and the limit hold
    assert not writer.drain(within_s=0)
    dropped = writer.dropped
    assert dropped >= 2000 - 256 - 64
    text = read_to(reading, b"dropped\n")
    assert reported.wait(10)
    assert counts == [dropped]
    assert text.count(b"\n") == 2000 - dropped + 1


def test_lines_for_a_full_disk_are_dropped_counted_and_reported(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    room, counts, reported = 5, list[int](), Event()
    system = os.write

    def write(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = system(descriptor, data[:room])
        room -= written
        return written

    def report(lines: int) -> None:
        counts.append(lines)
        reported.set()

    monkeypatch.setattr("reileta.observability.line_writer.os.write", write)
    writer = LineWriter(writing, "ascii", report)
    writer.write("first line\n")
    assert writer.drain(within_s=10)
    writer.write("second line\n")
    assert writer.drain(within_s=10)
    assert (writer.dropped, counts) == (2, [])
    room = 1000
    writer.write("third line\n")
    assert reported.wait(10)
    assert counts == [2]
    assert read_to(reading, b"third line\n") == b"first\nthird line\n"


def test_a_reader_that_is_gone_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing, "ascii", lambda _: None)
    for _ in range(10):
        writer.write(LINE)
    assert writer.drain(within_s=10)
    os.close(writing)
