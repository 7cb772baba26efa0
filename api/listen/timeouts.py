"""How long a connection waits for its client, and what watches over that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import trio

from reileta.settings import KIB

PROGRESS_BYTES: Final = 64 * KIB
"""A client that sends or reads less than this in `Timeouts.progress_s` makes no progress."""
PROGRESS_S: Final = 60.0
"""A client has so many seconds for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a connection waits, in seconds.

    Attributes:
        handshake_s: for the whole TLS handshake.
        head_s: for a request's head, from its first byte (the first head: from the connection's
            beginning), and for the preface and settings of HTTP/2.
        idle_s: for the next request of a connection that is kept alive.
        progress_s: for `PROGRESS_BYTES`, or the rest, of a body to arrive or of an answer to be
            read.
        half_closed_s: for the answer to a client that has closed its own side.
        linger_s: for the client to close, after an answer that ends the connection.
        tick_s: how often deadlines are looked at.
    """

    handshake_s: float = 10
    head_s: float = 10
    idle_s: float = 75
    progress_s: float = PROGRESS_S
    half_closed_s: float = 1
    linger_s: float = 2
    tick_s: float = 0.5


class Deadline:
    """The moment (Trio's seconds) at which a connection is given up; far off while it is not set.

    Setting it costs nothing but a clock's reading: one task looks at the deadlines of all
    connections every `Timeouts.tick_s`, in place of a cancel scope for each wait.
    """

    __slots__ = ("_latest", "at")

    def __init__(self) -> None:
        self.at = math.inf
        self._latest = math.inf

    def set(self, seconds: float) -> None:
        """The connection is given up in so many seconds, unless this is set or cleared again."""
        self.at = min(trio.current_time() + seconds, self._latest)

    def clear(self) -> None:
        """The connection waits for the server, and not for its client."""
        self.at = self._latest

    def limit(self, seconds: float) -> None:
        """No later deadline counts from here on."""
        self._latest = min(trio.current_time() + seconds, self._latest)
        self.at = min(self.at, self._latest)

    def unlimit(self) -> None:
        """Takes `limit` back."""
        self._latest = math.inf
