"""The feed of `update-*` events about users, worlds, services, nodes, the server and idle
instances.

An event carries the whole object, parts of which are in other tables: a user's images and the users
that it follows, a world's assets. So the code that changed an object only calls `changed`, and one
task loads the rest and publishes it, object by object, in the order of their first change. All
users of a batch are loaded, and their viewers updated, before the first event is published, so that
no event is rendered with outdated permissions. Live instances publish their own events.

Overflow policy: one entry for each object, the newest; over `WAITING` objects, the oldest is
dropped and counted.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, TypeAlias

import trio

from actors.directory import Directory
from actors.hub.messages import HubMessage, Publish, UpdateViewer, combined_audience
from actors.runtime.mailbox import Ref
from actors.server import LiveServer
from reileta import records
from reileta.errors import DatabaseFault, DatabaseUnavailable, Overloaded
from reileta.ids import server_of
from reileta.observability.metrics import Metrics
from reileta.protocol import events
from reileta.protocol.frames import encode
from reileta.protocol.views import registry
from reileta.records import Profile, User
from reileta.rules import visibility
from reileta.rules.identity import Viewer
from reileta.rules.instance.access import access_of
from reileta.site import Site
from reileta.store import ServerInfo, Store

Noun = Literal["user", "world", "instance", "server", "service", "node"]
Record: TypeAlias = (
    User | records.World | records.InstanceRecord | records.Service | records.HostNode | ServerInfo
)

WAITING: Final = 65_536
AT_ONCE: Final = 64
"""How many objects are loaded before the first of them is published."""
TOLD_USERS: Final = 4096
"""Users that are remembered as they were published last."""
AGAIN_S: Final = 1.0
"""How long it waits when the database is down."""
ATTEMPTS: Final = 3
"""How often an object is loaded before a fault other than an outage drops its change."""


_Key: TypeAlias = tuple[Noun, str]


@dataclass(frozen=True, slots=True)
class _Change:
    """A changed object (None: still to be loaded), and the users whom it concerns."""

    record: Record | None
    among: frozenset[str] | None = None
    failures: int = 0
    """How often loading it has failed unexpectedly."""
    unless_told: bool = False
    """Whether it is not published if it is what was published of it last."""


class UserListener(Protocol):
    """Gets each changed user before the hub does (`actors.session.manager.SessionManager`)."""

    def user_changed(self, user: User, profile: Profile) -> None: ...


class UpdateFeed:
    """Publishes changed records of one node."""

    def __init__(
        self,
        *,
        store: Store,
        hub: Ref[HubMessage],
        directory: Directory,
        metrics: Metrics,
        server: LiveServer,
        users: UserListener,
    ) -> None:
        self._store = store
        self._hub = hub
        self._directory = directory
        self._metrics = metrics
        self._address = server.address
        self._server = server
        self._users = users
        self._waiting: dict[_Key, _Change] = {}
        self._wake = trio.Event()
        self._told_users: dict[str, tuple[User, Profile]] = {}
        """In a cluster: the users as they were published last."""

    def changed(self, noun: Noun, record: Record, among: frozenset[str] | None = None) -> None:
        """Publishes an object that changed; `among` as in `Publish`."""
        self._add(noun, record.id, _Change(record, among))

    def changed_id(self, noun: Noun, id_: str, among: frozenset[str] | None = None) -> None:
        """As `changed`, for an object that is still to be loaded."""
        self._add(noun, id_, _Change(None, among))

    def changed_unless_told(self, user: User) -> None:
        """As `changed`, for a user who may have been published already after the same change, by a
        message of the node that made it."""
        self._add("user", user.id, _Change(user, unless_told=True))

    def _add(self, noun: Noun, id_: str, change: _Change) -> None:
        earlier = self._waiting.get((noun, id_), change)
        among = combined_audience(earlier.among, change.among)
        unless_told = earlier.unless_told and change.unless_told
        self._waiting[noun, id_] = replace(change, among=among, unless_told=unless_told)
        if len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._metrics.mailbox_refused += 1
        self._wake.set()

    async def run(self) -> None:
        """Publishes changes until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                batch = list(itertools.islice(self._waiting.items(), AT_ONCE))
                for key, _ in batch:
                    del self._waiting[key]
                messages: list[Publish | None] = []
                try:
                    for key, change in batch:
                        messages.append(await self._message(*key, change))
                except DatabaseFault:
                    raise  # `ATTEMPTS` counts it, and the supervisor shows it
                except DatabaseUnavailable:
                    self._put_back(batch)
                    batch = []
                    await trio.sleep(AGAIN_S)
                    continue
                finally:
                    if len(messages) < len(batch):
                        self._put_back(batch, batch[len(messages)][0])
                for message in messages:
                    if message is not None:
                        self._publish(message)

    def _put_back(self, batch: list[tuple[_Key, _Change]], culprit: _Key | None = None) -> None:
        """Keeps a batch that could not be loaded. The culprit comes last; it is dropped after
        `ATTEMPTS` failures, so that it can't hold up the others for ever."""
        for key, change in sorted(batch, key=lambda entry: entry[0] == culprit):
            failures = change.failures + (key == culprit)
            if failures < ATTEMPTS:
                newer = self._waiting.get(key, change)
                among = combined_audience(change.among, newer.among)
                unless_told = change.unless_told and newer.unless_told
                self._waiting[key] = replace(
                    newer, among=among, failures=failures, unless_told=unless_told
                )
        self._wake.set()

    async def _message(self, noun: Noun, id_: str, change: _Change) -> Publish | None:
        record = change.record
        guest = noun == "user" and server_of(id_) is not None
        if record is None or (noun in ("user", "world", "instance", "node") and not guest):
            # Loaded now: it may have become private while the change waited, and of two requests
            # that change it, the later one may call `changed` first.
            record = await self._look_up(noun, id_) or (record if noun == "user" else None)
        if record is None:
            return None
        if isinstance(record, User) and self._directory.in_cluster:
            return await self._user_in_cluster(record, change)
        return replace(await self._publication(record), among=change.among)

    async def _user_in_cluster(self, user: User, change: _Change) -> Publish | None:
        """The event about a user; None: the change was published before."""
        profile = await self._store.profiles.of(user.id)
        told = (user, profile)
        if change.unless_told and self._told_users.get(user.id) == told:
            return None
        if change.among is None:
            self._told_users.pop(user.id, None)
            self._told_users[user.id] = told
            if len(self._told_users) > TOLD_USERS:
                del self._told_users[next(iter(self._told_users))]
        return replace(self._user(user, profile), among=change.among)

    def _publish(self, message: Publish) -> None:
        """Sends it to the hub; a full hub drops it."""
        with suppress(Overloaded):  # `Ref.tell` counts what a full mailbox refuses
            self._hub.tell(message)

    async def _look_up(self, noun: Noun, id_: str) -> Record | None:
        if noun == "user" and server_of(id_) is not None:
            guest = await self._store.guests.get(id_)
            return None if guest is None else guest.as_user()
        if noun == "user":
            return await self._store.users.by_id(id_)
        if noun == "server":
            return await self._store.identity.get()
        if noun == "world":
            return await self._store.worlds.get(id_)
        if noun == "instance":
            return await self._store.instances.get(id_)
        if noun == "node":
            return await self._store.host_nodes.get(id_)
        return await self._store.services.get(id_)

    async def _publication(self, record: Record) -> Publish:
        match record:
            case User():
                return self._user(record, await self._store.profiles.of(record.id))
            case records.World():
                return await self._world(record)
            case records.Service():
                data = encode(registry.service_view(record, self._address))
                return Publish(events.UPDATE_SERVICE, record.id, lambda _: data)
            case records.InstanceRecord():
                return self._instance(record)
            case records.HostNode():
                return self._host_node(record)
            case _:
                data = encode(self._server.view(record))
                return Publish(events.UPDATE_SERVER, record.id, lambda _: data)

    def _user(self, user: User, profile: Profile) -> Publish:
        self._users.user_changed(user, profile)
        # First, so that no event is rendered with the user's old permissions.
        self._hub.signal(UpdateViewer(Viewer.of(user, profile)))
        return publish_user(user, profile, self._directory, self._server.site)

    async def _world(self, world: records.World) -> Publish:
        assets = await self._store.assets.of(world.id)
        pictured = await self._store.images.get(world.id, "thumbnail") is not None
        data = encode(
            registry.world_view(world, self._server.site, assets=assets, pictured=pictured)
        )
        audience = await self._store.worlds.audience(world)

        def render(viewer: Viewer) -> bytes | None:
            return data if audience.admits(viewer.user, admin=viewer.admin) else None

        return Publish(events.UPDATE_WORLD, world.id, render)

    def _host_node(self, host: records.HostNode) -> Publish:
        players = self._directory.players_in(host.instances)
        views = {
            private: encode(registry.node_view(host, players, self._address, private=private))
            for private in (True, False)
        }

        def render(viewer: Viewer) -> bytes | None:
            return views[viewer.admin or viewer.user == host.owner]

        return Publish(events.UPDATE_NODE, host.id, render)

    def _instance(self, record: records.InstanceRecord) -> Publish:
        """The event about an idle instance; live ones publish their own."""
        occupancy = self._directory.occupancy(record.id)
        data = encode(registry.instance_view(record, occupancy, self._server.site))
        audience = visibility.instance_news(access_of(record.tags), owner=record.owner, inside=())

        def render(viewer: Viewer) -> bytes | None:
            return data if audience.admits(viewer.user, admin=viewer.admin) else None

        return Publish(events.UPDATE_INSTANCE, record.id, render)


def publish_user(user: User, profile: Profile, directory: Directory, site: Site) -> Publish:
    """`update-user`, as each viewer may see the user: itself, admins, friends, anyone."""

    def render(viewer: Viewer) -> bytes:
        return encode(
            registry.user_view(
                user,
                directory.status(user),
                site,
                viewer=viewer.user,
                admin=viewer.admin,
                friend_since=viewer.friends.get(user.id),
                profile=profile,
            )
        )

    return Publish(events.UPDATE_USER, user.id, render)
