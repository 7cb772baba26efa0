"""The database's part of a cluster: nodes' leases, instances' places, and fenced writes.

A node's row is one of the two witnesses of its lease (`reileta/rules/cluster/lease.py`). A node
that is **fenced** has fallen: it hosts nothing, claims nothing, and its writes have no effect.

An instance's place names its host and its epoch. A durable write of a host is one statement that
locks the place, and writes only if host and epoch are still those of its `Tenure`. The fence of the
host waits for the lock; a write that comes after the fence finds another epoch. So no write of a
former host slips in.

Times are of the database's clock. Use `Database.urgent`, or another connection besides the pool:
renewals must not wait for slow statements. It must not go through a pooler that shares connections.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from reileta.errors import InstanceNotFound
from reileta.records import InstanceRecord
from reileta.rules.cluster.lease import DatabaseMark
from reileta.rules.cluster.placement import Place, Tenure
from reileta.store.database import ConstraintBroken, Queries
from reileta.store.deeds import Deeds
from reileta.store.instances import Instances

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_HELD: Final = "SELECT 1 FROM places WHERE instance_id = $1 AND node = $2 AND epoch = $3 FOR SHARE"
_PLACEHOLDER: Final = re.compile(r"\{\}")

BUMP: Final = 1_000_000
"""By how much `bump` raises epochs: more than a backup can lack."""
SWEPT: Final = 200
"""How many instances one sweep looks at, of each kind."""
_SWEEP_KEY: Final = 0x7265696C65746132  # "reileta2"
FENCED_MS: Final = 24 * 60 * 60 * 1000
"""For how long the rows of fallen nodes are kept, for operators to look at."""


class NodeFenced(Exception):
    """The node has fallen, or was never registered; nothing was written."""


class Fenced(Exception):
    """The instance has another host or epoch than the tenure, or is gone; nothing was written."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the database has it, for operators. Times are in ms since 1970.

    `instances`: how many places name it.
    """

    id: str
    name: str
    version: str
    started_at: int
    beat: int
    nats_ok: bool
    fenced_at: int | None
    fenced_by: str | None
    instances: int
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowsSeen:
    """The answer to a renewal: the rows of all nodes that are not fenced."""

    rows: dict[str, DatabaseMark]
    asked_to_yield: bool
    """Whether an operator or another node has asked this node to give its instances back."""


class ClusterLeases:
    """The nodes and places. Methods raise DatabaseUnavailable: the change may have been made."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    # Nodes

    async def register(self, node: str, *, name: str, roles: Collection[str], version: str) -> None:
        """Adds a node, whose id was never used before. Repeating it changes nothing."""
        await self._queries.execute(
            "INSERT INTO nodes (id, name, roles, version, started_at) "  # noqa: S608
            f"VALUES ($1, $2, $3, $4, {_NOW}) ON CONFLICT (id) DO NOTHING",
            node,
            name,
            sorted(roles),
            version,
        )

    async def renew(self, node: str, *, nats_ok: bool) -> RowsSeen | None:
        """Renews the node's lease, and looks at all others, in one statement; None: it was refused.

        The row of the node itself may be that of before the renewal.
        """
        rows = await self._queries.fetch(
            "WITH me AS (UPDATE nodes SET beat = beat + 1, nats_ok = $2 "
            "WHERE id = $1 AND fenced_at IS NULL RETURNING 1) "
            "SELECT id, beat, nats_ok, asked_to_yield, (SELECT count(*) FROM me) AS renewed "
            "FROM nodes WHERE fenced_at IS NULL",
            node,
            nats_ok,
        )
        if not rows or not rows[0]["renewed"]:
            return None
        return RowsSeen(
            {row["id"]: DatabaseMark(row["beat"], row["nats_ok"]) for row in rows},
            any(row["id"] == node and row["asked_to_yield"] for row in rows),
        )

    async def fence(self, node: str, beat: int, *, by: str) -> list[str] | None:
        """Takes a node over, if its row has that beat.

        Returns the instances that have no host now; None: it has another beat, or is fenced.
        """
        # Two statements: the second must see the claims that the first has waited for.
        async with self._queries.transaction() as transaction:
            fenced = await transaction.execute(
                f"UPDATE nodes SET fenced_at = {_NOW}, fenced_by = $3 "  # noqa: S608
                "WHERE id = $1 AND beat = $2 AND fenced_at IS NULL",
                node,
                beat,
                by,
            )
            return await _vacate(transaction, node) if fenced else None

    async def give_back(self, node: str) -> list[str]:
        """The node falls by its own will. It must be silent already (`NodeLease.yield_up`).

        Returns the instances that have no host now.
        """
        async with self._queries.transaction() as transaction:
            await transaction.execute(
                f"UPDATE nodes SET fenced_at = {_NOW}, fenced_by = $1 "  # noqa: S608
                "WHERE id = $1 AND fenced_at IS NULL",
                node,
            )
            return await _vacate(transaction, node)

    async def withdraw(self, node: str) -> list[str]:
        """Like `give_back`, for a node that stops: its row is deleted, so nobody waits for it."""
        async with self._queries.transaction() as transaction:
            await transaction.execute("DELETE FROM nodes WHERE id = $1", node)
            return await _vacate(transaction, node)

    async def ask_to_yield(self, node: str) -> bool:
        """Asks a node to give its instances back, by its next renewal. Whether it is there."""
        asked = await self._queries.execute(
            "UPDATE nodes SET asked_to_yield = true WHERE id = $1 AND fenced_at IS NULL", node
        )
        return asked > 0

    async def nodes(self) -> list[NodeRow]:
        """All nodes, those that have fallen last, and then by name."""
        rows = await self._queries.fetch(
            "SELECT *, (SELECT count(*) FROM places WHERE node = nodes.id) AS instances FROM nodes "
            "ORDER BY fenced_at IS NOT NULL, name, started_at"
        )
        return [
            NodeRow(
                id=row["id"],
                name=row["name"],
                version=row["version"],
                started_at=row["started_at"],
                beat=row["beat"],
                nats_ok=row["nats_ok"],
                fenced_at=row["fenced_at"],
                fenced_by=row["fenced_by"],
                instances=row["instances"],
                roles=tuple(row["roles"]),
            )
            for row in rows
        ]

    async def epochs(self) -> tuple[int, int]:
        """How many instances have no host, and the highest epoch."""
        row = await self._queries.fetch_one(
            "SELECT count(*) FILTER (WHERE node IS NULL) AS vacant, "
            "coalesce(max(epoch), 0) AS highest FROM places"
        )
        return (0, 0) if row is None else (row["vacant"], row["highest"])

    async def remove_fallen(self) -> int:
        """Deletes the rows of nodes that fell more than `FENCED_MS` ago; how many."""
        return await self._queries.execute(
            f"DELETE FROM nodes WHERE fenced_at < {_NOW} - $1::bigint",  # noqa: S608
            FENCED_MS,
        )

    async def bump(self) -> None:
        """After the restore of a backup, before any node starts: no epoch is used again, and no
        node of before goes on."""
        async with self._queries.transaction() as transaction:
            await transaction.execute(
                f"UPDATE nodes SET fenced_at = {_NOW}, fenced_by = 'bump' "  # noqa: S608
                "WHERE fenced_at IS NULL"
            )
            await transaction.execute("UPDATE places SET node = NULL, epoch = epoch + $1", BUMP)

    async def clear(self) -> int:
        """No node of before goes on, and no instance has a host; how many nodes there were. For a
        server that uses the database alone, and has the lock."""
        async with self._queries.transaction() as transaction:
            fenced = await transaction.execute(
                f"UPDATE nodes SET fenced_at = {_NOW}, fenced_by = 'alone' "  # noqa: S608
                "WHERE fenced_at IS NULL"
            )
            await transaction.execute(
                "UPDATE places SET node = NULL, epoch = epoch + 1 WHERE node IS NOT NULL"
            )
        return fenced

    # Places

    async def place(self, instance: str) -> Place:
        """Where the instance lives, and which process has the link of its instance node."""
        row = await self._queries.fetch_one(
            "SELECT places.node, places.epoch, hosts.server FROM instances "
            "LEFT JOIN places ON places.instance_id = instances.id "
            "LEFT JOIN hosts ON hosts.id = instances.node WHERE instances.id = $1",
            instance,
        )
        if row is None:
            return Place(instance, None, 0)
        return Place(instance, row["node"], row["epoch"] or 0, row["server"])

    async def places_of(self, node: str) -> list[Tenure]:
        """The instances that the node hosts."""
        rows = await self._queries.fetch(
            "SELECT instance_id, epoch FROM places WHERE node = $1 ORDER BY instance_id", node
        )
        return [Tenure(row["instance_id"], node, row["epoch"]) for row in rows]

    async def claim(self, instance: str, node: str) -> Place:
        """Makes the node the instance's host, if it has none; the place after that. The node must
        have the role `ins`, or the link of the instance node on which the instance lives.

        A repeated claim, because the first answer was lost, finds the node as the host.

        Raises NodeFenced and InstanceNotFound.
        """
        try:
            # The lock on the node's row: a fence waits for it, and then sees the claim.
            row = await self._queries.fetch_one(
                "WITH me AS (SELECT 1 FROM nodes WHERE id = $2 AND fenced_at IS NULL "  # noqa: S608
                f"AND {_may_host(1, 2)} FOR SHARE) "
                "INSERT INTO places (instance_id, node, epoch) SELECT $1, $2, 1 FROM me "
                "ON CONFLICT (instance_id) DO UPDATE SET node = excluded.node, "
                "epoch = places.epoch + 1 WHERE places.node IS NULL RETURNING epoch",
                instance,
                node,
            )
        except ConstraintBroken as error:
            raise InstanceNotFound from error
        if row is not None:
            return Place(instance, node, row["epoch"])
        # Another node was faster, or this one has fallen.
        alive = await self._queries.value(
            "SELECT EXISTS (SELECT 1 FROM nodes WHERE id = $1 AND fenced_at IS NULL "  # noqa: S608
            f"AND {_may_host(2, 1)})",
            node,
            instance,
        )
        if not alive:
            raise NodeFenced
        return await self.place(instance)

    async def move(self, tenure: Tenure, node: str) -> Tenure:
        """Makes another node the host, which must not be fenced. Raises Fenced and NodeFenced.

        A repeated move, because the first answer was lost, finds it done.
        """
        row = await self._queries.fetch_one(
            "WITH it AS (SELECT 1 FROM nodes WHERE id = $4 AND fenced_at IS NULL "  # noqa: S608
            f"AND {_may_host(1, 4)} FOR SHARE), "
            "moved AS (UPDATE places SET node = $4, epoch = epoch + 1 FROM it "
            "WHERE instance_id = $1 AND node = $2 AND epoch = $3 RETURNING epoch) "
            "SELECT (SELECT count(*) FROM it) AS there, (SELECT epoch FROM moved) AS epoch",
            tenure.instance,
            tenure.node,
            tenure.epoch,
            node,
        )
        if row is None or not row["there"]:
            raise NodeFenced
        moved = Tenure(tenure.instance, node, tenure.epoch + 1)
        if row["epoch"] is None:
            place = await self.place(tenure.instance)
            if (place.node, place.epoch) != (moved.node, moved.epoch):
                raise Fenced
        return moved

    async def leave(self, tenure: Tenure) -> bool:
        """Gives the instance back; whether the tenure was the present one."""
        left = await self._queries.execute(
            "UPDATE places SET node = NULL, epoch = epoch + 1 "
            "WHERE instance_id = $1 AND node = $2 AND epoch = $3",
            tenure.instance,
            tenure.node,
            tenure.epoch,
        )
        return left > 0


