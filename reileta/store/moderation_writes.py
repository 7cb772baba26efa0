"""Writes moderation changes in one transaction, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from reileta.errors import DatabaseUnavailable, ReiletaError
from reileta.records import Ban, Deed, LiftBan, Moderation, ModeratorAddition, ModeratorRemoval
from reileta.store.bans import Bans
from reileta.store.database import Queries
from reileta.store.moderation_log import ModerationLog
from reileta.store.moderators import Moderators
from reileta.store.quotas import DEFAULT, Quotas


class ModerationWrites:
    def __init__(self, queries: Queries, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._quotas = quotas

    async def write(self, deeds: Sequence[Deed]) -> dict[int, ReiletaError]:
        """Writes all changes; returns the errors of those that failed, by their index.

        A change that fails because its instance is gone does not affect the others.

        Raises:
            DatabaseUnavailable: some changes may be written; writing all again is safe.
        """
        try:
            await self._write(deeds)
        except DatabaseUnavailable:
            raise
        except ReiletaError as error:
            if len(deeds) == 1:
                return {0: error}
            refused: dict[int, ReiletaError] = {}
            for place, deed in enumerate(deeds):
                for error in (await self.write([deed])).values():
                    refused[place] = error
            return refused
        return {}

    async def _write(self, deeds: Sequence[Deed]) -> None:
        async with self._queries.transaction() as queries:
            bans, moderators = Bans(queries), Moderators(queries)
            moderations = ModerationLog(queries, self._quotas)
            for deed in deeds:
                match deed:
                    case Ban():
                        await bans.put(deed)
                    case LiftBan():
                        await bans.remove(deed.instance_id, deed.user)
                    case ModeratorAddition():
                        await moderators.put(
                            deed.instance_id, deed.user, by=deed.by, now_ms=deed.created_at
                        )
                    case ModeratorRemoval():
                        await moderators.remove(deed.instance_id, deed.user)
                    case Moderation():
                        await moderations.note(deed)
                    case _:
                        assert_never(deed)
            await moderations.trim({one.owner for one in deeds if isinstance(one, Moderation)})
