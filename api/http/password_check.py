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

from api.http.endpoint import ApiDeps, RequestContext
from api.rate_limits import Guess, network
from reileta.errors import LoginInvalid, Overloaded
from reileta.ids import is_username
from reileta.records import User
from reileta.security.passwords import Passwords, Requester

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

    async def of_asker(self, call: RequestContext, password: str) -> None:
        """Proves that the asker, who has a credential of its user, knows the password, too.

        The call is renewed afterwards (`RequestContext.renew`). Raises what `by_name` raises, and
        what that does.
        """
        user = call.by.user
        guess = self._limits.guess(user.username, call.ip)
        hash_ = await self._hash_of(user)
        await self._check(guess, user, hash_, password)
        await call.renew()
        if await self._hash_of(call.by.user) != hash_:
            raise LoginInvalid  # another password by now

    async def hashed(self, call: RequestContext, password: str) -> str:
        """The hash of a new password. The call is renewed afterwards.

        Raises Overloaded, and what `RequestContext.renew` raises.
        """
        where = network(call.ip)
        known = call.user is not None and await self._networks.known(call.user.id, where)
        hash_ = await self._passwords.hash(password, Requester(where, known))
        await call.renew()
        return hash_

    async def _hash_of(self, user: User) -> str | None:
        """The hash of a user's password; None without one, and if the user has another name now."""
        found = await self._users.credentials(user.username)
        return found[1] if found is not None and found[0].id == user.id else None

    async def _check(
        self, guess: Guess, user: User | None, hash_: str | None, password: str
    ) -> None:
        """Raises LoginInvalid unless it is the password that was hashed."""
        user_id = _NOBODY if user is None else user.id
        known = await self._networks.known(user_id, guess.network)
        if not known:
            self._limits.guess_from_afar(guess)
        try:
            right = await self._passwords.verify(hash_, password, Requester(guess.network, known))
        except Overloaded:
            self._limits.no_guess(guess)
            raise
        if not right:
            raise LoginInvalid
        self._limits.no_guess(guess)

    async def logged_in(self, user: User, ip: str) -> None:
        """The user has logged in from there, and is known there from now on."""
        await self._networks.add(user.id, network(ip))
