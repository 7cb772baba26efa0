"""Quotas: how many rows one user can own, and their total size.

A transaction that creates a row for a user locks the user's row first, then counts, then inserts:
so parallel requests can't exceed a quota together. Objects that the user transfers or deletes no
longer count. Admins and the server's own accounts have no quota, since they inherit the objects of
deleted users; a transfer is never refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from reileta.errors import QuotaReached
from reileta.settings import MIB, Settings
from reileta.store.database import Queries
from reileta.store.ownership import lock_owner

Owned = Literal["worlds", "services", "instances", "hosts"]
"""Tables whose rows belong to the user in their column `owner`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The limits; the defaults are those of the settings.

    Attributes:
        worlds, services, instances, documents, hosts: rows of one owner.
        documents_bytes: size of the titles and data of one owner's documents.
        assets: assets of one world.
        shares: users with whom one resource is shared.
        moderations: entries of the moderation log for one owner.
        sessions: live sessions of one user.
    """

    worlds: int = 500
    services: int = 100
    instances: int = 100
    hosts: int = 5
    documents: int = 1_000
    documents_bytes: int = 16 * MIB
    assets: int = 100
    shares: int = 500
    moderations: int = 10_000
    sessions: int = 64

    @classmethod
    def of(cls, settings: Settings) -> Quotas:
        """The quotas of the settings."""
        return cls(
            worlds=settings.worlds_per_user,
            services=settings.services_per_user,
            instances=settings.instances_per_user,
            hosts=settings.nodes_per_user,
            documents=settings.documents_per_user,
            documents_bytes=settings.user_documents_bytes,
            assets=settings.assets_per_world,
            shares=settings.shares_per_resource,
            moderations=settings.moderations_per_user,
            sessions=settings.sessions_per_user,
        )

    async def ensure_room(self, transaction: Queries, table: Owned, owner: str) -> None:
        """Raises QuotaReached if the owner can't have one more row in that table.

        The result holds until the transaction's end. Raises UserNotFound for a deleted user of this
        server.
        """
        if await lock_owner(transaction, owner):
            limit: int = getattr(self, table)
            count = await transaction.value(
                f"SELECT count(*) FROM {table} WHERE owner = $1",  # noqa: S608 - one of `Owned`
                owner,
            )
            ensure_below("nodes" if table == "hosts" else table, count, limit)

    async def ensure_room_for_document(self, transaction: Queries, owner: str) -> None:
        """Like `ensure_room`, for a document; its size is checked once it is written."""
        if await lock_owner(transaction, owner):
            count = await transaction.value(
                "SELECT count(*) FROM resources WHERE owner = $1", owner
            )
            ensure_below("documents", count, self.documents)

    async def ensure_weight(self, transaction: Queries, owner: str) -> None:
        """Raises QuotaReached if the owner's documents, including the new one, are too large.

        The owner's row must have been locked before the write.
        """
        if await lock_owner(transaction, owner):
            weight = await transaction.value(
                "SELECT coalesce(sum(bytes), 0) FROM resources WHERE owner = $1", owner
            )
            if weight > self.documents_bytes:
                raise QuotaReached.field(
                    "documents",
                    f"exceed the limit of {self.documents_bytes} bytes per user: "
                    "delete or shorten one",
                )


DEFAULT: Final = Quotas()


def ensure_below(what: str, count: int, limit: int) -> None:
    """Raises QuotaReached if there are `limit` already."""
    if count >= limit:
        raise QuotaReached.field(what, f"the limit of {limit} is reached: delete one first")
