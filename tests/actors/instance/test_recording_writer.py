"""Tapes on their way to the disk, which may be slow, full or gone: instances never notice."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

import actors.instance.recording_writer
from actors.instance.recording_writer import (
    CLOSE_S,
    RecordingWriter,
    Tape,
    append_all,
    open_recorder,
)
from actors.runtime.background import BACKOFF_S, BackgroundTasks
from reileta.diagnostics.recording import Called, Ended, Opened, Received, Record, RecordingReader
from reileta.settings import Settings
from tests.conftest import PATIENCE_S, ManualClock

MIB = 1024 * 1024


def read(path: Path) -> list[Record]:
    with path.open("rb") as file:
        reader = RecordingReader(file)
        records = list(reader)
    assert reader.damage is None
    return records


def say(tape: Tape, size: int = 10) -> None:
    tape.called("speak", (b"x" * size,), {}, (), None)


class Disk:
    """Stands before the disk, and can hold writes up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.writes = 0
        self.written = 0
        self._append = actors.instance.recording_writer.append_all
        monkeypatch.setattr(actors.instance.recording_writer, "append_all", self.write)

    def write(self, batch: list[tuple[Path, bytes]]) -> list[OSError | None]:
        self.writes += 1
        self.open.wait()
        outcomes = self._append(batch)
        self.written += 1
        return outcomes


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def stopped(logs: list[Any]) -> list[tuple[str, str | None]]:
    return [(one["reason"], one["error"]) for one in logs if one["event"] == "recording.stopped"]


async def test_what_a_tape_takes_is_in_its_file(tmp_path: Path, clock: ManualClock) -> None:
    folder = tmp_path / "deep" / "recordings"
    async with RecordingWriter.open(folder, MIB, clock) as recorder:
        tape = recorder.begin("i_1")
        assert tape.path.parent == folder
        clock.advance(5)
        tape.received("Enter", 41, 40, 2**64 - 1, 3)
        tape.called("join", ("s", 1), {"now": 2}, ("p_1",), "InstanceFull")
        tape.end("stopped", state=b"\x01")
        tape.end("crashed")
        tape.received("Late", 1, 0, 0, None)
        say(tape)
    opened, received, called, ended = read(tape.path)
    assert isinstance(opened, Opened)
    assert (opened.instance, opened.at) == ("i_1", clock.now_ms() - 5)
    assert received == Received(clock.now_ms(), "Enter", 41, 40, 2**64 - 1, 3)
    assert isinstance(called, Called)
    assert (called.rule, called.ids, called.raised) == ("join", ["p_1"], "InstanceFull")
    assert ended == Ended(clock.now_ms(), "stopped", None, b"\x01")
    assert tape.path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_records_reach_the_disk_while_the_server_runs(
    tmp_path: Path, clock: ManualClock, disk: Disk
) -> None:
    async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
        tape = recorder.begin("i_1")
        for count in range(1, 4):
            say(tape)
            with trio.fail_after(PATIENCE_S):
                while disk.written < count:
                    await trio.sleep(0.01)
            assert len(read(tape.path)) == 1 + count


async def test_each_incarnation_has_a_file(tmp_path: Path, clock: ManualClock, disk: Disk) -> None:
    async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
        tapes = [recorder.begin("i_1"), recorder.begin("i_1"), recorder.begin("i_2")]
        for tape in tapes:
            say(tape)
    assert len({tape.path for tape in tapes}) == len(list(tmp_path.iterdir())) == 3
    assert [len(read(tape.path)) for tape in tapes] == [2, 2, 2]
    assert disk.writes <= 2, "one write for all"


async def test_a_slow_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, clock: ManualClock, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.instance.recording_writer, "WAITING_LIMIT", 1000)
    with capture_logs() as logs:
        async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
            slow, other = recorder.begin("i_1"), recorder.begin("i_2")
            disk.open.clear()
            say(slow, 300)
            with trio.fail_after(PATIENCE_S):
                while not disk.writes:
                    await trio.sleep(0.01)
            for _ in range(100):  # while the first write is under way
                say(slow, 300)
            assert slow.over
            assert slow.gathered_bytes < 1100
            say(other)
            assert not other.over
            disk.open.set()
    assert stopped(logs) == [("overflow", None)]
    records = read(slow.path)
    assert isinstance(records[-1], Ended)
    assert records[-1].reason == "overflow"
    assert 2 <= len(records) <= 5
    assert len(read(other.path)) == 2


