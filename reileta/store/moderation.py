"""Moderation of instances: bans, mutes, moderators, the moderation log.

`ModerationWrites` writes all of them in one transaction, in order. Bans, mutes and moderators are
stored as long as the instance exists; the log outlives it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import assert_never

from reileta.errors import DatabaseUnavailable, InstanceNotFound, ReiletaError
from reileta.records import (
    Ban,
    Cursor,
    LiftBan,
    LiftMute,
    Moderation,
    ModerationWrite,
    ModeratorAddition,
    ModeratorRemoval,
    MuteRecord,
    Page,
)
from reileta.store.database import ConstraintBroken, Queries, Row
from reileta.store.deeds import NOTE_DEED
from reileta.store.query_builder import Where, page
from reileta.store.quotas import DEFAULT, Quotas


class Bans:
    """The users who may not enter an instance."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def of(self, instance_id: str) -> list[Ban]:
        """All bans of the instance, oldest first, including expired ones."""
        rows = await self._queries.fetch(
            "SELECT * FROM bans WHERE instance_id = $1 ORDER BY created_at, user_ref", instance_id
        )
        return [
            Ban(
                instance_id=row["instance_id"],
                user=row["user_ref"],
                until=row["until"],
                reason=row["reason"],
                by=row["by_ref"],
                created_at=row["created_at"],
            )
            for row in rows
        ]

    async def put(self, ban: Ban) -> None:
        """Stores the ban and replaces an earlier one of the user. Raises InstanceNotFound."""
        try:
            await self._queries.execute(
                "INSERT INTO bans (instance_id, user_ref, until, reason, by_ref, created_at) "
                "VALUES ($1, $2, $3, $4, $5, $6) "
                "ON CONFLICT (instance_id, user_ref) DO UPDATE SET until = excluded.until, "
                "reason = excluded.reason, by_ref = excluded.by_ref, "
                "created_at = excluded.created_at",
                ban.instance_id,
                ban.user,
                ban.until,
                ban.reason,
                ban.by,
                ban.created_at,
            )
        except ConstraintBroken as error:
            raise InstanceNotFound from error

    async def remove(self, instance_id: str, user: str) -> bool:
        """Removes the ban; whether there was one."""
        return (
            await self._queries.execute(
                "DELETE FROM bans WHERE instance_id = $1 AND user_ref = $2", instance_id, user
            )
            > 0
        )


class Mutes:
    """The users whose data an instance refuses."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def of(self, instance_id: str) -> list[MuteRecord]:
        """All mutes of the instance, oldest first, including expired ones."""
        rows = await self._queries.fetch(
            "SELECT * FROM mutes WHERE instance_id = $1 ORDER BY created_at, user_ref", instance_id
        )
        return [
            MuteRecord(
                instance_id=row["instance_id"],
                user=row["user_ref"],
                until=row["until"],
                reason=row["reason"],
                by=row["by_ref"],
                created_at=row["created_at"],
            )
            for row in rows
        ]

    async def put(self, mute: MuteRecord) -> None:
        """Stores the mute and replaces an earlier one of the user. Raises InstanceNotFound."""
        try:
            await self._queries.execute(
                "INSERT INTO mutes (instance_id, user_ref, until, reason, by_ref, created_at) "
                "VALUES ($1, $2, $3, $4, $5, $6) "
                "ON CONFLICT (instance_id, user_ref) DO UPDATE SET until = excluded.until, "
                "reason = excluded.reason, by_ref = excluded.by_ref, "
                "created_at = excluded.created_at",
                mute.instance_id,
                mute.user,
                mute.until,
                mute.reason,
                mute.by,
                mute.created_at,
            )
        except ConstraintBroken as error:
            raise InstanceNotFound from error

    async def remove(self, instance_id: str, user: str) -> bool:
        """Removes the mute; whether there was one."""
        return (
            await self._queries.execute(
                "DELETE FROM mutes WHERE instance_id = $1 AND user_ref = $2", instance_id, user
            )
            > 0
        )


class Moderators:
    """The users whom an instance's owner has appointed."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def of(self, instance_id: str) -> list[str]:
        """The instance's moderators as references, in the order of their appointment."""
        rows = await self._queries.recall(
            "SELECT user_ref FROM moderators WHERE instance_id = $1 ORDER BY issued", instance_id
        )
        return [row["user_ref"] for row in rows]

    async def put(self, instance_id: str, user: str, *, by: str, now_ms: int) -> None:
        """Adds a moderator; an existing one keeps its position. Raises InstanceNotFound."""
        try:
            await self._queries.execute(
                "INSERT INTO moderators (instance_id, user_ref, by_ref, created_at) "
                "VALUES ($1, $2, $3, $4) ON CONFLICT (instance_id, user_ref) DO NOTHING",
                instance_id,
                user,
                by,
                now_ms,
            )
        except ConstraintBroken as error:
            raise InstanceNotFound from error

    async def remove(self, instance_id: str, user: str) -> bool:
        """Removes a moderator; whether there was one."""
        return (
            await self._queries.execute(
                "DELETE FROM moderators WHERE instance_id = $1 AND user_ref = $2",
                instance_id,
                user,
            )
            > 0
        )


