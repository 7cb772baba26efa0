from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from reileta.errors import FileNotUploaded, PayloadTooLarge, StorageUnavailable
from reileta.media.files import FileStore, Stored
from reileta.media.files.local import BLOCK_BYTES, CHUNK_BYTES, LocalFiles

FOREVER = 2**62
"""A time after all files."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "files")


async def put(files: FileStore, data: bytes, *, chunk: int = 64 * 1024) -> Stored:
    async with files.upload(len(data)) as upload:
        for at in range(0, len(data), chunk):
            await upload.write(data[at : at + chunk])
        return await upload.commit()


async def read(files: FileStore, hash_: str, start: int = 0, end: int | None = None) -> bytes:
    async with files.open(hash_, start, end) as reader:
        return b"".join([chunk async for chunk in reader])


def on_disk(tmp_path: Path) -> list[Path]:
    return sorted(path for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "size",
    [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 17],
)
@pytest.mark.parametrize("chunk", [1000, 64 * 1024, BLOCK_BYTES * 2 + 3])
async def test_what_was_written_is_read(files: LocalFiles, size: int, chunk: int) -> None:
    data = os.urandom(size)
    stored = await put(files, data, chunk=chunk)
    assert stored == Stored(sha256(data), size)
    assert await read(files, stored.hash) == data
    assert await files.has(stored.hash)


async def test_any_buffer_can_be_written_and_used_again(files: LocalFiles) -> None:
    buffer = bytearray(b"abc")
    async with files.upload(9) as upload:
        await upload.write(buffer)
        buffer[:] = b"xyz"
        await upload.write(memoryview(buffer))
        assert upload.size == 6
        stored = await upload.commit()
    assert await read(files, stored.hash) == b"abcxyz"


async def test_a_range_is_read_alone(files: LocalFiles) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 5)
    stored = await put(files, data)
    for start, end in [(0, 1), (3, 3), (5, CHUNK_BYTES + 7), (CHUNK_BYTES, None), (7, 10**9)]:
        assert await read(files, stored.hash, start, end) == data[start:end]
    assert await read(files, stored.hash, len(data) + 1) == b""
    async with files.open(stored.hash, 5, 6) as reader:
        assert reader.size == len(data)
    with pytest.raises(ValueError, match="no range"):
        await read(files, stored.hash, 5, 4)
    with pytest.raises(ValueError, match="no range"):
        await read(files, stored.hash, -1)


async def test_chunks_are_small(files: LocalFiles) -> None:
    stored = await put(files, bytes(3 * CHUNK_BYTES))
    async with files.open(stored.hash) as reader:
        assert [len(chunk) async for chunk in reader] == [CHUNK_BYTES] * 3


async def test_equal_content_is_kept_once(files: LocalFiles, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(put, files, b"equal" * 100_000)
    assert [path.name for path in on_disk(tmp_path)] == [sha256(b"equal" * 100_000)]


async def test_an_upload_at_once_with_others_is_whole(files: LocalFiles) -> None:
    parts = [os.urandom(BLOCK_BYTES + number) for number in range(8)]
    stored: dict[int, Stored] = {}

    async def one(number: int) -> None:
        stored[number] = await put(files, parts[number], chunk=10_000)

    async with trio.open_nursery() as nursery:
        for number in range(len(parts)):
            nursery.start_soon(one, number)
    for number, part in enumerate(parts):
        assert stored[number].hash == sha256(part)
        assert await read(files, stored[number].hash) == part


@pytest.mark.parametrize("size", [10, 2 * BLOCK_BYTES])
async def test_an_aborted_upload_leaves_nothing(
    files: LocalFiles, tmp_path: Path, size: int
) -> None:
    async with files.upload(size) as upload:
        await upload.write(bytes(size))
        assert len(on_disk(tmp_path)) == 1
    assert on_disk(tmp_path) == []

    with trio.CancelScope() as scope:
        async with files.upload(size) as upload:
            await upload.write(bytes(size))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert on_disk(tmp_path) == []


async def test_a_file_over_the_limit_is_refused_at_once(files: LocalFiles, tmp_path: Path) -> None:
    async with files.upload(100) as upload:
        await upload.write(bytes(100))
        with pytest.raises(PayloadTooLarge) as caught:
            await upload.write(b"x")
    assert [detail.field for detail in caught.value.details] == ["file"]
    assert on_disk(tmp_path) == []


async def test_an_upload_with_a_hole_is_not_committed(files: LocalFiles, tmp_path: Path) -> None:
    async with files.upload(10 * BLOCK_BYTES) as upload:
        with trio.CancelScope() as scope:
            scope.cancel()
            await upload.write(bytes(BLOCK_BYTES))
        assert scope.cancelled_caught
        await upload.write(b"the rest")
        with pytest.raises(RuntimeError, match="can't be committed"):
            await upload.commit()
    assert on_disk(tmp_path) == []


async def test_an_upload_over_its_limit_is_not_committed(files: LocalFiles) -> None:
    async with files.upload(3) as upload:
        with pytest.raises(PayloadTooLarge):
            await upload.write(b"four")
        with pytest.raises(RuntimeError, match="can't be committed"):
            await upload.commit()


async def test_an_upload_is_committed_once(files: LocalFiles) -> None:
    async with files.upload(3) as upload:
        await upload.write(b"one")
        stored = await upload.commit()
        with pytest.raises(RuntimeError, match="can't be committed"):
            await upload.commit()
    assert await read(files, stored.hash) == b"one"


async def test_a_file_that_is_not_there_is_not_uploaded(files: LocalFiles) -> None:
    missing = "0" * 64
    assert not await files.has(missing)
    with pytest.raises(FileNotUploaded):
        await read(files, missing)
    assert await files.remove(missing, placed_before_ms=FOREVER)
    assert await files.listed("", 10) == []
    assert await files.sweep() == 0


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "", "..", "a" * 63, "\x00" * 64, "A" * 64]
)
async def test_no_path_names_a_file(files: LocalFiles, name: str) -> None:
    await put(files, b"something")
    for ask in (files.has, lambda it: read(files, it)):
        with pytest.raises(FileNotUploaded):
            await ask(name)
    with pytest.raises(FileNotUploaded):
        await files.remove(name, placed_before_ms=FOREVER)


async def test_only_what_was_placed_before_is_removed(files: LocalFiles, tmp_path: Path) -> None:
    stored = await put(files, b"x")
    (path,) = on_disk(tmp_path)
    os.utime(path, (1000, 1000))
    assert not await files.remove(stored.hash, placed_before_ms=1_000_000)
    assert await files.has(stored.hash)
    assert await files.remove(stored.hash, placed_before_ms=1_000_001)
    assert not await files.has(stored.hash)


async def test_putting_a_file_in_place_anew_makes_it_young(
    files: LocalFiles, tmp_path: Path
) -> None:
    stored = await put(files, b"x")
    (path,) = on_disk(tmp_path)
    os.utime(path, (1000, 1000))
    await put(files, b"x")
    assert not await files.remove(stored.hash, placed_before_ms=1_000_001)


async def test_what_an_upload_put_in_place_stays_until_its_body_ends(files: LocalFiles) -> None:
    async with files.upload(1) as last:
        async with files.upload(1) as first:
            await first.write(b"x")
            stored = await first.commit()
            await last.write(b"x")
            await last.commit()
            assert not await files.remove(stored.hash, placed_before_ms=None)
        assert not await files.remove(stored.hash, placed_before_ms=FOREVER)
        assert await files.has(stored.hash)
    assert await files.remove(stored.hash, placed_before_ms=None)
    assert not await files.has(stored.hash)


async def test_a_reader_keeps_what_it_opened(files: LocalFiles) -> None:
    data = os.urandom(3 * CHUNK_BYTES)
    stored = await put(files, data)
    async with files.open(stored.hash) as reader:
        assert await files.remove(stored.hash, placed_before_ms=FOREVER)
        assert b"".join([chunk async for chunk in reader]) == data


async def test_files_are_listed_in_the_order_of_their_hashes(
    files: LocalFiles, tmp_path: Path
) -> None:
    stored = [await put(files, bytes([number]) * (number + 1)) for number in range(20)]
    stored.sort(key=lambda file: file.hash)
    (tmp_path / "files" / "content" / "stray").write_text("x")
    (tmp_path / "files" / "content" / stored[0].hash[:2] / "stray").write_text("x")
    assert await files.listed("", 100) == stored
    found: list[Stored] = []
    while page := await files.listed(found[-1].hash if found else "", 3):
        assert len(page) <= 3
        found += page
    assert found == stored


async def test_files_are_their_owners_alone(files: LocalFiles, tmp_path: Path) -> None:
    await put(files, b"x")
    for path in (tmp_path / "files").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


KILLED = """
import os, signal, sys, trio
from pathlib import Path
from reileta.media.files.local import LocalFiles