async def test_a_full_folder_ends_recordings_and_older_files_count(
    tmp_path: Path, clock: ManualClock
) -> None:
    (tmp_path / "i_0.1.1.recording").write_bytes(bytes(5000))
    (tmp_path / "notes.txt").write_bytes(bytes(5000))
    with capture_logs() as logs:
        async with RecordingWriter.open(tmp_path, 7000, clock) as recorder:
            first = recorder.begin("i_1")
            for _ in range(100):
                say(first, 100)
            late = recorder.begin("i_2")
            say(late)
            assert first.over
            assert late.over
    assert stopped(logs) == [("limit", None), ("limit", None)]
    assert [one["instance"] for one in logs if one["event"] == "recording.stopped"] == [
        "i_1",
        "i_2",
    ]
    *_, ended = read(first.path)
    assert isinstance(ended, Ended)
    assert ended.reason == "limit"
    assert 1500 < first.path.stat().st_size < 2200
    assert isinstance(read(late.path)[-1], Ended)
    assert (tmp_path / "i_0.1.1.recording").stat().st_size == 5000


async def test_a_disk_that_fails_ends_only_the_recordings_it_failed(
    tmp_path: Path, clock: ManualClock
) -> None:
    with capture_logs() as logs:
        async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
            bad, good = recorder.begin("i_1"), recorder.begin("i_2")
            bad.path.mkdir()
            say(good)
            with trio.fail_after(PATIENCE_S):
                while not bad.over:
                    await trio.sleep(0.01)
            say(bad)
            bad.end("stopped")
            say(good)
    assert stopped(logs) == [("disk", "Is a directory")]
    assert len(read(good.path)) == 3


async def test_what_can_t_be_written_down_ends_the_recording(
    tmp_path: Path, clock: ManualClock
) -> None:
    with capture_logs() as logs:
        async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
            tape = recorder.begin("i_1")
            say(tape)
            tape.called("strange", (object(),), {}, (), None)
            say(tape)
    assert stopped(logs) == [("unrecordable", "TypeError")]
    assert [type(one) for one in read(tape.path)] == [Opened, Called, Ended]


async def test_the_end_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, clock: ManualClock, disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    try:
        begun = trio.current_time()
        async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
            say(recorder.begin("i_1"))
            disk.open.clear()
        assert trio.current_time() - begun <= CLOSE_S + 1
    finally:
        disk.open.set()


async def test_a_cancelled_block_still_writes_the_rest(tmp_path: Path, clock: ManualClock) -> None:
    path = None
    with trio.CancelScope() as scope:
        async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
            tape = recorder.begin("i_1")
            path = tape.path
            say(tape)
            scope.cancel()
            await trio.sleep_forever()
    assert path is not None
    assert len(read(path)) == 2


async def test_a_folder_that_can_t_be_used_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError) as caught:
        async with RecordingWriter.open(file, MIB, clock):
            pass
    assert caught.value.filename == str(file)


async def test_only_who_asks_for_recordings_has_a_recorder(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with open_recorder(Settings(), clock, BackgroundTasks()) as recorder:
        assert recorder is None
    folder = tmp_path / "recordings"
    async with open_recorder(Settings(record=folder), clock, BackgroundTasks()) as recorder:
        assert recorder is not None
    assert list(folder.iterdir()) == []
    with contextlib.suppress(OSError):
        folder.rmdir()


async def test_a_folder_that_is_there_is_made_private_unless_it_holds_other_things(
    tmp_path: Path, clock: ManualClock
) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    for folder in (own, shared):
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    (own / "i_1.1.1.recording").write_bytes(b"")
    (shared / "notes.txt").write_bytes(b"")
    for folder, mode in ((own, 0o700), (shared, 0o755)):
        async with RecordingWriter.open(folder, MIB, clock) as recorder:
            tape = recorder.begin("i_1")
            say(tape)
        assert folder.stat().st_mode & 0o777 == mode
        assert tape.path.stat().st_mode & 0o777 == 0o600


async def test_a_writer_that_fails_ends_its_recordings_and_goes_on(
    tmp_path: Path,
    clock: ManualClock,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(batch: object) -> list[OSError | None]:
        monkeypatch.setattr("actors.instance.recording_writer.append_all", append_all)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("actors.instance.recording_writer.append_all", fail)
    async with RecordingWriter.open(tmp_path, MIB, clock) as recorder:
        first = recorder.begin("i_1")
        say(first)
        # Trio's clock jumps over the work of a thread, so one sleep could be too short.
        while not first.over:
            await trio.sleep(0.01)
        await trio.sleep(2 * BACKOFF_S)
        second = recorder.begin("i_2")
        say(second)
        # The file is empty for a moment, between its making and the write.
        while not (second.path.exists() and second.path.stat().st_size):
            await trio.sleep(0.01)
        assert len(read(second.path)) == 2
