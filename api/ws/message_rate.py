"""The sockets of users, and message rates: how much a client may send.

A client may send a burst at once, and a number of messages a second in the long run. A large
message counts once for each KiB that it begins. Each socket has a rate of its own, and all sockets
of a user share one that is larger. The shared rate outlives the sockets, so opening a new socket
gives no new burst. A user may have so many sockets at a time, of both APIs together.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from reileta.errors import QuotaReached
from reileta.settings import Settings

FRAMES_PER_MESSAGE: Final = 16
"""So many frames without a message count as one message."""
MESSAGE_BYTES: Final = 1024
"""At most so many bytes count as one message."""
USER_SOCKETS: Final = 2
"""All sockets of a user together may send as much as so many single sockets."""
GONE_LIMIT: Final = 50_000
"""How many users without a socket are remembered; beyond it, the oldest is forgotten."""


def weight(size: int) -> int:
    """The number of messages that a message of so many bytes counts as."""
    return -(-size // MESSAGE_BYTES) or 1


class SharedRate:
    """The rate that all sockets of one user share."""

    __slots__ = ("_burst", "_counted_at", "_left", "_per_s", "sockets")

    def __init__(self, settings: Settings) -> None:
        self.sockets = 0
        self._burst = float(USER_SOCKETS * settings.messages_burst)
        self._per_s = USER_SOCKETS * settings.messages_per_s
        self._left = self._burst
        self._counted_at = trio.current_time()

    def take(self, messages: float) -> bool:
        """Counts the messages if the user may send them, and returns whether it may."""
        now = trio.current_time()
        self._left = min(self._burst, self._left + (now - self._counted_at) * self._per_s)
        self._counted_at = now
        if self._left < messages:
            return False
        self._left -= messages
        return True


class UserRates:
    """The sockets and the shared rates of users with sockets, and of users who had one a moment
    ago.

    Bounded: a user without a socket is forgotten once its rate is full again. Beyond `GONE_LIMIT`
    of such users, the oldest is forgotten.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sockets_limit = settings.sockets_per_user if settings.rate_limits == "on" else 0
        self._full_after_s = settings.messages_burst / settings.messages_per_s
        self._rates: dict[str, SharedRate] = {}
        self._gone: OrderedDict[str, float] = OrderedDict()  # when the rate of each is full again

    def __len__(self) -> int:
        """The number of users that are remembered."""
        return len(self._rates)

    def ensure_room(self, user: str) -> None:
        """Checks that the user may have another socket. Raises QuotaReached."""
        rate = self._rates.get(user)
        if rate is not None and 0 < self._sockets_limit <= rate.sockets:
            raise QuotaReached.field(
                "sockets", f"a user can have at most {self._sockets_limit} open: close one first"
            )

    def opened(self, user: str) -> SharedRate:
        """Adds a socket of a user, for which `closed` must be called later. Raises QuotaReached."""
        self.ensure_room(user)
        self._gone.pop(user, None)
        rate = self._rates.get(user)
        if rate is None:
            rate = self._rates[user] = SharedRate(self._settings)
        rate.sockets += 1
        return rate

    def closed(self, user: str) -> None:
        """Removes a socket of a user."""
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
    """The rate of one socket. Refused messages count too, since the socket is closed then.

    `shared` is the rate of its user; None until the socket has a user.
    """

    __slots__ = ("_counted_at", "_left", "_settings", "shared")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._left = float(settings.messages_burst)
        self._counted_at = trio.current_time()
        self.shared: SharedRate | None = None

    def take(self, messages: float = 1) -> bool:
        """Counts messages, and returns whether the client may send them."""
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
