"""Files in a folder: `content/ab/ab12…` for stored files, `incoming/…` for uploads.

An upload writes to `incoming`, on the same file system, and renames the file once it is complete
and on the disk: so no name ever stands for a partial file. The uploading process holds a lock on
the file, which ends with the process: so a sweep can tell which uploads nobody will finish.

Hashing, writing and reading run in worker threads, 512 KiB at a time. hashlib and the system
release the interpreter lock meanwhile, so the event loop goes on, and a switch of threads takes
little time compared with that work. Each upload holds one block. Writing, syncing and reading each
have a limiter of their own, so that they don't block each other or the server's other threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from reileta.errors import FileNotUploaded, PayloadTooLarge, StorageUnavailable
from reileta.media.files import FileReader, FileStore, FileUpload, Stored, is_hash

R = TypeVar("R")

BLOCK_BYTES: Final = 512 * 1024
"""Bytes hashed and written at a time; also what an upload holds in memory."""
CHUNK_BYTES: Final = 256 * 1024
"""Bytes read at a time."""
SYNCING_THREADS: Final = 4
"""Files synced to the disk at a time; a sync waits for the disk and uses no core."""


class LocalFiles(FileStore):
    """Files in a local folder, created with the first file, accessible only to its owner."""

    def __init__(self, folder: Path, *, cores: int | None = None) -> None:
        """`cores` limits the threads that hash and write, and those that read.

        With more threads than cores, the event loop would have to wait for a core.
        """
        threads = max(cores or os.cpu_count() or 1, 2)
        self._folder = folder
        self._content = folder / "content"
        self._incoming = folder / "incoming"
        self._writers = trio.CapacityLimiter(threads)
        self._readers = trio.CapacityLimiter(threads)
        self._syncers = trio.CapacityLimiter(SYNCING_THREADS)
        # Between looking at a file and removing it, no upload may store it again.
        self._placing = threading.Lock()
        self._claimed: Counter[str] = Counter()
        """Per hash, the number of uploads that stored it and whose bodies have not ended; under the
        lock."""

    @asynccontextmanager
    async def upload(self, limit_bytes: int) -> AsyncIterator[FileUpload]:
        fd, path = await in_thread(self._writers, self._create)
        upload = _LocalUpload(
            fd, path, limit_bytes, self._writers, self._syncers, self._place, self._leave
        )
        try:
            yield upload
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(self._syncers, upload.close)

    @asynccontextmanager
    async def open(
        self, hash_: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[FileReader]:
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"no range: {start} to {end}")
        fd = await in_thread(self._readers, partial(_open, self._path(hash_)))
        try:
            yield _LocalReader(fd, start, end, self._readers)
        finally:
            os.close(fd)

    async def has(self, hash_: str) -> bool:
        return await in_thread(self._readers, self._path(hash_).is_file)

    async def remove(self, hash_: str, *, placed_before_ms: int | None) -> bool:
        return await in_thread(
            self._writers, partial(self._remove, self._path(hash_), placed_before_ms)
        )

    async def listed(self, after: str, limit: int) -> list[Stored]:
        return await in_thread(self._readers, partial(self._listed, after, limit))

    async def sweep(self) -> int:
        return await in_thread(self._writers, self._sweep)

    def _path(self, hash_: str) -> Path:
        """The file's path. A text that is not a hash names no file, even if it is a valid path."""
        if not is_hash(hash_):
            raise FileNotUploaded
        return self._content / hash_[:2] / hash_

    def _create(self) -> tuple[int, Path]:
        self._make(self._incoming)
        while True:
            path = self._incoming / secrets.token_hex(16)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if path.exists():
                    return fd, path
            except OSError:
                os.close(fd)
                raise
            os.close(fd)  # a sweep saw the file before it was locked

    def _make(self, *folders: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in folders:
            folder.mkdir(exist_ok=True, mode=0o700)

    def _place(self, path: Path, hash_: str) -> Path:
        """Renames a file to its hash; the upload claims it until `_leave`."""
        place = self._path(hash_)
        folder = place.parent
        if not folder.is_dir():
            self._make(self._content, folder)
            _sync_folder(self._content)
            _sync_folder(self._folder)
        with self._placing:
            # Replaces an equal file, if there is one: this repairs a file that the disk has
            # damaged.
            path.rename(place)
            self._claimed[hash_] += 1
        return place

    def _leave(self, hash_: str) -> None:
        with self._placing:
            self._claimed[hash_] -= 1
            if not self._claimed[hash_]:
                del self._claimed[hash_]

    def _remove(self, path: Path, placed_before_ms: int | None) -> bool:
        with self._placing:
            if path.name in self._claimed:
                return False
            try:
                placed_ms = path.stat().st_mtime_ns // 1_000_000
                if placed_before_ms is not None and placed_ms >= placed_before_ms:
                    return False
                path.unlink()
            except FileNotFoundError:
                return True
        return True

    def _listed(self, after: str, limit: int) -> list[Stored]:
        found: list[Stored] = []
        for folder in _names(self._content):
            if folder < after[:2]:
                continue
            for name in _names(self._content / folder):
                if len(found) >= limit:
                    return found
                if name > after and is_hash(name):
                    with suppress(FileNotFoundError):
                        size = (self._content / folder / name).stat().st_size
                        found.append(Stored(name, size))
        return found

    def _sweep(self) -> int:
        swept = 0
        for name in _names(self._incoming):
            path = self._incoming / name
            with suppress(FileNotFoundError, BlockingIOError):
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    swept += 1
                finally:
                    os.close(fd)
        return swept


class _LocalUpload(FileUpload):
    """One file in `incoming`. Only one task uses it, one call at a time."""

    def __init__(
        self,
        fd: int,
        path: Path,
        limit_bytes: int,
        writers: trio.CapacityLimiter,
        syncers: trio.CapacityLimiter,
        place: Callable[[Path, str], Path],
        leave: Callable[[str], None],
    ) -> None:
        self._fd = fd
        self._path = path
        self._limit_bytes = limit_bytes
        self._writers = writers
        self._syncers = syncers
        self._place = place
        self._leave = leave
        self._digest = hashlib.sha256()
        self._size = 0
        self._block = bytearray(BLOCK_BYTES)
        self._filled = 0
        self._whole = True
        """Whether all bytes passed to `write` are in the file or in the block."""
        self._placed: str | None = None
        """The hash under which the file is stored."""

    @property
    def size(self) -> int:
        return self._size

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        view = memoryview(chunk).cast("B")
        if self._size + len(view) > self._limit_bytes:
            self._whole = False
            raise PayloadTooLarge.field("file", f"must be at most {self._limit_bytes} bytes")
        self._size += len(view)
        while view:
            if not self._filled and len(view) >= BLOCK_BYTES:
                await self._append(view[:BLOCK_BYTES])
                view = view[BLOCK_BYTES:]
                continue
            taken = min(BLOCK_BYTES - self._filled, len(view))
            self._block[self._filled : self._filled + taken] = view[:taken]
            self._filled += taken
            view = view[taken:]
            if self._filled == BLOCK_BYTES:
                await self._append(memoryview(self._block))
                self._filled = 0

    async def commit(self) -> Stored:
        if not self._whole or self._placed is not None:
            raise RuntimeError("this upload can't be committed: a write failed, or it was before")
        return await in_thread(self._syncers, self._finish)

    def close(self) -> None:
        """Discards the file, or ends the claim on it if it is stored."""
        try:
            if self._placed is None:
                self._path.unlink(missing_ok=True)
            else:
                self._leave(self._placed)
        finally:
            os.close(self._fd)

    async def _append(self, data: memoryview) -> None:
        # A write that is cancelled before it starts leaves a gap; `commit` is refused then.
        self._whole = False
        await in_thread(self._writers, partial(self._put, data))
        self._whole = True

    def _put(self, data: memoryview) -> None:
        self._digest.update(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def _finish(self) -> Stored:
        self._whole = False
        self._put(memoryview(self._block)[: self._filled])
        os.fsync(self._fd)
        stored = Stored(self._digest.hexdigest(), self._size)
        place = self._place(self._path, stored.hash)
        self._placed = stored.hash
        _sync_folder(place.parent)
        return stored


class _LocalReader(FileReader):
    def __init__(self, fd: int, start: int, end: int | None, limiter: trio.CapacityLimiter) -> None:
        self.size = os.fstat(fd).st_size
        self._fd = fd
        self._at = start
        self._end = self.size if end is None else min(end, self.size)
        self._limiter = limiter

    async def __anext__(self) -> bytes:
        wanted = min(CHUNK_BYTES, self._end - self._at)
        if wanted <= 0:
            raise StopAsyncIteration
        data = await in_thread(self._limiter, partial(os.pread, self._fd, wanted, self._at))
        if not data:
            raise StorageUnavailable  # the file shrank: never by us, but don't loop over it
        self._at += len(data)
        return data


async def in_thread(limiter: trio.CapacityLimiter, work: Callable[[], R]) -> R:
    """The result of `work` in a worker thread. Raises StorageUnavailable for an OSError.

    A cancelled caller still waits for the thread, since it uses the file.
    """
    try:
        return await trio.to_thread.run_sync(work, limiter=limiter)
    except OSError as error:
        raise StorageUnavailable from error


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileNotUploaded from None


def _names(folder: Path) -> list[str]:
    """The names in a folder, sorted; empty if it doesn't exist."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _sync_folder(folder: Path) -> None:
    """Syncs the folder's entries to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
