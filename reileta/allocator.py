"""Settings of the C library's allocator, and giving free memory back to the system.

glibc keeps what was freed: after the first password, blocks of up to 32 MiB come from its heaps, of
which threads have several, and each heap in which passwords were hashed keeps 19 MiB. Here, all
threads share one heap, and the server gives the free pages of that heap back now and then.

Two ways were not taken. With a fixed size from which blocks come from the system, or with heaps
that shrink at once, each hash costs half as much CPU again, because the system clears its 19 MiB
each time. Buffers of our own for argon2 would stay for good, one per core.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import trio

from reileta.settings import MIB

EVERY_S: Final = 30.0
"""How often a server gives memory back."""
HEAP_BLOCK_BYTES: Final = 32 * MIB
"""Blocks below this size come from the heap: the largest size that glibc takes."""
SPARE_BYTES: Final = 512 * MIB
"""What the heap may keep at its end until memory is given back."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def _glibc(name: str) -> Any:
    """A function of glibc; None if the C library is another one. musl gives memory back by
    itself."""
    return getattr(ctypes.CDLL(None), name, None)


def share_one_heap() -> bool:
    """Lets all threads use one heap; False if the C library is not glibc.

    Call it before the first thread starts. Threads that allocate large blocks at the same time wait
    for each other; small ones come from a cache that each thread has.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    return all(
        mallopt(name, value)
        for name, value in (
            (_M_ARENA_MAX, 1),
            (_M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES),
            (_M_TRIM_THRESHOLD, SPARE_BYTES),
        )
    )


def give_back() -> None:
    """Gives the free pages of the heap back. Threads that allocate meanwhile wait."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim.argtypes = (ctypes.c_size_t,)
        trim(0)


async def give_back_beside() -> None:
    """`give_back`, in a worker thread."""
    await trio.to_thread.run_sync(give_back)
