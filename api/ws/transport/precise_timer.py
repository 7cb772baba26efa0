"""A timer with a file descriptor, for waits of less than a millisecond.

Trio waits in whole milliseconds, rounded up, because epoll does. Python itself has this timer from
3.13 on.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

CLOCK_MONOTONIC: Final = 1
FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
LEAST_NS: Final = 1
"""Zero would stop the timer."""


class _Time(ctypes.Structure):
    """`struct timespec`."""

    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Setting(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (("interval", _Time), ("value", _Time))


class PreciseTimer:
    """Its descriptor becomes readable at the time that was set last. Raises OSError if the system
    has no such timer."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self.descriptor: int = libc.timerfd_create(CLOCK_MONOTONIC, FLAGS)
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def set(self, delay_s: float | None) -> None:
        """Makes it readable after so many seconds, and not before; None: never."""
        setting = _Setting()
        if delay_s is not None:
            whole_ns = max(LEAST_NS, int(delay_s * 1e9))
            setting.value.s, setting.value.ns = divmod(whole_ns, 1_000_000_000)
        self._settime(self.descriptor, 0, ctypes.byref(setting), None)

    def close(self) -> None:
        os.close(self.descriptor)
