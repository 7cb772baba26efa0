"""Bounds on how many servers become known in an hour.

| bound | | beyond it |
|---|---|---|
| new servers of one domain | `PER_DOMAIN` | Overloaded |
| new servers that one network brings | `PER_NETWORK` | Overloaded |

Servers that are known already pass always. How many are remembered in all is bounded by the
database (`reileta/store/servers.py`).
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock
from reileta.errors import Overloaded
from reileta.rules.federation.domains import domain_of
from reileta.rules.ratelimit import Rate, RateLimiter

PER_DOMAIN: Final = Rate(per_s=20 / 3600, burst=20)
PER_NETWORK: Final = Rate(per_s=20 / 3600, burst=20)
KEYS: Final = 20_000


class NewServers:
    """Counts servers that become known. `limited`: whether the rates count."""

    def __init__(self, clock: Clock, *, limited: bool = True) -> None:
        self._clock = clock
        self._limited = limited
        self._domains = RateLimiter(PER_DOMAIN, KEYS)
        self._networks = RateLimiter(PER_NETWORK, KEYS)

    def admit(self, address: str, network: str | None = None) -> None:
        """Counts a server that is about to become known, by its canonical address.

        `network` brought it; None: this server itself asked for it.

        Raises Overloaded, with the time until there is room.
        """
        if not self._limited:
            return
        now_s = self._clock.steady_ms() / 1000
        wait_s = 0.0 if network is None else self._networks.take(network, now_s)
        if not wait_s:
            wait_s = self._domains.take(domain_of(address), now_s)
            if wait_s and network is not None:
                self._networks.give_back(network)
        if wait_s:
            overloaded = Overloaded()
            overloaded.retry_after_s = wait_s
            raise overloaded