def _may_host(instance: int, node: int) -> str:
    """The condition that the node, a row of `nodes`, may host the instance. The arguments are the
    numbers of the parameters."""
    return (
        "('ins' = ANY (nodes.roles) OR EXISTS (SELECT 1 FROM instances "  # noqa: S608 - constants
        "JOIN hosts ON hosts.id = instances.node "
        f"WHERE instances.id = ${instance} AND hosts.server = ${node}))"
    )


async def _vacate(transaction: Queries, node: str) -> list[str]:
    """Ends what the node hosts, and what it says of links. Rows of hosts that somebody has locked
    are left out: a fence waits for nobody. A look at them finds that the process is not there."""
    await transaction.execute(
        "UPDATE hosts SET server = NULL WHERE id IN "
        "(SELECT id FROM hosts WHERE server = $1 FOR UPDATE SKIP LOCKED)",
        node,
    )
    rows = await transaction.fetch(
        "UPDATE places SET node = NULL, epoch = epoch + 1 WHERE node = $1 RETURNING instance_id",
        node,
    )
    return sorted(row["instance_id"] for row in rows)


async def hold(transaction: Queries, tenure: Tenure) -> None:
    """Locks the place until the transaction ends. Raises Fenced.

    For writes that need several statements. Prefer `FencedWrite`: a process that is paused within a
    transaction delays its own fence until PostgreSQL ends the transaction.
    """
    row = await transaction.fetch_one(_HELD, tenure.instance, tenure.node, tenure.epoch)
    if row is None:
        raise Fenced


