"""Quotas: how many rows one user may own, and what they may weigh.

Whatever makes rows for a user locks the user's row first, then counts, then inserts, in one
transaction: so requests in parallel can't pass a quota together. What a user gives away or deletes
counts no more. Admins and the accounts of the server itself have no quota, for they inherit what
deleted users leave behind; nobody is refused what is handed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from reileta.errors import QuotaReached
from reileta.settings import MIB, Settings
from reileta.store.database import Queries
from reileta.store.ownership import lock_owner

Owned = Literal["worlds", "services", "instances"]
"""Tables whose rows belong to the user in their column `owner`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The bounds; the defaults are those of the settings.

    Attributes:
        worlds, services, instances, documents: rows of one owner.
        documents_bytes: what the titles and data of one owner's documents may weigh together.
        assets: those of one world.
        shares: users with whom one resource is shared.
        moderations: entries of the log of moderation that are kept for one owner.
        sessions: live sessions of one user.
    """

    worlds: int = 500
    services: int = 100
    instances: int = 100
    documents: int = 1_000
    documents_bytes: int = 16 * MIB
    assets: int = 100
    shares: int = 500
    moderations: int = 10_000
    sessions: int = 64

    @classmethod
    def of(cls, settings: Settings) -> Quotas:
        """The quotas that the settings name."""
        return cls(
            worlds=settings.worlds_per_user,
            services=settings.services_per_user,
            instances=settings.instances_per_user,
            documents=settings.documents_per_user,
            documents_bytes=settings.user_documents_bytes,
            assets=settings.assets_per_world,
            shares=settings.shares_per_resource,
            moderations=settings.moderations_per_user,
            sessions=settings.sessions_per_user,
        )

    async def ensure_room(self, transaction: Queries, table: Owned, owner: str) -> None:
        """The owner may have one more row in that table, until the transaction's end.

        Raises QuotaReached, and UserNotFound for a user of this server that is gone.
        """
        if await lock_owner(transaction, owner):
            limit: int = getattr(self, table)
            count = await transaction.value(
                f"SELECT count(*) FROM {table} WHERE owner = $1",  # noqa: S608 - one of three
                owner,
            )
            ensure_below(table, count, limit)

    async def ensure_room_for_document(self, transaction: Queries, owner: str) -> None:
        """As `ensure_room`, for a document; what it weighs is judged once it is written."""
        if await lock_owner(transaction, owner):
            count = await transaction.value(
                "SELECT count(*) FROM resources WHERE owner = $1", owner
            )
            ensure_below("documents", count, self.documents)

    async def ensure_weight(self, transaction: Queries, owner: str) -> None:
        """The owner's documents, with what was just written, weigh no more than they may.

        The owner's row must have been locked before it was written. Raises QuotaReached.
        """
        if await lock_owner(transaction, owner):
            weight = await transaction.value(
                "SELECT coalesce(sum(bytes), 0) FROM resources WHERE owner = $1", owner
            )
            if weight > self.documents_bytes:
                raise QuotaReached.field(
                    "documents",
                    f"the documents of one user may come to {self.documents_bytes} bytes: "
                    "delete or shorten one",
                )


DEFAULT: Final = Quotas()


def ensure_below(what: str, count: int, limit: int) -> None:
    """Raises QuotaReached unless one more of those things keeps within the limit."""
    if count >= limit:
        raise QuotaReached.field(what, f"there may be at most {limit} {what}: delete one first")
