"""An instance as an actor: a shell around `reileta.instance.Instance` that owns seats and fan-out.

It feeds the rules in the order of its mailbox, and carries out what they return; one drain is one
write to each socket inside. Nothing here waits for the database: what must be durable is written
beside the actor, and takes effect when it is (so realtime goes on when the database does not).

After a crash, a fresh incarnation seats again those whose sockets are still open (`Roster`), under
the same player ids, and tells them so with `instance-restored`: what was retained is lost, so
clients say it anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import outcome
import structlog

from actors.actor import Actor
from actors.directory import Directory, Occupancy
from actors.fanout import Fanout
from actors.messages import (
    Change,
    Close,
    Enter,
    Exit,
    HubMessage,
    InstanceMessage,
    Publish,
    SeatLost,
    SessionOver,
    SocketLost,
    Speak,
    Tick,
    Unwatch,
    Viewer,
    Watch,
    Written,
)
from actors.ref import Ref
from actors.roster import Roster, Seated
from actors.sink import Seat, Sink
from actors.speech import Speech
from actors.timer import Timer
from reileta import commands, events, records, views
from reileta.clock import Clock
from reileta.errors import (
    DatabaseUnavailable,
    InstanceInvalid,
    InstanceNotFound,
    InternalError,
    NotInInstance,
    Overloaded,
    ReiletaError,
)
from reileta.frames import answer, encode, failure, payload_of
from reileta.happenings import Closed, Happening, Joined, Left
from reileta.ids import at, new_id
from reileta.instance import TO_ALL, Instance, Limits
from reileta.metrics import Metrics
from reileta.store import Store

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every instance of a node shares."""

    store: Store
    clock: Clock
    address: str
    secure: bool
    limits: Limits
    directory: Directory
    metrics: Metrics
    hub: Ref[HubMessage]