class FencedWrite:
    """Changes by an instance's host, all in one statement, which is written only under its tenure.

    All changes see the rows of before the statement; no two may change the same row.
    """

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure
        self._changes: list[str] = []
        self._args: list[object] = [tenure.instance, tenure.node, tenure.epoch]

    def add(self, sql: str, *args: object) -> None:
        """Adds a change: an INSERT, UPDATE or DELETE that reads `held`, which has one row or none.

        `{}` are the arguments: `INSERT INTO bans (instance_id, …) SELECT {}, … FROM held`;
        `DELETE FROM bans USING held WHERE instance_id = {}`. The text must not depend on input.
        """
        if "held" not in sql:
            raise ValueError("a fenced write must read held")
        numbers = iter(range(len(self._args) + 1, len(self._args) + len(args) + 1))
        self._changes.append(_PLACEHOLDER.sub(lambda _: f"${next(numbers)}", sql))
        self._args += args

    async def run(self, queries: Queries) -> list[int]:
        """Writes all changes; the number of rows of each.

        Raises Fenced, ConstraintBroken and DatabaseUnavailable. After the last one, the changes may
        have been made.
        """
        parts = [f"held AS ({_HELD})"]
        counts = ["(SELECT count(*) FROM held)"]
        for number, change in enumerate(self._changes):
            parts.append(f"change_{number} AS ({change} RETURNING 1)")
            counts.append(f"(SELECT count(*) FROM change_{number})")  # noqa: S608
        row = await queries.fetch_one(
            f"WITH {', '.join(parts)} SELECT ARRAY[{', '.join(counts)}]",
            *self._args,
        )
        held, *changed = row[0] if row is not None else [0]
        if not held:
            raise Fenced
        return changed


