"""Prevents a race between creating an object and deleting its owner.

`owner` is a reference to a user, without a foreign key, since it can name a user of another server.
So a transaction that creates an object for a user of this server locks the user's row (FOR NO
KEY UPDATE). It waits for a deletion that has begun; a deletion that begins later finds the
new object and transfers it to the server's own account.
"""

from __future__ import annotations

from reileta.errors import UserNotFound
from reileta.ids import is_id
from reileta.records import ADMIN_TAG
from reileta.store.database import Queries


def is_local(owner: str) -> bool:
    """Whether the reference is to a user of this server, who must exist."""
    return is_id(owner, "u")


async def lock_owner(transaction: Queries, owner: str) -> bool:
    """Locks the owner's row until the transaction's end; returns whether quotas apply to the owner.

    A user of another server has no row; an advisory lock on its name is used. Raises UserNotFound.
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
