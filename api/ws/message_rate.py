"""How much a client may send: a burst at once, and so much a second in the long run.

It is counted in messages, of which a large one is many: one for each KiB that it begins.
"""

from __future__ import annotations

from typing import Final

import trio

from reileta.settings import Settings

FRAMES_PER_MESSAGE: Final = 16
"""So many frames that are no messages count as one."""
MESSAGE_BYTES: Final = 1024
"""So many bytes at most count as one message."""


def weight(size: int) -> int:
    """How many messages one of so many bytes counts as."""
    return -(-size // MESSAGE_BYTES) or 1


class MessageRate:
    """What one client has left. Messages that are refused count too: whoever floods is closed."""

    __slots__ = ("_counted_at", "_left", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._left = float(settings.messages_burst)
        self._counted_at = trio.current_time()

    def take(self, messages: float = 1) -> bool:
        """Counts messages; whether they were within what the client may send."""
        settings = self._settings
        if settings.rate_limits == "off":
            return True
        now = trio.current_time()
        self._left = min(
            float(settings.messages_burst),
            self._left + (now - self._counted_at) * settings.messages_per_s,
        )
        self._counted_at = now
        self._left -= messages
        return self._left >= 0
