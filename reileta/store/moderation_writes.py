"""Writes moderation changes in one transaction, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from reileta.errors import DatabaseUnavailable, ReiletaError
from reileta.records import (
    Ban,
    LiftBan,
    Moderation,
    ModerationWrite,
    ModeratorAddition,
    ModeratorRemoval,
)
from reileta.store.bans import Bans
from reileta.store.database import Queries
from reileta.store.moderation_log import ModerationLog
from reileta.store.moderators import Moderators
from reileta.store.quotas import DEFAULT, Quotas


class ModerationWrites:
    def __init__(self, queries: Queries, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._quotas = quotas

    async def write(self, moderation_writes: Sequence[ModerationWrite]) -> dict[int, ReiletaError]:
        """Writes all changes; returns the errors of those that failed, by their index.

        A change that fails because its instance is gone does not affect the others.

        Raises:
            DatabaseUnavailable: some changes may be written; writing all again is safe.
        """
        try:
            await self._write(moderation_writes)
        except DatabaseUnavailable:
            raise
        except ReiletaError as error:
            if len(moderation_writes) == 1:
                return {0: error}
            refused: dict[int, ReiletaError] = {}
            for place, write in enumerate(moderation_writes):
                for error in (await self.write([write])).values():
                    refused[place] = error
            return refused
        return {}

    async def _write(self, moderation_writes: Sequence[ModerationWrite]) -> None:
        async with self._queries.transaction() as queries:
            bans, moderators = Bans(queries), Moderators(queries)
            moderations = ModerationLog(queries, self._quotas)
            for write in moderation_writes:
                match write:
                    case Ban():
                        await bans.put(write)
                    case LiftBan():
                        await bans.remove(write.instance_id, write.user)
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
