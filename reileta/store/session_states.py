"""The states of sessions: one JSON object each, and its version."""

from __future__ import annotations

from reileta.errors import SessionNotFound
from reileta.rules.resource.json_values import Json, load
from reileta.store.database import Queries


class SessionStates:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def load(self, session_id: str) -> tuple[dict[str, Json], int]:
        """A session's state and its version. Raises SessionNotFound if it has ended."""
        row = await self._queries.fetch_one(
            "SELECT state, version FROM sessions WHERE id = $1 AND ended_at IS NULL", session_id
        )
        if row is None:
            raise SessionNotFound
        state: dict[str, Json] = load(row["state"])
        return state, row["version"]

    async def apply(self, session_id: str, *, base: int, version: int, text: str) -> bool:
        """Writes the state with all changes of one drain, in one statement.

        `text` is its JSON, `base` the version that the changes started from, `version` the new
        version. Returns False and writes nothing if the stored version is not `base`, because
        another server or an earlier incarnation of the actor has written, or if the session has
        ended. The caller must then load the state again.

        If DatabaseUnavailable is raised, the state may have been written.
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
