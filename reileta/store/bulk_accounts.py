"""Accounts for load tests, created thousands at a time."""

from __future__ import annotations

import secrets
from typing import Final

from reileta import ids
from reileta.security import credentials
from reileta.store.database import Database

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
        INSERT INTO users (id, username, displayname, autopilot, created_at, updated_at)
        SELECT user_id, username, displayname, $8, $6, $6 FROM bots
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
        )
        tokens += made
    return tokens