async def main():
    async with LocalFiles(Path(sys.argv[1])).upload(10**9) as upload:
        await upload.write(bytes(5_000_000))
        os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


@pytest.mark.slow
async def test_what_a_killed_process_left_is_swept(files: LocalFiles, tmp_path: Path) -> None:
    done = await trio.run_process(
        [sys.executable, "-c", KILLED, str(tmp_path / "files")],
        check=False,
        cwd=Path(__file__).parents[4],
    )
    assert done.returncode == -signal.SIGKILL
    assert [path.stat().st_size for path in on_disk(tmp_path)] == [9 * BLOCK_BYTES]
    assert await files.sweep() == 1
    assert on_disk(tmp_path) == []


async def test_a_sweep_leaves_uploads_under_way_alone(files: LocalFiles, tmp_path: Path) -> None:
    async with files.upload(10) as upload:
        await upload.write(b"x")
        assert await LocalFiles(tmp_path / "files").sweep() == 0
        stored = await upload.commit()
    assert await read(files, stored.hash) == b"x"


async def test_an_upload_that_a_sweep_took_before_its_lock_begins_again(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swept: list[int] = []

    def swept_first(fd: int, how: int) -> None:
        if not swept:
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            path.unlink()
            swept.append(fd)
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", swept_first)
    stored = await put(files, b"still here")
    assert swept
    assert await read(files, stored.hash) == b"still here"


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["write", "fsync"])
async def test_a_disk_that_is_full_is_said_and_leaves_nothing(
    files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, name, full)
        with pytest.raises(StorageUnavailable):
            await put(files, bytes(BLOCK_BYTES))
    assert on_disk(tmp_path) == []
    stored = await put(files, b"afterwards")
    assert await read(files, stored.hash) == b"afterwards"


async def test_a_write_that_takes_little_is_gone_on_with(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[[int, memoryview], int] = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
    data = os.urandom(BLOCK_BYTES)
    stored = await put(files, data)
    assert await read(files, stored.hash) == data


async def test_a_file_that_became_shorter_is_no_endless_one(
    files: LocalFiles, tmp_path: Path
) -> None:
    stored = await put(files, bytes(3 * CHUNK_BYTES))
    (path,) = on_disk(tmp_path)
    async with files.open(stored.hash) as reader:
        os.truncate(path, CHUNK_BYTES)
        with pytest.raises(StorageUnavailable):
            async for _ in reader:
                pass
