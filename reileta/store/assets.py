"""Assets: the builds of a world, and the file of each."""

from __future__ import annotations

from typing import TypedDict, Unpack

from reileta.clock import Clock
from reileta.errors import (
    AssetExists,
    AssetFileInvalid,
    AssetNotFound,
    FileExists,
    PayloadTooLarge,
    WorldNotFound,
)
from reileta.ids import new_id
from reileta.records import Asset
from reileta.store.blobs import Blobs, hashes
from reileta.store.database import ConstraintBroken, Queries, Row
from reileta.store.query_builder import assignments
from reileta.store.quotas import DEFAULT, Quotas, ensure_below


class AssetUpdate(TypedDict, total=False):
    """The fields of an asset that can change; a missing one stays."""

    version: str
    engine: str
    platform: str
    url: str | None


class Assets:
    def __init__(
        self,
        queries: Queries,
        clock: Clock,
        blobs: Blobs,
        *,
        user_files_bytes: int,
        quotas: Quotas = DEFAULT,
    ) -> None:
        """`user_files_bytes` limits the files of all worlds of one owner together."""
        self._queries = queries
        self._clock = clock
        self._blobs = blobs
        self._user_files_bytes = user_files_bytes
        self._quotas = quotas

    def within(self, queries: Queries) -> Assets:
        """The same within the transaction of `queries`."""
        return Assets(
            queries,
            self._clock,
            self._blobs,
            user_files_bytes=self._user_files_bytes,
            quotas=self._quotas,
        )

    async def create(
        self, *, world_id: str, version: str, engine: str, platform: str, url: str | None = None
    ) -> Asset:
        """Creates an asset, empty unless it has a `url`.

        Raises AssetExists if the world has one of that version, engine and platform, WorldNotFound,
        and QuotaReached if the world has as many assets as allowed.
        """
        try:
            async with self._queries.transaction() as transaction:
                # The lock serializes creations per world, so that parallel ones can't exceed the
                # quota.
                await transaction.fetch(
                    "SELECT FROM worlds WHERE id = $1 FOR NO KEY UPDATE", world_id
                )
                count = await transaction.value(
                    "SELECT count(*) FROM assets WHERE world_id = $1", world_id
                )
                row = await transaction.fetch_one(
                    "INSERT INTO assets (id, world_id, version, engine, platform, url, "
                    "created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING *",
                    new_id("f"),
                    world_id,
                    version,
                    engine,
                    platform,
                    url,
                    self._clock.now_ms(),
                )
                ensure_below("assets", count, self._quotas.assets)
        except ConstraintBroken as error:
            raise _meant(error) from error
        assert row is not None
        return asset(row)

    async def get(self, world_id: str, id_: str) -> Asset | None:
        """The asset of that id, if it belongs to that world."""
        row = await self._queries.recall_one(
            "SELECT * FROM assets WHERE id = $1 AND world_id = $2", id_, world_id
        )
        return None if row is None else asset(row)

    async def of(self, world_id: str) -> list[Asset]:
        """All assets of the world, oldest first."""
        return (await self.of_many([world_id]))[world_id]

    async def of_many(self, world_ids: list[str]) -> dict[str, list[Asset]]:
        """All assets of each of the worlds, oldest first, in one statement."""
        found: dict[str, list[Asset]] = {world_id: [] for world_id in world_ids}
        if found:
            rows = await self._queries.recall(
                "SELECT * FROM assets WHERE world_id = ANY($1) ORDER BY created_at, id", world_ids
            )
            for row in rows:
                found[row["world_id"]].append(asset(row))
        return found

    async def update(self, id_: str, **changes: Unpack[AssetUpdate]) -> Asset:
        """Changes the asset and returns it.

        Raises AssetNotFound, AssetExists if the world has another asset of that version, engine and
        platform, and FileExists for a `url` of an asset that has a file.
        """
        sets, values = assignments(changes, AssetUpdate.__annotations__)
        unfilled = "AND hash IS NULL" if changes.get("url") is not None else ""
        try:
            row = await self._queries.fetch_one(
                f"UPDATE assets SET {sets}{',' if sets else ''} updated_at = ${len(values) + 1} "  # noqa: S608 - columns of AssetUpdate
                f"WHERE id = ${len(values) + 2} {unfilled} RETURNING *",
                *values,
                self._clock.now_ms(),
                id_,
            )
        except ConstraintBroken as error:
            raise _meant(error) from error
        if row is None:
            raise await self._refused(self._queries, id_)
        return asset(row)

    async def delete(self, id_: str) -> frozenset[str]:
        """Deletes the asset. Returns the hash of its file, if it has one, to release it.

        Raises AssetNotFound.
        """
        row = await self._queries.fetch_one("DELETE FROM assets WHERE id = $1 RETURNING hash", id_)
        if row is None:
            raise AssetNotFound
        return hashes([row])

    async def room(self, owner: str) -> int:
        """Bytes of files that the owner's worlds can still add. Can be outdated at once."""
        return max(self._user_files_bytes - await _used(self._queries, owner), 0)

    async def fill(self, id_: str, hash_: str, size: int) -> Asset:
        """Sets the asset's file, which must be stored already. Of parallel calls, one succeeds.

        Raises AssetNotFound, FileExists if the asset has a file or a `url`, PayloadTooLarge if the
        owner's files would exceed the limit, AssetFileInvalid for an empty file, and
        StorageUnavailable if the file was deleted meanwhile.
        """
        if size < 1:
            raise AssetFileInvalid.field("file", "is empty")
        async with self._queries.transaction() as transaction:
            owner = await transaction.value(
                "SELECT owner FROM worlds WHERE id = (SELECT world_id FROM assets WHERE id = $1)",
                id_,
            )
            if owner is None:
                raise AssetNotFound
            # The lock serializes fills per owner. It is not a row lock, since a user of another
            # server has no row here.
            await transaction.fetch(
                "SELECT pg_advisory_xact_lock(hashtextextended('files of ' || $1, 0))", owner
            )
            await self._blobs.hold(transaction, hash_, size)
            row = await transaction.fetch_one(
                "UPDATE assets SET hash = $2, size = $3, updated_at = $4 "
                "WHERE id = $1 AND hash IS NULL AND url IS NULL RETURNING *",
                id_,
                hash_,
                size,
                self._clock.now_ms(),
            )
            if row is None:
                raise await self._refused(transaction, id_)
            if await _used(transaction, owner) > self._user_files_bytes:
                raise PayloadTooLarge.field(
                    "file", f"exceeds the limit of {self._user_files_bytes} bytes of files per user"
                )
        return asset(row)

    async def _refused(self, queries: Queries, id_: str) -> AssetNotFound | FileExists:
        """Why the asset was not changed: it does not exist, or it is not empty."""
        row = await queries.fetch_one("SELECT 1 FROM assets WHERE id = $1", id_)
        return AssetNotFound() if row is None else FileExists()


async def _used(queries: Queries, owner: str) -> int:
    return int(
        await queries.value(
            "SELECT coalesce(sum(assets.size), 0) FROM assets "
            "JOIN worlds ON worlds.id = assets.world_id WHERE worlds.owner = $1",
            owner,
        )
    )


def _meant(error: ConstraintBroken) -> Exception:
    """The error for a violated constraint of `assets`."""
    if error.constraint == "assets_build":
        return AssetExists.field("version", "already exists for that engine and platform")
    return WorldNotFound() if error.constraint == "assets_world" else error


def asset(row: Row) -> Asset:
    """The asset of a row of `assets`."""
    return Asset(
        id=row["id"],
        world_id=row["world_id"],
        version=row["version"],
        engine=row["engine"],
        platform=row["platform"],
        url=row["url"],
        hash=row["hash"],
        size=row["size"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
