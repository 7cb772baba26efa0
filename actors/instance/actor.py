"""An instance as an actor: a shell around `reileta.instance.Instance` that owns seats and fan-out.

It feeds the rules in the order of its mailbox, and carries out what they return; one drain is one
write to each socket inside (or a few, if much is said in it). Nothing here waits for the database:
what must be durable is written beside the actor, and takes effect when it is (so realtime goes on
when the database does not).

After a crash, a fresh incarnation seats again those whose sockets are still open (`Roster`), under
the same player ids, and tells them so with `instance-restored`: what was retained is lost, so
clients say it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, assert_never

import structlog
import trio

from actors.delivery.fanout import Fanout
from actors.delivery.sink import Seat, Sink
from actors.directory import Occupancy
from actors.instance.config import Surroundings
from actors.instance.frames import Speech
from actors.instance.messages import (
    Absent,
    Administers,
    Admit,
    Ask,
    Change,
    Close,
    Dismiss,
    Enter,
    Exit,
    HandOver,
    Inherit,
    InstanceMessage,
    Moderate,
    Name,
    Present,
    Refuse,
    SeatLost,
    SessionOver,
    SocketLost,
    Speak,
    TellBans,
    TellOn,
    TellPlayers,
    TellQueue,
    Tick,
    Watch,
    Withdraw,
    WriteOn,
    Written,
)
from actors.instance.moderation import Hosting
from actors.instance.moderation_writer import Minutes
from actors.instance.persistence import Keeper
from actors.instance.publisher import Herald
from actors.instance.queue_notifier import Lines
from actors.instance.queue_requests import Admissions
from actors.instance.recovery import Roster, Seated
from actors.instance.relay import Floor
from actors.instance.visibility import ensure_visible
from actors.runtime.actor import Actor
from actors.runtime.deadline import Alarm
from actors.runtime.jobs import Ledger
from reileta import records
from reileta.errors import (
    InstanceNotFound,
    InternalError,
    NotInInstance,
    Overloaded,
)
from reileta.ids import at, new_id
from reileta.protocol import commands, events
from reileta.protocol.frames import failure
from reileta.rules.instance.access import BY_FRIENDS
from reileta.rules.instance.events import (
    CandidateChanged,
    Closed,
    Happening,
    Joined,
    Left,
    QueueChanged,
)
from reileta.rules.instance.instance import Instance

PACED_FROM_S: Final = 0.000_2
REST_LIMIT_S: Final = 0.005
"""A fan-out that took long is followed by a rest as long, and so never takes more than half of the
time: messages that come meanwhile share the next one, which costs hardly more than one alone."""

PART_BYTES: Final = 64 * 1024
"""So much data is written before the drain goes on, so that a player whose data waits for others is
held back before more of it does."""

_log = structlog.get_logger()


class InstanceActor(Actor[InstanceMessage]):
    """One live instance. `roster` outlives this incarnation."""

    def __init__(self, roster: Roster, around: Surroundings) -> None:
        self._roster = roster
        self._around = around
        self._id = roster.record.id
        self._ledger = Ledger(lambda work: self.context.pipe(work, Written))
        self._keeper = Keeper(roster, around.store, self._ledger, lambda: self._hosting.vanish())
        self._minutes = Minutes(
            roster,
            around.store,
            self._ledger,
            lambda delay_s: self._later(delay_s, WriteOn()),
        )
        self._alarm = Alarm(lambda delay_s: self.context.after(delay_s, Tick()), self._now)
        self._dirty = True

    # Life --------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        roster, around = self._roster, self._around
        if roster.fanout is not None:  # what the one before handled, and failed to say
            around.metrics.deliveries_out += roster.fanout.flush()
        exists = await self._keeper.load()
        self._fanout = roster.fanout = Fanout()
        before = roster.rules
        # What was decided before a crash is in force, whether or not it is written by now.
        if before is None:
            bans = [self._absolute(ban) for ban in roster.bans]
            moderators = [at(user, around.address) for user in roster.moderators]
        else:
            bans = list(before.bans.values())
            moderators = list(before.roles.moderators)
        self._rules = self._make_rules(
            roster.record,
            owner=at(roster.record.owner, around.address),
            bans=bans,
            moderators=moderators,
            mutes=() if before is None else before.moderation.mutes.values(),
            limits=around.limits,
            now=self._now(),
            new_player_id=lambda: new_id("p"),
        )
        self._speech = Speech(self._rules)
        self._floor = Floor(
            self._rules,
            roster,
            self._fanout,
            self._speech,
            around.directory,
            around.clock,
            paced=around.paced,
        )
        self._herald = Herald(
            self._rules,
            hub=around.hub,
            directory=around.directory,
            metrics=around.metrics,
            address=around.address,
            secure=around.secure,
        )
        self._lines = Lines(
            self._rules,
            roster,
            self._fanout,
            self._herald,
            directory=around.directory,
            address=around.address,
            later=lambda delay_s: self._later(delay_s, TellOn()),
        )
        self._floor.heed_watchers()
        self._restore()
        self._hosting = Hosting(
            self._rules,
            roster,
            self._fanout,
            self._herald,
            keeper=self._keeper,
            minutes=self._minutes,
            directory=around.directory,
            clock=around.clock,
            address=around.address,
            carry_out=self._carry_out,
            settle=self._settle,
        )
        self._admissions = Admissions(
            self._rules, self._lines, around.directory, around.clock, around.address
        )
        roster.rules = self._rules
        if before is not None:
            self._carry_out(self._rules.resume(before.candidates, before.invited, self._now()))
            self._lines.resume()
            self._minutes.resume()
        if not exists:
            self._hosting.vanish()
        await self.flush()  # for there may be no message for a long time

    def _later(self, delay_s: float, message: TellOn | WriteOn) -> None:
        if delay_s > 0:
            self.context.after(delay_s, message)
        else:
            self.context.ref.signal(message)

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
        if isinstance(message, Speak):  # nearly every message
            self._floor.speak(message)
            if self._fanout.gathered > PART_BYTES:
                self._deliver()
            return
        ensure_visible(self._rules, message)
        match message:
            case Enter():
                self._enter(message)
            case Exit():
                self._exit(message)
            case SocketLost():
                self._socket_lost(message)
            case SessionOver():
                self._carry_out(self._rules.leave(message.session, self._now()))
            case Ask() | Withdraw() | Admit() | Refuse():
                if self._hosting.closing:
                    raise InstanceNotFound
                self._carry_out(self._admissions.line_up(message))
            case Present() | Absent():
                self._admissions.heed(message)
            case TellQueue() | TellPlayers():
                self._admissions.answer(message)
            case Change() | Close() | Moderate() | HandOver() | Name() | Dismiss() | TellBans():
                self._hosting.obey(message)
            case TellOn():
                self._lines.on()
            case Inherit():
                self._hosting.inherit(message)
            case Administers():
                self._hosting.heed_admin(message)
            case WriteOn():
                self._minutes.begin()
            case Watch():
                self._floor.heed_watcher(message.sink)
            case Tick():
                self._alarm.rang()
                self._carry_out(self._rules.tick(self._now()))
            case Written():
                self._ledger.written(message.result)
            case _:
                assert_never(message)

    def on_crash(self, message: InstanceMessage) -> None:
        if isinstance(message, Speak):
            error = failure(commands.INSTANCE_DATA, message.state, self._id, InternalError())
            message.sink.send(error)

    async def flush(self) -> None:
        self._lines.tell()
        begun = trio.current_time()
        self._deliver()
        took_s = trio.current_time() - begun
        if took_s >= PACED_FROM_S:
            self.context.rest(min(took_s, REST_LIMIT_S))
        if self._dirty:
            self._settle()
        self._alarm.set(self._rules.next_deadline())

    def _deliver(self) -> None:
        """Writes to each socket what there is for it so far."""
        delivered = self._fanout.flush()
        self._around.metrics.deliveries_out += delivered
        self.context.sent(delivered, self._fanout.reached)

    def _now(self) -> int:
        return self._around.clock.now_ms()

    # Coming and going --------------------------------------------------------------------------

    def _enter(self, message: Enter) -> None:
        if self._hosting.closing:
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
        self._floor.heed_watchers()  # one may have begun before this instance could be told
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

    # What follows ------------------------------------------------------------------------------

    def _carry_out(self, happenings: Sequence[Happening], *, asked: Sink | None = None) -> None:
        """Tells those concerned what happened, in order; `asked` has an answer instead."""
        for happening in happenings:
            self._dirty = True
            if isinstance(happening, Joined):
                frame, data = self._speech.joined(happening.player)
                self._fanout.broadcast(frame, without=self._roster.sinks_of((happening.player,)))
                self._herald.tell(events.INSTANCE_JOINED, data)
            elif isinstance(happening, Left):
                self._stand(happening, asked)
            elif isinstance(happening, CandidateChanged):
                self._lines.changed(happening)
            elif isinstance(happening, QueueChanged):
                self._lines.moved()
            elif isinstance(happening, Closed):
                self._end(happening)
            else:
                self._hosting.tell(happening)

    def _stand(self, left: Left, asked: Sink | None) -> None:
        player = left.player
        others, data = self._speech.left(left)
        aside = self._speech.aside(left)
        self._speech.forget(player.id)
        self._floor.forget(player.id)
        seated = self._roster.seated.pop(player.session, None)
        sinks = () if seated is None else tuple(seated.sinks)
        for sink in sinks:
            self._fanout.remove(sink)
            sink.seats.pop(self._id, None)
            if sink is not asked:
                self._fanout.private(sink, aside)
            self._floor.heed_watcher(sink)
        self._fanout.broadcast(others)
        if seated is not None:
            seated.session.signal(SeatLost(self._id, player.id))
        self._herald.tell(events.INSTANCE_LEFT, data, told=sinks)

    def _end(self, closed: Closed) -> None:
        """The instance is over. One that stood empty leaves the database as well."""
        _log.info("instance.ended", instance=self._id, reason=closed.reason)
        if closed.reason == "empty" and not self._hosting.closing:
            self._hosting.closing = True
            # Should the database be away, the node's sweep finds it later.
            self._keeper.delete(lambda _: None)
        self.context.ref.drain()

    def _settle(self) -> None:
        """Puts who is inside where others read it, and tells those who watch the object."""
        self._dirty = False
        rules, around = self._rules, self._around
        occupancy = Occupancy(
            rules.connected,
            rules.queued,
            rules.master,
            full=rules.free <= 0,
            by_friends=rules.access in BY_FRIENDS,
            audience=rules.audience.frozen(),
        )
        around.directory.occupy(self._id, occupancy)
        if not self._hosting.closing:
            self._keeper.note(lambda: self._rules.empty_since)
        self._herald.update()

    def _absolute(self, ban: records.Ban) -> records.Ban:
        here = self._around.address
        return replace(ban, user=at(ban.user, here), by=at(ban.by, here))
