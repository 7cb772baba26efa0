"""HTTP rate limits per address, account, token and route (429, code 102)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from reileta.clock import Clock
from reileta.errors import TooManyRequests
from reileta.rules.identity import Principal, ServerPrincipal
from reileta.rules.ratelimit import Rate, RateLimiter
from reileta.settings import KIB

ADDRESS: Final = Rate(per_s=100, burst=400)
"""All requests from one address, which can be that of a household, a school or a café."""
ACCOUNT: Final = Rate(per_s=50, burst=200)
TOKEN: Final = Rate(per_s=30, burst=120)
VISIT: Final = Rate(per_s=10 / 60, burst=10)
"""Tokens that a user asks other servers for."""
SERVER: Final = Rate(per_s=10, burst=40)
"""Another server, by its address, however many machines send its requests."""

REMOTE: Final = Rate(per_s=0.5, burst=30)
"""Reads of other servers' objects, per account."""
READ: Final = Rate(per_s=30, burst=120)
"""A route that reads, per address."""
WRITE: Final = Rate(per_s=5, burst=60)
"""A route that writes, per address."""
LOGIN: Final = Rate(per_s=2, burst=40)
"""A route that hashes a password, per address."""
TEMPORARY: Final = Rate(per_s=1 / 60, burst=20)
"""Temporary accounts, per address."""
GUESSES: Final = Rate(per_s=0.1, burst=20)
"""Wrong passwords for one name from one address."""
GUESSES_FROM_AFAR: Final = Rate(per_s=0.5, burst=100)
"""Wrong passwords for one name from all addresses that are not known for its user."""
NAMES: Final = 50_000
"""Number of names, and of names with an address, whose guesses are counted."""


@dataclass(slots=True)
class Guess:
    """An attempt to log in with a name from a network. `afar`: the user is not known there."""

    name: str
    network: str
    afar: bool = False

    @property
    def here(self) -> str:
        """The key for the counter of name and network."""
        return f"{self.name} {self.network}"


BODY_BYTES: Final = 16 * KIB
"""Each full 16 KiB of a JSON body count as one more request of the address."""


class AttemptStore(Protocol):
    """Counts attempts at all nodes (`reileta.store.attempts.Attempts`)."""

    async def take(self, key: str, rate: Rate, /) -> float: ...

    async def give_back(self, key: str, rate: Rate, /) -> None: ...


class HttpRateLimits:
    """Counts requests. All methods raise TooManyRequests if there are too many.

    Each limiter bounds its own memory (`RateLimiter`). There is one per kind and one per route.
    """

    def __init__(self, clock: Clock, *, enabled: bool = True) -> None:
        self._clock = clock
        self._enabled = enabled
        self._addresses = RateLimiter(ADDRESS)
        self._accounts = RateLimiter(ACCOUNT)
        self._tokens = RateLimiter(TOKEN)
        self._servers = RateLimiter(SERVER)
        self._visits = RateLimiter(VISIT)
        self._remote = RateLimiter(REMOTE)
        self._guesses = RateLimiter(GUESSES, NAMES)
        self._guesses_from_afar = RateLimiter(GUESSES_FROM_AFAR, NAMES)
        self._routes: dict[str, RateLimiter] = {}
        self._shared = False
        self.attempts: AttemptStore | None = None
        """Where attempts are counted exactly; None without a cluster, or without limits."""

    # Limits that other nodes share -------------------------------------------------------------

    def share(self, attempts: AttemptStore) -> None:
        """From now on, other nodes count what is spent here, and the other way round; logins and
        their like are counted in the database."""
        if not self._enabled:
            return
        self.attempts = attempts
        self._shared = True
        for limiter in self._limiters().values():
            limiter.shared = True

    def _limiters(self) -> dict[str, RateLimiter]:
        """The limits that are shared, by name. Guesses are counted exactly, elsewhere."""
        return {
            "address": self._addresses,
            "account": self._accounts,
            "token": self._tokens,
            "server": self._servers,
            "visit": self._visits,
            "remote": self._remote,
            **{f"route {route}": limiter for route, limiter in self._routes.items()},
        }

    def spent(self, limit: int) -> dict[str, dict[str, float]]:
        """What busy keys have spent since the last call, by limit; `limit`: keys of each."""
        now_s = self._clock.steady_ms() / 1000
        return {name: one.spent(now_s, limit) for name, one in self._limiters().items()}

    def spend(self, limit: str, keys: Mapping[str, float]) -> None:
        """What keys have spent at another node."""
        limiter = self._limiters().get(limit)
        if limiter is not None:  # of a route, only once it was used here
            now_s = self._clock.steady_ms() / 1000
            for key, seconds in keys.items():
                limiter.spend(key, seconds, now_s)

    # Requests ----------------------------------------------------------------------------------

    def address(self, ip: str) -> None:
        """Counts a request of an address."""
        self._take(self._addresses, network(ip))

    def body(self, ip: str, size: int) -> None:
        """Counts the bytes of a JSON body of an address, in addition to the request."""
        self._take(self._addresses, network(ip), size // BODY_BYTES)

    def route(self, route: str, rate: Rate, ip: str) -> None:
        """Counts a request of an address to one route."""
        if self._enabled:
            limiter = self._routes.get(route)
            if limiter is None:
                limiter = self._routes[route] = RateLimiter(rate, keys=5_000)
                limiter.shared = self._shared
            self._take(limiter, network(ip))

    def principal(self, principal: Principal) -> None:
        """Counts a request of an account, and of the token that was used."""
        if self._enabled:
            self._take(self._accounts, principal.user.id)
            self._take(self._tokens, principal.token_hash.hex())

    def visit(self, principal: Principal) -> None:
        """Counts a token that a user wants of another server."""
        self._take(self._visits, principal.user.id)

    def server(self, server: ServerPrincipal) -> None:
        """Counts a request of another server."""
        self._take(self._servers, server.address)

    def remote_read(self, principal: Principal) -> None:
        """Counts a read of another server's object, for an account."""
        self._take(self._remote, principal.user.id)

    def guess(self, username: str, ip: str) -> Guess:
        """Counts a login attempt for a name, whether the name exists or not.

        Call `no_guess` if the password was right.
        """
        guess = Guess(username.lower(), network(ip))
        self._take(self._guesses, guess.here)
        return guess

    def guess_from_afar(self, guess: Guess) -> None:
        """Counts the attempt for the name as well, because its user is not known at the address.

        If that raises TooManyRequests, the attempt does not count for the address either.
        """
        try:
            self._take(self._guesses_from_afar, guess.name)
        except TooManyRequests:
            self._guesses.give_back(guess.here)
            raise
        guess.afar = True

    def no_guess(self, guess: Guess) -> None:
        """Uncounts an attempt whose password was right or was not checked."""
        self._guesses.give_back(guess.here)
        if guess.afar:
            self._guesses_from_afar.give_back(guess.name)

    def _take(self, limiter: RateLimiter, key: str, cost: int = 1) -> None:
        if self._enabled and cost:
            wait_s = limiter.take(key, self._clock.steady_ms() / 1000, cost)
            if wait_s > 0:
                raise TooManyRequests(wait_s)


def network(ip: str) -> str:
    """The key that an address is counted under: the IPv4 address, or the /64 of IPv6, because one
    subscriber has a whole /64."""
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip)
    except ValueError:
        return ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
