"""Limits that all nodes of a cluster count together, in the database: logins and their like.

Other limits are counted at each node (`api/rate_limits.py`), and so are these first: a request that
its own node refuses costs no statement. If the database is down, the own node's count stands alone.
Without a cluster, nothing is counted here.
"""

from __future__ import annotations

import structlog

from api.rate_limits import (
    GUESSES,
    GUESSES_FROM_AFAR,
    LOGIN,
    TEMPORARY,
    Guess,
    HttpRateLimits,
    network,
)
from reileta.errors import DatabaseFault, DatabaseUnavailable, TooManyRequests
from reileta.observability import log_events
from reileta.rules.ratelimit import Rate

_log = structlog.get_logger()


class ExactLimits:
    """Counts attempts at all nodes. Methods raise TooManyRequests if there are too many."""

    def __init__(self, limits: HttpRateLimits) -> None:
        self._limits = limits

    @staticmethod
    def counts(rate: Rate) -> bool:
        """Whether `route` must be called for routes of this rate: those that hash a password,
        renew keys or make temporary accounts."""
        return rate in (LOGIN, TEMPORARY)

    async def route(self, route: str, ip: str, rate: Rate = LOGIN) -> None:
        """Counts a request to a route."""
        await self._take(f"route {route} {network(ip)}", rate)

    async def guess(self, username: str, ip: str) -> Guess:
        """As `HttpRateLimits.guess`."""
        guess = self._limits.guess(username, ip)
        try:
            await self._take(f"here {guess.here}", GUESSES)
        except TooManyRequests:
            self._limits.no_guess(guess)
            raise
        return guess

    async def guess_from_afar(self, guess: Guess) -> None:
        """As `HttpRateLimits.guess_from_afar`."""
        try:
            self._limits.guess_from_afar(guess)
        except TooManyRequests:
            await self._give_back(f"here {guess.here}", GUESSES)
            raise
        try:
            await self._take(f"afar {guess.name}", GUESSES_FROM_AFAR)
        except TooManyRequests:
            self._limits.no_guess(guess)
            await self._give_back(f"here {guess.here}", GUESSES)
            raise

    async def no_guess(self, guess: Guess) -> None:
        """As `HttpRateLimits.no_guess`."""
        self._limits.no_guess(guess)
        await self._give_back(f"here {guess.here}", GUESSES)
        if guess.afar:
            await self._give_back(f"afar {guess.name}", GUESSES_FROM_AFAR)

    async def _take(self, key: str, rate: Rate) -> None:
        attempts = self._limits.attempts
        if attempts is None:
            return
        try:
            wait_s = await attempts.take(key, rate)
        except DatabaseFault:
            raise
        except DatabaseUnavailable:
            _log.debug(log_events.ATTEMPTS_UNCOUNTED)
            return
        if wait_s > 0:
            raise TooManyRequests(wait_s)

    async def _give_back(self, key: str, rate: Rate) -> None:
        attempts = self._limits.attempts
        if attempts is None:
            return
        try:
            await attempts.give_back(key, rate)
        except DatabaseFault:
            raise
        except DatabaseUnavailable:
            _log.debug(log_events.ATTEMPTS_UNCOUNTED)
