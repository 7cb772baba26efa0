"""Tokens: credentials of a session, stored as hashes only.

A transaction that adds a token of a user, or ends several of them, locks the user's row first: so
parallel logins can't exceed the limit together, and there is no deadlock. A refresh locks only the
row of its token; its rules are in `reileta/rules/session/tokens.py`.

Seeds of rotations are deleted with the first change of the token after they are of no use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reileta.clock import Clock
from reileta.errors import LoginInvalid, SessionNotFound
from reileta.records import SessionRecord, Token, User
from reileta.rules.session.tokens import REPEAT_MS, Chain, Lifetimes, Pair, Rotation, Spent
from reileta.store.database import Queries, Row
from reileta.store.database_time import DatabaseTime, database_time
from reileta.store.users import ensure_not_suspended, user

KEPT_MS: Final = 30 * 24 * 3600 * 1000
"""Time for which an invalid token is kept. The next issued token deletes older ones."""
DEAD_KEPT: Final = 64
"""Invalid tokens that are kept per user."""
SPENT_KEPT: Final = 256
"""Spent refresh keys that are kept per token. An older one is refused, without further effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued(Token):
    """A new token."""

    evicted: tuple[bytes, ...]
    """The `id`s of tokens that were revoked for it; their sockets must be closed."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A token with new keys, its session and its user."""

    token: Token
    session: SessionRecord
    user: User
    superseded: tuple[bytes, ...]
    """The `access_hash`es of its earlier keys that are no longer valid."""
    seeds: tuple[bytes, ...]
    """What makes the new keys from the refresh key, one after the other."""
    expires: int
    """When all keys of the token have expired (ms)."""


@dataclass(frozen=True, slots=True)
class Theft:
    """A spent refresh key was used: the token with that `id` was revoked. Must be logged."""

    token: bytes
    session_id: str
    user_id: str


EXPIRES: Final = (
    "greatest(access_expires, refresh_expires, prior_access_expires, prior_refresh_expires)"
)
"""The time at which no key of a token is valid any more."""

_COLUMNS: Final = (
    "tokens.issued, tokens.access_hash, tokens.refresh_hash, tokens.session_id, tokens.user_id, "
    "tokens.created_at AS token_created_at, tokens.access_expires, tokens.refresh_expires, "
    "tokens.killed_at, tokens.first_hash, tokens.prior_access_hash, tokens.prior_refresh_hash, "
    "tokens.prior_access_expires, tokens.prior_refresh_expires, tokens.rotation_seed, "
    "tokens.rotated_at"
)


