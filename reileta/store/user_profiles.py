"""A user's or guest's pictures, follows and friends, read together."""

from __future__ import annotations

import json
from collections.abc import Collection

from reileta.clock import Clock
from reileta.records import NO_PROFILE, Profile
from reileta.store.database import Queries
from reileta.store.guests import known_follows, not_blocked, whole_second

_KNOWN = known_follows("$2")
_PICTURES = (
    "(SELECT coalesce(array_agg(kind), '{}') FROM images WHERE user_id = one.id) AS pictures"
)
_FOLLOWING = (
    "(SELECT coalesce(array_agg(followed ORDER BY following_at, followed), '{}') FROM follows "  # noqa: S608 - constants
    f"WHERE follower = one.id AND {not_blocked('followed', '$2')}) AS following"
)
_FRIENDS = (
    "(SELECT coalesce(json_object_agg(mine.followed, mine.following_at), '{}')::text "  # noqa: S608 - constants
    f"FROM {_KNOWN} AS mine JOIN {_KNOWN} AS theirs "
    "ON theirs.follower = mine.followed AND theirs.followed = mine.follower "
    "WHERE mine.follower = one.id) AS friends"
)
_THUMBNAIL = "(SELECT thumbnail FROM guests WHERE user_ref = one.id) AS thumbnail"


class UserProfiles:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    async def of(self, user_id: str) -> Profile:
        """The user's profile, in one statement; an empty one for an unknown user."""
        row = await self._queries.recall_one(
            f"SELECT {_PICTURES}, {_FOLLOWING}, {_FRIENDS}, {_THUMBNAIL} "  # noqa: S608 - the texts above
            "FROM (VALUES ($1::text)) AS one (id)",
            user_id,
            whole_second(self._clock.now_ms()),
        )
        if row is None:
            return NO_PROFILE
        return Profile(
            frozenset(row["pictures"]),
            tuple(row["following"]),
            json.loads(row["friends"]),
            row["thumbnail"],
        )

    async def many(self, user_ids: Collection[str], *, whole: bool = False) -> dict[str, Profile]:
        """The profiles of several users: pictures, and if `whole`, the users they follow.

        Without friends, which concern only the user itself.
        """
        if not user_ids:
            return {}
        following = _FOLLOWING if whole else "'{}'::text[] AS following"
        rows = await self._queries.recall(
            f"SELECT one.id, {_PICTURES}, {following}, {_THUMBNAIL} "  # noqa: S608 - the texts above
            "FROM unnest($1::text[]) AS one (id)"
            " WHERE $2::bigint IS NOT NULL",  # used only if `whole`
            list(user_ids),
            whole_second(self._clock.now_ms()),
        )
        return {
            row["id"]: Profile(
                frozenset(row["pictures"]), tuple(row["following"]), thumbnail=row["thumbnail"]
            )
            for row in rows
        }