class ModerationLog:
    """Which user moderated which other one, when and why."""

    def __init__(self, queries: Queries, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._quotas = quotas

    async def trim(self, owners: Collection[str]) -> None:
        """Deletes the oldest entries of each owner beyond the limit."""
        for owner in sorted(owners):
            newest_over = await self._queries.value(
                "SELECT number FROM moderations WHERE owner = $1 "
                "ORDER BY number DESC OFFSET $2 LIMIT 1",
                owner,
                self._quotas.moderations,
            )
            if newest_over is not None:
                await self._queries.execute(
                    "DELETE FROM moderations WHERE owner = $1 AND number <= $2", owner, newest_over
                )

    async def transfer(self, owner: str, heir: str) -> None:
        """Gives the entries of an owner to another one, and trims those."""
        await self._queries.execute(
            "UPDATE moderations SET owner = $2 WHERE owner = $1", owner, heir
        )
        await self.trim([heir])

    async def note(self, moderation: Moderation) -> None:
        """Adds an entry. Adding it again, because the first result was lost, changes nothing; nor
        does an entry of a deed that is done."""
        if moderation.deed is not None and not await self._queries.execute(
            NOTE_DEED, moderation.deed, b""
        ):
            return
        await self._queries.execute(
            "INSERT INTO moderations "
            "(instance_id, owner, type, user_ref, by_ref, reason, until, created_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            moderation.instance_id,
            moderation.owner,
            moderation.type,
            moderation.user,
            moderation.by,
            moderation.reason,
            moderation.until,
            moderation.created_at,
        )

    async def last_kicks(self, instance_id: str) -> dict[str, int]:
        """The users (as in the log) who were kicked, each with the time (ms) of its last kick."""
        rows = await self._queries.fetch(
            "SELECT user_ref, max(created_at) AS at FROM moderations "
            "WHERE instance_id = $1 AND type = 'kick' GROUP BY user_ref",
            instance_id,
        )
        return {row["user_ref"]: row["at"] for row in rows}

    async def last_kicks_in(self, instances: Collection[str]) -> dict[tuple[str, str], int]:
        """As `last_kicks`, for several instances; by instance and user."""
        rows = await self._queries.fetch(
            "SELECT instance_id, user_ref, max(created_at) AS at FROM moderations "
            "WHERE instance_id = ANY($1::text[]) AND type = 'kick' GROUP BY instance_id, user_ref",
            list(instances),
        )
        return {(row["instance_id"], row["user_ref"]): row["at"] for row in rows}

    async def of(
        self,
        instance_id: str,
        *,
        owner: str | None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[Moderation]:
        """Entries of an instance, newest first; with `owner`, only those from that owner's time."""
        where = Where()
        where.add("instance_id = {}", instance_id)
        if owner is not None:
            where.add("owner = {}", owner)
        return await page(
            self._queries,
            "moderations",
            where,
            _moderation,
            order=("number",),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )


def _moderation(row: Row) -> Moderation:
    return Moderation(
        instance_id=row["instance_id"],
        owner=row["owner"],
        type=row["type"],
        user=row["user_ref"],
        by=row["by_ref"],
        reason=row["reason"],
        until=row["until"],
        created_at=row["created_at"],
    )


class ModerationWrites:
    """Writes of an instance's actor."""

    def __init__(self, queries: Queries, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._quotas = quotas

    async def write(
        self,
        moderation_writes: Sequence[ModerationWrite],
        first: Callable[[Queries], Awaitable[None]] | None = None,
    ) -> dict[int, ReiletaError]:
        """Writes all changes; returns the errors of those that failed, by their index.
        `first` is called within the transaction, before its other statements.

        A change that fails does not affect the others. All changes of an instance that is gone fail
        with InstanceNotFound; those of the log, which outlives it, are written all the same.

        Raises:
            DatabaseUnavailable: some changes may be written; writing all again is safe.
        """
        try:
            return await self._write(moderation_writes, first)
        except DatabaseUnavailable:
            raise
        except ReiletaError as error:
            if len(moderation_writes) == 1:
                return {0: error}
        refused: dict[int, ReiletaError] = {}
        for place, write in enumerate(moderation_writes):
            alone = await self.write([write], first)
            if alone:
                refused[place] = alone[0]
        return refused

    async def _write(
        self,
        moderation_writes: Sequence[ModerationWrite],
        first: Callable[[Queries], Awaitable[None]] | None,
    ) -> dict[int, ReiletaError]:
        refused: dict[int, ReiletaError] = {}
        async with self._queries.transaction() as queries:
            if first is not None:
                await first(queries)
            bans, mutes, moderators = Bans(queries), Mutes(queries), Moderators(queries)
            moderations = ModerationLog(queries, self._quotas)
            # The lock keeps the instances from being deleted before the commit.
            rows = await queries.fetch(
                "SELECT id FROM instances WHERE id = ANY($1) ORDER BY id FOR KEY SHARE",
                [write.instance_id for write in moderation_writes],
            )
            there = {row["id"] for row in rows}
            for place, write in enumerate(moderation_writes):
                if write.instance_id not in there:
                    refused[place] = InstanceNotFound()
                    if not isinstance(write, Moderation):
                        continue
                    write = replace(write, deed=None)  # a repetition is refused as well
                match write:
                    case Ban():
                        await bans.put(write)
                    case LiftBan():
                        await bans.remove(write.instance_id, write.user)
                    case MuteRecord():
                        await mutes.put(write)
                    case LiftMute():
                        await mutes.remove(write.instance_id, write.user)
                    case ModeratorAddition():
                        await moderators.put(
                            write.instance_id, write.user, by=write.by, now_ms=write.created_at
                        )
                    case ModeratorRemoval():
                        await moderators.remove(write.instance_id, write.user)
                    case Moderation():
                        await moderations.note(write)
                    case _:
                        assert_never(write)
            await moderations.trim(
                {one.owner for one in moderation_writes if isinstance(one, Moderation)}
            )
        return refused
