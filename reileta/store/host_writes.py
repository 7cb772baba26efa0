"""The durable writes of an instance's host.

In a cluster, each of them is one transaction that locks the instance's place first, and writes only
while the host's tenure is the present one. So a node that has fallen changes nothing, whatever it
still believes; and the fence of a node waits for a write that was first. A process that is paused
within such a transaction holds up its fence no longer than until PostgreSQL ends the transaction
(`IDLE_IN_TRANSACTION_S`), which is before any node may be taken over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, Unpack

import msgspec
import structlog

from reileta.errors import DatabaseUnavailable, ReiletaError
from reileta.observability import log_events
from reileta.records import InstanceRecord, ModerationWrite
from reileta.rules.cluster.placement import Tenure
from reileta.store import Store
from reileta.store.cluster_leases import Fenced, hold
from reileta.store.database import Queries
from reileta.store.instances import InstanceUpdate

__all__ = ["FencedHostWrites", "HostWrites", "Suspended", "UnfencedHostWrites"]

_log = structlog.get_logger()


class Suspended(DatabaseUnavailable):
    """This node does not host the instance at the moment, or no longer; nothing was written."""


class HostWrites(Protocol):
    """The writes of one instance's host. All raise DatabaseUnavailable; in a cluster this may be
    Suspended."""

    async def update(
        self, deed: str | None = None, /, **changes: Unpack[InstanceUpdate]
    ) -> InstanceRecord:
        """As `Instances.update`; notes the deed as done, with the record as its answer."""
        ...

    async def delete(self, deed: str | None = None) -> bool:
        """As `Instances.delete`; notes the deed as done."""
        ...

    async def answer(self, deed: str) -> bytes | None:
        """As `Deeds.answer`."""
        ...

    async def occupied(self, since_ms: int | None, *, entered: bool) -> bool:
        """As `Instances.occupied`."""
        ...

    async def moderate(
        self, moderation_writes: Sequence[ModerationWrite]
    ) -> dict[int, ReiletaError]:
        """As `ModerationWrites.write`."""
        ...


class UnfencedHostWrites:
    """The writes of the only server that uses the database."""

    def __init__(self, store: Store, instance_id: str) -> None:
        self._store = store
        self._id = instance_id

    async def update(
        self, deed: str | None = None, /, **changes: Unpack[InstanceUpdate]
    ) -> InstanceRecord:
        return await self._store.instances.update(self._id, **changes)

    async def delete(self, deed: str | None = None) -> bool:
        return await self._store.instances.delete(self._id)

    async def answer(self, deed: str) -> bytes | None:
        return None  # nobody repeats a deed

    async def occupied(self, since_ms: int | None, *, entered: bool) -> bool:
        return await self._store.instances.occupied(self._id, since_ms, entered=entered)

    async def moderate(
        self, moderation_writes: Sequence[ModerationWrite]
    ) -> dict[int, ReiletaError]:
        return await self._store.moderation_writes.write(moderation_writes)


class FencedHostWrites:
    """The writes of a node of a cluster."""

    def __init__(
        self,
        store: Store,
        tenure: Tenure,
        valid: Callable[[], bool],
        fenced: Callable[[], None],
    ) -> None:
        """`valid`: whether the node may write now. `fenced` is called if the tenure has ended."""
        self._store = store
        self._tenure = tenure
        self._valid = valid
        self._fenced = fenced

    async def update(
        self, deed: str | None = None, /, **changes: Unpack[InstanceUpdate]
    ) -> InstanceRecord:
        async with self._held() as queries:
            instances = self._store.instances.over(queries)
            record = await instances.update(self._tenure.instance, **changes)
            if deed is not None:
                answer = msgspec.msgpack.encode(record)
                await self._store.deeds.over(queries).note(deed, answer)
            return record

    async def delete(self, deed: str | None = None) -> bool:
        async with self._held() as queries:
            deleted = await self._store.instances.over(queries).delete(self._tenure.instance)
            if deed is not None and deleted:
                await self._store.deeds.over(queries).note(deed, b"")
            return deleted

    async def answer(self, deed: str) -> bytes | None:
        return await self._store.deeds.answer(deed)

    async def occupied(self, since_ms: int | None, *, entered: bool) -> bool:
        async with self._held() as queries:
            return await self._store.instances.over(queries).occupied(
                self._tenure.instance, since_ms, entered=entered
            )

    async def moderate(
        self, moderation_writes: Sequence[ModerationWrite]
    ) -> dict[int, ReiletaError]:
        if not self._valid():
            raise Suspended
        return await self._store.moderation_writes.write(
            moderation_writes, first=self._hold_or_gone
        )

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Queries]:
        """A transaction with the place locked."""
        if not self._valid():
            raise Suspended
        async with self._store.database.transaction() as queries:
            await self._hold_or_gone(queries)
            yield queries

    async def _hold_or_gone(self, queries: Queries) -> None:
        """Locks the place, unless the instance is deleted and so has none: then nothing but the
        moderation log can be written. Raises Suspended."""
        try:
            await hold(queries, self._tenure)
        except Fenced as error:
            there = await queries.value(
                "SELECT EXISTS (SELECT 1 FROM instances WHERE id = $1)", self._tenure.instance
            )
            if not there:
                return
            _log.error(
                log_events.WRITE_FENCED,
                instance=self._tenure.instance,
                node=self._tenure.node,
                epoch=self._tenure.epoch,
            )
            self._fenced()
            raise Suspended from error
