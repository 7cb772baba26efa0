"""The states of sessions: one JSON object each, and its version (S `State`, PROTOCOL §8)."""

from __future__ import annotations

from reileta.errors import SessionNotFound
from reileta.rules.resource.json_values import Json, load
from reileta.store.database import Queries


class SessionStates:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def load(self, session_id: str) -> tuple[dict[str, Json], int]:
        """A session's state and its version. Raises SessionNotFound if it is not alive."""
        row = await self._queries.fetch_one(
            "SELECT state, version FROM sessions WHERE id = $1 AND ended_at IS NULL", session_id
        )
        if row is None:
            raise SessionNotFound
        state: dict[str, Json] = load(row["state"])
        return state, row["version"]

    async def apply(self, session_id: str, *, base: int, version: int, text: str) -> bool:
        """Writes the state with all the changes of one drain, in one statement.

        `text` is its JSON, `base` the version that the changes were put on top of, `version` the
        one that they make. False, and nothing is written, if the state is not of `base` any more:
        another server has written, or an earlier incarnation of the writer; or if the session is
        not alive. Who is told so loads it anew.

        Should the answer be lost (DatabaseUnavailable), it may have been written all the same.
        """
        if not base < version:
            raise ValueError("versions grow")
        written = await self._queries.execute(
            "UPDATE sessions SET state = $2, version = $4 "
            "WHERE id = $1 AND version = $3 AND ended_at IS NULL",
            session_id,
            text,
            base,
            version,
        )
        return written > 0
