"""Time limits of connections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import trio

from reileta.settings import KIB

PROGRESS_BYTES: Final = 64 * KIB
"""A client that sends or reads less than this in `Timeouts.progress_s` makes no progress."""
PROGRESS_S: Final = 60.0
"""Seconds that a client has for `PROGRESS_BYTES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a connection waits for its client, in seconds.

    Attributes:
        handshake_s: for the whole TLS handshake.
        head_s: for the head of a request, from its first byte (the first head: from the beginning
            of the connection), and for the preface and settings of HTTP/2.
        idle_s: for the next request of a connection that is kept alive.
        progress_s: for the client to send or read `PROGRESS_BYTES`, or the rest, of a body.
        half_closed_s: for the answer to a client that has closed its own side.
        linger_s: for the client to close the connection after the last answer.
        tick_s: interval at which deadlines are checked.
    """

    handshake_s: float = 10
    head_s: float = 10
    idle_s: float = 75
    progress_s: float = PROGRESS_S
    half_closed_s: float = 1
    linger_s: float = 2
    tick_s: float = 0.5


class ConnectionDeadline:
    """When a connection is closed for inactivity (Trio's clock, in seconds); infinite if not set.

    Setting it is cheap: one task checks the deadlines of all connections every `Timeouts.tick_s`,
    instead of a cancel scope for each wait.
    """

    __slots__ = ("_latest", "at")

    def __init__(self) -> None:
        self.at = math.inf
        self._latest = math.inf

    def set(self, seconds: float) -> None:
        """Closes the connection in that many seconds, unless this is set or cleared again."""
        self.at = min(trio.current_time() + seconds, self._latest)

    def clear(self) -> None:
        """The connection no longer waits for its client."""
        self.at = self._latest

    def limit(self, seconds: float) -> None:
        """Caps all deadlines from now on, until `unlimit`."""
        self._latest = min(trio.current_time() + seconds, self._latest)
        self.at = min(self.at, self._latest)

    def unlimit(self) -> None:
        """Removes the cap of `limit`."""
        self._latest = math.inf
