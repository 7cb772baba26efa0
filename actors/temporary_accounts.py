"""Deletes temporary accounts, some time after their last session has ended."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from actors.node import Node
from reileta.errors import DatabaseUnavailable, UserCannotDelete, UserNotFound
from reileta.observability import log_events

SWEEP_S: Final = 60.0


class TemporaryAccounts:
    """The temporary accounts of a server. `sweep` must be called every `SWEEP_S` seconds."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kept_ms = node.settings.temporary_account_s * 1000

    async def sweep(self) -> None:
        """Deletes those whose last session ended long enough ago, unless another process does."""
        store = self._node.store
        with suppress(DatabaseUnavailable):
            async with store.lock.alone("temporary accounts") as alone:
                if not alone:
                    return
                before = self._node.clock.now_ms() - self._kept_ms
                for id_ in await store.users.left(before):
                    # Meanwhile, it can have been kept, deleted, or logged in.
                    with suppress(UserCannotDelete, UserNotFound):
                        await self._delete(id_, before)

    async def _delete(self, id_: str, before_ms: int) -> None:
        user = (await self._node.delete_user(id_, left_ms=before_ms)).user
        self._node.activity.note(
            log_events.ACCOUNT_DELETED, None, user=user.id, username=user.username
        )
