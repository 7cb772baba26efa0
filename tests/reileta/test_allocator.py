"""Free memory goes back to the system, also from the heaps of threads that hash passwords."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MIB = 1024 * 1024
PROGRAM = """
import resource, sys, threading
from reileta.allocator import give_back, share_one_heap
from reileta.security.passwords import default_hasher

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()

assert share_one_heap()
hasher = default_hasher()

def hash_passwords():
    for _ in range(2):
        hasher.hash("correct horse")
    hashed.wait()
    measured.wait()

hashed, measured = threading.Barrier(5), threading.Barrier(5)
before = resident()
threads = [threading.Thread(target=hash_passwords) for _ in range(4)]
for thread in threads:
    thread.start()
hashed.wait()
kept = resident() - before
give_back()
print(kept, resident() - before)
measured.wait()
"""


def grown() -> tuple[int, int]:
    """How much a process has grown while four threads that hashed passwords still live: before
    and after it gave memory back."""
    command = [sys.executable, "-c", PROGRAM]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kept, left = output.split()
    return int(kept), int(left)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_threads_that_hash_passwords_keep_no_memory() -> None:
    kept, left = grown()
    assert kept > 32 * MIB  # else this test shows nothing
    assert left < 8 * MIB
