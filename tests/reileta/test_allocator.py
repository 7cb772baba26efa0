"""The allocator gives large blocks back, also after the largest one, also in threads."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MIB = 1024 * 1024
PROGRAM = """
import resource, threading
from reileta.allocator import give_back_large_blocks
from reileta.security.passwords import default_hasher

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()

assert give_back_large_blocks()
hasher = default_hasher()

def hash_passwords():
    for _ in range(2):
        hasher.hash("correct horse")
    done.wait()

done = threading.Barrier(5)
before = resident()
threads = [threading.Thread(target=hash_passwords) for _ in range(4)]
for thread in threads:
    thread.start()
done.wait()
print(resident() - before)
"""


def grown() -> int:
    """How much a process has grown while four threads that hashed passwords still live."""
    command = [sys.executable, "-c", PROGRAM]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_threads_that_hash_passwords_keep_no_memory() -> None:
    assert grown() < 16 * MIB
