"""Passwords: argon2id, in worker threads, no more at once than there are cores (PROTOCOL §3)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from reileta.errors import Overloaded

R = TypeVar("R")

WAITING_LIMIT: Final = 256
"""How many hashes may wait for a core. Over it, askers are sent away (122): they'd time out."""

RETRY_AFTER_S: Final = 2.0


def default_hasher() -> PasswordHasher:
    """argon2id with 19 MiB, two passes and one lane: about 30 ms of one core.

    One lane, because the limiter counts cores and a hash must not take several.
    """
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Passwords:
    """Hashes and checks passwords.

    A hash that runs is not abandoned when its asker is cancelled: the limiter would lose count.
    """

    def __init__(self, hasher: PasswordHasher | None = None, *, cores: int | None = None) -> None:
        self._hasher = default_hasher() if hasher is None else hasher
        self._limiter = trio.CapacityLimiter(cores or os.cpu_count() or 1)
        # What an unknown account's password is checked against, so that it costs the same.
        self._nobody = self._hasher.hash(secrets.token_bytes(16))

    async def hash(self, password: str) -> str:
        """The password's hash, salt and parameters included. Raises Overloaded."""
        return await self._in_thread(partial(self._hasher.hash, _bytes(password)))

    async def verify(self, hash_: str | None, password: str) -> bool:
        """Whether the password is the one that was hashed. Raises Overloaded.

        `hash_` is None for an account that doesn't exist or has no password: the answer is no, at
        the same cost.
        """
        stored = self._nobody if hash_ is None else hash_
        right = await self._in_thread(partial(self._check, stored, _bytes(password)))
        return right and hash_ is not None

    def _check(self, hash_: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(hash_, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], R]) -> R:
        if self._limiter.statistics().tasks_waiting >= WAITING_LIMIT:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


def _bytes(password: str) -> bytes:
    """Any text is a password; lone surrogates, which JSON can carry, are no error."""
    return password.encode("utf-8", "surrogatepass")
