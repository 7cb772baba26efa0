"""Files, kept by their content (PROTOCOL §5): what a store of them must do, wherever they lie.

A file is known by the SHA-256 of its content, in 64 lower-case hex digits. It is written once, in a
stream; equal content is kept once; what was aborted leaves nothing behind. Which files are still
wanted the database knows (`reileta/store/blobs.py`), and only it removes one.

`reileta.files.local.LocalFiles` keeps them in a folder. Object storage can take its place behind
the same interface.
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
    """Whether the text is the name of a file: a SHA-256 in lower-case hex."""
    return _HASH.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is in place: its SHA-256 in hex, and its size in bytes."""

    hash: str
    size: int


class Upload(ABC):
    """A file that is on its way in. Nobody sees it before `commit`."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes so far."""

    @abstractmethod
    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes; returns when there is room for more.

        Raises PayloadTooLarge if the file became longer than its limit (nothing more of it is
        kept), StorageUnavailable.
        """

    @abstractmethod
    async def commit(self) -> Stored:
        """Puts the file in its place, for good: once this returns, a loss of power can't take it.

        Until the upload's body is left, nobody of this process can remove it: in there, it is to be
        referenced. Raises StorageUnavailable. Can be called once.
        """


class Reader(AsyncIterator[bytes]):
    """A file, or a range of it, in chunks of at most 256 KiB.

    It keeps what it opened, even when the file is removed meanwhile. Iterating raises
    StorageUnavailable.
    """

    size: int
    """Bytes of the whole file, whatever the range."""


class FileStore(ABC):
    """Where files are kept."""

    @abstractmethod
    def upload(self, limit_bytes: int) -> AbstractAsyncContextManager[Upload]:
        """A new file of at most so many bytes. Leaving the body without a commit discards it.

        Raises StorageUnavailable.
        """

    @abstractmethod
    def open(
        self, hash_: str, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[Reader]:
        """The bytes of a file from `start` up to, not including, `end` (None: all that follow).

        What lies beyond the file's end is left out. Raises FileNotUploaded, StorageUnavailable.
        """

    @abstractmethod
    async def has(self, hash_: str) -> bool:
        """Whether the file is in its place. Raises StorageUnavailable."""

    @abstractmethod
    async def remove(self, hash_: str, *, placed_before_ms: int | None) -> bool:
        """Removes the file, unless it was put in place (or anew) at that time or later, or by an
        upload whose body has not ended. None: whenever it was.

        Returns whether it is gone now; a file that never was is. Raises StorageUnavailable.
        """

    @abstractmethod
    async def listed(self, after: str, limit: int) -> list[Stored]:
        """Up to so many of the files whose hashes come after `after`, in the hashes' order.

        Begin with `""`. Raises StorageUnavailable.
        """

    @abstractmethod
    async def sweep(self) -> int:
        """Removes what uploads left behind that ended with their process; how many there were.

        Uploads under way, in this process or another, are left alone. Raises StorageUnavailable.
        """
