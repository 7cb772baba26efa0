"""The settings of the C library's allocator, with which large blocks go back to the system.

glibc raises the size from which it takes blocks from the system and gives them back, up to the
largest block that was freed: after the first password (19 MiB) almost every block comes from its
heaps, and each thread that hashes passwords keeps 19 MiB. With fixed sizes, such blocks go back at
once. This costs a hash about half as much CPU again, since the system clears its pages each time;
blocks of files and answers, which are smaller, cost what they did.
"""

from __future__ import annotations

import ctypes
from typing import Final

LARGE_BYTES: Final = 4 * 1024 * 1024
"""Blocks from this size on are given back when they are freed."""
SPARE_BYTES: Final = 4 * 1024 * 1024
"""What a heap may keep at its end."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def give_back_large_blocks() -> bool:
    """Fixes both sizes; False if the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl gives large blocks back by itself
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(_M_TRIM_THRESHOLD, SPARE_BYTES))
