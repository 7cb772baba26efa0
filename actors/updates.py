"""`update-*` events of the registry: users, worlds, services, the server, instances that rest.

An event carries the whole object, and some of that is in other tables: a user's pictures and whom
it follows, a world's assets. So whoever changed something says so and goes on, and one task reads
what else there is to say, and tells the hub: one object after the other, in the order of their
first change. Overflow policy: one entry for each object, the newest; over `WAITING` objects, the
oldest is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import trio

from actors.directory import Directory
from actors.ref import Ref
from actors.topics import HubMessage, Publish, Viewer
from reileta import events, records, server_views, views
from reileta.access import PRIVATE, PUBLIC
from reileta.errors import DatabaseUnavailable, Overloaded
from reileta.frames import encode
from reileta.metrics import Metrics
from reileta.records import Profile, User
from reileta.store import Identity, Store

Noun = Literal["user", "world", "instance", "server", "service"]
Record: TypeAlias = User | records.World | records.Instance | records.Service | Identity

WAITING: Final = 65_536
AGAIN_S: Final = 1.0
"""How long it waits for a database that is away."""


class Updates:
    """The publications of one node. `profiled` is told of each user that changed, with its profile,
    before the hub is."""

    def __init__(
        self,
        *,
        store: Store,
        hub: Ref[HubMessage],
        directory: Directory,
        metrics: Metrics,
        address: str,
        secure: bool,
        server: Callable[[Identity], server_views.ServerView],
        profiled: Callable[[User, Profile], None],
    ) -> None:
        self._store = store
        self._hub = hub
        self._directory = directory
        self._metrics = metrics
        self._address = address
        self._secure = secure
        self._server = server
        self._profiled = profiled
        self._waiting: dict[tuple[Noun, str], Record | None] = {}
        self._news = trio.Event()

    def changed(self, noun: Noun, record: Record) -> None:
        """The object is another than it was: subscribers are to be told."""
        self._add(noun, record.id, record)

    def moved(self, noun: Literal["world", "service"], id_: str) -> None:
        """As `changed`, for one that was changed with many others."""
        self._add(noun, id_, None)

    def _add(self, noun: Noun, id_: str, record: Record | None) -> None:
        self._waiting[noun, id_] = record
        if len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._metrics.mailbox_refused += 1
        self._news.set()

    async def run(self) -> None:
        """Tells of what changed, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                key = next(iter(self._waiting))
                record = self._waiting.pop(key)
                try:
                    record = record or await self._look_up(*key)
                    message = None if record is None else await self._publication(record)
                except DatabaseUnavailable:
                    self._waiting.setdefault(key, record)
                    await trio.sleep(AGAIN_S)
                    continue
                if message is not None:
                    self.publish(message)

    def publish(self, message: Publish) -> None:
        """Tells the hub; drops and counts what it has no room for."""
        try:
            self._hub.tell(message)
        except Overloaded:
            self._metrics.mailbox_refused += 1

    def user(self, user: User, profile: Profile) -> Publish:
        """`update-user`, as each viewer may see the user (PROTOCOL §7)."""
        return publish_user(
            user, profile, self._directory, address=self._address, secure=self._secure
        )

    async def _look_up(self, noun: Noun, id_: str) -> Record | None:
        if noun == "world":
            return await self._store.worlds.get(id_)
        return await self._store.services.get(id_)

    async def _publication(self, record: Record) -> Publish:
        match record:
            case User():
                profile = await self._store.profiles.of(record.id)
                self._profiled(record, profile)
                return self.user(record, profile)
            case records.World():
                return await self._world(record)
            case records.Service():
                data = encode(views.service_view(record, self._address))
                return Publish(events.UPDATE_SERVICE, record.id, lambda _: data)
            case records.Instance():
                return self._instance(record)
            case _:
                data = encode(self._server(record))
                return Publish(events.UPDATE_SERVER, record.id, lambda _: data)

    async def _world(self, world: records.World) -> Publish:
        assets = await self._store.assets.of(world.id)
        pictured = await self._store.images.get(world.id, "thumbnail") is not None
        data = encode(
            views.world_view(
                world, self._address, secure=self._secure, assets=assets, pictured=pictured
            )
        )

        def render(viewer: Viewer) -> bytes | None:
            shown = PRIVATE not in world.tags or viewer.admin or viewer.user == world.owner
            return data if shown else None

        return Publish(events.UPDATE_WORLD, world.id, render)

    def _instance(self, record: records.Instance) -> Publish:
        """One that rests: live ones tell of themselves."""
        occupancy = self._directory.occupancy(record.id)
        data = encode(
            views.instance_view(record, occupancy, address=self._address, secure=self._secure)
        )

        def render(viewer: Viewer) -> bytes | None:
            shown = PUBLIC in record.tags or viewer.admin or viewer.user == record.owner
            return data if shown else None

        return Publish(events.UPDATE_INSTANCE, record.id, render)


def publish_user(
    user: User, profile: Profile, directory: Directory, *, address: str, secure: bool
) -> Publish:
    """`update-user`, as each viewer may see the user: itself, admins, friends, anyone."""

    def render(viewer: Viewer) -> bytes:
        return encode(
            views.user_view(
                user,
                user.status if directory.connected(user.id) else "offline",
                address,
                secure=secure,
                viewer=viewer.user,
                admin=viewer.admin,
                friend_since=viewer.friends.get(user.id),
                profile=profile,
            )
        )

    return Publish(events.UPDATE_USER, user.id, render)
