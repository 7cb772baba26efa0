"""Passwords that are to prove who asks, and how often one may be wrong (PROTOCOL §§3, 4).

Guesses are counted by name and address. A user that has logged in from an address before has a
share of its own there: a stranger who guesses elsewhere can't lock it out. At all other addresses
together, guesses for one name are bounded as well, however many addresses a stranger has. The
counts are in memory: a restart gives a stranger one more burst, and no more. The known addresses
are in the database: a restart locks nobody out.

A name that nobody has costs as much time as one that somebody has, and is counted as much.
"""

from __future__ import annotations

from typing import Final

from api.http.endpoint import ApiDeps
from api.rate_limits import Guess, network
from reileta.errors import LoginInvalid, Overloaded
from reileta.ids import is_username
from reileta.records import User
from reileta.security.passwords import Passwords

_NOBODY: Final = "u_nobody"


class PasswordCheck:
    """Checks the passwords of this server's users."""

    def __init__(self, edge: ApiDeps, passwords: Passwords) -> None:
        self._limits = edge.limits
        self._users, self._networks = edge.node.store.users, edge.node.store.networks
        self._passwords = passwords

    async def by_name(self, username: str, password: str, ip: str) -> tuple[User, str]:
        """The user of that name, whose password it is, and the hash that it was checked against.

        Raises:
            LoginInvalid: no such user, no password, or not this one.
            TooManyRequests: too many were tried for the name.
            Overloaded: too many passwords wait to be checked.
        """
        guess = self._limits.guess(username, ip)
        found = await self._users.credentials(username) if is_username(username) else None
        user, hash_ = (None, None) if found is None else found
        await self._check(guess, user, hash_, password)
        if user is None or hash_ is None:
            raise LoginInvalid
        return user, hash_

    async def of_user(self, user: User, password: str, ip: str) -> None:
        """Proves that someone who has a credential of the user knows its password, too.

        Raises what `by_name` raises.
        """
        guess = self._limits.guess(user.username, ip)
        found = await self._users.credentials(user.username)
        known = found is not None and found[0].id == user.id
        await self._check(guess, user, found[1] if found is not None and known else None, password)

    async def _check(
        self, guess: Guess, user: User | None, hash_: str | None, password: str
    ) -> None:
        """Raises LoginInvalid unless it is the password that was hashed."""
        user_id = _NOBODY if user is None else user.id
        if not await self._networks.known(user_id, guess.network):
            self._limits.guess_from_afar(guess)
        try:
            right = await self._passwords.verify(hash_, password)
        except Overloaded:
            self._limits.no_guess(guess)
            raise
        if not right:
            raise LoginInvalid
        self._limits.no_guess(guess)

    async def logged_in(self, user: User, ip: str) -> None:
        """The user has logged in from there, and is known there from now on."""
        await self._networks.add(user.id, network(ip))
