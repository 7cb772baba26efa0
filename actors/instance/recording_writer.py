"""Writes recordings to the disk: a tape for each incarnation, and one writer for all tapes.

A tape takes records without waiting and keeps them as bytes. Several times a second, a worker
thread appends the bytes of all tapes to their files. Overflow policy: a tape keeps at most
`WAITING_LIMIT` bytes. If the disk is too slow for that, or the folder is full, the recording ends
with a record and a log event that say so, and the instance keeps running. Nothing here slows an
instance down or fails it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from actors.runtime.background import BackgroundTasks
from actors.runtime.failures import capture_failure
from reileta import __version__
from reileta.clock import Clock
from reileta.diagnostics.recording import (
    MAGIC,
    Called,
    Ended,
    Opened,
    Reason,
    Received,
    Record,
    encode,
)
from reileta.observability import log_events
from reileta.settings import Settings

WAITING_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of one tape that may wait for the disk."""
WRITE_EVERY_S: Final = 0.05
"""How long records gather before they are written. A `kill -9` loses no more, if the disk keeps
up."""
CLOSE_S: Final = 2.0
"""How long the writer has for the rest when the server stops."""
SUFFIX: Final = ".recording"

_log = structlog.get_logger()


class Tape:
    """The recording of one incarnation. Made by `RecordingWriter.begin`; `path` is its file."""

    def __init__(self, recorder: RecordingWriter, path: Path, instance: str, clock: Clock) -> None:
        self.path = path
        self.over = False
        """Whether it takes no more records."""
        self._recorder = recorder
        self._instance = instance
        self._clock = clock
        self._gathered = bytearray(MAGIC)
        self._writing = 0
        self._put(Opened(instance, clock.now_ms(), __version__))

    def received(self, type_: str, id_: int, cause: int, trace: int, socket: int | None) -> None:
        """A message was taken from the mailbox."""
        if not self.over:
            self._put(Received(self._clock.now_ms(), type_, id_, cause, trace, socket))

    def called(
        self,
        rule: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        ids: Sequence[str],
        raised: str | None,
    ) -> None:
        """A rule was called."""
        if not self.over:
            self._put(Called(rule, args, kwargs, ids, raised))

    def end(self, reason: Reason, error: str | None = None, state: bytes | None = None) -> None:
        """Puts the last record on the tape, unless it has one."""
        if self.over:
            return
        self.over = True
        self._gathered += encode(Ended(self._clock.now_ms(), reason, error, state))
        self._recorder.gathered(self)

    def give_up(self, reason: Reason, error: str | None = None) -> None:
        """Ends the recording; the instance keeps running."""
        if not self.over:
            self.end(reason)
            self._warn(reason, error)

    def _put(self, record: Record) -> None:
        try:
            data = encode(record)
        except (TypeError, ValueError, OverflowError) as error:
            self.give_up("unrecordable", type(error).__name__)
            return
        if len(self._gathered) + self._writing + len(data) > WAITING_LIMIT:
            self.give_up("overflow")
        elif not self._recorder.room_for(len(data)):
            self.give_up("limit")
        else:
            self._gathered += data
            self._recorder.gathered(self)

    @property
    def gathered_bytes(self) -> int:
        """Bytes that wait to be written, without those that are being written."""
        return len(self._gathered)

    # For the writer ----------------------------------------------------------------------------

    def take(self) -> bytes:
        """The bytes to append to the file now; `written` follows."""
        data = bytes(self._gathered)
        self._gathered.clear()
        self._writing = len(data)
        return data

    def written(self, error: OSError | None) -> None:
        """The bytes that were taken are in the file, or (with an error) never will be."""
        self._writing = 0
        if error is not None:
            self.over = True
            self._gathered.clear()
            self._warn("disk", error.strerror)

    def _warn(self, reason: str, error: str | None) -> None:
        _log.warning(
            log_events.RECORDING_STOPPED,
            instance=self._instance,
            recording=str(self.path),
            reason=reason,
            error=error,
        )


