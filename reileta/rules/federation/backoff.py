"""When a server that does not answer is asked again. Pure."""

from __future__ import annotations

from typing import Final

FREE_FAILURES: Final = 3
"""Failures in a row, from which on a server is left alone for a while."""
FIRST_MS: Final = 5_000
LONGEST_MS: Final = 10 * 60_000
JITTER: Final = (0.8, 1.4)
"""The wait is multiplied by a random number between these, so that many servers, or many waits of
one server, don't end at once."""
_DOUBLINGS: Final = 16


def wait_ms(failures: int, jitter: float, asked_ms: int | None = None) -> int:
    """Milliseconds for which a server is not asked, after so many failures in a row.

    Args:
        jitter: a random number between those of `JITTER`.
        asked_ms: the wait that the server itself asked for (`Retry-After`), which counts from the
            first failure on.
    """
    wait = 0.0
    if failures >= FREE_FAILURES:
        wait = FIRST_MS * 2 ** min(failures - FREE_FAILURES, _DOUBLINGS) * jitter
    if asked_ms is not None:
        wait = max(wait, asked_ms)
    return min(int(wait), LONGEST_MS)
