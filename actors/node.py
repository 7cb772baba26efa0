"""A node: the supervision tree of one server process, and what its faces see of the actors.

    root
    ├── hub          who wants to hear of what
    ├── instances    one actor for each live instance, started on first use
    └── sessions     one actor for each session that is connected, or was a moment ago

Sessions stop first, then instances, then the hub: the reverse of the order of starting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final

import structlog
import trio

from actors.delivery.sink import Sink
from actors.directory import Directory, Occupancy
from actors.hub.actor import HubActor, Listeners
from actors.hub.messages import HubMessage
from actors.hub.update_feed import Noun, Record, UpdateFeed
from actors.instance.config import InstanceConfig
from actors.instance.manager import InstanceManager
from actors.instance.messages import CloseInstance, InstanceMessage, ReassignOwner, UpdateInstance
from actors.instance.recording_writer import RecordingWriter, open_recorder
from actors.instance.visibility import InstanceVisibility
from actors.instance_service import InstanceService, ModerationRequest, visitor
from actors.runtime.actor import Spec
from actors.runtime.ask import ask
from actors.runtime.instruments import Instruments
from actors.runtime.ref import Ref
from actors.runtime.registry import Registry
from actors.runtime.supervisor import Supervisor
from actors.runtime.timers import Timers
from actors.session.actor import SessionActor
from actors.session.lease_renewal import LeaseRenewer
from actors.session.messages import (
    RefreshToken,
    SessionEnded,
    SessionMessage,
    TokenKilled,
    UserChanged,
)
from actors.session.recent_changes import RecentUserChanges
from actors.session.recovery import (
    SessionConfig,
    SessionRecovery,
    rank_candidacies,
    release_socket,
    status_update,
)
from actors.session.resource_jobs import LeaseConfig
from actors.session.revocations import RevocationList
from reileta import records
from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable
from reileta.ids import at
from reileta.observability.metrics import Metrics
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.views import server
from reileta.rules.instance.access import Principal
from reileta.rules.instance.state import InstanceLimits
from reileta.rules.session.session import SessionLimits
from reileta.settings import Settings
from reileta.store import ServerInfo, Store
from reileta.store.leases import LostLease

FORGET_S: Final = 10.0
HUB_MAILBOX: Final = 65_536
SESSION_MAILBOX: Final = 1024

_log = structlog.get_logger()


class Node:
    """One server process' actors. Made by `Node.open`; its attributes are read by the faces."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        address: str,
        public_key: str,
        hub: Ref[HubMessage],
        directory: Directory,
        instances: Registry[str, InstanceMessage],
        sessions: Registry[str, SessionMessage],
        recorder: RecordingWriter | None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.metrics = metrics
        self.address = address
        self.secure = settings.secure
        self.public_key = public_key
        self.ready_at: int | None = None
        self.draining = False
        self.hub = hub
        self._directory = directory
        self._sessions = sessions
        self._presences: dict[str, SessionRecovery] = {}
        around = InstanceConfig(
            store=store,
            clock=clock,
            address=address,
            secure=self.secure,
            limits=InstanceLimits.from_settings(settings),
            directory=directory,
            metrics=metrics,
            hub=hub,
            backlog_limit_bytes=settings.backlog_limit_bytes,
            paced=settings.rate_limits == "on",
        )
        self._visibility = InstanceVisibility(store, directory, address)
        self._instance_manager = InstanceManager(
            instances, around, self._visibility, settings, recorder
        )
        self._revoked = RevocationList(clock)
        self._latest = RecentUserChanges(clock)
        limits = SessionLimits.from_settings(settings)
        self._session_surroundings = SessionConfig(
            address=address,
            secure=self.secure,
            directory=directory,
            hub=hub,
            revoked=self._revoked,
            instance=self._instance_manager.live,
            running=instances.find,
            friends=self._friends,
            keeping=LeaseConfig(store, clock, limits),
        )
        self._lease_renewer = LeaseRenewer(
            store, clock, limits, self._present, self._sessions.find, self._ended
        )
        self._updates = UpdateFeed(
            store=store,
            hub=hub,
            directory=directory,
            metrics=metrics,
            address=address,
            secure=self.secure,
            server=self.server_view,
            profiled=self._profiled,
        )
        self.instance_service = InstanceService(
            live=self._instance_manager.live,
            running=instances.find,
            users=store.users,
            present=self._user,
            friends=self._friends,
            address=address,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        settings: Settings,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        instruments: Instruments,
        address: str,
        public_key: str,
    ) -> AsyncIterator[Node]:
        """The node's actors for the block. At its end they finish what they have, in time."""
        timers = Timers()
        directory = Directory(metrics)
        patience_s = settings.shutdown_s / 4
        async with trio.open_nursery() as nursery:
            nursery.start_soon(timers.run)
            async with (
                open_recorder(settings, clock) as recorder,
                Supervisor.open("root", timers, instruments, shutdown_s=patience_s) as root,
                Supervisor.open("instances", timers, instruments, shutdown_s=patience_s) as second,
                Supervisor.open("sessions", timers, instruments, shutdown_s=patience_s) as third,
            ):
                instances: Registry[str, InstanceMessage] = Registry(second)
                sessions: Registry[str, SessionMessage] = Registry(third)
                listeners = Listeners()
                hub = await root.start(
                    Spec(
                        "hub",
                        lambda: HubActor(listeners, directory, instances.running),
                        mailbox_limit=HUB_MAILBOX,
                    )
                )
                node = cls(
                    settings=settings,
                    store=store,
                    clock=clock,
                    metrics=metrics,
                    address=address,
                    public_key=public_key,
                    hub=hub,
                    directory=directory,
                    instances=instances,
                    sessions=sessions,
                    recorder=recorder,
                )
                metrics.mailbox_depths = lambda: {
                    "hub": root.deepest_mailbox,
                    "instance": second.deepest_mailbox,
                    "session": third.deepest_mailbox,
                }
                nursery.start_soon(node._instance_manager.sweep)
                nursery.start_soon(node._forget)
                nursery.start_soon(node._lease_renewer.run)
                nursery.start_soon(node._updates.run)
                yield node
            nursery.cancel_scope.cancel()

    # What the HTTP face asks -------------------------------------------------------------------

    def occupancy(self, instance_id: str) -> Occupancy:
        return self._directory.occupancy(instance_id)

    @property
    def live_version(self) -> int:
        """Grows with each change of an occupancy, and of who is connected."""
        return self._directory.version

    def full(self) -> frozenset[str]:
        """Ids of the instances without a free seat."""
        return self._directory.full()

    def status(self, user: records.User) -> str:
        """`offline` without an open WebSocket, else what the user set (PROTOCOL §4)."""
        return user.status if self._directory.connected(user.id) else "offline"

    async def shows(self, instance: records.Instance, principal: Principal | None) -> bool:
        """Whether the asker may see an instance, by its id or name."""
        who = None if principal is None else visitor(principal, self.address)
        return await self._visibility.admits(instance, who)

    async def update_instance(
        self, instance_id: str, principal: Principal, changes: records.InstanceChanges
    ) -> records.Instance:
        """Changes an instance, once the change is in the database.

        Raises:
            ReiletaError: what the rules or the database say against it.
        """
        by = visitor(principal, self.address)
        _, ref = await self._instance_manager.live(instance_id, by)
        return await ask(ref, UpdateInstance(by, changes))

    async def close_instance(self, instance_id: str, principal: Principal) -> None:
        """Ends an instance, once that is in the database; everyone inside is told."""
        by = visitor(principal, self.address)
        _, ref = await self._instance_manager.live(instance_id, by)
        await ask(ref, CloseInstance(by))

    def changed(self, noun: Noun, record: Record, among: frozenset[str] | None = None) -> None:
        """Tells subscribers with an `update-*` event. Live instances tell of themselves. `among`:
        what has changed of a user concerns these users, its friends, itself and admins alone."""
        self._updates.changed(noun, record, among)

    async def user_deleted(self, deleted: records.DeletedUser) -> None:
        """The store has deleted it: its sockets are closed, its players leave, and what was its own
        has another owner."""
        for session_id in deleted.sessions:
            await self.end_session(session_id)
        if deleted.instances:
            heir = (await self.store.users.server_account()).id
            for instance_id in deleted.instances:
                await self.inherited(instance_id, heir)
        for world_id in deleted.worlds:
            self._updates.moved("world", world_id)
        for service_id in deleted.services:
            self._updates.moved("service", service_id)
        for presence in list(self._presences.values()):
            if deleted.user.id in presence.profile.following:
                self._updates.changed("user", presence.user, frozenset())

    async def inherited(self, instance_id: str, heir: str) -> None:
        """The store has given it to another owner (a bare id)."""
        ref = self._instance_manager.running(instance_id)
        if ref is not None:
            ref.signal(ReassignOwner(heir))
            return
        record = await self.store.instances.get(instance_id)
        if record is not None:
            self.changed("instance", record)

    def server_view(self, identity: ServerInfo) -> server.ServerView:
        """The server itself, as it is reached now."""
        return server.server_view(
            id_=identity.id,
            title=identity.title,
            description=identity.description,
            icon=identity.icon,
            created_at=identity.created_at,
            updated_at=identity.updated_at,
            address=self.address,
            secure=self.secure,
            public_key=self.public_key,
            ready_at=self.ready_at,
        )

    def _profiled(self, user: records.User, profile: records.Profile) -> None:
        self._latest.add(user)
        rank_candidacies(user, self._session_surroundings)
        self._signal(UserChanged(user, profile), lambda one: one.user.id == user.id)

    async def end_session(self, session_id: str) -> None:
        """The store has ended it: its sockets are closed, its players leave."""
        self._ended(session_id)

    def _user(self, id_: str) -> records.User | None:
        """The user of that id, if it is or was connected a moment ago."""
        there = (one.user for one in self._presences.values() if one.user.id == id_)
        return next(there, None)

    def _present(self) -> list[str]:
        """The sessions that have a WebSocket here."""
        return [id_ for id_, presence in self._presences.items() if presence.sockets]

    @property
    def presences(self) -> Mapping[str, SessionRecovery]:
        """The sessions that are connected, or were a moment ago."""
        return self._presences

    def busy(self, user_id: str) -> frozenset[str]:
        """The user's sessions that have a WebSocket here."""
        return frozenset(one for one in self._present() if self._presences[one].user.id == user_id)

    def _ended(self, session_id: str) -> None:
        self._revoked.add(session_id)
        ref = self._sessions.find(session_id)
        if ref is not None:
            ref.signal(SessionEnded())

    def resource_lost(self, lost: LostLease) -> None:
        """The store has taken a session's resource: its sockets are told."""
        self._lease_renewer.tell(lost)

    def refreshed(self, session_id: str, token: bytes, expires: int) -> None:
        """A token has new keys, good until then (ms): its sockets stay open as long."""
        ref = self._sessions.find(session_id)
        if ref is not None:
            ref.signal(RefreshToken(token, expires))

    def credential_killed(self, access_hash: bytes) -> None:
        """The store has killed it: the sockets that came with it are closed."""
        self._revoked.add(access_hash)
        self._signal(TokenKilled(access_hash), lambda one: access_hash in one.sockets.values())

    def _signal(self, message: SessionMessage, chosen: Callable[[SessionRecovery], bool]) -> None:
        for session_id, presence in list(self._presences.items()):
            if chosen(presence):
                ref = self._sessions.find(session_id)
                if ref is not None:
                    ref.signal(message)

    async def _friends(self, user: records.User) -> frozenset[str]:
        """The user's friends, as `UserIDAt`s."""
        friends = await self.store.follows.friends(user.id)
        return frozenset(at(friend, self.address) for friend in friends)

    # What the gateway asks ---------------------------------------------------------------------

    async def session(self, principal: Principal) -> Ref[SessionMessage]:
        """The actor of the asker's session, started if it does not run."""
        id_ = principal.session_id
        profile = records.NO_PROFILE
        if self._sessions.find(id_) is None:
            with suppress(DatabaseUnavailable):  # who is known goes on without
                profile = await self.store.profiles.of(principal.user.id)

        def spec() -> Spec[SessionMessage]:
            presence = SessionRecovery(self._latest.of(principal.user), profile)
            self._presences[id_] = presence

            def gone(error: Exception | None) -> None:
                if self._presences.get(id_) is presence:
                    del self._presences[id_]
                if error is None:  # the node ends: the gateway has seen to its sockets
                    return
                around = self._session_surroundings
                last = [release_socket(id_, presence, sink, around) for sink in presence.sockets]
                for sink in presence.sockets:  # given up: its clients may come back to another
                    sink.close(CloseCode.TRY_AGAIN_LATER, "the session failed")
                if any(last):
                    self._updates.publish(status_update(presence, around))

            return Spec(
                f"session/{id_}",
                lambda: SessionActor(id_, presence, self._session_surroundings),
                mailbox_limit=SESSION_MAILBOX,
                gone=gone,
            )

        return await self._sessions.get(id_, spec)

    async def moderate(
        self,
        instance_id: str,
        principal: Principal,
        measure: ModerationRequest,
        sink: Sink,
        state: bytes | None,
    ) -> None:
        """Moderates someone, for a socket, which may be open for longer than its user is what it
        was when it opened."""
        presence = self._presences.get(principal.session_id)
        if presence is not None:
            principal = replace(principal, user=presence.user)
        await self.instance_service.moderate(
            instance_id, principal, measure, sink=sink, state=state
        )

    async def _forget(self) -> None:
        """Forgets what was revoked, once nobody can still be on the way with it."""
        while True:
            await trio.sleep(FORGET_S)
            self._revoked.forget()
            self._latest.forget()