class RecordingWriter:
    """Writes the recordings of a node's instances into `folder`. Made by `RecordingWriter.open`."""

    def __init__(self, folder: Path, limit_bytes: int, clock: Clock) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._clock = clock
        self._total = sum(one.stat().st_size for one in folder.glob(f"*{SUFFIX}"))
        self._tapes = 0
        self._waiting: dict[Tape, None] = {}
        self._wake = trio.Event()
        self._closing = trio.Event()
        self._done = trio.Event()
        self._scope = trio.CancelScope(shield=True)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        limit_bytes: int,
        clock: Clock,
        background: BackgroundTasks | None = None,
    ) -> AsyncIterator[RecordingWriter]:
        """A writer for the block. At its end the rest is written, within `CLOSE_S`.

        `limit_bytes` bounds all recordings in the folder together, older ones too.

        Raises:
            OSError: the folder cannot be used.
        """
        _prepare(folder)
        recorder = cls(folder, limit_bytes, clock)
        async with trio.open_nursery() as nursery:
            (background or BackgroundTasks()).run(nursery, "recordings", recorder._run)
            try:
                yield recorder
            finally:
                recorder._closing.set()
                recorder._wake.set()
                with trio.move_on_after(CLOSE_S, shield=True):
                    await recorder._done.wait()
                recorder._scope.cancel()
                nursery.cancel_scope.cancel()  # it may wait for its next start

    def begin(self, instance: str) -> Tape:
        """A tape for an incarnation of that instance, which begins now."""
        self._tapes += 1
        name = f"{instance}.{self._clock.now_ms()}.{self._tapes}{SUFFIX}"
        tape = Tape(self, self._folder / name, instance, self._clock)
        _log.debug(log_events.RECORDING_STARTED, instance=instance, recording=str(tape.path))
        return tape

    def room_for(self, size: int) -> bool:
        """Whether the folder may hold so many bytes more; then they are counted."""
        if self._total + size > self._limit:
            return False
        self._total += size
        return True

    def gathered(self, tape: Tape) -> None:
        """The tape has bytes to write."""
        if tape not in self._waiting:
            self._waiting[tape] = None
            self._wake.set()

    async def _run(self) -> None:
        # Shielded: a write must end before the next one to the same file begins.
        self._scope = trio.CancelScope(shield=True)
        with self._scope:
            while not self._closing.is_set():
                await self._wake.wait()
                self._wake = trio.Event()
                with trio.move_on_after(WRITE_EVERY_S):
                    await self._closing.wait()
                await self._write()
            await self._write()  # what came during the last one
            self._done.set()

    async def _write(self) -> None:
        tapes, self._waiting = list(self._waiting), {}
        batch = [(tape.path, tape.take()) for tape in tapes]
        outcomes: list[OSError | None] = []

        async def append() -> None:
            # It is abandoned only when the server's time to stop is up.
            outcomes.extend(
                await trio.to_thread.run_sync(append_all, batch, abandon_on_cancel=True)
            )

        failure = await capture_failure(append)
        if failure is not None:  # a recording with a gap is none
            outcomes = [OSError(errno.EIO, str(failure))] * len(tapes)
        for tape, error in zip(tapes, outcomes, strict=True):
            tape.written(error)
        if failure is not None:
            raise failure


def _prepare(folder: Path) -> None:
    """Makes the folder, for its owner only. An existing folder with other files in it, such as
    `/tmp`, keeps its permissions; the recordings in it are private anyway."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = folder.stat()
    if now.st_mode & 0o077 and now.st_uid == os.geteuid() and _is_ours(folder):
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _is_ours(folder: Path) -> bool:
    """Whether the folder contains only recordings."""
    return all(one.suffix == SUFFIX for one in folder.iterdir())


@asynccontextmanager
async def open_recorder(
    settings: Settings, clock: Clock, background: BackgroundTasks
) -> AsyncIterator[RecordingWriter | None]:
    """The writer that the settings ask for, or None."""
    if settings.record is None:
        yield None
    else:
        async with RecordingWriter.open(
            settings.record, settings.record_limit_bytes, clock, background
        ) as recorder:
            yield recorder


def append_all(batch: list[tuple[Path, bytes]]) -> list[OSError | None]:
    """Appends to each file; returns the error of each, or None."""
    return [_append(path, data) for path, data in batch]


def _append(path: Path, data: bytes) -> OSError | None:
    try:
        with open(path, "ab", buffering=0, opener=_private) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
    except OSError as error:
        return error
    return None


def _private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read."""
    return os.open(path, flags, 0o600)
