"""Pictures: thumbnails and banners of users, thumbnails of worlds.

The PNGs are files (`blobs.py`); the table has their hashes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from reileta.clock import Clock
from reileta.errors import FileNotUploaded, UserNotFound, WorldNotFound
from reileta.ids import is_id
from reileta.records import Image
from reileta.store.blobs import Blobs, hashes
from reileta.store.database import Queries, Row

ImageKind = Literal["thumbnail", "banner"]
_OWNERS: Final = {
    "user_id": ("users", UserNotFound),
    "world_id": ("worlds", WorldNotFound),
}
"""The owner of a picture, by the column that names it: its table, and the error if it does not
exist."""


class Images:
    def __init__(self, queries: Queries, clock: Clock, blobs: Blobs) -> None:
        self._queries = queries
        self._clock = clock
        self._blobs = blobs

    def within(self, queries: Queries) -> Images:
        """The same within the transaction of `queries`."""
        return Images(queries, self._clock, self._blobs)

    async def put(
        self, of: str, kind: ImageKind, *, hash_: str, size: int, width: int, height: int
    ) -> tuple[Image, frozenset[str]]:
        """Sets the picture of a user or a world, by its id. The file must be stored already.

        Also returns the hash of the picture that it replaces, to release it. Raises UserNotFound,
        WorldNotFound, and StorageUnavailable if the file is gone.
        """
        column = _column(of)
        table, missing = _OWNERS[column]
        async with self._queries.transaction() as transaction:
            # The lock serializes pictures per owner, so that each call knows which picture it
            # replaced.
            if not await transaction.fetch(
                f"SELECT FROM {table} WHERE id = $1 FOR NO KEY UPDATE",
                of,
            ):
                raise missing
            await self._blobs.hold(transaction, hash_, size)
            before = await transaction.fetch(
                f"DELETE FROM images WHERE {column} = $1 AND kind = $2 RETURNING hash",  # noqa: S608 - one of two
                of,
                kind,
            )
            row = await transaction.fetch_one(
                f"INSERT INTO images ({column}, kind, hash, width, height, updated_at) "  # noqa: S608 - one of two
                "VALUES ($1, $2, $3, $4, $5, $6) RETURNING *",
                of,
                kind,
                hash_,
                width,
                height,
                self._clock.now_ms(),
            )
        assert row is not None
        return image(row), hashes(before) - {hash_}

    async def get(self, of: str, kind: ImageKind) -> Image | None:
        row = await self._queries.recall_one(
            f"SELECT * FROM images WHERE {_column(of)} = $1 AND kind = $2",  # noqa: S608 - one of two
            of,
            kind,
        )
        return None if row is None else image(row)

    async def remove(self, of: str, kind: ImageKind) -> frozenset[str]:
        """Removes the picture. Returns the hash of its file, to release it.

        Raises FileNotUploaded if there is none.
        """
        rows = await self._queries.fetch(
            f"DELETE FROM images WHERE {_column(of)} = $1 AND kind = $2 RETURNING hash",  # noqa: S608 - one of two
            of,
            kind,
        )
        if not rows:
            raise FileNotUploaded
        return hashes(rows)

    async def of_many(self, ids: Collection[str]) -> dict[tuple[str, str], Image]:
        """The pictures of these users and worlds, by owner and kind."""
        if not ids:
            return {}
        rows = await self._queries.recall(
            "SELECT * FROM images WHERE user_id = ANY($1) "
            "UNION ALL SELECT * FROM images WHERE world_id = ANY($1)",
            list(ids),
        )
        return {(row["user_id"] or row["world_id"], row["kind"]): image(row) for row in rows}


def _column(of: str) -> str:
    return "user_id" if is_id(of, "u") else "world_id"


def image(row: Row) -> Image:
    """The picture of a row of `images`."""
    return Image(
        hash=row["hash"],
        width=row["width"],
        height=row["height"],
        updated_at=row["updated_at"],
    )
