"""Pictures: the thumbnails and banners of users, the thumbnails of worlds (PROTOCOL §5).

The PNGs themselves are files; here stands which.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from reileta.clock import Clock
from reileta.errors import UserNotFound, WorldNotFound
from reileta.ids import is_id
from reileta.records import Image
from reileta.store.blobs import Blobs
from reileta.store.postgres import ConstraintBroken, Queries, Row

ImageKind = Literal["thumbnail", "banner"]


class Images:
    def __init__(self, queries: Queries, clock: Clock, blobs: Blobs) -> None:
        self._queries = queries
        self._clock = clock
        self._blobs = blobs

    def within(self, queries: Queries) -> Images:
        """The same, within another's transaction."""
        return Images(queries, self._clock, self._blobs)

    async def put(
        self, of: str, kind: ImageKind, *, hash_: str, size: int, width: int, height: int
    ) -> Image:
        """Makes a file that was put in place the picture of a user or a world, by its id.

        It takes the place of the one before. Raises UserNotFound, WorldNotFound, and
        StorageUnavailable if the file was collected meanwhile.
        """
        column = _column(of)
        try:
            async with self._queries.transaction() as transaction:
                await self._blobs.hold(transaction, hash_, size)
                row = await transaction.fetch_one(
                    f"INSERT INTO images ({column}, kind, hash, width, height, updated_at) "  # noqa: S608 - one of two
                    "VALUES ($1, $2, $3, $4, $5, $6) "
                    f"ON CONFLICT ({column}, kind) WHERE {column} IS NOT NULL DO UPDATE "
                    "SET hash = excluded.hash, width = excluded.width, height = excluded.height, "
                    "updated_at = excluded.updated_at RETURNING *",
                    of,
                    kind,
                    hash_,
                    width,
                    height,
                    self._clock.now_ms(),
                )
        except ConstraintBroken as error:
            if error.constraint == "images_user":
                raise UserNotFound from error
            if error.constraint == "images_world":
                raise WorldNotFound from error
            raise
        assert row is not None
        return image(row)

    async def get(self, of: str, kind: ImageKind) -> Image | None:
        row = await self._queries.fetch_one(
            f"SELECT * FROM images WHERE {_column(of)} = $1 AND kind = $2",  # noqa: S608 - one of two
            of,
            kind,
        )
        return None if row is None else image(row)

    async def remove(self, of: str, kind: ImageKind) -> bool:
        """Whether there was one. Its file goes when nothing else is of it."""
        return (
            await self._queries.execute(
                f"DELETE FROM images WHERE {_column(of)} = $1 AND kind = $2",  # noqa: S608 - one of two
                of,
                kind,
            )
            > 0
        )

    async def of_many(self, ids: Collection[str]) -> dict[tuple[str, str], Image]:
        """The pictures of these users and worlds, by whose they are and their kind."""
        if not ids:
            return {}
        rows = await self._queries.fetch(
            "SELECT * FROM images WHERE user_id = ANY($1) "
            "UNION ALL SELECT * FROM images WHERE world_id = ANY($1)",
            list(ids),
        )
        return {(row["user_id"] or row["world_id"], row["kind"]): image(row) for row in rows}


def _column(of: str) -> str:
    return "user_id" if is_id(of, "u") else "world_id"


def image(row: Row) -> Image:
    """The picture in a row with the columns of `images`."""
    return Image(
        hash=row["hash"],
        width=row["width"],
        height=row["height"],
        updated_at=row["updated_at"],
    )
