"""The tables that hold resources: one class for each table.

`Resources` and `Leases` do everything that is the same for all types: they lock, apply the rules
and write leases. The classes here do what differs by table. A type with a table of its own has a
subclass of `ResourceStorage`, listed in `STORAGES`. All other types are documents.

The table of a subclass needs:

- the columns `number` (`DEFAULT nextval('numbers')`), `owner`, `title`, `version`, `created_at`,
  `updated_at`, and `haystack` (the text that searches compare, in lower case);
- the trigger `forget_number`, which deletes leases and shares with the row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from reileta.clock import Clock
from reileta.errors import ResourceNotFound, UserNotFound
from reileta.records import ResourceRecord
from reileta.rules.identity import Claimant
from reileta.rules.resource.json_values import Json, encode, load
from reileta.rules.resource.types import WORLD, Content, ResourceType, tags_of
from reileta.store import visibility
from reileta.store.database import ConstraintBroken, Queries, Row
from reileta.store.query_builder import Where
from reileta.store.quotas import Quotas
from reileta.store.worlds import Worlds


class ResourceStorage(ABC):
    """How the resources of some types are stored. Stateless: one object serves all stores."""

    table: ClassVar[str]
    shared_by_types: ClassVar[bool] = False
    """Whether the table holds several types, by its column `type`."""
    takes_several_versions: ClassVar[bool] = False
    """Whether `update` can write a resource whose version has grown by more than one."""

    def holds(self, row: Row, type_: str) -> bool:
        """Whether the row is a resource of that type."""
        return not self.shared_by_types or row["type"] == type_

    def record(self, type_: str, row: Row, shares: frozenset[str] = frozenset()) -> ResourceRecord:
        """The resource of a row."""
        return ResourceRecord(
            number=row["number"],
            type=type_,
            owner=row["owner"],
            title=row["title"],
            data=self.data(row),
            version=row["version"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            shares=shares,
        )

    @abstractmethod
    def data(self, row: Row) -> Json:
        """The resource's data, from the columns of its row."""

    @abstractmethod
    def restrict(self, where: Where, kind: ResourceType, who: Claimant) -> None:
        """Limits a search to the resources of that type that the user can see."""

    @abstractmethod
    async def create(
        self, queries: Queries, clock: Clock, quotas: Quotas, type_: str, owner: str, new: Content
    ) -> ResourceRecord:
        """Creates a resource from checked content.

        Raises UserNotFound if the owner was deleted meanwhile, and QuotaReached.
        """

    @abstractmethod
    async def lock_owner(self, transaction: Queries, number: int) -> None:
        """Locks the owner of a resource that is to be written, if its quota depends on the size.

        This comes before the lock of the lease: locks are taken in the order user, lease, resource.
        """

    @abstractmethod
    async def update(
        self, transaction: Queries, quotas: Quotas, before: ResourceRecord, after: ResourceRecord
    ) -> bool:
        """Writes a change, which raises the version; False if the row has another version by now.

        Raises QuotaReached.
        """


class DocumentStorage(ResourceStorage):
    """Documents and all types of a host: content is JSON, private to its owner and to shares."""

    table = "resources"
    shared_by_types = True
    takes_several_versions = True

    def data(self, row: Row) -> Json:
        data: Json = load(row["data"])
        return data

    def restrict(self, where: Where, kind: ResourceType, who: Claimant) -> None:
        where.add("type = {}", kind.name)
        if not kind.public:
            visibility.owned(where, who.user, admin=who.admin)

    async def create(
        self, queries: Queries, clock: Clock, quotas: Quotas, type_: str, owner: str, new: Content
    ) -> ResourceRecord:
        try:
            async with queries.transaction() as transaction:
                await quotas.ensure_room_for_document(transaction, owner)
                row = await transaction.fetch_one(
                    "INSERT INTO resources (type, owner, title, data, created_at, updated_at) "
                    "VALUES ($1, $2, $3, $4, $5, $5) RETURNING *",
                    type_,
                    owner,
                    new.title,
                    encode(new.data),
                    clock.now_ms(),
                )
                await quotas.ensure_weight(transaction, owner)
        except ConstraintBroken as error:
            raise UserNotFound from error
        assert row is not None
        return self.record(type_, row)

    async def lock_owner(self, transaction: Queries, number: int) -> None:
        await transaction.fetch(
            "SELECT 1 FROM users WHERE id = "
            "(SELECT owner FROM resources WHERE number = $1) FOR NO KEY UPDATE",
            number,
        )

    async def update(
        self, transaction: Queries, quotas: Quotas, before: ResourceRecord, after: ResourceRecord
    ) -> bool:
        written = await transaction.execute(
            "UPDATE resources SET updated_at = $3, title = $4, data = $5, "
            "version = $6 WHERE number = $1 AND version = $2",
            after.number,
            before.version,
            after.updated_at,
            after.title,
            encode(after.data),
            after.version,
        )
        if written and _weight(after) > _weight(before):
            await quotas.ensure_weight(transaction, after.owner)
        return bool(written)


class WorldStorage(ResourceStorage):
    """Worlds, which the registry API also reads and writes. A trigger raises their version."""

    table = "worlds"

    def data(self, row: Row) -> Json:
        return {
            "description": row["description"],
            "capacity": row["capacity"],
            "tags": [*row["tags"]],
        }

    def restrict(self, where: Where, kind: ResourceType, who: Claimant) -> None:
        visibility.worlds(where, who.user, admin=who.admin)

    async def create(
        self, queries: Queries, clock: Clock, quotas: Quotas, type_: str, owner: str, new: Content
    ) -> ResourceRecord:
        made = await Worlds(queries, clock, quotas).create(
            title=new.title, owner=owner, **_world_columns(new.data)
        )
        row = await queries.fetch_one("SELECT * FROM worlds WHERE number = $1", made.number)
        if row is None:
            raise ResourceNotFound
        return self.record(type_, row)

    async def lock_owner(self, transaction: Queries, number: int) -> None:
        """Nothing: the quota of worlds counts rows, not bytes."""

    async def update(
        self, transaction: Queries, quotas: Quotas, before: ResourceRecord, after: ResourceRecord
    ) -> bool:
        world = _world_columns(after.data)
        written = await transaction.execute(
            "UPDATE worlds SET updated_at = $3, title = $4, description = $5, "
            "capacity = $6, tags = $7 WHERE number = $1 AND version = $2",
            after.number,
            before.version,
            after.updated_at,
            after.title,
            world["description"],
            world["capacity"],
            sorted(world["tags"]),
        )
        return bool(written)


STORAGES: Final[Mapping[str, ResourceStorage]] = MappingProxyType({WORLD: WorldStorage()})
"""The storage of each type with a table of its own."""
_DOCUMENTS: Final = DocumentStorage()


def storage_of(type_: str) -> ResourceStorage:
    """The storage of a type."""
    return STORAGES.get(type_, _DOCUMENTS)


def _world_columns(data: Json) -> dict[str, Any]:
    """A world's columns from its data, which its type has checked."""
    assert isinstance(data, dict)
    return {
        "description": data["description"],
        "capacity": data["capacity"],
        "tags": frozenset(tags_of(data)),
    }


def _weight(record: ResourceRecord) -> int:
    """The bytes of a document that count for its owner's quota."""
    return len(record.title.encode()) + len(encode(record.data).encode())
