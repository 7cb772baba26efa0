"""Rate limits of HTTP: per address, account, token and route (S "Ratelimits"; code 102, 429)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from reileta.clock import Clock
from reileta.errors import TooManyRequests
from reileta.rules.instance.access import Principal
from reileta.rules.ratelimit import Rate, RateLimiter
from reileta.settings import KIB

ADDRESS: Final = Rate(per_s=100, burst=400)
"""Everything from one address: a household, a school or a café can stand behind it."""
ACCOUNT: Final = Rate(per_s=50, burst=200)
TOKEN: Final = Rate(per_s=30, burst=120)

READ: Final = Rate(per_s=30, burst=120)
"""A route that reads, per address."""
WRITE: Final = Rate(per_s=5, burst=60)
"""A route that writes, per address."""
LOGIN: Final = Rate(per_s=2, burst=40)
"""A route that hashes a password, per address."""
GUESSES: Final = Rate(per_s=0.1, burst=20)
"""Wrong passwords for one name from one address."""
GUESSES_FROM_AFAR: Final = Rate(per_s=0.5, burst=100)
"""Wrong passwords for one name from all addresses at which its user is not known."""
NAMES: Final = 50_000
"""Names, and names with an address, of which guesses are remembered for sure."""


@dataclass(slots=True)
class Guess:
    """A password that is tried for a name, from a network. `afar`: its user is not known there."""

    name: str
    network: str
    afar: bool = False

    @property
    def here(self) -> str:
        """What it is counted as, wherever else it is."""
        return f"{self.name} {self.network}"


BODY_BYTES: Final = 16 * KIB
"""So much of a JSON body counts as one request more."""


class HttpRateLimits:
    """Counts requests, and refuses those that are too many.

    Memory is bounded by `RateLimiter`'s own bound, for each kind and each route.
    """

    def __init__(self, clock: Clock, *, enabled: bool = True) -> None:
        self._clock = clock
        self._enabled = enabled
        self._addresses = RateLimiter(ADDRESS)
        self._accounts = RateLimiter(ACCOUNT)
        self._tokens = RateLimiter(TOKEN)
        self._guesses = RateLimiter(GUESSES, NAMES)
        self._guesses_from_afar = RateLimiter(GUESSES_FROM_AFAR, NAMES)
        self._routes: dict[str, RateLimiter] = {}

    def address(self, ip: str) -> None:
        """Counts a request of an address. Raises `TooManyRequests`, as do the others."""
        self._take(self._addresses, network(ip))

    def body(self, ip: str, size: int) -> None:
        """Counts the bytes of a JSON body of an address, beside the request itself."""
        self._take(self._addresses, network(ip), size // BODY_BYTES)

    def route(self, route: str, rate: Rate, ip: str) -> None:
        """Counts a request of an address to one route."""
        if self._enabled:
            limiter = self._routes.get(route)
            if limiter is None:
                limiter = self._routes[route] = RateLimiter(rate, keys=5_000)
            self._take(limiter, network(ip))

    def principal(self, principal: Principal) -> None:
        """Counts a request of an account, and of the token it came with."""
        if self._enabled:
            self._take(self._accounts, principal.user.id)
            self._take(self._tokens, principal.token_hash.hex())

    def guess(self, username: str, ip: str) -> Guess:
        """Counts a password that is tried for a name, known or not, until it proves right."""
        guess = Guess(username.lower(), network(ip))
        self._take(self._guesses, guess.here)
        return guess

    def guess_from_afar(self, guess: Guess) -> None:
        """Counts it for the name as well, for its user is not known at the address.

        Raises `TooManyRequests`; then it does not count for the address either.
        """
        try:
            self._take(self._guesses_from_afar, guess.name)
        except TooManyRequests:
            self._guesses.give_back(guess.here)
            raise
        guess.afar = True

    def no_guess(self, guess: Guess) -> None:
        """It was the right password, or was not looked at: it does not count."""
        self._guesses.give_back(guess.here)
        if guess.afar:
            self._guesses_from_afar.give_back(guess.name)

    def _take(self, limiter: RateLimiter, key: str, cost: int = 1) -> None:
        if self._enabled and cost:
            wait_s = limiter.take(key, self._clock.now_ms() / 1000, cost)
            if wait_s > 0:
                raise TooManyRequests(wait_s)


def network(ip: str) -> str:
    """What an address is counted as: itself, or the /64 of IPv6, which one subscriber has whole."""
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip)
    except ValueError:
        return ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
