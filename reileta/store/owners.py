"""Owners: users that something belongs to, who must not be deleted while it comes to them.

`owner` is a reference to a user, without a foreign key, for it can name another server's. So what
makes something for a user of this server locks the user's row: a deletion that has begun is waited
for, and one that begins later finds what was made, and hands it over.
"""

from __future__ import annotations

from typing import Final

from reileta.errors import UserNotFound
from reileta.ids import is_id
from reileta.store.postgres import Queries

OWNED: Final = (
    "WITH owner AS MATERIALIZED (SELECT id FROM users WHERE $2 AND id = $1 FOR KEY SHARE)"
)
"""How an INSERT begins whose parameters $1 and $2 are the owner and `is_local` of it. It goes on
with `SELECT … WHERE NOT $2 OR EXISTS (SELECT FROM owner)`."""


def is_local(owner: str) -> bool:
    """Whether a user of this server is meant, so that there must be one."""
    return is_id(owner, "u")


async def check_owner(queries: Queries, owner: str) -> None:
    """Raises UserNotFound if a user of this server is meant, and there is none."""
    if is_local(owner):
        row = await queries.fetch_one("SELECT 1 FROM users WHERE id = $1", owner)
        if row is None:
            raise UserNotFound
