"""Other servers: what is known of them, the rules about them, and the tokens between them and us.

Addresses are canonical (`reileta/rules/federation/addresses.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from reileta.clock import Clock
from reileta.errors import Overloaded
from reileta.records import Cursor, Page, PeerServer, PeerState, PeerToken, ServerToken
from reileta.rules.federation.domains import DOMAIN_SQL, domain_of
from reileta.rules.federation.server_rules import RULES_LIMIT, Rule, RuleKind
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, page

TOKENS_PER_SERVER: Final = 4
"""Valid tokens of another server. A new one beyond that revokes the oldest."""
TOKEN_ID_BYTES: Final = 12
SERVERS_LIMIT: Final = 10_000
"""Servers that this server remembers. A further one takes the place of one that means nothing."""
PER_DOMAIN: Final = 1_000
"""Servers of one domain that are remembered (`domain_of`), as for `SERVERS_LIMIT`."""
KEPT_MS: Final = 90 * 24 * 3600 * 1000
"""Time for which a server is remembered that is not heard of, and has neither token nor guest."""


_HOSTS: Final = (
    "SELECT array_to_string(labels[place:], '.') AS host, place = 1 AS itself "
    "FROM (SELECT string_to_array(servers.host, '.') AS labels) AS split, "
    "generate_subscripts(labels, 1) AS place"
)
"""SQL: the host of a server, and its parent domains."""
_MEANS_NOTHING: Final = (
    "state <> 'pending' "  # noqa: S608 - constants
    "AND NOT EXISTS (SELECT 1 FROM peer_tokens WHERE server = servers.address) "
    "AND NOT EXISTS (SELECT 1 FROM guests WHERE server = servers.address) "
    "AND NOT EXISTS (SELECT 1 FROM visits WHERE server = servers.address) "
    # A block of a parent domain is the opposite of a reason to keep what is below it.
    f"AND NOT EXISTS (SELECT 1 FROM ({_HOSTS}) AS hosts JOIN server_rules AS rule "
    "ON rule.pattern = hosts.host WHERE hosts.itself OR rule.kind = 'allow')"
)
"""SQL: nobody here would notice that the server is forgotten. The tokens that it has are no reason
to keep it: it gets new ones with its next challenge."""


class Servers:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    # What is known of them ------------------------------------------------------------------------

    async def get(self, address: str) -> PeerServer | None:
        """What is known of a server, or None."""
        row = await self._queries.fetch_one("SELECT * FROM servers WHERE address = $1", address)
        return None if row is None else _server(row)

    async def lock(
        self,
        address: str,
        *,
        host: str,
        secure: bool,
        admit: Callable[[str], None] | None = None,
    ) -> PeerServer:
        """As `get`, inside of a transaction: until its end, nobody else changes the row. A server
        that is not known gets one, so that of two keys at once only the first one is pinned.

        `admit` is called with the address before a row is added, and may raise.

        Raises Overloaded if there are too many servers that can't be forgotten.
        """
        await self._add(address, host, secure=secure, admit=admit)
        row = await self._queries.fetch_one(
            "SELECT * FROM servers WHERE address = $1 FOR NO KEY UPDATE", address
        )
        if row is None:
            raise Overloaded
        return _server(row)

    async def _add(
        self,
        address: str,
        host: str,
        *,
        secure: bool,
        admit: Callable[[str], None] | None = None,
    ) -> None:
        """Adds a row for a server that has none, unless there are too many."""
        if await self._queries.value("SELECT 1 FROM servers WHERE address = $1", address):
            return
        if admit is not None:
            admit(address)
        if not await self._make_room(domain_of(address)):
            return
        await self._queries.execute(
            "INSERT INTO servers (address, host, secure, state, first_seen) "
            "VALUES ($1, $2, $3, 'new', $4) ON CONFLICT (address) DO NOTHING",
            address,
            host,
            secure,
            self._clock.now_ms(),
        )

    async def _make_room(self, domain: str) -> bool:
        """Forgets servers that mean nothing, so that there is room for one of the domain; whether
        there is.

        If the domain has too many, its own make room for it. Else those of the domain with the most
        servers do: so whoever fills the table loses its own servers first.
        """
        total, own = await self._counts(domain)
        if own >= PER_DOMAIN:
            await self._queries.execute(
                f"DELETE FROM servers WHERE address IN (SELECT address FROM servers "  # noqa: S608 - constants
                f"WHERE {DOMAIN_SQL} = $1 AND {_MEANS_NOTHING} "
                "ORDER BY coalesce(last_seen, first_seen), address LIMIT $2 "
                "FOR UPDATE SKIP LOCKED)",
                domain,
                own - PER_DOMAIN + 1,
            )
        elif total >= SERVERS_LIMIT:
            await self._queries.execute(
                "WITH sizes AS (SELECT domain, count(*) AS size FROM "  # noqa: S608 - constants
                f"(SELECT {DOMAIN_SQL} AS domain FROM servers) AS each GROUP BY domain) "
                "DELETE FROM servers WHERE address IN (SELECT address FROM servers "
                f"JOIN sizes ON sizes.domain = {DOMAIN_SQL} WHERE {_MEANS_NOTHING} "
                "ORDER BY size DESC, coalesce(last_seen, first_seen), address LIMIT $1 "
                "FOR UPDATE OF servers SKIP LOCKED)",
                total - SERVERS_LIMIT + 1,
            )
        else:
            return True
        total, own = await self._counts(domain)
        return own < PER_DOMAIN and total < SERVERS_LIMIT

    async def _counts(self, domain: str) -> tuple[int, int]:
        """The number of all servers, and of those of a domain."""
        row = await self._queries.fetch_one(
            "SELECT count(*) AS total, count(*) FILTER "
            "(WHERE host = $1 OR right(host, length($1) + 1) = '.' || $1) AS own FROM servers",
            domain,
        )
        assert row is not None
        return row["total"], row["own"]

    async def forget(self, address: str) -> bool:
        """Deletes what is known of a server, its tokens here and there, and its guests; whether it
        was known."""
        return await self._queries.execute("DELETE FROM servers WHERE address = $1", address) > 0

    async def many(self, addresses: Sequence[str]) -> list[PeerServer]:
        """What is known of these servers."""
        if not addresses:
            return []
        rows = await self._queries.fetch(
            "SELECT * FROM servers WHERE address = ANY($1) ORDER BY address", list(addresses)
        )
        return [_server(row) for row in rows]

    async def search(
        self,
        *,
        state: PeerState | None = None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[PeerServer]:
        """Servers in the order of their addresses; with `state`, only those in that state."""
        where = Where()
        if state is not None:
            where.add("state = {}", state)
        return await page(
            self._queries,
            "servers",
            where,
            _server,
            order=("address",),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def count(self) -> dict[str, int]:
        """The number of servers in each state."""
        rows = await self._queries.fetch("SELECT state, count(*) AS n FROM servers GROUP BY state")
        return {row["state"]: row["n"] for row in rows}

    async def learn(
        self,
        address: str,
        *,
        host: str,
        secure: bool,
        public_key: str,
        key_since: int,
        gateway_http: str | None,
        gateway_ws: str | None,
        version: str | None,
    ) -> PeerServer:
        """Stores what a server says of itself, once its key has been checked: the key is pinned,
        and the server is known.

        Raises Overloaded if there are too many servers that can't be forgotten.
        """
        await self._add(address, host, secure=secure)
        row = await self._queries.fetch_one(
            "UPDATE servers SET secure = $2, state = 'known', public_key = $3, key_since = $4, "
            "offered_key = NULL, offered_at = NULL, gateway_http = $5, gateway_ws = $6, "
            "version = $7, last_seen = $8 WHERE address = $1 RETURNING *",
            address,
            secure,
            public_key,
            key_since,
            gateway_http,
            gateway_ws,
            version,
            self._clock.now_ms(),
        )
        if row is None:
            raise Overloaded
        return _server(row)

    async def offer_key(self, address: str, key: str) -> bool:
        """A known server has a key that does not follow from the pinned one: an admin has to
        accept it. Nothing else changes. Whether that key was not offered before."""
        return (
            await self._queries.execute(
                "UPDATE servers SET state = 'pending', offered_key = $2, offered_at = $3 "
                "WHERE address = $1 AND offered_key IS DISTINCT FROM $2",
                address,
                key,
                self._clock.now_ms(),
            )
            > 0
        )

    async def accept_key(self, address: str, key: str) -> bool:
        """Pins the offered key, if it is still this one; whether it was."""
        return (
            await self._queries.execute(
                "UPDATE servers SET state = 'known', public_key = offered_key, key_since = $3, "
                "offered_key = NULL, offered_at = NULL WHERE address = $1 AND offered_key = $2",
                address,
                key,
                self._clock.now_ms(),
            )
            > 0
        )

    async def stale(self, before_ms: int, limit: int = 32) -> list[str]:
        """Known servers with a token, of which nothing was read since then; the oldest first."""
        rows = await self._queries.fetch(
            "SELECT address FROM servers WHERE last_seen <= $1 AND ("
            "EXISTS (SELECT 1 FROM peer_tokens WHERE server = address) OR "
            "EXISTS (SELECT 1 FROM server_tokens WHERE server = address AND revoked_at IS NULL "
            "AND expires_at > $2)) ORDER BY last_seen LIMIT $3",
            before_ms,
            self._clock.now_ms(),
            limit,
        )
        return [row["address"] for row in rows]

    async def trim(self) -> int:
        """Forgets servers that were not heard of for `KEPT_MS`, and have neither a token nor
        guests; deletes tokens that have ended. Returns the number of servers."""
        now = self._clock.now_ms()
        before = now - KEPT_MS
        over = await self._queries.value(
            "SELECT 1 FROM server_tokens WHERE expires_at <= $1 OR revoked_at <= $1 LIMIT 1", before
        )
        if over is not None:  # asked first: a DELETE invalidates the cached rows of all tables
            await self._queries.execute(
                "DELETE FROM server_tokens WHERE expires_at <= $1 OR revoked_at <= $1", before
            )
        old = (
            "coalesce(last_seen, first_seen) <= $1 AND state <> 'pending' "
            "AND NOT EXISTS (SELECT 1 FROM server_tokens WHERE server = address) "
            "AND NOT EXISTS (SELECT 1 FROM peer_tokens WHERE server = address) "
            "AND NOT EXISTS (SELECT 1 FROM guests WHERE guests.server = address)"
        )
        if await self._queries.value(f"SELECT 1 FROM servers WHERE {old} LIMIT 1", before) is None:  # noqa: S608 - a constant
            return 0
        return await self._queries.execute(f"DELETE FROM servers WHERE {old}", before)  # noqa: S608

    # Rules ----------------------------------------------------------------------------------------

    async def rules(self) -> list[Rule]:
        """All rules, in the order of their patterns."""
        rows = await self._queries.fetch("SELECT * FROM server_rules ORDER BY pattern")
        return [_rule(row) for row in rows]

    async def search_rules(
        self,
        *,
        kind: RuleKind | None = None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[Rule]:
        """Rules in the order of their patterns."""
        where = Where()
        if kind is not None:
            where.add("kind = {}", kind)
        return await page(
            self._queries,
            "server_rules",
            where,
            _rule,
            order=("pattern",),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def put_rule(
        self, pattern: str, kind: RuleKind, *, by: str, reason: str | None, until: int | None
    ) -> Rule:
        """Stores a rule, in the place of an earlier one with that pattern.

        Raises Overloaded if there are `RULES_LIMIT` already.
        """
        row = await self._queries.fetch_one(
            "INSERT INTO server_rules (pattern, kind, reason, by_ref, until, created_at) "
            "SELECT $1, $2, $3, $4, $5::bigint, $6::bigint "
            "WHERE (SELECT count(*) FROM server_rules) < $7 "
            "OR EXISTS (SELECT 1 FROM server_rules WHERE pattern = $1) "
            "ON CONFLICT (pattern) DO UPDATE SET kind = excluded.kind, reason = excluded.reason, "
            "by_ref = excluded.by_ref, until = excluded.until, created_at = excluded.created_at "
            "RETURNING *",
            pattern,
            kind,
            reason,
            by,
            until,
            self._clock.now_ms(),
            RULES_LIMIT,
        )
        if row is None:
            raise Overloaded
        return _rule(row)

    async def delete_rule(self, pattern: str) -> bool:
        """Deletes the rule with that pattern; whether there was one."""
        return (
            await self._queries.execute("DELETE FROM server_rules WHERE pattern = $1", pattern) > 0
        )

    # Tokens that we have issued to others ---------------------------------------------------------

    async def issue_token(self, server: str, token_hash: bytes, expires_at: int) -> ServerToken:
        """Stores a token for a known server; the oldest beyond `TOKENS_PER_SERVER` is revoked."""
        now = self._clock.now_ms()
        row = await self._queries.fetch_one(
            "INSERT INTO server_tokens (hash, id, server, created_at, expires_at) "
            "VALUES ($1, $2, $3, $4, $5) RETURNING *",
            token_hash,
            secrets.token_urlsafe(TOKEN_ID_BYTES),
            server,
            now,
            expires_at,
        )
        assert row is not None
        await self._queries.execute(
            "UPDATE server_tokens SET revoked_at = $2 WHERE hash IN ("
            "SELECT hash FROM server_tokens WHERE server = $1 AND revoked_at IS NULL "
            "AND expires_at > $2 AND hash <> $4 ORDER BY created_at DESC, hash OFFSET $3)",
            server,
            now,
            TOKENS_PER_SERVER - 1,
            token_hash,
        )
        return _token(row)

    async def token(self, token_hash: bytes) -> ServerToken | None:
        """The valid token with that hash, or None."""
        row = await self._queries.fetch_one(
            "SELECT * FROM server_tokens WHERE hash = $1 AND revoked_at IS NULL "
            "AND expires_at > $2",
            token_hash,
            self._clock.now_ms(),
        )
        return None if row is None else _token(row)

    async def tokens_of(self, servers: Sequence[str]) -> list[ServerToken]:
        """The valid tokens of these servers, the newest first."""
        rows = await self._queries.fetch(
            "SELECT * FROM server_tokens WHERE server = ANY($1) AND revoked_at IS NULL "
            "AND expires_at > $2 ORDER BY created_at DESC, hash",
            list(servers),
            self._clock.now_ms(),
        )
        return [_token(row) for row in rows]

    async def revoke_token(self, id_: str, *, server: str | None = None) -> ServerToken | None:
        """Revokes the valid token with that public id; with `server`, only one of that server.
        None: there is no such token."""
        row = await self._queries.fetch_one(
            "UPDATE server_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL "
            "AND expires_at > $2 AND ($3::text IS NULL OR server = $3) RETURNING *",
            id_,
            self._clock.now_ms(),
            server,
        )
        return None if row is None else _token(row)

    async def with_tokens(self) -> list[str]:
        """The servers that have a valid token of ours, or of which we have one."""
        rows = await self._queries.fetch(
            "SELECT server FROM server_tokens WHERE revoked_at IS NULL AND expires_at > $1 "
            "UNION SELECT server FROM peer_tokens",
            self._clock.now_ms(),
        )
        return [row["server"] for row in rows]

    async def revoke_all(self, servers: Iterable[str]) -> int:
        """Ends all tokens of these servers, and ours at them; returns the number of the former."""
        addresses = list(servers)
        revoked = await self._queries.execute(
            "UPDATE server_tokens SET revoked_at = $2 WHERE server = ANY($1) "
            "AND revoked_at IS NULL",
            addresses,
            self._clock.now_ms(),
        )
        await self._queries.execute("DELETE FROM peer_tokens WHERE server = ANY($1)", addresses)
        return revoked

    # Tokens that others have issued to us ---------------------------------------------------------

    async def peer_token(self, server: str) -> PeerToken | None:
        """Our token at that server, encrypted; None without one that is valid."""
        row = await self._queries.fetch_one(
            "SELECT * FROM peer_tokens WHERE server = $1 AND expires_at > $2",
            server,
            self._clock.now_ms(),
        )
        return None if row is None else _peer_token(row)

    async def peer_tokens(self, servers: Sequence[str] | None = None) -> list[PeerToken]:
        """Our tokens at these servers (None: at all), encrypted."""
        rows = await self._queries.fetch(
            "SELECT * FROM peer_tokens WHERE $1::text[] IS NULL OR server = ANY($1) "
            "ORDER BY expires_at",
            None if servers is None else list(servers),
        )
        return [_peer_token(row) for row in rows]

    async def keep_peer_token(self, token: PeerToken) -> None:
        """Stores our token at a known server, in the place of an earlier one. Without effect if the
        server was forgotten meanwhile."""
        await self._queries.execute(
            "INSERT INTO peer_tokens (server, id, sealed, issued_at, expires_at) "
            "SELECT address, $2, $3::bytea, $4::bigint, $5::bigint FROM servers "
            "WHERE address = $1 FOR KEY SHARE ON CONFLICT (server) DO UPDATE SET id = excluded.id, "
            "sealed = excluded.sealed, issued_at = excluded.issued_at, "
            "expires_at = excluded.expires_at",
            token.server,
            token.id,
            token.sealed,
            token.issued_at,
            token.expires_at,
        )

    async def drop_peer_token(self, server: str, id_: str | None = None) -> PeerToken | None:
        """Forgets our token at that server; with `id_`, only if it is that one."""
        row = await self._queries.fetch_one(
            "WITH gone AS (DELETE FROM peer_tokens WHERE server = $1 "
            "AND ($2::text IS NULL OR id = $2) RETURNING *) SELECT * FROM gone",
            server,
            id_,
        )
        return None if row is None else _peer_token(row)


def _server(row: Row) -> PeerServer:
    return PeerServer(
        address=row["address"],
        host=row["host"],
        secure=row["secure"],
        state=row["state"],
        public_key=row["public_key"],
        key_since=row["key_since"],
        offered_key=row["offered_key"],
        offered_at=row["offered_at"],
        gateway_http=row["gateway_http"],
        gateway_ws=row["gateway_ws"],
        version=row["version"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
    )


def _rule(row: Row) -> Rule:
    return Rule(
        pattern=row["pattern"],
        kind=row["kind"],
        by=row["by_ref"],
        created_at=row["created_at"],
        reason=row["reason"],
        until=row["until"],
    )


def _token(row: Row) -> ServerToken:
    return ServerToken(
        id=row["id"],
        server=row["server"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


def _peer_token(row: Row) -> PeerToken:
    return PeerToken(
        server=row["server"],
        id=row["id"],
        sealed=row["sealed"],
        issued_at=row["issued_at"],
        expires_at=row["expires_at"],
    )
