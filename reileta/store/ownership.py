"""Owners: users that something belongs to, who must not be deleted while it comes to them.

`owner` is a reference to a user, without a foreign key, for it can name another server's. So what
makes something for a user of this server locks the user's row: a deletion that has begun is waited
for, and one that begins later finds what was made, and hands it over.
"""

from __future__ import annotations

from reileta.errors import UserNotFound
from reileta.ids import is_id
from reileta.records import ADMIN_TAG
from reileta.store.database import Queries


def is_local(owner: str) -> bool:
    """Whether a user of this server is meant, so that there must be one."""
    return is_id(owner, "u")


async def lock_owner(transaction: Queries, owner: str) -> bool:
    """Locks the owner's row until the transaction's end; whether quotas bind the owner.

    A user of another server has no row, and is locked by name. Raises UserNotFound.
    """
    if not is_local(owner):
        await transaction.fetch(
            "SELECT pg_advisory_xact_lock(hashtextextended('quotas of ' || $1, 0))", owner
        )
        return True
    row = await transaction.fetch_one(
        "SELECT system IS NOT NULL OR $2 = ANY(tags) AS free FROM users WHERE id = $1 "
        "FOR NO KEY UPDATE",
        owner,
        ADMIN_TAG,
    )
    if row is None:
        raise UserNotFound
    return not row["free"]
