"""Guests: users of other servers who were here, their tokens, and our users' tokens elsewhere.

A guest's server vouches for it, and for whom of our users it follows (`vouched_follows`); that
counts as long as the guest has a valid token. Tokens are stored as hashes only. Visits are the
other side: tokens that other servers have issued to users of this one. Triggers of the database
mark a visit to be revoked when its session ends, in whatever way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from reileta.clock import Clock
from reileta.errors import IntegrityNotFound, ServerNotKnown, TooManyRequests
from reileta.ids import new_id
from reileta.records import Cursor, Guest, IntegrityToken, Page, Visit
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, page

TOKENS_PER_GUEST: Final = 5
"""Live tokens of one guest; a further one revokes the oldest."""
HOUR_MS: Final = 3_600_000
GUEST_KEPT_MS: Final = 30 * 24 * HOUR_MS
"""How long a guest is remembered after its last token was issued."""
TOKEN_KEPT_MS: Final = HOUR_MS
"""How long tokens and visits that have ended are kept."""
TIDIED: Final = 1000
"""Rows of each kind that one call of `tidy` deletes."""

IS_VOUCHED: Final = (
    "EXISTS (SELECT 1 FROM integrity_tokens AS live WHERE live.user_ref = {guest} "
    "AND live.revoked_at IS NULL AND live.expires_at > {now})"
)
"""SQL: the guest has a valid token."""


def known_follows(now: str) -> str:
    """SQL: who follows whom, of our users and of the guests with a valid token.

    `now` is the parameter with the time in ms. Round it up (`whole_second`), so that rows can be
    cached.
    """
    live = IS_VOUCHED.format(guest="vouched.follower", now=now)
    return (
        "(SELECT follower, followed, following_at FROM follows UNION ALL "  # noqa: S608 - constants
        f"SELECT follower, followed, following_at FROM vouched_follows AS vouched WHERE {live})"
    )


def not_blocked(user: str, now: str) -> str:
    """SQL: the user (a reference, in that column) is not of a server that a rule blocks.

    As `RuleBook.decide` says it. A follow of such a user is kept, but not shown.
    """
    host = f"regexp_replace(split_part({user}, '@', 2), ':[0-9]+$', '')"
    return (
        f"(position('@' IN {user}) = 0 OR NOT EXISTS (SELECT 1 FROM server_rules AS rule "  # noqa: S608 - columns
        f"WHERE rule.kind = 'block' AND (rule.until IS NULL OR rule.until > {now}) "
        f"AND (rule.pattern = {host} OR right({host}, length(rule.pattern) + 1) = "
        "'.' || rule.pattern)))"
    )


def whole_second(now_ms: int) -> int:
    """The time, rounded up to a whole second: no token counts for longer than it is valid."""
    return -(-now_ms // 1000) * 1000


@dataclass(frozen=True, slots=True)
class Admitted:
    """A guest with a new token.

    `before` is the guest as it was, if it was here before; `evicted` are the hashes of tokens that
    were revoked for the new one; `befriended` our users whom the guest follows since now, or no
    longer.
    """

    guest: Guest
    token: IntegrityToken
    before: Guest | None
    evicted: tuple[bytes, ...]
    befriended: frozenset[str]


_TO_REVOKE: Final = "revoke_since IS NOT NULL AND expires_at > $1 AND revoke_since > $2"


class Guests:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    # Guests here -------------------------------------------------------------------------------

    async def admit(
        self,
        user: str,
        server: str,
        *,
        displayname: str,
        thumbnail: str | None,
        follows: Collection[str],
        token_hash: bytes,
        token_id: str,
        expires_at: int,
        new_per_hour: int | None,
    ) -> Admitted:
        """Issues a token to a user (`UserIDAt`) of a server that this one knows.

        `follows` are bare ids; those that nobody here has are left out. `new_per_hour`: how many
        guests of the server may come for the first time in an hour (None: any number).

        Raises:
            ServerNotKnown: the server is not known.
            TooManyRequests: too many new guests.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            # The lock of every transaction that adds a guest: parallel ones can't exceed a limit.
            if not await transaction.fetch(
                "SELECT 1 FROM servers WHERE address = $1 FOR NO KEY UPDATE", server
            ):
                raise ServerNotKnown
            before = _guest(
                await transaction.fetch_one("SELECT * FROM guests WHERE user_ref = $1", user)
            )
            if before is None and new_per_hour is not None:
                await _ensure_room(transaction, server, new_per_hour, now)
            row = await transaction.fetch_one(
                "INSERT INTO guests (user_ref, server, displayname, thumbnail, session_id, "
                "first_seen, last_seen, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $6) "
                "ON CONFLICT (user_ref) DO UPDATE SET displayname = excluded.displayname, "
                "thumbnail = excluded.thumbnail, last_seen = excluded.last_seen, "
                "updated_at = CASE WHEN (guests.displayname, guests.thumbnail) IS DISTINCT FROM "
                "(excluded.displayname, excluded.thumbnail) THEN excluded.updated_at "
                "ELSE guests.updated_at END RETURNING *",
                user,
                server,
                displayname,
                thumbnail,
                new_id("s"),
                now,
            )
            befriended = await self._vouch(transaction, user, follows, now)
            over = await transaction.fetch(
                "SELECT hash FROM integrity_tokens WHERE user_ref = $1 AND revoked_at IS NULL "
                "AND expires_at > $2 ORDER BY issued DESC OFFSET $3",
                user,
                now,
                TOKENS_PER_GUEST - 1,
            )
            evicted = tuple(one["hash"] for one in over)
            if evicted:
                await transaction.execute(
                    "UPDATE integrity_tokens SET revoked_at = $2 WHERE hash = ANY($1)",
                    list(evicted),
                    now,
                )
            await transaction.execute(
                "INSERT INTO integrity_tokens (hash, id, user_ref, created_at, expires_at) "
                "VALUES ($1, $2, $3, $4, $5)",
                token_hash,
                token_id,
                user,
                now,
                expires_at,
            )
        guest = _guest(row)
        assert guest is not None
        token = IntegrityToken(token_hash, token_id, user, now, expires_at, None)
        return Admitted(guest, token, before, evicted, befriended)

    async def _vouch(
        self, transaction: Queries, user: str, follows: Collection[str], now: int
    ) -> frozenset[str]:
        """Replaces whom the guest follows; returns the users for whom that is a change."""
        live = IS_VOUCHED.format(guest="$1", now="$2")
        rows = await transaction.fetch(
            f"SELECT followed, {live} AS counts FROM vouched_follows WHERE follower = $1",  # noqa: S608 - a constant
            user,
            now,
        )
        stored = {row["followed"] for row in rows}
        counted = {row["followed"] for row in rows if row["counts"]}
        wanted = await transaction.fetch("SELECT id FROM users WHERE id = ANY($1)", list(follows))
        known = {row["id"] for row in wanted}
        if stored - known:  # a DELETE invalidates the cached rows of all tables
            await transaction.execute(
                "DELETE FROM vouched_follows WHERE follower = $1 AND followed = ANY($2)",
                user,
                list(stored - known),
            )
        if known - stored:
            await transaction.execute(
                "INSERT INTO vouched_follows (follower, followed, following_at) "
                "SELECT $1, id, $3 FROM users WHERE id = ANY($2) ON CONFLICT DO NOTHING",
                user,
                list(known - stored),
                now,
            )
        return frozenset(known ^ counted)

    async def use(self, token_hash: bytes) -> tuple[IntegrityToken, Guest] | None:
        """The token and its guest, valid or not."""
        row = await self._queries.fetch_one(
            "SELECT token.hash, token.id, token.created_at, token.expires_at, token.revoked_at, "
            "guests.* FROM integrity_tokens AS token JOIN guests USING (user_ref) "
            "WHERE token.hash = $1",
            token_hash,
        )
        if row is None:
            return None
        guest = _guest(row)
        assert guest is not None
        return _token(row), guest

    async def get(self, user: str) -> Guest | None:
        """The guest of that `UserIDAt`."""
        return _guest(
            await self._queries.recall_one("SELECT * FROM guests WHERE user_ref = $1", user)
        )

    async def live_tokens(self, user: str) -> frozenset[bytes]:
        """The hashes of a guest's valid tokens."""
        rows = await self._queries.fetch(
            "SELECT hash FROM integrity_tokens WHERE user_ref = $1 AND revoked_at IS NULL "
            "AND expires_at > $2",
            user,
            self._clock.now_ms(),
        )
        return frozenset(row["hash"] for row in rows)

    async def tokens(
        self,
        *,
        user: str | None = None,
        server: str | None = None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[IntegrityToken]:
        """Valid tokens, the oldest first: of one guest, of a server's guests, or of all."""
        where = Where()
        where.add("revoked_at IS NULL")
        where.add("expires_at > {}", self._clock.now_ms())
        if user is not None:
            where.add("user_ref = {}", user)
        if server is not None:
            where.add("user_ref IN (SELECT user_ref FROM guests WHERE server = {})", server)
        return await page(
            self._queries,
            "integrity_tokens",
            where,
            _token,
            order=("issued",),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def revoke(
        self, token_id: str, *, user: str | None = None, server: str | None = None
    ) -> IntegrityToken:
        """Revokes a valid token, if it is of that guest, or of a guest of that server.

        Raises IntegrityNotFound.
        """
        row = await self._queries.fetch_one(
            "UPDATE integrity_tokens SET revoked_at = $2 FROM guests "
            "WHERE integrity_tokens.id = $1 AND guests.user_ref = integrity_tokens.user_ref "
            "AND revoked_at IS NULL AND expires_at > $2 "
            "AND ($3::text IS NULL OR guests.user_ref = $3) "
            "AND ($4::text IS NULL OR guests.server = $4) RETURNING integrity_tokens.*",
            token_id,
            self._clock.now_ms(),
            user,
            server,
        )
        if row is None:
            raise IntegrityNotFound
        return _token(row)

    async def servers(self) -> list[str]:
        """The servers of guests who have a valid token."""
        rows = await self._queries.fetch(
            "SELECT DISTINCT server FROM guests JOIN integrity_tokens USING (user_ref) "
            "WHERE revoked_at IS NULL AND expires_at > $1",
            self._clock.now_ms(),
        )
        return [row["server"] for row in rows]

    async def revoke_all(self, servers: Collection[str]) -> list[bytes]:
        """Revokes all tokens of the servers' guests; returns the hashes of those that were
        valid."""
        now = self._clock.now_ms()
        rows = await self._queries.fetch(
            "UPDATE integrity_tokens SET revoked_at = $2 FROM guests "
            "WHERE guests.user_ref = integrity_tokens.user_ref AND guests.server = ANY($1) "
            "AND revoked_at IS NULL AND expires_at > $2 RETURNING hash",
            list(servers),
            now,
        )
        return [row["hash"] for row in rows]

    async def count(self, server: str) -> int:
        """How many guests of the server have a valid token."""
        counted: int = await self._queries.value(
            "SELECT count(DISTINCT user_ref) FROM guests JOIN integrity_tokens USING (user_ref) "
            "WHERE server = $1 AND revoked_at IS NULL AND expires_at > $2",
            server,
            self._clock.now_ms(),
        )
        return counted

    # Our users elsewhere -----------------------------------------------------------------------

    async def visit(self, visit: Visit) -> None:
        """Stores a token that a server has issued, under the id that the server has given it.

        If its session has ended meanwhile, it is to be revoked at once.
        """
        await self._queries.execute(
            "INSERT INTO visits (id, server, user_id, session_id, created_at, expires_at, "
            "revoke_since) SELECT $1, $2, $3, $4, $5, $6, CASE WHEN EXISTS (SELECT 1 FROM sessions "
            "WHERE id = $4 AND ended_at IS NULL) THEN NULL ELSE $5::bigint END "
            "ON CONFLICT (server, id) DO UPDATE SET user_id = excluded.user_id, "
            "session_id = excluded.session_id, created_at = excluded.created_at, "
            "expires_at = excluded.expires_at, revoke_since = excluded.revoke_since",
            visit.id,
            visit.server,
            visit.user_id,
            visit.session_id,
            visit.created_at,
            visit.expires_at,
        )

    async def visits(
        self, user_id: str, *, limit: int, offset: int, after: Cursor | None = None
    ) -> Page[Visit]:
        """A user's valid tokens at other servers, the oldest first."""
        where = Where()
        where.add("user_id = {}", user_id)
        where.add("revoke_since IS NULL")
        where.add("expires_at > {}", self._clock.now_ms())
        return await page(
            self._queries,
            "visits",
            where,
            _visit,
            order=("issued",),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def end_visit(self, token_id: str, *, user_id: str | None = None) -> list[Visit]:
        """Marks the visits of that id to be revoked, if they are of that user; returns them.

        Two servers can give the same id, so that there can be several.
        """
        now = self._clock.now_ms()
        rows = await self._queries.fetch(
            "UPDATE visits SET revoke_since = $2 WHERE id = $1 AND revoke_since IS NULL "
            "AND expires_at > $2 AND ($3::text IS NULL OR user_id = $3) RETURNING *",
            token_id,
            now,
            user_id,
        )
        return [_visit(row) for row in rows]

    async def any_visit(self) -> bool:
        """Whether a user has a token of another server."""
        return bool(
            await self._queries.value(
                "SELECT EXISTS (SELECT 1 FROM visits WHERE expires_at > $1)", self._clock.now_ms()
            )
        )

    async def servers_to_ask(self, *, limit: int, without: Collection[str] = ()) -> list[str]:
        """Servers that are to revoke tokens of visits which have not ended by themselves. Those
        `without` are left out."""
        now = self._clock.now_ms()
        rows = await self._queries.fetch(
            f"SELECT DISTINCT server FROM visits WHERE {_TO_REVOKE} "  # noqa: S608 - a constant
            "AND server <> ALL($4::text[]) LIMIT $3",
            now,
            now - HOUR_MS,
            limit,
            list(without),
        )
        return [row["server"] for row in rows]

    async def to_revoke(self, server: str, *, limit: int) -> list[Visit]:
        """Those visits at a server, the oldest first."""
        now = self._clock.now_ms()
        rows = await self._queries.fetch(
            f"SELECT * FROM visits WHERE {_TO_REVOKE} AND server = $3 "  # noqa: S608 - a constant
            "ORDER BY revoke_since, issued LIMIT $4",
            now,
            now - HOUR_MS,
            server,
            limit,
        )
        return [_visit(row) for row in rows]

    async def revoked(self, visits: Sequence[Visit]) -> None:
        """Forgets visits that their servers have revoked."""
        await self._queries.execute(
            "DELETE FROM visits USING unnest($1::text[], $2::text[]) AS done (server, id) "
            "WHERE visits.server = done.server AND visits.id = done.id",
            [visit.server for visit in visits],
            [visit.id for visit in visits],
        )

    # Cleaning up -------------------------------------------------------------------------------

    async def tidy(self) -> int:
        """Deletes what has ended long ago; returns how many rows."""
        now = self._clock.now_ms()
        deleted = 0
        for table, key, old, before in (
            ("integrity_tokens", "hash", "expires_at", now - TOKEN_KEPT_MS),
            ("visits", "issued", "expires_at", now - TOKEN_KEPT_MS),
            ("guests", "user_ref", "last_seen", now - GUEST_KEPT_MS),
        ):
            chosen = f"SELECT {key} FROM {table} WHERE {old} < $1 LIMIT {TIDIED}"  # noqa: S608 - those three
            # Asked first: a DELETE invalidates the cached rows of all tables.
            if await self._queries.fetch(chosen, before):
                deleted += await self._queries.execute(
                    f"DELETE FROM {table} WHERE {key} IN ({chosen})",  # noqa: S608 - those three
                    before,
                )
        return deleted


async def _ensure_room(transaction: Queries, server: str, limit: int, now: int) -> None:
    """Raises TooManyRequests if as many guests of the server came in the last hour as may."""
    since = await transaction.value(
        "SELECT first_seen FROM guests WHERE server = $1 AND first_seen > $2 "
        "ORDER BY first_seen DESC OFFSET $3 LIMIT 1",
        server,
        now - HOUR_MS,
        limit - 1,
    )
    if since is not None:
        raise TooManyRequests((since + HOUR_MS - now) / 1000)


def _guest(row: Row | None) -> Guest | None:
    if row is None:
        return None
    return Guest(
        user=row["user_ref"],
        server=row["server"],
        displayname=row["displayname"],
        thumbnail=row["thumbnail"],
        session_id=row["session_id"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        updated_at=row["updated_at"],
    )


def _token(row: Row) -> IntegrityToken:
    return IntegrityToken(
        hash=row["hash"],
        id=row["id"],
        user=row["user_ref"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )


def _visit(row: Row) -> Visit:
    return Visit(
        id=row["id"],
        server=row["server"],
        user_id=row["user_id"],
        session_id=row["session_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoke_since=row["revoke_since"],
    )