class Tokens:
    def __init__(
        self, queries: Queries, clock: Clock, database_time: DatabaseTime = database_time
    ) -> None:
        self._queries = queries
        self._clock = clock
        self._database_time = database_time

    async def issue(
        self,
        *,
        session_id: str,
        user_id: str,
        access_hash: bytes,
        refresh_hash: bytes | None,
        access_expires: int,
        refresh_expires: int,
        limit: int,
        proof: str | None = None,
    ) -> Issued:
        """Issues a token; revokes the user's oldest valid tokens over `limit` in the same
        transaction.

        Expiry times are milliseconds since 1970; a token is valid until the later of the two.

        Args:
            proof: the hash of the password that was checked; None: no password was checked.

        Raises SessionNotFound if the session is not the user's or has ended, LoginInvalid if the
        password is no longer the one of `proof`, and AccountSuspended.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            locked = await transaction.fetch_one(
                "SELECT * FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id
            )
            if locked is not None:
                if proof is not None and locked["password_hash"] != proof:
                    raise LoginInvalid
                ensure_not_suspended(user(locked), now)
            # A separate statement, so that it sees the changes of the lock's previous holder.
            alive = await transaction.fetch_one(
                "SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2 AND ended_at IS NULL",
                session_id,
                user_id,
            )
            if alive is None:
                raise SessionNotFound
            await transaction.execute(
                f"DELETE FROM tokens WHERE user_id = $1 AND least(killed_at, {EXPIRES}) < $2",  # noqa: S608
                user_id,
                now - KEPT_MS,
            )
            dead = await transaction.fetch(
                "SELECT access_hash FROM tokens WHERE user_id = $1 "  # noqa: S608
                f"AND (killed_at IS NOT NULL OR {EXPIRES} <= $2) ORDER BY issued DESC OFFSET $3",
                user_id,
                now,
                DEAD_KEPT,
            )
            if dead:
                await transaction.execute(
                    "DELETE FROM tokens WHERE access_hash = ANY($1)",
                    [one["access_hash"] for one in dead],
                )
            await transaction.execute(
                "UPDATE sessions SET last_seen = $2 WHERE id = $1", session_id, now
            )
            row = await transaction.fetch_one(
                "INSERT INTO tokens (access_hash, refresh_hash, session_id, user_id, created_at, "
                "access_expires, refresh_expires) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
                access_hash,
                refresh_hash,
                session_id,
                user_id,
                now,
                access_expires,
                refresh_expires,
            )
            evicted = await transaction.fetch(
                "UPDATE tokens SET killed_at = $2 WHERE access_hash IN ("  # noqa: S608
                "SELECT access_hash FROM tokens WHERE user_id = $1 AND killed_at IS NULL "
                f"AND {EXPIRES} > $2 "
                "ORDER BY issued DESC OFFSET $3) RETURNING coalesce(first_hash, access_hash) AS id",
                user_id,
                now,
                limit,
            )
        assert row is not None
        return _issued(row, tuple(gone["id"] for gone in evicted))

    async def by_access(self, access_hash: bytes) -> tuple[Token, SessionRecord, User] | None:
        """The token, its session and its user, valid or not: the caller must check.

        Until a token's newest keys are used, the keys before them find it, too. The token is
        returned with the keys that were looked up.
        """
        row = await self._queries.fetch_one(
            f"SELECT users.*, {_COLUMNS}, "  # noqa: S608 - columns of ours
            "sessions.created_at AS session_created_at, sessions.ended_at "
            "FROM tokens JOIN sessions ON sessions.id = tokens.session_id "
            "JOIN users ON users.id = tokens.user_id "
            "WHERE tokens.access_hash = $1 OR tokens.prior_access_hash = $1",
            access_hash,
        )
        if row is None:
            return None
        session = SessionRecord(
            id=row["session_id"],
            user_id=row["id"],
            created_at=row["session_created_at"],
            ended_at=row["ended_at"],
        )
        return _token(row, access_hash), session, user(row)

    async def use(self, access_hash: bytes) -> tuple[Token, SessionRecord, User] | None:
        """Like `by_access`, and marks the key as used: from now on, the keys before it are invalid.

        The result is up to date; the caller must check whether the token is valid.
        """
        found = await self.by_access(access_hash)
        if found is None or not found[0].unused:
            return found
        await self.first_used(access_hash)
        return await self.by_access(access_hash)

    async def first_used(self, access_hash: bytes) -> bool:
        """Marks a token's newest keys as used: earlier ones become invalid; whether this was the
        first use."""
        async with self._queries.transaction() as transaction:
            row = await transaction.fetch_one(
                f"SELECT {_COLUMNS} FROM tokens WHERE access_hash = $1 "  # noqa: S608
                "AND prior_access_hash IS NOT NULL AND killed_at IS NULL FOR UPDATE",
                access_hash,
            )
            if row is None:
                return False
            before = _chain(row)
            await self._keep(transaction, row["issued"], before, before.used())
        return True

    async def rotate(
        self,
        refresh_hash: bytes,
        *,
        access_hash: bytes,
        new_refresh_hash: bytes,
        seed: bytes,
        lifetimes: Lifetimes,
    ) -> Refreshed | Theft | None:
        """Gives new keys to the token of a refresh key, or for a short time the same ones again.

        None for a key that is unknown, expired, or of a revoked token; for a spent key the token is
        revoked, and a `Theft` is returned.

        Args:
            access_hash: of the new access key; `new_refresh_hash`: of the new refresh key.
            seed: what makes both of them from the refresh key.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            # A key moves from current to prior to spent. Each lookup covers a newer place than the
            # one before, so a key that moves meanwhile is still found.
            row = await transaction.fetch_one(
                f"SELECT {_COLUMNS} FROM tokens WHERE refresh_hash = $1 "  # noqa: S608
                "OR prior_refresh_hash = $1 FOR UPDATE",
                refresh_hash,
            )
            spent: tuple[Spent, ...] = ()
            if row is None:
                row = await transaction.fetch_one(
                    f"SELECT {_COLUMNS} FROM spent_refreshes AS spent "  # noqa: S608
                    "JOIN tokens ON tokens.issued = spent.token "
                    "WHERE spent.refresh_hash = $1 FOR UPDATE OF tokens",
                    refresh_hash,
                )
                if row is None:
                    return None
                spent = await _spent(transaction, row["issued"], refresh_hash)
            before = _chain(row, spent)
            at = await self._database_time(transaction)
            again = before.repeated(refresh_hash, now, at)
            if again is None:
                pair = lifetimes.pair(access_hash, new_refresh_hash, now)
                rotation = Rotation(seed, new_refresh_hash, at)
                after = before.refreshed(refresh_hash, pair, now, rotation)
                if isinstance(after, str):
                    return None
                await self._keep(transaction, row["issued"], before, after)
                if after.killed_at is not None:
                    return Theft(_id(row), row["session_id"], row["user_id"])
                seeds: tuple[bytes, ...] = (seed,)
            else:
                after, pair, seeds = before, again.pair, again.seeds
            found = await Tokens(transaction, self._clock).by_access(pair.access_hash)
        assert found is not None
        kept = {pair.access_hash for pair in (after.current, after.previous) if pair is not None}
        had = [pair.access_hash for pair in (before.current, before.previous) if pair is not None]
        superseded = tuple(key for key in had if key not in kept)
        return Refreshed(*found, superseded, seeds, after.expires)

    async def of_session(self, session_id: str) -> list[Token]:
        """The session's valid tokens, oldest first, with their newest keys."""
        rows = await self._queries.fetch(
            f"SELECT {_COLUMNS} FROM tokens WHERE session_id = $1 AND killed_at IS NULL "  # noqa: S608
            f"AND {EXPIRES} > $2 ORDER BY issued",
            session_id,
            self._clock.now_ms(),
        )
        return [_token(row, row["access_hash"]) for row in rows]

    async def _keep(self, transaction: Queries, number: int, before: Chain, after: Chain) -> None:
        """Writes the changes of a token whose row is locked."""
        now, prior = self._clock.now_ms(), after.previous
        await transaction.execute(
            "UPDATE tokens SET first_hash = coalesce(first_hash, access_hash), "
            "access_hash = $2, refresh_hash = $3, access_expires = $4, refresh_expires = $5, "
            "prior_access_hash = $6, prior_refresh_hash = $7, prior_access_expires = $8, "
            "prior_refresh_expires = $9, killed_at = $10, rotation_seed = $11, rotated_at = $12 "
            "WHERE issued = $1",
            number,
            after.current.access_hash,
            after.current.refresh_hash,
            after.current.access_expires,
            after.current.refresh_expires,
            None if prior is None else prior.access_hash,
            None if prior is None else prior.refresh_hash,
            None if prior is None else prior.access_expires,
            None if prior is None else prior.refresh_expires,
            after.killed_at,
            None if after.rotation is None else after.rotation.seed,
            None if after.rotation is None else after.rotation.at,
        )
        newly = [one for one in after.spent if one not in before.spent]
        at = await self._database_time(transaction)
        rotations = [
            one.rotation if one.rotation is not None and one.rotation.repeats(at) else None
            for one in newly
        ]
        # A key that expires is remembered for as long as it can be repeated.
        await transaction.execute(
            "WITH forgotten AS (DELETE FROM spent_refreshes WHERE token = $1 AND expires <= $2 "
            "AND coalesce(abs($7 - rotated_at) >= $8, true)), "
            "faded AS (UPDATE spent_refreshes SET seed = NULL, successor = NULL, rotated_at = NULL "
            "WHERE token = $1 AND expires > $2 AND abs($7 - rotated_at) >= $8) "
            "INSERT INTO spent_refreshes (token, refresh_hash, expires, seed, successor, "
            "rotated_at) SELECT $1, * FROM unnest($3::bytea[], $4::bigint[], $5::bytea[], "
            "$6::bytea[], $9::bigint[])",
            number,
            now,
            [one.refresh_hash for one in newly],
            [one.expires for one in newly],
            [None if one is None else one.seed for one in rotations],
            [None if one is None else one.successor for one in rotations],
            at,
            REPEAT_MS,
            [None if one is None else one.at for one in rotations],
        )
        if newly:
            await transaction.execute(
                "DELETE FROM spent_refreshes WHERE refresh_hash IN ("
                "SELECT refresh_hash FROM spent_refreshes WHERE token = $1 "
                "ORDER BY expires DESC, refresh_hash OFFSET $2)",
                number,
                SPENT_KEPT,
            )

    async def kill(self, access_hash: bytes, now_ms: int) -> bool:
        """Revokes the token of that access key or `id`; whether it was not revoked before."""
        killed = await self._queries.execute(
            "UPDATE tokens SET killed_at = $2 WHERE killed_at IS NULL "
            "AND (access_hash = $1 OR prior_access_hash = $1 OR first_hash = $1)",
            access_hash,
            now_ms,
        )
        return killed > 0