class UnhostedSweep:
    """Marks and deletes instances that no node hosts.

    It locks each instance's place before it decides: a claim waits, and then finds the instance
    gone, or its host writes its own mark after that.
    """

    def __init__(self, database: Queries, instances: Instances) -> None:
        self._database = database
        self._instances = instances

    async def run(self, now_ms: int, before_ms: int, unused_before_ms: int) -> list[InstanceRecord]:
        """Marks instances as empty whose host is gone, and deletes up to `SWEPT` that have been
        empty since before then, as `Instances.abandoned` says; returns the deleted ones.

        One node at a time: it does nothing while another one sweeps. It also forgets nodes that
        fell long ago, and deeds.
        """
        async with self._database.transaction() as transaction:
            if not await transaction.value("SELECT pg_try_advisory_xact_lock($1)", _SWEEP_KEY):
                return []
            await ClusterLeases(transaction).remove_fallen()
            await Deeds(transaction).forget()
            instances = self._instances.over(transaction)
            for id_ in await _unhosted_in_use(transaction):
                if await _unhosted(transaction, id_):
                    await instances.mark_empty(id_, now_ms)
            deleted: list[InstanceRecord] = []
            for record in await instances.abandoned(before_ms, unused_before_ms):
                if len(deleted) == SWEPT:
                    break
                if await _unhosted(transaction, record.id) and await instances.delete_abandoned(
                    record.id, before_ms, unused_before_ms
                ):
                    deleted.append(record)
            return deleted


async def _unhosted_in_use(transaction: Queries) -> list[str]:
    rows = await transaction.fetch(
        "SELECT id FROM instances WHERE empty_since IS NULL AND NOT EXISTS (SELECT 1 FROM places "
        "WHERE instance_id = instances.id AND node IS NOT NULL) ORDER BY id LIMIT $1",
        SWEPT,
    )
    return [row["id"] for row in rows]


async def _unhosted(transaction: Queries, instance: str) -> bool:
    """Whether no node hosts the instance; none can claim it until the transaction ends."""
    try:
        # A savepoint: the error would end the whole transaction. To lock the instance first would
        # be a deadlock with a host that deletes it, which locks the place first.
        async with transaction.transaction() as point:
            row = await point.fetch_one(
                "INSERT INTO places (instance_id, node, epoch) "
                "SELECT id, NULL, 0 FROM instances WHERE id = $1 "
                "ON CONFLICT (instance_id) DO UPDATE SET node = places.node RETURNING node",
                instance,
            )
    except ConstraintBroken:
        return False  # it was deleted meanwhile
    return row is not None and row["node"] is None
