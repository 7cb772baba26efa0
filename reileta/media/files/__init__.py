"""The interface of a file store, in which files are named by their content.

A file's name is the SHA-256 of its content, in 64 lower-case hex digits. It is written once, as a
stream; equal content is stored once; an aborted upload leaves nothing behind. The database knows
which files are still referenced (`reileta/store/blobs.py`), and only that module removes files.

`reileta.media.files.local.LocalFiles` stores them in a folder. Object storage can implement the
same interface.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

_HASH: Final = re.compile(r"[0-9a-f]{64}")


def is_hash(text: str) -> bool:
    """Whether the text is a file's name: a SHA-256 in lower-case hex."""
    return _HASH.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored file: its SHA-256 in hex, and its size in bytes."""

    hash: str
    size: int


class FileUpload(ABC):
    """A file that is being uploaded. It is not visible before `commit`."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes written so far."""

    @abstractmethod
    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes; returns when there is room for more.

        Raises PayloadTooLarge if the file exceeds its limit (then nothing more of it is stored),
        StorageUnavailable.
        """

    @abstractmethod
    async def commit(self) -> Stored:
        """Stores the file durably: once this returns, it survives a power failure.

        Until the upload's body ends, nothing in this process can remove the file; reference it
        within the body. Raises StorageUnavailable. Can be called once.
        """


class FileReader(AsyncIterator[bytes]):
    """A file, or a range of it, in chunks of at most 256 KiB.

    It stays readable even if the file is removed meanwhile. Iterating raises StorageUnavailable.
    """

    size: int
    """Size of the whole file in bytes, for any range."""


class FileStore(ABC):
    """A place where files are stored."""

    @abstractmethod
    def upload(self, limit_bytes: int) -> AbstractAsyncContextManager[FileUpload]:
        """A new file of at most that many bytes. Leaving the body without `commit` discards it.

        Raises StorageUnavailable.
        """

    @abstractmethod
    def open(
        self, hash_: str, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[FileReader]:
        """The bytes of a file from `start` up to, not including, `end` (None: the file's end).

        A range beyond the file's end is cut. Raises FileNotUploaded, StorageUnavailable.
        """

    @abstractmethod
    async def has(self, hash_: str) -> bool:
        """Whether the file is stored. Raises StorageUnavailable."""

    @abstractmethod
    async def remove(self, hash_: str, *, placed_before_ms: int | None) -> bool:
        """Removes the file, unless it was stored (or stored again) at or after that time, or by an
        upload whose body has not ended. None: regardless of the time.

        Returns whether the file is gone, also if it never existed. Raises StorageUnavailable.
        """

    @abstractmethod
    async def listed(self, after: str, limit: int) -> list[Stored]:
        """At most `limit` of the files whose hashes are greater than `after`, sorted by hash.

        Begin with `""`. Raises StorageUnavailable.
        """

    @abstractmethod
    async def sweep(self) -> int:
        """Deletes partial uploads whose process has ended; returns how many.

        Uploads in progress, in this process or another, stay. Raises StorageUnavailable.
        """
