"""The resources of a node: starts and finds their actors, and asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

import structlog

from actors.delivery.sink import Sink
from actors.resource.actor import ResourceActor
from actors.resource.config import ResourceDeps
from actors.resource.frames import ResourceFrame, left_fields, unwatched
from actors.resource.messages import (
    Acquire,
    Delete,
    LeaveLine,
    LookAgain,
    MoveLineAway,
    Presence,
    Queue,
    Read,
    Release,
    ResourceMessage,
    Share,
    Subscriber,
    Unqueue,
    Unshare,
    Unwatch,
    UserChanged,
    Watch,
    WriteAll,
)
from actors.resource.operations import Turn, not_your_turn
from actors.resource.recovery import ResourceRecovery
from actors.resource.snapshot import Fields
from actors.runtime.actor import Spec
from actors.runtime.mailbox import Ref
from actors.runtime.message import Request
from actors.runtime.registry import Registry
from reileta import records
from reileta.errors import DatabaseUnavailable, ReiletaError, SessionNotFound
from reileta.observability import log_events
from reileta.protocol import events
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource, ResourceKey, Write
from reileta.rules.resource.waiting_line import LeaveReason, Place, WaitingLine
from reileta.rules.resource.watchers import EndReason
from reileta.store.leases import LostLease

MAILBOX_LIMIT: Final = 8192
POLL_S: Final = 0.5
"""How often a node asks the database whether others have changed what is watched here."""

T = TypeVar("T")

_log = structlog.get_logger()


class LinesElsewhere(Protocol):
    """The waiting lines of all nodes (`actors.cluster.lines.Lines`)."""

    async def queue(self, name: ResourceKey, who: Claimant) -> Place: ...

    async def unqueue(self, name: ResourceKey, who: Claimant) -> None: ...

    async def ensure_turn(self, name: ResourceKey, who: Claimant) -> None: ...

    def left(self, number: int, session: str) -> None: ...

    def session_ended(self, session: str) -> None: ...


class ResourceManager:
    """One actor for each resource that is used, watched or waited for.

    The methods of `actors.resource_access.ResourceAccess` are for sessions. The node calls `poll`
    every `POLL_S`.
    """

    def __init__(self, registry: Registry[int, ResourceMessage], deps: ResourceDeps) -> None:
        self._registry = registry
        self._deps = deps
        self._recoveries: dict[int, ResourceRecovery] = {}
        self.lines: LinesElsewhere | None = None
        """Waiting lines that may be at other nodes; None: all are here."""

    @property
    def recoveries(self) -> Mapping[int, ResourceRecovery]:
        """The resources that have an actor, by number; only to be read."""
        return self._recoveries

    def running(self, number: int) -> Ref[ResourceMessage] | None:
        """The resource's actor, if it runs and takes messages."""
        return self._registry.find(number)

    # Requests ----------------------------------------------------------------------------------

    async def acquire(
        self, name: ResourceKey, who: Claimant, *, until: int
    ) -> records.HeldResource:
        """As `Leases.acquire`. If sessions wait, only the one that has the offer gets it."""
        if self.lines is not None:
            await self.lines.ensure_turn(name, who)
        held = await self._ask(name, Acquire(name, who, until))
        for number in self._deps.interests.awaited(who.session):
            if number != name.number:
                self._signal(number, LeaveLine(who.session, LeaveReason.HOLDS))
        return held

    async def ensure_turn_here(self, name: ResourceKey, who: Claimant) -> None:
        """Raises what an acquisition gets if the line here has offered the resource to another
        session, or will."""
        recovery = self._recoveries.get(name.number)
        if recovery is None or recovery.line.admits(who.session):
            return
        first = recovery.line.first
        if first is not None:
            raise await not_your_turn(name, who, self._deps.store, Turn(first))

    async def release(self, name: ResourceKey, who: Claimant) -> LostLease | None:
        """As `Leases.release`."""
        return await self._ask(name, Release(name, who))

    async def write(
        self, name: ResourceKey, writes: Sequence[Write]
    ) -> Sequence[records.ResourceRecord | ReiletaError]:
        """As `Resources.write_all`; returns the outcomes."""
        return await self._ask(name, WriteAll(name, tuple(writes)))

    async def delete(
        self, name: ResourceKey, who: Claimant, *, fence: int | None, if_version: int | None
    ) -> records.ResourceRecord:
        """As `Resources.delete`."""
        return await self._ask(name, Delete(name, who, fence, if_version))

    async def share(self, name: ResourceKey, who: Claimant, user: str) -> records.ResourceRecord:
        """As `Resources.share`."""
        return await self._ask(name, Share(name, who, user))

    async def unshare(
        self, name: ResourceKey, who: Claimant, user: str
    ) -> tuple[records.ResourceRecord | None, LostLease | None]:
        """As `Resources.unshare`."""
        return await self._ask(name, Unshare(name, who, user))

    async def read(self, name: ResourceKey) -> Resource:
        """As `Resources.get`, in order with the changes."""
        return await self._ask(name, Read(name))

    async def queue(self, name: ResourceKey, who: Claimant) -> Place:
        """The session waits for the resource; if it does already, it keeps its place.

        Raises:
            ResourceNotFound, PermissionDenied: its user may not acquire it.
            SessionNotFound: the session has ended.
            ResourceHeld: the session holds a resource.
            QuotaReached: the line is full, or the session waits for too many resources.
        """
        if self.lines is not None:
            return await self.lines.queue(name, who)
        return await self.queue_here(name, who)

    async def queue_here(self, name: ResourceKey, who: Claimant) -> Place:
        """As `queue`, in the line of this node."""
        interests = self._deps.interests
        new = interests.add_wait(who.session, name.number)
        try:
            return await self._ask(name, Queue(name, who))
        except ReiletaError:
            recovery = self._recoveries.get(name.number)
            if new and (recovery is None or who.session not in recovery.line):
                interests.remove_wait(who.session, name.number)
            raise

    async def unqueue(self, name: ResourceKey, who: Claimant) -> None:
        """The session no longer waits. Raises NotQueued, ResourceNotFound and PermissionDenied."""
        if self.lines is not None:
            await self.lines.unqueue(name, who)
        else:
            await self.unqueue_here(name, who)

    async def unqueue_here(self, name: ResourceKey, who: Claimant) -> None:
        """As `unqueue`, in the line of this node."""
        await self._ask(name, Unqueue(name, who))

    async def watch(self, name: ResourceKey, who: Claimant, subscriber: Subscriber) -> None:
        """The socket watches the resource, until `unwatch` or `socket_closed`.

        The resource's actor answers on the socket.

        Raises:
            ResourceNotFound, PermissionDenied: the user may not see it.
            QuotaReached: the resource has too many watchers, or the session watches too many.
        """
        interests, sink = self._deps.interests, subscriber.sink
        interests.add_watch(sink, who.session, name.number)
        asked = False
        try:
            ref = await self._live(name)
            if not interests.watches(sink, name.number):
                raise SessionNotFound  # the socket has closed
            asked = True
            await ref.ask(Watch(name, who, subscriber))
        except ReiletaError:
            self._forget_watch(name.number, sink)
            raise
        finally:
            if not asked:  # cancelled
                self._forget_watch(name.number, sink)

    def _forget_watch(self, number: int, sink: Sink) -> None:
        """Removes a watch that did not begin; one that had begun before goes on."""
        recovery = self._recoveries.get(number)
        if recovery is None or sink not in recovery.watchers:
            self._deps.interests.remove_watch(sink, number)

    def unwatch(self, name: ResourceKey, sink: Sink) -> bool:
        """The socket no longer watches the resource; returns whether it did."""
        watched = self._deps.interests.remove_watch(sink, name.number)
        if watched:
            self._signal(name.number, Unwatch(sink))
        return watched

    def socket_closed(self, sink: Sink) -> None:
        """The socket has closed: its watches end."""
        for number in self._deps.interests.watched(sink):
            self._deps.interests.remove_watch(sink, number)
            self._signal(number, Unwatch(sink))

    async def _ask(self, name: ResourceKey, request: Request[T]) -> T:
        ref = await self._live(name)
        return await ref.ask(request)

    async def _live(self, name: ResourceKey) -> Ref[ResourceMessage]:
        """The resource's actor, started if it does not run. Raises ActorStopped."""
        number = name.number

        def spec() -> Spec[ResourceMessage]:
            deps = self._deps
            line = WaitingLine(offer_ms=deps.offer_ms, grace_ms=deps.grace_ms)
            recovery = self._recoveries[number] = ResourceRecovery(line)
            return Spec(
                f"resource/{number}",
                lambda: ResourceActor(number, recovery, deps),
                mailbox_limit=MAILBOX_LIMIT,
                gone=lambda error: self._gone(number, recovery, error),
            )

        while True:
            ref = await self._registry.get(number, spec)
            if not ref.stopped:
                return ref

    # What happened elsewhere -------------------------------------------------------------------

    def changed(self, number: int) -> None:
        """The resource or its lease may have changed without its actor."""
        self._signal(number, LookAgain())

    def all_changed(self) -> None:
        """Any resource may have changed without its actor."""
        for number, recovery in list(self._recoveries.items()):
            if recovery.wanted:
                self.changed(number)

    def session_present(self, session_id: str) -> None:
        """The session has a new socket, which is told the session's places in lines."""
        for number in self._deps.interests.awaited(session_id):
            self._signal(number, Presence(session_id, present=True))

    def session_moved(self, session_id: str, *, present: bool) -> None:
        """The session has got or lost sockets at another node; `present`: it has one anywhere."""
        for number in self._deps.interests.awaited(session_id):
            self._signal(number, Presence(session_id, present=present))

    def lines_here(self) -> list[int]:
        """The resources whose waiting line is here, and not empty."""
        return [number for number, one in self._recoveries.items() if len(one.line)]

    def forget_lines(self, numbers: Sequence[int]) -> None:
        """Other nodes keep these lines from now on."""
        for number in numbers:
            self._signal(number, MoveLineAway())

    def told_elsewhere(self, session_id: str, fields: Fields) -> None:
        """The line of another node tells a session here its place, or that it no longer waits."""
        if self.lines is not None and fields.get("position") is None:
            self.lines.left(int(fields["id"]), session_id)
        sockets = self._deps.sessions.sockets(session_id)
        frame = ResourceFrame(events.RESOURCE_QUEUE, fields, self._deps.clock)
        for sink in sockets.registry:
            frame.send(sink, None)
        for session_sink in sockets.session:
            frame.send(session_sink, session_sink)

    def session_absent(self, session_id: str) -> None:
        """The session has lost its last socket."""
        for number in self._deps.interests.awaited(session_id):
            self._signal(number, Presence(session_id, present=False))

    def session_ended(self, session_id: str) -> None:
        """The session has ended: it waits no longer, and its resource is free."""
        if self.lines is not None:
            self.lines.session_ended(session_id)
        for number in self._deps.interests.awaited(session_id):
            self._signal(number, LeaveLine(session_id, LeaveReason.ENDED))
        for number, recovery in list(self._recoveries.items()):
            known = recovery.known
            if known is not None and known.resource.lease.session == session_id:
                self.changed(number)

    def user_changed(self, user: records.User) -> None:
        """The user's name or tags may have changed."""
        for number, recovery in list(self._recoveries.items()):
            if recovery.wanted or recovery.asked:
                self._signal(number, UserChanged(user.id, user.admin))

    async def poll(self) -> None:
        """Looks whether others have changed what is watched or waited for here.

        Other processes write to the database without this node: commands, an operator, another
        server. If the database is down, the next poll finds the changes.
        """
        wanted = {
            number: recovery
            for number, recovery in self._recoveries.items()
            if recovery.wanted and recovery.name is not None and recovery.known is not None
        }
        if not wanted:
            return
        names = [recovery.name for recovery in wanted.values() if recovery.name is not None]
        before = {number: recovery.stamp for number, recovery in wanted.items()}
        try:
            stamps = await self._deps.store.resources.stamps(names)
        except DatabaseUnavailable:
            _log.debug(log_events.CHANGES_POSTPONED)
            return
        for number, recovery in wanted.items():
            now = stamps.get(number)
            if now != recovery.stamp and recovery.stamp == before[number]:
                self.changed(number)

    def _signal(self, number: int, message: ResourceMessage) -> None:
        ref = self._registry.find(number)
        if ref is not None:
            ref.signal(message)

    # Cleaning up -------------------------------------------------------------------------------

    def _gone(self, number: int, recovery: ResourceRecovery, error: Exception | None) -> None:
        """Cleans up after an actor that ended; `error`: it crashed too often."""
        if self._recoveries.get(number) is recovery:
            del self._recoveries[number]
        interests, name = self._deps.interests, recovery.name
        for session in recovery.line.sessions:
            interests.remove_wait(session, number)
        for sink in recovery.watchers:
            interests.remove_watch(sink, number)
        if error is not None and name is not None:
            self._give_up(name, recovery)

    def _give_up(self, name: ResourceKey, recovery: ResourceRecovery) -> None:
        """Tells the watchers and the waiting sessions that the server has lost them."""
        clock = self._deps.clock
        frame = ResourceFrame(events.RESOURCE_UNWATCHED, unwatched(name, EndReason.FAILED), clock)
        for sink in recovery.watchers:
            frame.send(sink, recovery.session_sinks.get(sink))
        for left in recovery.line.dissolve(LeaveReason.FAILED):
            fields = left_fields(name, left)
            if self._deps.tell_elsewhere is not None:
                self._deps.tell_elsewhere(left.session, fields)
            frame = ResourceFrame(events.RESOURCE_QUEUE, fields, clock)
            sockets = self._deps.sessions.sockets(left.session)
            for sink in sockets.registry:
                frame.send(sink, None)
            for session_sink in sockets.session:
                frame.send(session_sink, session_sink)

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "resources": len(self._registry.running()),
            "resource recoveries": len(self._recoveries),
            **self._deps.interests.debug_counts(),
        }
