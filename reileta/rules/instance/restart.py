"""For how long seats are held after a restart of the server."""

from __future__ import annotations

from typing import Final

KEPT_MS: Final = 600_000
"""How long a server can have been away; after that, nobody is expected back, and nothing is held.
"""
PAUSE_MS: Final = 30_000
"""The longest pause of a client between two attempts to connect again (docs/protocol.md). It is
about as long as the server has been away, and no longer than this."""


def outdated(away_ms: int) -> bool:
    """Whether a server was away for so long that nothing of before counts."""
    return away_ms > KEPT_MS


def hold_ms(grace_ms: int, away_ms: int) -> int:
    """For how long the seats of players are held, from when the server takes connections again.

    It is the grace of a lost connection, and the pause of a client that has just tried in vain.
    0: not at all.
    """
    if grace_ms <= 0 or outdated(away_ms):
        return 0
    return grace_ms + min(max(0, away_ms), PAUSE_MS)
