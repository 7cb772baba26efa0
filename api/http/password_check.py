"""Password checks with limits on guessing.

Wrong passwords are counted per name and address. They are also counted per name over all addresses
from which the user has not logged in before. So an attacker with many addresses is limited, and
can't lock a user out at an address that the user has used before. The counts are in memory: a
restart gives an attacker one more burst. In a cluster, they are also in the database, for all nodes
together (`api/exact_limits.py`). The known addresses are in the database.

Unknown names take as much time as known ones and are counted in the same way, so that an attacker
can't find out which names exist.
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

    def __init__(self, deps: ApiDeps, passwords: Passwords) -> None:
        self._limits = deps.exact_limits
        self._users, self._networks = deps.node.store.users, deps.node.store.networks
        self._passwords = passwords

    async def by_name(self, username: str, password: str, ip: str) -> tuple[User, str]:
        """The user of that name and password, and the hash that it was checked against.

        Raises:
            LoginInvalid: unknown user, no password, or a wrong one.
            TooManyRequests: too many passwords were tried for the name.
            Overloaded: too many passwords wait to be checked.
        """
        guess = await self._limits.guess(username, ip)
        row = await self._users.credentials(username) if is_username(username) else None
        user, hash_ = (None, None) if row is None else row
        await self._check(guess, user, hash_, password)
        if user is None or hash_ is None:
            raise LoginInvalid
        return user, hash_

    async def of_caller(self, call: RequestContext, password: str) -> None:
        """Checks that the authenticated caller also knows its user's password.

        The call is renewed afterwards. Raises the errors of `by_name` and `RequestContext.renew`.
        """
        user = call.by.user
        guess = await self._limits.guess(user.username, call.ip)
        hash_ = await self._hash_of(user)
        await self._check(guess, user, hash_, password)
        await call.renew()
        if await self._hash_of(call.by.user) != hash_:
            raise LoginInvalid  # the password changed in the meantime

    async def hashed(self, call: RequestContext, password: str) -> str:
        """The hash of a new password. The call is renewed afterwards.

        Raises Overloaded, and the errors of `RequestContext.renew`.
        """
        where = network(call.ip)
        known = call.user is not None and await self._networks.known(call.user.id, where)
        hash_ = await self._passwords.hash(password, Requester(where, known))
        await call.renew()
        return hash_

    async def _hash_of(self, user: User) -> str | None:
        """The hash of a user's password; None if it has none, or if it was renamed meanwhile."""
        row = await self._users.credentials(user.username)
        return row[1] if row is not None and row[0].id == user.id else None

    async def _check(
        self, guess: Guess, user: User | None, hash_: str | None, password: str
    ) -> None:
        """Raises LoginInvalid unless the password matches the hash."""
        user_id = _NOBODY if user is None else user.id
        known = await self._networks.known(user_id, guess.network)
        if not known:
            await self._limits.guess_from_afar(guess)
        try:
            right = await self._passwords.verify(hash_, password, Requester(guess.network, known))
        except Overloaded:
            await self._limits.no_guess(guess)
            raise
        if not right:
            raise LoginInvalid
        await self._limits.no_guess(guess)

    async def logged_in(self, user: User, ip: str) -> None:
        """Call after a login: remembers the address as known for the user."""
        await self._networks.add(user.id, network(ip))
