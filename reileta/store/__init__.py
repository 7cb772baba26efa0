"""The database: one class per table over PostgreSQL, and how it is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from reileta.clock import Clock
from reileta.media.files import FileStore
from reileta.media.files.local import LocalFiles
from reileta.rules.resource.types import BUILT_IN, ResourceTypes
from reileta.settings import Settings
from reileta.store.assets import Assets
from reileta.store.attempts import Attempts
from reileta.store.audit_log import AuditLog
from reileta.store.blobs import Blobs
from reileta.store.challenges import Challenges
from reileta.store.change_feed import ChangeFeed
from reileta.store.client_rules import ClientRules
from reileta.store.database import Database, Loop, Queries, asyncio_loop
from reileta.store.database_time import DatabaseTime, database_time
from reileta.store.deeds import Deeds
from reileta.store.embedded.server import open_embedded
from reileta.store.follows import Follows
from reileta.store.guests import Guests
from reileta.store.host_nodes import HostNodes
from reileta.store.images import Images
from reileta.store.instances import Instances
from reileta.store.known_networks import Networks
from reileta.store.leases import Leases
from reileta.store.migrate import check_schema, known_migrations, migrate
from reileta.store.moderation import Bans, ModerationLog, ModerationWrites, Moderators, Mutes
from reileta.store.quotas import Quotas
from reileta.store.requirements import check_requirements
from reileta.store.resources import Resources
from reileta.store.server_info import ServerInfo, ServerInfos
from reileta.store.server_lock import ServerLock
from reileta.store.servers import Servers
from reileta.store.services import Services
from reileta.store.session_states import SessionStates
from reileta.store.sessions import Sessions
from reileta.store.soft_states import SoftStates
from reileta.store.tokens import Tokens
from reileta.store.user_profiles import UserProfiles
from reileta.store.users import Users
from reileta.store.worlds import Worlds

__all__ = ["Database", "Queries", "ServerInfo", "Store", "open_store"]


@dataclass(frozen=True, slots=True)
class Store:
    """All stored data. Methods raise DatabaseUnavailable while the database is down."""

    database: Database
    loop: Loop
    """The asyncio loop of the database's connections, for others that need one."""
    users: Users
    sessions: Sessions
    tokens: Tokens
    worlds: Worlds
    instances: Instances
    bans: Bans
    mutes: Mutes
    moderators: Moderators
    moderations: ModerationLog
    moderation_writes: ModerationWrites
    identity: ServerInfos
    follows: Follows
    profiles: UserProfiles
    services: Services
    host_nodes: HostNodes
    assets: Assets
    images: Images
    blobs: Blobs
    files: FileStore
    """The files themselves; `blobs` knows which of them are referenced."""
    states: SessionStates
    resources: Resources
    leases: Leases
    networks: Networks
    audit: AuditLog
    servers: Servers
    """Other servers."""
    client_rules: ClientRules
    challenges: Challenges
    guests: Guests
    lock: ServerLock
    """Keeps other servers away, if the store was opened as `exclusive`."""
    attempts: Attempts
    """Attempts to log in and the like, at all nodes of a cluster."""
    deeds: Deeds
    """Orders to instances that were carried out in a cluster."""
    soft_states: SoftStates
    """Seats and queues, kept for the next run of a server without a cluster."""
    changes: ChangeFeed
    """Changes by other processes, once its `begin` was called."""


@asynccontextmanager
async def open_store(
    settings: Settings,
    clock: Clock,
    *,
    shared: bool = False,
    exclusive: bool = False,
    files: FileStore | None = None,
    types: ResourceTypes = BUILT_IN,
    lease_time: DatabaseTime = database_time,
) -> AsyncIterator[Store]:
    """Opens the store of the settings, with this version's schema; closes it after the body.

    It runs an asyncio loop of its own, so that any task of this Trio run can use the store. Without
    `settings.database`, an embedded PostgreSQL runs during the body.

    Args:
        shared: for commands, which use the PostgreSQL of a running server. They create neither a
            database nor its tables.
        exclusive: for servers. A second one is refused, before it changes the schema; nodes of a
            cluster are refused only if another server is none.
        files: by default those in the folder of the settings. Nothing is created or deleted there
            until a method needs it.
        types: the resource types, including a host's own.
        lease_time: the database's clock, by which leases expire and refreshes repeat.

    Raises:
        StartupError: the database can't be used.
    """
    async with AsyncExitStack() as stack:
        url = settings.database
        if url is None:
            url = await stack.enter_async_context(open_embedded(settings.data, shared=shared))
        loop = await stack.enter_async_context(asyncio_loop())
        database = Database(
            loop,
            url,
            connections=settings.database_connections,
            remember=settings.caches_reads,
        )
        stack.push_async_callback(database.close)
        await check_requirements(database, pooler=settings.database is not None)
        lock = ServerLock(database, shared=settings.nats is not None)
        if exclusive:
            await lock.take()
            stack.push_async_callback(lock.release)
        if shared:
            await check_schema(database, known_migrations())
        else:
            await migrate(database, clock, known_migrations())
        identity = ServerInfos(database, clock, settings.title)
        await identity.get()
        if files is None:
            files = LocalFiles(settings.files_folder)
        blobs = Blobs(database, clock, files)
        quotas = Quotas.of(settings)
        yield Store(
            database=database,
            loop=loop,
            users=Users(database, clock, quotas),
            sessions=Sessions(database, clock, quotas),
            tokens=Tokens(database, clock, lease_time),
            worlds=Worlds(database, clock, quotas),
            instances=Instances(database, clock, quotas),
            bans=Bans(database),
            mutes=Mutes(database),
            moderators=Moderators(database),
            moderations=ModerationLog(database, quotas),
            moderation_writes=ModerationWrites(database, quotas),
            identity=identity,
            follows=Follows(database, clock, limit=settings.follows_per_user),
            profiles=UserProfiles(database, clock),
            services=Services(database, clock, quotas),
            host_nodes=HostNodes(database, clock, quotas),
            assets=Assets(
                database,
                clock,
                blobs,
                user_files_bytes=settings.user_files_bytes,
                quotas=quotas,
            ),
            images=Images(database, clock, blobs),
            blobs=blobs,
            files=files,
            states=SessionStates(database),
            resources=Resources(database, clock, types, quotas),
            leases=Leases(database, clock, types, lease_time, urgent=database.urgent),
            networks=Networks(database, clock),
            audit=AuditLog(database, clock),
            servers=Servers(database, clock),
            client_rules=ClientRules(database, clock),
            challenges=Challenges(database, clock),
            guests=Guests(database, clock),
            lock=lock,
            attempts=Attempts(database),
            deeds=Deeds(database),
            soft_states=SoftStates(database),
            changes=ChangeFeed(database),
        )
