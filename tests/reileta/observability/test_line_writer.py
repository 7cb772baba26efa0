"""The log's thread: it never makes its caller wait."""

from __future__ import annotations

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


def test_a_reader_that_is_gone_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing, "ascii", lambda _: None)
    for _ in range(10):
        writer.write(LINE)
    assert writer.drain(within_s=10)
    os.close(writing)