class InstanceActor(Actor[InstanceMessage]):
    """One live instance. `roster` outlives this incarnation."""

    def __init__(self, roster: Roster, around: Surroundings) -> None:
        self._roster = roster
        self._around = around
        self._id = roster.record.id
        self._fanout = Fanout()
        self._timer: Timer | None = None
        self._due: int | None = None
        self._dirty = True
        self._closing = False

    # Life --------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        await self._load()
        roster, around = self._roster, self._around
        self._rules = Instance(
            roster.record,
            owner=at(roster.record.owner, around.address),
            bans=[self._absolute(ban) for ban in roster.bans],
            limits=around.limits,
            now=around.clock.now_ms(),
            new_player_id=lambda: new_id("p"),
        )
        self._speech = Speech(self._rules)
        self._occupied = False
        for sink in around.directory.watchers:
            self._fanout.add(sink, None, watcher=True)
        for seated in roster.seated.values():
            self._restore(seated)
        self._settle()

    async def _load(self) -> None:
        """Reads the record and its bans; what was last known serves when a restart can't."""
        store = self._around.store
        try:
            record = await store.instances.get(self._id)
            if record is not None:
                self._roster.record = record
                self._roster.bans = tuple(await store.bans.of(self._id))
        except DatabaseUnavailable:
            if not self._roster.seated:
                raise
            return
        if record is None and not self._roster.seated:
            raise InstanceNotFound

    def _restore(self, seated: Seated) -> None:
        now = self._around.clock.now_ms()
        self._rules.restore(seated.visitor, seated.player, now)
        for sink in seated.sinks:
            sink.seats[self._id] = Seat(self.context.ref, seated.player.id)
            self._fanout.add(sink, self._speech.restored(seated.player))
        if not seated.sinks:
            self._carry_out(self._rules.lost(seated.visitor.session, now))

    # Messages ----------------------------------------------------------------------------------

    async def receive(self, message: InstanceMessage) -> None:
        match message:
            case Speak():
                self._speak(message)
            case Enter():
                self._enter(message)
            case Exit():
                self._exit(message)
            case SocketLost():
                self._socket_lost(message)
            case SessionOver():
                self._carry_out(self._rules.leave(message.session, self._now()))
            case Change():
                self._change(message)
            case Close():
                self._close(message)
            case Watch():
                if message.sink not in self._fanout:
                    self._fanout.add(message.sink, None, watcher=True)
            case Unwatch():
                if self._fanout.watched_by(message.sink):
                    self._fanout.remove(message.sink)
            case Tick():
                self._timer = self._due = None
                self._carry_out(self._rules.tick(self._now()))
            case Written():
                message.then(message.result)
            case _:
                assert_never(message)

    def on_crash(self, message: InstanceMessage) -> None:
        if isinstance(message, Speak):
            message.sink.send(
                failure(commands.INSTANCE_DATA, message.state, self._id, InternalError())
            )

    async def flush(self) -> None:
        self._around.metrics.deliveries_out += self._fanout.flush()
        if self._dirty:
            self._settle()
        self._schedule()

    def _now(self) -> int:
        return self._around.clock.now_ms()

    # What players do ---------------------------------------------------------------------------

    def _speak(self, message: Speak) -> None:
        sink, player = message.sink, message.player
        try:
            spoken = self._rules.speak(
                player, message.key, message.at, message.to, message.data, self._now()
            )
        except ReiletaError as error:
            self._fanout.private(
                sink, failure(commands.INSTANCE_DATA, message.state, self._id, error)
            )
            return
        if not spoken.dropped:
            voice = self._speech.voice(player)
            key = message.key
            if key is None and message.at is None:
                frame = voice.plain(message.data)
                conflation = None
            else:
                frame = voice.keyed(key, message.at, message.data)
                conflation = None if key is None else (self._id, player, key)
            if spoken is TO_ALL or spoken.to is None:
                self._fanout.broadcast(frame, conflation, without=self._own(player), data=True)
            else:
                for other in spoken.to:
                    if other != player:
                        for receiver in self._own(other):
                            self._fanout.private(receiver, frame, conflation)
        if message.state is not None:
            self._fanout.private(sink, answer(commands.INSTANCE_DATA, message.state, self._id))

    def _own(self, player_id: str) -> tuple[Sink, ...]:
        """A player's own sockets."""
        player = self._rules.players.get(player_id)
        seated = None if player is None else self._roster.seated.get(player.session)
        return () if seated is None else tuple(seated.sinks)

    def _enter(self, message: Enter) -> None:
        if self._closing:
            raise InstanceNotFound
        sink, visitor = message.sink, message.visitor
        seated = self._roster.seated.get(visitor.session)
        again = seated is not None and sink in seated.sinks
        if again and sink.waiting_bytes:
            raise Overloaded
        player, happenings = self._rules.join(visitor, self._now())
        if seated is None:
            seated = self._roster.seated[visitor.session] = Seated(visitor, player, message.session)
        self._carry_out(happenings)
        welcome = None if message.state is None else self._speech.welcome(player, message.state)
        seated.sinks[sink] = None
        sink.seats[self._id] = Seat(self.context.ref, player.id)
        if not again:
            self._fanout.add(sink, welcome)
        elif welcome is not None:
            self._fanout.private(sink, welcome)
        message.reply(player.id)

    def _exit(self, message: Exit) -> None:
        seated = self._roster.seated.get(message.session)
        if seated is None:
            raise NotInInstance
        sink, player = message.sink, seated.player
        self._carry_out(self._rules.leave(message.session, self._now()), asked=sink)
        if message.state is not None:
            self._fanout.private(sink, self._speech.farewell(player.id, message.state))
        message.reply(None)

    def _socket_lost(self, message: SocketLost) -> None:
        sink = message.sink
        self._fanout.remove(sink)
        sink.seats.pop(self._id, None)
        seated = self._roster.seated.get(message.session)
        if seated is not None and sink in seated.sinks:
            del seated.sinks[sink]
            if not seated.sinks:
                self._carry_out(self._rules.lost(message.session, self._now()))

    # What hosts do -----------------------------------------------------------------------------

    def _change(self, message: Change) -> None:
        """Writes the change down, then lets it take effect."""
        self._rules.plan(message.by, message.changes)
        message.defer()

        def written(result: outcome.Outcome[object]) -> None:
            if isinstance(result, outcome.Error):
                message.slot.put(result)
                return
            try:
                record, happenings = self._rules.update(message.by, message.changes, self._now())
            except InstanceInvalid as error:  # people came in while it was written
                self._write(self._save, lambda _: None)
                message.fail(error)
                return
            self._roster.record = record
            self._carry_out(happenings)
            message.reply(record)

        self._write(
            lambda: self._around.store.instances.update(self._id, **message.changes.given()),
            written,
        )

    async def _save(self) -> object:
        """Writes the record as it is in force."""
        current = self._rules.record
        return await self._around.store.instances.update(
            self._id,
            title=current.title,
            description=current.description,
            capacity=current.capacity,
            tags=current.tags,
        )

    def _close(self, message: Close) -> None:
        self._rules.ensure_governs(message.by)
        if self._closing:
            raise InstanceNotFound
        self._closing = True
        message.defer()

        def written(result: outcome.Outcome[object]) -> None:
            if isinstance(result, outcome.Error):
                self._closing = False
                message.slot.put(result)
                return
            self._carry_out(self._rules.close(None, self._now()))
            message.reply(None)

        self._write(lambda: self._around.store.instances.delete(self._id), written)

    def _write(
        self,
        work: Callable[[], Awaitable[object]],
        then: Callable[[outcome.Outcome[object]], None],
    ) -> None:
        """Does something in the database, beside the actor; `then` runs inside of it."""
        self.context.pipe(work, lambda result: Written(result, then))

    # What follows ------------------------------------------------------------------------------

    def _carry_out(self, happenings: Sequence[Happening], *, asked: Sink | None = None) -> None:
        """Tells those concerned what happened, in order; `asked` has an answer instead."""
        for happening in happenings:
            self._dirty = True
            if isinstance(happening, Joined):
                frame = self._speech.joined(happening.player)
                self._fanout.broadcast(frame, without=self._own(happening.player.id))
                self._publish(events.INSTANCE_JOINED, payload_of(frame))
            elif isinstance(happening, Left):
                self._stand(happening, asked)
            elif isinstance(happening, Closed):
                self._end(happening)

    def _stand(self, left: Left, asked: Sink | None) -> None:
        player = left.player
        others, aside = self._speech.left(left)
        self._speech.forget(player.id)
        seated = self._roster.seated.pop(player.session, None)
        sinks = () if seated is None else tuple(seated.sinks)
        for sink in sinks:
            self._fanout.remove(sink)
            sink.seats.pop(self._id, None)
            if sink is not asked:
                self._fanout.private(sink, aside)
        self._fanout.broadcast(others)
        if seated is not None:
            seated.session.signal(SeatLost(self._id))
        self._publish(events.INSTANCE_LEFT, payload_of(others))

    def _end(self, closed: Closed) -> None:
        """The instance is over. One that stood empty leaves the database as well."""
        _log.info("instance.ended", instance=self._id, reason=closed.reason)
        if closed.reason == "empty" and not self._closing:
            self._closing = True
            # Should the database be away, the node's sweep finds it later.
            self._write(lambda: self._around.store.instances.delete(self._id), lambda _: None)
        self.context.ref.drain()

    def _settle(self) -> None:
        """Puts who is inside where others read it, and tells those who watch the object."""
        self._dirty = False
        rules, around = self._rules, self._around
        occupancy = Occupancy(rules.connected, rules.queued, rules.master, rules.free <= 0)
        around.directory.occupy(self._id, occupancy)
        occupied = rules.empty_since is None
        if occupied != self._occupied:
            self._occupied = occupied
            since = rules.empty_since
            self._write(lambda: around.store.instances.occupied(self._id, since), lambda _: None)
        self._publish_object()

    def _publish_object(self) -> None:
        around = self._around
        record, occupancy = self._rules.record, around.directory.occupancy(self._id)

        def render() -> bytes:
            return encode(
                views.instance_view(
                    record,
                    connected=occupancy.connected,
                    queued=occupancy.queued,
                    master=occupancy.master,
                    address=around.address,
                    secure=around.secure,
                )
            )

        self._publish(events.UPDATE_INSTANCE, render, also_inside=True)

    def _publish(
        self, event: str, data: Callable[[], bytes] | bytes, *, also_inside: bool = False
    ) -> None:
        """Hands an event to the hub, for those who subscribed to it and may see the instance."""
        rules, address = self._rules, self._around.address
        public = rules.may_see(None)
        owner = rules.owner
        known = frozenset() if public else frozenset(rules.seats.users)

        def render(viewer: Viewer) -> bytes | None:
            user = at(viewer.user, address)
            if not (public or viewer.admin or user == owner or user in known):
                return None
            return data if isinstance(data, bytes) else data()

        try:
            self._around.hub.tell(
                Publish(event, self._id, render, None if also_inside else self._id)
            )
        except Overloaded:
            self._around.metrics.mailbox_refused += 1

    def _schedule(self) -> None:
        """Sets the timer for the next thing that the rules have to do in time."""
        due = self._rules.next_deadline()
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due is not None:
            delay_s = max(0, due - self._now()) / 1000
            self._timer = self.context.after(delay_s, Tick())

    def _absolute(self, ban: records.Ban) -> records.Ban:
        address = self._around.address
        return replace(ban, user=at(ban.user, address), by=at(ban.by, address))
