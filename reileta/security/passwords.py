"""Hashes passwords with argon2id in worker threads, at most one per core.

Hashes are those of prepared passwords (`reileta/opaque_string.py`). Hashes of older versions are
those of passwords as they were sent, and stay valid.

Requests wait for a core in two queues (`FairQueue`) that take turns: one for networks from which
their user has logged in before, one for all others. So a flood of strangers can't lock out the
server's users. Within each queue, networks take turns as well.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import trio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from reileta.errors import Overloaded
from reileta.opaque_string import prepared
from reileta.security.fair_queue import FairQueue

R = TypeVar("R")

WAITING_LIMIT: Final = 256
"""Hashes of strangers that may wait for a core; beyond that, requests are refused with error 122,
since they would time out."""
KNOWN_LIMIT: Final = 256
"""Hashes that may wait for users at a network they have logged in from before."""
NETWORK_LIMIT: Final = 64
"""Hashes of one network that may wait in each queue."""
RETRY_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Requester:
    """Where a request for a hash comes from. `known`: its user has logged in from there before."""

    network: str = ""
    known: bool = False


SERVER: Final = Requester()
"""The server itself, during startup."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that waits for a core; `turn` is set when it gets one, or is displaced."""

    turn: trio.Event = field(default_factory=trio.Event)
    has_core: bool = False


def default_hasher() -> PasswordHasher:
    """argon2id with 19 MiB, two passes and one lane: about 30 ms of one core.

    One lane, because the limiter counts cores and a hash must not take several.
    """
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Passwords:
    """Hashes and checks passwords.

    A running hash is not abandoned when its caller is cancelled: otherwise its core would be given
    away while it is in use.
    """

    def __init__(self, hasher: PasswordHasher | None = None, *, cores: int | None = None) -> None:
        self._hasher = default_hasher() if hasher is None else hasher
        self._free = cores or os.cpu_count() or 1
        # Cores are counted in `_free`; this limiter only keeps these threads apart from other work.
        self._threads = trio.CapacityLimiter(self._free)
        self._strangers = _queue(WAITING_LIMIT)
        self._known = _queue(KNOWN_LIMIT)
        self._known_next = True
        # A password for an unknown account is checked against this, so that it takes the same time.
        self._nobody = self._hasher.hash(secrets.token_bytes(16))

    async def hash(self, password: str, by: Requester = SERVER) -> str:
        """Hashes the password; the result includes salt and parameters. Raises Overloaded."""
        return await self._in_thread(partial(self._hasher.hash, _bytes(prepared(password))), by)

    async def verify(self, hash_: str | None, password: str, by: Requester = SERVER) -> bool:
        """Whether the password matches the hash. Raises Overloaded.

        `hash_` is None for an account that doesn't exist or has no password: the result is False,
        in the same time.
        """
        stored = self._nobody if hash_ is None else hash_
        # As it is prepared, and as it was sent: the number of checks depends on the password only.
        forms = dict.fromkeys((prepared(password), password))
        right = await self._in_thread(partial(self._check, stored, [*map(_bytes, forms)]), by)
        return right and hash_ is not None

    def _check(self, hash_: str, forms: Sequence[bytes]) -> bool:
        for password in forms:
            with suppress(VerificationError, InvalidHashError):
                if self._hasher.verify(hash_, password):
                    return True
        return False

    async def _in_thread(self, work: Callable[[], R], by: Requester) -> R:
        await self._take_core(by)
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._free += 1
            self._give_cores()

    async def _take_core(self, by: Requester) -> None:
        """Returns once the caller has a core. Raises Overloaded."""
        if self._free and not self._known and not self._strangers:
            self._free -= 1
            return
        queue = self._known if by.known else self._strangers
        waiting = _Waiting()
        displaced = queue.push(by.network, waiting)
        if displaced is not None:
            displaced.turn.set()
        try:
            await waiting.turn.wait()
        except trio.Cancelled:
            if waiting.has_core:
                self._free += 1
                self._give_cores()
            elif not waiting.turn.is_set():
                queue.remove(by.network, waiting)
            raise
        if not waiting.has_core:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)

    def _give_cores(self) -> None:
        """Gives free cores to waiting requests, alternating between the two queues."""
        while self._free and (self._known or self._strangers):
            known = bool(self._known) and (self._known_next or not self._strangers)
            self._known_next = not known
            waiting = (self._known if known else self._strangers).pop()
            waiting.has_core = True
            self._free -= 1
            waiting.turn.set()


def _queue(limit: int) -> FairQueue[_Waiting]:
    return FairQueue(limit=limit, share=NETWORK_LIMIT, retry_after_s=RETRY_AFTER_S)


def _bytes(password: str) -> bytes:
    """UTF-8 bytes of any text, including lone surrogates, which JSON can carry."""
    return password.encode("utf-8", "surrogatepass")
