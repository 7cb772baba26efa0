"""Accounts for load tests, created thousands at a time."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reileta import ids
from reileta.errors import UserNotFound
from reileta.security import credentials
from reileta.store.database import Database

if TYPE_CHECKING:
    from reileta.store import Store

REMOVED_AT_ONCE: Final = 500
"""Accounts that are deleted in one transaction."""

LIFETIME_MS: Final = 365 * 24 * 3600 * 1000
"""Lifetime of a bot's token; load testers keep their token files."""

_AT_ONCE: Final = 5_000
"""Accounts per statement, so that each stays far below the statement timeout."""

# Foreign keys are checked at the end of the statement, so its parts can be in any order.
_MAKE: Final = """
    WITH bots AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
            AS bot (user_id, username, displayname, session_id, access_hash)
    ), made AS (
        INSERT INTO users (id, username, displayname, autopilot, created_at, updated_at, bot_batch)
        SELECT user_id, username, displayname, $8, $6, $6, $9 FROM bots
    ), opened AS (
        INSERT INTO sessions (id, user_id, created_at, last_seen)
        SELECT session_id, user_id, $6, $6 FROM bots
    )
    INSERT INTO tokens (
        access_hash, session_id, user_id, created_at, access_expires, refresh_expires
    )
    SELECT access_hash, session_id, user_id, $6, $7, $7 FROM bots
"""


async def create(
    database: Database, *, count: int, now_ms: int, autopilot: bool = False
) -> list[str]:
    """Creates `count` accounts without a password, each with a session; returns a token for each.

    They are named `bot_<random>_<n>`, so that runs don't collide. They are ordinary users, so that
    they load the same code, unless `autopilot` is set. Raises DatabaseUnavailable; accounts created
    until then stay.
    """
    batch = secrets.token_hex(5)
    tokens: list[str] = []
    for first in range(1, count + 1, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, count + 1))
        made = [credentials.new_token("ua") for _ in numbers]
        await database.execute(
            _MAKE,
            [ids.new_id("u") for _ in numbers],
            [f"bot_{batch}_{number}" for number in numbers],
            [f"Bot {number}" for number in numbers],
            [ids.new_id("s") for _ in numbers],
            [credentials.digest(token) for token in made],
            now_ms,
            now_ms + LIFETIME_MS,
            autopilot,
            f"bot_{batch}",
        )
        tokens += made
    return tokens


@dataclass(frozen=True, slots=True)
class BotBatch:
    """The accounts that one `create` made and that still exist."""

    name: str
    count: int
    created_at: int


async def batches(database: Database) -> list[BotBatch]:
    """The batches, oldest first."""
    rows = await database.fetch(
        "SELECT bot_batch, count(*) AS count, min(created_at) AS created_at FROM users "
        "WHERE bot_batch IS NOT NULL GROUP BY bot_batch ORDER BY min(number)"
    )
    return [BotBatch(row["bot_batch"], row["count"], row["created_at"]) for row in rows]


async def remove(store: Store, batch: str | None) -> int:
    """Deletes the accounts of a batch (None: of all batches); returns their number.

    Accounts that own nothing are deleted many at a time. Those that own something, follow or are
    followed are deleted as `Users.delete` does it. Raises DatabaseUnavailable; accounts deleted
    until then are gone.
    """
    removed, last = 0, -1
    while True:
        async with store.database.transaction() as transaction:
            # Locked first: who creates something for an account locks its row too, so the next
            # statement sees all that the accounts own.
            rows = await transaction.fetch(
                "SELECT id, number FROM users WHERE bot_batch IS NOT NULL AND number > $1 "
                "AND ($2::text IS NULL OR bot_batch = $2) ORDER BY number LIMIT $3 FOR UPDATE",
                last,
                batch,
                REMOVED_AT_ONCE,
            )
            gone = await transaction.fetch(
                "DELETE FROM users WHERE id = ANY($1) "
                "AND NOT EXISTS (SELECT FROM worlds WHERE owner = users.id) "
                "AND NOT EXISTS (SELECT FROM instances WHERE owner = users.id) "
                "AND NOT EXISTS (SELECT FROM services WHERE owner = users.id) "
                "AND NOT EXISTS (SELECT FROM images WHERE user_id = users.id) "
                "AND NOT EXISTS (SELECT FROM follows "
                "WHERE follower = users.id OR followed = users.id) RETURNING id",
                [row["id"] for row in rows],
            )
        if not rows:
            return removed
        last = rows[-1]["number"]
        removed += len(gone)
        for user_id in {row["id"] for row in rows} - {row["id"] for row in gone}:
            with suppress(UserNotFound):  # it was deleted meanwhile
                async with store.blobs.releasing() as loose:
                    loose.update((await store.users.delete(user_id)).files)
                removed += 1
