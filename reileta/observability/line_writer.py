"""A thread that writes the log, so that a reader that stops can't stop the server.

A full pipe, a stopped terminal or a slow disk blocks this thread only. Overflow policy: up to
`LIMIT_BYTES` wait; further lines are dropped and counted, and so are lines that can't be written,
as on a full disk. `log.dropped` says how many, once lines can be written again.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

LIMIT_BYTES: Final = 1024 * 1024
FLUSH_S: Final = 1.0
"""Seconds for the lines that wait when the process ends."""


class LineWriter:
    """Writes lines to a file descriptor. `write` never waits. Use it as a stream.

    Args:
        descriptor: where to; it stays open.
        encoding: of the lines. Characters that it lacks are escaped.
        report: called in the thread with the number of lines that were dropped since the last call.
    """

    def __init__(
        self,
        descriptor: int,
        encoding: str,
        report: Callable[[int], object],
        *,
        limit: int = LIMIT_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._report = report
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unreported = 0
        self._changed = threading.Condition()
        self.dropped = 0
        """All lines dropped so far."""
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @classmethod
    def standard_output(cls, report: Callable[[int], object]) -> LineWriter:
        """A writer to the process's standard output; to nothing if that is closed."""
        if sys.stdout is None:
            return cls(os.open(os.devnull, os.O_WRONLY), "utf-8", report)
        sys.stdout.flush()
        try:
            descriptor = sys.stdout.fileno()
        except io.UnsupportedOperation:  # a host program has replaced it
            descriptor = 1
        return cls(descriptor, sys.stdout.encoding or "utf-8", report)

    def write(self, line: str) -> None:
        """Queues a line, or drops it."""
        data = line.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._waiting_bytes + len(data) > self._limit:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()

    def flush(self) -> None:
        """Does nothing: the thread writes at once."""

    def isatty(self) -> bool:
        """Whether it writes to a terminal."""
        return os.isatty(self._descriptor)

    def drain(self, within_s: float = FLUSH_S) -> bool:
        """Waits until everything is written, at most so many seconds; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, within_s)

    def _run(self) -> None:
        torn = False  # whether the last line was written in part
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                data = b"".join(self._lines)
                self._lines.clear()
            whole = b"\n" + data if torn else data
            rest = write_all(self._descriptor, whole)
            lost = min(rest.count(b"\n"), data.count(b"\n"))
            if len(rest) < len(whole):
                torn = bool(rest) and not whole[: -len(rest)].endswith(b"\n")
            with self._changed:
                self._waiting_bytes -= len(data)
                self.dropped += lost
                self._unreported += lost
                missed = 0
                if not rest:  # a report could not be written either
                    missed, self._unreported = self._unreported, 0
                self._changed.notify_all()
            if missed:
                self._report(missed)


def write_all(descriptor: int, data: bytes) -> bytes:
    """Writes the data, and waits as long as that takes; returns what can't be written."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # another process made the pipe non-blocking
            with suppress(OSError):
                select.select([], [descriptor], [])
        except OSError as error:
            if error.errno != errno.EINTR:
                break
    return bytes(rest)
