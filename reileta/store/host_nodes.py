"""Instance nodes: machines that host instances over a link (table `hosts`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypedDict, Unpack

import msgspec

from reileta.clock import Clock
from reileta.errors import InstanceInvalid, NodeNotFound, QuotaReached
from reileta.ids import is_id, new_id
from reileta.records import (
    DISABLED_TAG,
    Cursor,
    DirectAddress,
    HostKind,
    HostNode,
    HostStatus,
    Page,
)
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, assignments, page
from reileta.store.quotas import DEFAULT, Quotas

SEEN_S: Final = 15.0
"""How often the process that has a node's link notes that it is there."""
GONE_MS: Final = 60_000
"""A node whose link nobody has noted for so long counts as offline."""
INSTANCES: Final = 100
"""Instances that can live on one node."""

_direct: Final = msgspec.json.Decoder(DirectAddress | None)
_ON_IT: Final = "ARRAY(SELECT instances.id FROM instances WHERE instances.node = hosts.id)"
_LIVES: Final = f"{_ON_IT} AS lives"


class HostNodeUpdate(TypedDict, total=False):
    """The fields of a node that can change; a missing one stays."""

    title: str
    region: str | None
    capacity: int
    direct: DirectAddress | None


class HostNodes:
    def __init__(self, queries: Queries, clock: Clock, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._clock = clock
        self._quotas = quotas

    async def create(
        self,
        *,
        title: str,
        owner: str,
        kind: HostKind,
        region: str | None,
        capacity: int,
        direct: DirectAddress | None,
        token_hash: bytes,
    ) -> HostNode:
        """Creates a node. Raises QuotaReached, and UserNotFound if its owner was deleted."""
        async with self._queries.transaction() as transaction:
            await self._quotas.ensure_room(transaction, "hosts", owner)
            row = await transaction.fetch_one(
                "INSERT INTO hosts (id, title, owner, kind, region, capacity, direct, token_hash, "
                "created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) "
                "RETURNING *, '{}'::text[] AS lives",
                new_id("n"),
                title,
                owner,
                kind,
                region,
                capacity,
                _stored(direct),
                token_hash,
                self._clock.now_ms(),
            )
        assert row is not None
        return self._node(row)

    async def get(self, id_: str) -> HostNode | None:
        """The node of that id."""
        if not is_id(id_, "n"):
            return None
        row = await self._queries.recall_one(f"SELECT *, {_LIVES} FROM hosts WHERE id = $1", id_)  # noqa: S608 - constants
        return None if row is None else self._node(row)

    async def of_token(self, token_hash: bytes) -> HostNode | None:
        """The node that has that token, unless its owner is suspended."""
        row = await self._queries.fetch_one(
            f"SELECT *, {_LIVES} FROM hosts WHERE token_hash = $1 AND {_answered_for(2)}",  # noqa: S608 - constants
            token_hash,
            self._clock.now_ms(),
        )
        return None if row is None else self._node(row)

    async def owned_by(self, owner: str) -> list[str]:
        """The ids of the nodes of a user and of its services."""
        rows = await self._queries.fetch(
            "SELECT hosts.id FROM hosts JOIN users ON users.id = hosts.owner "
            "LEFT JOIN services ON services.id = users.service "
            "WHERE users.id = $1 OR services.owner = $1",
            owner,
        )
        return [row["id"] for row in rows]

    async def search(
        self,
        *,
        query: str | None,
        owner: str | None,
        status: HostStatus | None,
        free: bool,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[HostNode]:
        """Nodes whose title contains the query, newest first. `free`: only those that are online
        and have room for one more instance."""
        where, now = Where(), self._clock.now_ms()
        where.contains(query)
        if owner is not None:
            where.add("owner = {}", owner)
        linked = f"(server IS NOT NULL AND seen_at > {now - GONE_MS})"
        if status == "offline":
            where.add(f"{linked} IS NOT TRUE")
        elif status is not None or free:
            where.add(linked)
            where.add("draining" if status == "draining" else "NOT draining")
        if free:
            where.add(f"cardinality({_ON_IT}) < least(capacity, {INSTANCES})")
        found = await page(
            self._queries,
            "hosts",
            where,
            self._node,
            order=("issued",),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )
        return await self._counted(found)

    async def _counted(self, found: Page[HostNode]) -> Page[HostNode]:
        """The same nodes, with the instances that live on each."""
        rows = await self._queries.fetch(
            "SELECT node, array_agg(id) AS lives FROM instances WHERE node = ANY($1::text[]) "
            "GROUP BY node",
            [one.id for one in found.items],
        )
        lives = {row["node"]: tuple(row["lives"]) for row in rows}
        items = tuple(replace(one, instances=lives.get(one.id, ())) for one in found.items)
        return replace(found, items=items)

    async def update(self, id_: str, **changes: Unpack[HostNodeUpdate]) -> HostNode:
        """Changes the node and returns it. Raises NodeNotFound."""
        stored: dict[str, object] = dict(changes)
        if "direct" in changes:
            stored["direct"] = _stored(changes["direct"])
        return await self._set(id_, stored)

    async def rotate(self, id_: str, token_hash: bytes) -> HostNode:
        """Gives the node another token; the one before is no longer valid. Raises NodeNotFound."""
        return await self._set(id_, {"token_hash": token_hash})

    async def drain(self, id_: str, *, on: bool) -> HostNode:
        """The node takes no more instances, or does again. Raises NodeNotFound."""
        return await self._set(id_, {"draining": on})

    async def _set(self, id_: str, changes: dict[str, object]) -> HostNode:
        columns = (*HostNodeUpdate.__annotations__, "token_hash", "draining")
        sets, values = assignments(changes, columns)
        row = await self._queries.fetch_one(
            f"UPDATE hosts SET {sets}{',' if sets else ''} updated_at = ${len(values) + 1} "  # noqa: S608 - those columns
            f"WHERE id = ${len(values) + 2} RETURNING *, {_LIVES}",
            *values,
            self._clock.now_ms(),
            id_,
        )
        if row is None:
            raise NodeNotFound
        return self._node(row)

    async def delete(self, id_: str) -> bool:
        """Deletes the node with the instances that live on it; whether it existed."""
        return await self._queries.execute("DELETE FROM hosts WHERE id = $1", id_) > 0

    async def instances_on(self, id_: str) -> list[str]:
        """The ids of the instances that live on the node."""
        rows = await self._queries.fetch("SELECT id FROM instances WHERE node = $1", id_)
        return [row["id"] for row in rows]

    # Links -------------------------------------------------------------------------------------

    async def link(
        self, id_: str, token_hash: bytes, *, server: str, version: str
    ) -> HostNode | None:
        """A process has a new link of the node, which replaces any other; None: the token is no
        longer valid, or the owner is suspended."""
        row = await self._queries.fetch_one(
            "UPDATE hosts SET link = link + 1, server = $3, version = $4, seen_at = $5 "  # noqa: S608 - constants
            f"WHERE id = $1 AND token_hash = $2 AND {_answered_for(5)} RETURNING *, {_LIVES}",
            id_,
            token_hash,
            server,
            version,
            self._clock.now_ms(),
        )
        return None if row is None else self._node(row)

    async def seen(self, id_: str, token_hash: bytes, *, link: int, server: str) -> bool:
        """Notes that the process has the link; whether it is still the node's, with that token, and
        the owner is not suspended."""
        done = await self._queries.execute(
            "UPDATE hosts SET seen_at = $4, server = $5 "  # noqa: S608 - constants
            f"WHERE id = $1 AND token_hash = $2 AND link = $3 AND {_answered_for(4)}",
            id_,
            token_hash,
            link,
            self._clock.now_ms(),
            server,
        )
        return done > 0

    async def unlink(self, id_: str, *, link: int) -> HostNode | None:
        """The link has ended; None if it was replaced meanwhile."""
        row = await self._queries.fetch_one(
            "UPDATE hosts SET server = NULL, seen_at = $3 WHERE id = $1 AND link = $2 "  # noqa: S608 - constants
            f"RETURNING *, {_LIVES}",
            id_,
            link,
            self._clock.now_ms(),
        )
        return None if row is None else self._node(row)

    async def note_fault(self, id_: str, fault: str) -> HostNode | None:
        """The node's link was cut, for that reason; None: the node was deleted."""
        row = await self._queries.fetch_one(
            f"UPDATE hosts SET fault = $2, fault_at = $3 WHERE id = $1 RETURNING *, {_LIVES}",  # noqa: S608 - constants
            id_,
            fault[:200],
            self._clock.now_ms(),
        )
        return None if row is None else self._node(row)

    async def forget_links(self) -> None:
        """No node has a link. For the only server, at its start."""
        await self._queries.execute("UPDATE hosts SET server = NULL WHERE server IS NOT NULL")

    def _node(self, row: Row) -> HostNode:
        now, seen = self._clock.now_ms(), row["seen_at"]
        linked = row["server"] is not None and seen is not None and seen > now - GONE_MS
        return HostNode(
            id=row["id"],
            title=row["title"],
            owner=row["owner"],
            kind=row["kind"],
            region=row["region"],
            capacity=row["capacity"],
            direct=None if row["direct"] is None else _direct.decode(row["direct"]),
            link=row["link"],
            server=row["server"] if linked else None,
            draining=row["draining"],
            version=row["version"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            seen_at=seen,
            status="offline" if not linked else "draining" if row["draining"] else "online",
            fault=row["fault"],
            fault_at=row["fault_at"],
            instances=tuple(row.get("lives", ())),
        )


async def ensure_room_on(transaction: Queries, node: str) -> None:
    """Checks that one more instance can live on the node.

    Raises NodeNotFound, InstanceInvalid if it is being drained, and QuotaReached.
    """
    row = await transaction.fetch_one(
        f"SELECT draining, capacity, {_LIVES} FROM hosts WHERE id = $1 FOR UPDATE",  # noqa: S608 - constants
        node,
    )
    if row is None:
        raise NodeNotFound
    if row["draining"]:
        raise InstanceInvalid.field("node", "takes no more instances: it is being drained")
    limit = min(row["capacity"], INSTANCES)
    if len(row["lives"]) >= limit:
        raise QuotaReached.field("node", f"has room for {limit} instances: delete one first")


def _answered_for(now: int) -> str:
    """The condition that the node's owner is not suspended, nor the owner of the service that it
    belongs to. `now`: the number of the parameter with the time."""
    return (
        "NOT EXISTS (SELECT 1 FROM users AS account "  # noqa: S608 - constants
        "LEFT JOIN services ON services.id = account.service "
        "JOIN users AS behind ON behind.id IN (account.id, services.owner) "
        f"WHERE account.id = hosts.owner AND '{DISABLED_TAG}' = ANY(behind.tags) "
        f"AND (behind.suspended_until IS NULL OR behind.suspended_until > ${now}))"
    )


def _stored(direct: DirectAddress | None) -> str | None:
    return None if direct is None else msgspec.json.encode(direct).decode()
