"""Process 1 of a container: it reaps orphans, and passes signals on to the server.

The system gives every orphan to process 1, for example the processes of a PostgreSQL that crashed.
They stay as zombies until process 1 waits for them. If Reileta is that process, the server runs as
its child. The parent does nothing else, so it can't reap a process that the server waits for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

_FORWARDED: Final = frozenset(
    {
        *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),
        *(signal.SIGUSR1, signal.SIGUSR2),
    }
)
_KILLED: Final = 128
"""Added to a signal's number in the exit status, as shells do."""


def run_under_init(run: Callable[[], int]) -> int:
    """Runs a program; in a child of this process, if this is process 1. Returns its status."""
    return run_as_child(run) if os.getpid() == 1 else run()


def run_as_child(run: Callable[[], int]) -> int:
    """Runs a program in a child, and reaps all children until it ends.

    Returns in both processes: the program's result in the child, and then its exit status here.
    """
    watched = _FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return run()
    while True:
        info = signal.sigwaitinfo(watched)
        if info.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return status
        elif info.si_code <= 0:
            # Sent by a process. The system's own signals, such as Ctrl-C, reach the child, too.
            os.kill(child, info.si_signo)


def _reap(child: int) -> int | None:
    """Waits for all children that have ended; the exit status of `child` if it is one of them."""
    ended = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            ended = code if code >= 0 else _KILLED - code