def _id(row: Row) -> bytes:
    """Stays the same when a token is refreshed."""
    return bytes(row["first_hash"] or row["access_hash"])


def _chain(row: Row, spent: tuple[Spent, ...] = ()) -> Chain:
    prior = None
    if row["prior_access_hash"] is not None:
        prior = Pair(
            row["prior_access_hash"],
            row["prior_refresh_hash"],
            row["prior_access_expires"],
            row["prior_refresh_expires"],
        )
    current = Pair(
        row["access_hash"], row["refresh_hash"], row["access_expires"], row["refresh_expires"]
    )
    rotation = None
    if prior is not None and row["rotation_seed"] is not None:
        rotation = Rotation(row["rotation_seed"], row["refresh_hash"], row["rotated_at"])
    return Chain(current, prior, spent, row["killed_at"], rotation)


async def _spent(transaction: Queries, number: int, refresh_hash: bytes) -> tuple[Spent, ...]:
    """A spent key of a token whose row is locked, and those that may have followed it."""
    rows = await transaction.fetch(
        "SELECT refresh_hash, expires, seed, successor, rotated_at FROM spent_refreshes "
        "WHERE token = $1 AND (refresh_hash = $2 OR seed IS NOT NULL)",
        number,
        refresh_hash,
    )
    return tuple(
        Spent(
            row["refresh_hash"],
            row["expires"],
            None
            if row["seed"] is None
            else Rotation(row["seed"], row["successor"], row["rotated_at"]),
        )
        for row in rows
    )


def _token(row: Row, access_hash: bytes) -> Token:
    """The token, with the pair of keys that `access_hash` belongs to."""
    chain = _chain(row)
    pair = chain.pair_of(access_hash) or chain.current
    return Token(
        access_hash=pair.access_hash,
        refresh_hash=pair.refresh_hash,
        session_id=row["session_id"],
        user_id=row["user_id"],
        created_at=row["token_created_at"],
        access_expires=pair.access_expires,
        refresh_expires=pair.refresh_expires,
        killed_at=chain.killed_at,
        first_hash=row["first_hash"],
        unused=chain.previous is not None and pair is chain.current,
    )


def _issued(row: Row, evicted: tuple[bytes, ...]) -> Issued:
    return Issued(
        access_hash=row["access_hash"],
        refresh_hash=row["refresh_hash"],
        session_id=row["session_id"],
        user_id=row["user_id"],
        created_at=row["created_at"],
        access_expires=row["access_expires"],
        refresh_expires=row["refresh_expires"],
        killed_at=row["killed_at"],
        evicted=evicted,
    )
