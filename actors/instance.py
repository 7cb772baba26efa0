"""An instance as an actor: a shell around `reileta.instance.Instance` that owns seats and fan-out.

It feeds the rules in the order of its mailbox, and carries out what they return; one drain is one
write to each socket inside. Nothing here waits for the database: what must be durable is written
beside the actor, and takes effect when it is (so realtime goes on when the database does not).

After a crash, a fresh incarnation seats again those whose sockets are still open (`Roster`), under
the same player ids, and tells them so with `instance-restored`: what was retained is lost, so
clients say it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

import outcome
import structlog
import trio

from actors.actor import Actor
from actors.directory import Directory, Occupancy
from actors.fanout import Fanout
from actors.herald import Herald
from actors.keeper import Keeper
from actors.ledger import Ledger
from actors.messages import (
    Change,
    Close,
    Enter,
    Exit,
    HubMessage,
    InstanceMessage,
    SeatLost,
    SessionOver,
    SocketLost,
    Speak,
    Tick,
    Watch,
    Written,
)
from actors.ref import Ref
from actors.roster import Roster, Seated
from actors.sink import Seat, Sink
from actors.speech import Speech
from actors.timer import Timer
from reileta import commands, events, records
from reileta.clock import Clock
from reileta.errors import (
    InstanceNotFound,
    InternalError,
    NotInInstance,
    Overloaded,
    ReiletaError,
)
from reileta.frames import answer, failure
from reileta.happenings import Closed, Happening, Joined, Left
from reileta.ids import at, new_id
from reileta.instance import TO_ALL, Instance, Limits
from reileta.metrics import Metrics
from reileta.store import Store

PACED_FROM_S: Final = 0.000_2
REST_LIMIT_S: Final = 0.005
"""A fan-out that took long is followed by a rest as long, and so never takes more than half of the
time: messages that come meanwhile share the next one, which costs hardly more than one alone."""

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
        self._ledger = Ledger(lambda work: self.context.pipe(work, Written))
        self._keeper = Keeper(roster, around.store, self._ledger, self._vanished)
        self._timer: Timer | None = None
        self._due: int | None = None
        self._dirty = True
        self._closing = False

    # Life --------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        roster, around = self._roster, self._around
        if roster.fanout is not None:  # what the one before handled, and failed to say
            around.metrics.deliveries_out += roster.fanout.flush()
        exists = await self._keeper.load()
        self._fanout = roster.fanout = Fanout()
        self._rules = self._make_rules(
            roster.record,
            owner=at(roster.record.owner, around.address),
            bans=[self._absolute(ban) for ban in roster.bans],
            limits=around.limits,
            now=self._now(),
            new_player_id=lambda: new_id("p"),
        )
        self._speech = Speech(self._rules)
        self._herald = Herald(
            self._rules,
            hub=around.hub,
            directory=around.directory,
            metrics=around.metrics,
            address=around.address,
            secure=around.secure,
        )
        self._heed_watchers()
        self._restore()
        if not exists:
            self._vanished()
        await self.flush()  # for there may be no message for a long time

    def _make_rules(self, record: records.Instance, **rest: Any) -> Instance:
        """The rules, from the arguments of `Room`: where a recording begins."""
        return Instance(record, **rest)

    def _restore(self) -> None:
        """Seats those inside again, and tells them; each is told of all."""
        now = self._now()
        inside = tuple(self._roster.seated.values())
        for seated in inside:
            self._rules.restore(seated.visitor, seated.player, now)
        for seated in inside:
            for sink in seated.sinks:
                sink.seats[self._id] = Seat(self.context.ref, seated.player.id)
                self._fanout.add(sink, self._speech.restored(seated.player))
        for seated in inside:
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
                self._heed_watcher(message.sink)
            case Tick():
                self._timer = self._due = None
                self._carry_out(self._rules.tick(self._now()))
            case Written():
                self._ledger.written(message.result)
            case _:
                assert_never(message)

    def on_crash(self, message: InstanceMessage) -> None:
        if isinstance(message, Speak):
            message.sink.send(
                failure(commands.INSTANCE_DATA, message.state, self._id, InternalError())
            )

    async def flush(self) -> None:
        begun = trio.current_time()
        delivered = self._fanout.flush()
        took_s = trio.current_time() - begun
        if took_s >= PACED_FROM_S:
            self.context.rest(min(took_s, REST_LIMIT_S))
        self._around.metrics.deliveries_out += delivered
        self.context.sent(delivered, self._fanout.reached)
        if self._dirty:
            self._settle()
        self._schedule()

    def _now(self) -> int:
        return self._around.clock.now_ms()

    def _heed_watchers(self) -> None:
        for sink in self._around.directory.watchers(self._id):
            self._heed_watcher(sink)

    def _heed_watcher(self, sink: Sink) -> None:
        """Has a socket that is not inside get data, or not, as the directory says."""
        if self._around.directory.watches(sink, self._id):
            if sink not in self._fanout:
                self._fanout.add(sink, None, watcher=True)
        elif self._fanout.watched_by(sink):
            self._fanout.remove(sink)

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
        seated.session = message.session  # it may have been put away, and started anew
        self._heed_watchers()  # one may have begun before this instance could be told
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
        planned = self._rules.plan(message.by, message.changes)
        message.defer()

        def written(result: outcome.Outcome[object]) -> None:
            if isinstance(result, outcome.Error):
                message.slot.put(result)
                return
            try:
                record, happenings = self._rules.update(message.by, message.changes, self._now())
            except ReiletaError as error:  # people came in while it was written, or it ended
                if not self._rules.closed:
                    self._keeper.restore(lambda: self._rules.record)
                message.fail(error)
                return
            self._roster.record = record
            self._carry_out(happenings)
            message.reply(record)

        self._keeper.change(planned, message.changes, written)

    def _close(self, message: Close) -> None:
        self._rules.ensure_governs(message.by)
        if self._closing:
            raise InstanceNotFound
        self._closing = True
        message.defer()

        def written(result: outcome.Outcome[object]) -> None:
            if isinstance(result, outcome.Error):
                self._closing, self._dirty = False, True
                message.slot.put(result)
                return
            self._carry_out(self._rules.close(None, self._now()))
            message.reply(None)

        self._keeper.delete(written)

    def _vanished(self) -> None:
        """The database knows it no longer: it is over, and whoever is inside is told."""
        if self._closing:
            return
        self._closing = True
        self._carry_out(self._rules.close(None, self._now()))

    # What follows ------------------------------------------------------------------------------

    def _carry_out(self, happenings: Sequence[Happening], *, asked: Sink | None = None) -> None:
        """Tells those concerned what happened, in order; `asked` has an answer instead."""
        for happening in happenings:
            self._dirty = True
            if isinstance(happening, Joined):
                frame, data = self._speech.joined(happening.player)
                self._fanout.broadcast(frame, without=self._own(happening.player.id))
                self._herald.tell(events.INSTANCE_JOINED, data)
            elif isinstance(happening, Left):
                self._stand(happening, asked)
            elif isinstance(happening, Closed):
                self._end(happening)

    def _stand(self, left: Left, asked: Sink | None) -> None:
        player = left.player
        others, data = self._speech.left(left)
        aside = self._speech.aside(left)
        self._speech.forget(player.id)
        seated = self._roster.seated.pop(player.session, None)
        sinks = () if seated is None else tuple(seated.sinks)
        for sink in sinks:
            self._fanout.remove(sink)
            sink.seats.pop(self._id, None)
            if sink is not asked:
                self._fanout.private(sink, aside)
            self._heed_watcher(sink)
        self._fanout.broadcast(others)
        if seated is not None:
            seated.session.signal(SeatLost(self._id, player.id))
        self._herald.tell(events.INSTANCE_LEFT, data, told=sinks)

    def _end(self, closed: Closed) -> None:
        """The instance is over. One that stood empty leaves the database as well."""
        _log.info("instance.ended", instance=self._id, reason=closed.reason)
        if closed.reason == "empty" and not self._closing:
            self._closing = True
            # Should the database be away, the node's sweep finds it later.
            self._keeper.delete(lambda _: None)
        self.context.ref.drain()

    def _settle(self) -> None:
        """Puts who is inside where others read it, and tells those who watch the object."""
        self._dirty = False
        rules, around = self._rules, self._around
        occupancy = Occupancy(rules.connected, rules.queued, rules.master, rules.free <= 0)
        around.directory.occupy(self._id, occupancy)
        if not self._closing:
            self._keeper.note(lambda: self._rules.empty_since)
        self._herald.update()

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
