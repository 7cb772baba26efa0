"""Follows, and the friendships of users who follow each other.

A user is the bare id of a user of this server, or the `UserIDAt` of another server's: `u_…@host`.
Whom a guest follows here, its own server vouches for, as long as the guest has a valid token
(`reileta/store/guests.py`); so users of two servers can be friends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from reileta.clock import Clock
from reileta.errors import AlreadyFollowing, UserInvalid, UserNotFound
from reileta.ids import is_id, is_user_ref
from reileta.records import Cursor, Follow, Page
from reileta.store.database import Queries, Row
from reileta.store.guests import known_follows, not_blocked, whole_second
from reileta.store.query_builder import Where, page

_KNOWN: Final = known_follows("$2")
_SHOWN: Final = not_blocked("followed", "$2")
_MUTUAL: Final = (
    f"FROM {_KNOWN} AS mine JOIN {_KNOWN} AS theirs "
    "ON theirs.follower = mine.followed AND theirs.followed = mine.follower "
    "WHERE mine.follower = $1"
)


class Follows:
    def __init__(self, queries: Queries, clock: Clock, *, limit: int) -> None:
        """`limit` is the number of users that one user can follow."""
        self._queries = queries
        self._clock = clock
        self._limit = limit

    async def put(self, user: str, other: str) -> Follow:
        """Makes the user follow the other, from now on.

        Raises UserNotFound if one of the two belongs to this server and does not exist,
        AlreadyFollowing, and UserInvalid for oneself, for a text that is not a user reference, and
        over the limit.
        """
        if user == other or not is_user_ref(user) or not is_user_ref(other):
            raise UserInvalid.field("other", "must be another user")
        async with self._queries.transaction() as transaction:
            # The locks keep both users from being deleted meanwhile, and parallel calls below the
            # limit.
            await _held(transaction, user, "FOR NO KEY UPDATE")
            await _held(transaction, other, "FOR KEY SHARE")
            count = await transaction.value(
                "SELECT count(*) FROM follows WHERE follower = $1", user
            )
            row = await transaction.fetch_one(
                "INSERT INTO follows (follower, followed, following_at) VALUES ($1, $2, $3) "
                "ON CONFLICT DO NOTHING RETURNING *",
                user,
                other,
                self._clock.now_ms(),
            )
            if row is None:
                raise AlreadyFollowing
            if count >= self._limit:
                raise UserInvalid.field(
                    "other", f"exceeds the limit of {self._limit} followed users"
                )
        return follow(row)

    async def remove(self, user: str, other: str) -> bool:
        """Makes the user stop following the other; whether it did follow."""
        return (
            await self._queries.execute(
                "DELETE FROM follows WHERE follower = $1 AND followed = $2", user, other
            )
            > 0
        )

    async def of(self, user: str) -> list[Follow]:
        """Users that the user follows, earliest first. At most `limit`. Those of blocked servers
        are left out."""
        rows = await self._queries.recall(
            f"SELECT * FROM follows WHERE follower = $1 AND {_SHOWN} "  # noqa: S608 - a constant
            "ORDER BY following_at, followed",
            user,
            self._now(),
        )
        return [follow(row) for row in rows]

    async def followers(
        self, user: str, *, limit: int, offset: int, after: Cursor | None = None
    ) -> Page[Follow]:
        """Users who follow the user, earliest first. Their number is unlimited."""
        where = Where()
        where.add("followed = {}", user)
        return await page(
            self._queries,
            "follows",
            where,
            follow,
            order=("following_at", "follower", "followed"),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def friends(self, user: str) -> frozenset[str]:
        """Users that the user follows and who follow the user."""
        rows = await self._queries.recall(f"SELECT mine.followed {_MUTUAL}", user, self._now())
        return frozenset(row["followed"] for row in rows)

    async def among(self, user: str, others: Collection[str]) -> dict[str, Follow]:
        """Those of the others who are the user's friends, with the user's own follow of each."""
        if not others:
            return {}
        rows = await self._queries.recall(
            f"SELECT mine.* {_MUTUAL} AND mine.followed = ANY($3)",
            user,
            self._now(),
            list(others),
        )
        return {row["followed"]: follow(row) for row in rows}

    async def is_friend(self, user: str, other: str) -> bool:
        """Whether the two follow each other."""
        return other in await self.among(user, [other])

    async def followers_among(self, user: str, others: Collection[str]) -> frozenset[str]:
        """Those of the others who follow the user."""
        rows = await self._queries.fetch(
            "SELECT follower FROM follows WHERE followed = $1 AND follower = ANY($2)",
            user,
            list(others),
        )
        return frozenset(row["follower"] for row in rows)

    def _now(self) -> int:
        return whole_second(self._clock.now_ms())


async def _held(queries: Queries, user: str, lock: str) -> None:
    """Locks the row of a user of this server. Raises UserNotFound."""
    if is_id(user, "u"):
        row = await queries.fetch_one(f"SELECT 1 FROM users WHERE id = $1 {lock}", user)  # noqa: S608 - the locks above
        if row is None:
            raise UserNotFound


def follow(row: Row) -> Follow:
    """The follow of a row of `follows`."""
    return Follow(
        follower=row["follower"], followed=row["followed"], following_at=row["following_at"]
    )
