"""How much a client may send: a burst at once, and so much a second in the long run.

It is counted in messages, of which a large one is many: one for each KiB that it begins. A socket
has an allowance of its own, and all sockets of a user share one that is a few times as large. The
shared one outlives the sockets: who closes a socket and opens another has no new burst.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from reileta.settings import Settings

FRAMES_PER_MESSAGE: Final = 16
"""So many frames that are no messages count as one."""
MESSAGE_BYTES: Final = 1024
"""So many bytes at most count as one message."""
USER_SOCKETS: Final = 2
"""All sockets of a user together may send as much as so many sockets."""
GONE_LIMIT: Final = 50_000
"""Users without a socket of whom it is known what they sent; over it, the first is forgotten."""


def weight(size: int) -> int:
    """How many messages one of so many bytes counts as."""
    return -(-size // MESSAGE_BYTES) or 1


class SharedRate:
    """What all sockets of one user have left together."""

    __slots__ = ("_burst", "_counted_at", "_left", "_per_s", "sockets")

    def __init__(self, settings: Settings) -> None:
        self.sockets = 0
        self._burst = float(USER_SOCKETS * settings.messages_burst)
        self._per_s = USER_SOCKETS * settings.messages_per_s
        self._left = self._burst
        self._counted_at = trio.current_time()

    def take(self, messages: float) -> bool:
        """Whether so many messages are within what the user may send; if so, they are counted."""
        now = trio.current_time()
        self._left = min(self._burst, self._left + (now - self._counted_at) * self._per_s)
        self._counted_at = now
        if self._left < messages:
            return False
        self._left -= messages
        return True


class UserRates:
    """The shared rates of all users with sockets, and of those who had one a moment ago.

    Bounded: who has no socket is forgotten when its rate is as good as new, and over `GONE_LIMIT`
    of them the first.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._full_after_s = settings.messages_burst / settings.messages_per_s
        self._rates: dict[str, SharedRate] = {}
        self._gone: OrderedDict[str, float] = OrderedDict()  # when each is as good as new

    def __len__(self) -> int:
        """How many users are known."""
        return len(self._rates)

    def opened(self, user: str) -> SharedRate:
        """A user has one more socket, which must be `closed`."""
        self._gone.pop(user, None)
        rate = self._rates.get(user)
        if rate is None:
            rate = self._rates[user] = SharedRate(self._settings)
        rate.sockets += 1
        return rate

    def closed(self, user: str) -> None:
        """A user has one socket less."""
        rate = self._rates[user]
        rate.sockets -= 1
        now = trio.current_time()
        if not rate.sockets:
            self._gone[user] = now + self._full_after_s
        while self._gone:
            first, full_at = next(iter(self._gone.items()))
            if full_at > now and len(self._gone) <= GONE_LIMIT:
                break
            del self._gone[first], self._rates[first]


class MessageRate:
    """What one socket has left. Messages that are refused count too: whoever floods is closed.

    `shared` is what all sockets of its user have left; None, as long as it has none.
    """

    __slots__ = ("_counted_at", "_left", "_settings", "shared")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._left = float(settings.messages_burst)
        self._counted_at = trio.current_time()
        self.shared: SharedRate | None = None

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
        if self._left < 0:
            return False
        return self.shared is None or self.shared.take(messages)
