"""The settings of the C library's allocator, with which the server's memory stays flat.

glibc raises the size from which it takes blocks from the system and gives them back, up to the
largest block that was freed: after the first password (19 MiB) almost every block comes from its
heaps. Each thread that hashes passwords then keeps 19 MiB, and answers and files of some 100 KiB
leave holes between smaller blocks. Under visitors, the heap grew by 3 MiB a minute while more than
half of it was free. With fixed sizes, large blocks go back to the system at once.
"""

from __future__ import annotations

import ctypes
from typing import Final

LARGE_BYTES: Final = 256 * 1024
"""Blocks from this size on are given back when they are freed. Frames for sockets are smaller."""
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
