"""An instance as an actor: a shell around `reileta.instance.Instance` that owns seats and fan-out.

It feeds the rules in the order of its mailbox, and carries out what they return; one drain is one
write to each socket inside (or a few, if much is said in it). Nothing here waits for the database:
what must be durable is written beside the actor, and takes effect when it is (so realtime goes on
when the database does not).

After a crash, a fresh incarnation seats again those whose sockets are still open (`RecoveryState`),
under the same player ids, and tells them so with `instance-restored`: what was retained is lost, so
clients say it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, assert_never

import structlog
import trio

from actors.delivery.fanout import Fanout
from actors.delivery.sink import InstanceHandle, SendData, Sink
from actors.directory import Occupancy
from actors.hub.messages import RefreshObserver
from actors.instance.config import InstanceConfig
from actors.instance.frames import InstanceFrames
from actors.instance.messages import (
    AddModerator,
    AdmitCandidate,
    CloseInstance,
    ContinueQueueRound,
    GetBans,
    GetPlayers,
    GetQueue,
    InstanceMessage,
    Moderate,
    ReassignOwner,
    RejectCandidate,
    RemoveModerator,
    RequestEntry,
    RetryWrites,
    Tick,
    TransferMaster,
    UpdateInstance,
    WithdrawEntry,
)
from actors.instance.moderation import ModerationRequests
from actors.instance.moderation_writer import ModerationWriter
from actors.instance.persistence import Persistence
from actors.instance.publisher import Publisher
from actors.instance.queue_notifier import QueueNotifier
from actors.instance.queue_requests import QueueRequests
from actors.instance.recovery import Member, RecoveryState
from actors.instance.relay import DataRelay
from actors.instance.visibility import ensure_visible
from actors.membership import (
    AddMember,
    Administers,
    CandidateOffline,
    CandidateOnline,
    MemberSessionEnded,
    RemoveMember,
    SeatLost,
    SocketLost,
)
from actors.runtime.actor import Actor
from actors.runtime.jobs import SerialJobs
from reileta import records
from reileta.errors import (
    InstanceNotFound,
    InternalError,
    NotInInstance,
    Overloaded,
)
from reileta.ids import at, new_id
from reileta.observability import log_events
from reileta.protocol import commands, events
from reileta.protocol.frames import failure
from reileta.rules.instance.access import BY_FRIENDS
from reileta.rules.instance.data_rate import InstanceRates
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
    """One live instance. `recovery` outlives this incarnation."""

    def __init__(self, recovery: RecoveryState, around: InstanceConfig) -> None:
        self._recovery = recovery
        self._around = around
        self._id = recovery.record.id
        self._dirty = True

    # Life --------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        recovery, around = self._recovery, self._around
        self._jobs = jobs = SerialJobs(self.context)
        self._persistence = Persistence(
            recovery, around.store, jobs, lambda: self._moderation.vanish()
        )
        self._moderation_writer = ModerationWriter(
            recovery,
            around.store,
            jobs,
            lambda delay_s: self._later(delay_s, RetryWrites()),
        )
        self._deadline = self.context.deadline(Tick(), around.clock)
        if recovery.fanout is not None:  # what the one before handled, and failed to say
            around.metrics.deliveries_out += recovery.fanout.flush()
        exists = await self._persistence.load()
        self._fanout = recovery.fanout = Fanout()
        before = recovery.rules
        # What was decided before a crash is in force, whether or not it is written by now.
        if before is None:
            bans = [self._absolute(ban) for ban in recovery.bans]
            moderators = [at(user, around.address) for user in recovery.moderators]
        else:
            bans = list(before.bans.values())
            moderators = list(before.roles.moderators)
        self._rules = self._make_rules(
            recovery.record,
            owner=at(recovery.record.owner, around.address),
            bans=bans,
            moderators=moderators,
            mutes=() if before is None else before.moderation.mutes.values(),
            limits=around.limits,
            now=self._now(),
            new_player_id=lambda: new_id("p"),
        )
        self._encoder = InstanceFrames(self._rules)
        self._relay = DataRelay(
            self._rules,
            recovery,
            self._fanout,
            self._encoder,
            around.directory,
            around.clock,
            self._data_rates(),
            paced=around.paced,
        )
        self._publisher = Publisher(
            self._rules,
            hub=around.hub,
            directory=around.directory,
            address=around.address,
            secure=around.secure,
        )
        self._lines = QueueNotifier(
            self._rules,
            recovery,
            self._fanout,
            self._publisher,
            directory=around.directory,
            address=around.address,
            later=lambda delay_s: self._later(delay_s, ContinueQueueRound()),
        )
        self._relay.heed_watchers()
        self._restore()
        self._moderation = ModerationRequests(
            self._rules,
            recovery,
            self._fanout,
            self._publisher,
            persistence=self._persistence,
            moderation_writer=self._moderation_writer,
            directory=around.directory,
            clock=around.clock,
            address=around.address,
            carry_out=self._carry_out,
            settle=self._settle,
        )
        self._queue_requests = QueueRequests(
            self._rules, self._lines, around.directory, around.clock, around.address
        )
        recovery.rules = self._rules
        if before is not None:
            self._carry_out(self._rules.resume(before.candidates, before.invited, self._now()))
            self._lines.resume()
            self._moderation_writer.resume()
        if not exists:
            self._moderation.vanish()
        await self.flush()  # for there may be no message for a long time

    def _data_rates(self) -> InstanceRates:
        """The rates of those inside, which outlive a crash."""
        rates = self._recovery.rates
        if rates is None:
            rates = self._recovery.rates = InstanceRates(self._around.backlog_limit_bytes)
        return rates

    def _later(self, delay_s: float, message: ContinueQueueRound | RetryWrites) -> None:
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
        inside = tuple(self._recovery.seated.values())
        for seated in inside:
            self._rules.restore(seated.visitor, seated.player, now)
        for seated in inside:
            for sink in seated.sinks:
                sink.seats[self._id] = InstanceHandle(self.context.ref, seated.player.id)
                self._fanout.add(sink, self._encoder.restored(seated.player))
        for seated in inside:
            if not seated.sinks:
                self._carry_out(self._rules.lost(seated.visitor.session, now))

    # Messages ----------------------------------------------------------------------------------

    async def receive(self, message: InstanceMessage) -> None:
        if isinstance(message, SendData):  # nearly every message
            self._relay.speak(message)
            if self._fanout.gathered > PART_BYTES:
                self._deliver()
            return
        ensure_visible(self._rules, message)
        match message:
            case AddMember():
                self._enter(message)
            case RemoveMember():
                self._exit(message)
            case SocketLost():
                self._socket_lost(message)
            case MemberSessionEnded():
                self._carry_out(self._rules.leave(message.session, self._now()))
            case RequestEntry() | WithdrawEntry() | AdmitCandidate() | RejectCandidate():
                if self._moderation.closing:
                    raise InstanceNotFound
                self._carry_out(self._queue_requests.line_up(message))
            case CandidateOnline() | CandidateOffline():
                self._queue_requests.heed(message)
            case GetQueue() | GetPlayers():
                self._queue_requests.answer(message)
            case (
                UpdateInstance()
                | CloseInstance()
                | Moderate()
                | TransferMaster()
                | AddModerator()
                | RemoveModerator()
                | GetBans()
            ):
                self._moderation.obey(message)
            case ContinueQueueRound():
                self._lines.on()
            case ReassignOwner():
                self._moderation.inherit(message)
            case Administers():
                self._moderation.heed_admin(message)
            case RetryWrites():
                self._moderation_writer.begin()
            case RefreshObserver():
                self._relay.heed_watcher(message.sink)
            case Tick():
                self._deadline.fired()
                self._carry_out(self._rules.tick(self._now()))
            case _:
                assert_never(message)

    def on_crash(self, message: InstanceMessage) -> None:
        if isinstance(message, SendData):
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
        self._deadline.set(self._rules.next_deadline())

    def _deliver(self) -> None:
        """Writes to each socket what there is for it so far."""
        delivered = self._fanout.flush()
        self._around.metrics.deliveries_out += delivered
        self.context.sent(delivered, self._fanout.reached)

    def _now(self) -> int:
        return self._around.clock.now_ms()

    # Coming and going --------------------------------------------------------------------------

    def _enter(self, message: AddMember) -> None:
        if self._moderation.closing:
            raise InstanceNotFound
        sink, visitor = message.sink, message.visitor
        seated = self._recovery.seated.get(visitor.session)
        again = seated is not None and sink in seated.sinks
        if again and sink.waiting_bytes:
            raise Overloaded
        player, happenings = self._rules.join(visitor, self._now())
        if seated is None:
            seated = self._recovery.seated[visitor.session] = Member(
                visitor, player, message.session
            )
        seated.session = message.session  # it may have been put away, and started anew
        self._relay.heed_watchers()  # one may have begun before this instance could be told
        self._carry_out(happenings)
        welcome = (
            None if message.state is None else self._encoder.welcome_parts(player, message.state)
        )
        seated.sinks[sink] = None
        sink.seats[self._id] = InstanceHandle(self.context.ref, player.id)
        if not again:
            self._fanout.add(sink, welcome)
        elif welcome is not None:
            self._fanout.answer(sink, welcome)
        message.reply(player.id)

    def _exit(self, message: RemoveMember) -> None:
        seated = self._recovery.seated.get(message.session)
        if seated is None:
            raise NotInInstance
        sink, player = message.sink, seated.player
        self._carry_out(self._rules.leave(message.session, self._now()), asked=sink)
        if message.state is not None:
            self._fanout.private(sink, self._encoder.farewell(player.id, message.state))
        message.reply(None)

    def _socket_lost(self, message: SocketLost) -> None:
        sink = message.sink
        self._fanout.remove(sink)
        sink.seats.pop(self._id, None)
        seated = self._recovery.seated.get(message.session)
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
                frame, data = self._encoder.joined(happening.player)
                self._fanout.broadcast(frame, without=self._recovery.sinks_of((happening.player,)))
                self._publisher.tell(events.INSTANCE_JOINED, data)
            elif isinstance(happening, Left):
                self._stand(happening, asked)
            elif isinstance(happening, CandidateChanged):
                self._lines.changed(happening)
            elif isinstance(happening, QueueChanged):
                self._lines.moved()
            elif isinstance(happening, Closed):
                self._end(happening)
            else:
                self._moderation.tell(happening)

    def _stand(self, left: Left, asked: Sink | None) -> None:
        player = left.player
        others, data = self._encoder.left(left)
        aside = self._encoder.aside(left)
        self._encoder.forget(player.id)
        self._relay.forget(player)
        seated = self._recovery.seated.pop(player.session, None)
        sinks = () if seated is None else tuple(seated.sinks)
        for sink in sinks:
            self._fanout.remove(sink)
            sink.seats.pop(self._id, None)
            if sink is not asked:
                self._fanout.private(sink, aside)
            self._relay.heed_watcher(sink)
        self._fanout.broadcast(others)
        if seated is not None:
            seated.session.signal(SeatLost(self._id, player.id))
        self._publisher.tell(events.INSTANCE_LEFT, data, told=sinks)

    def _end(self, closed: Closed) -> None:
        """The instance is over. One that stood empty leaves the database as well."""
        _log.info(log_events.INSTANCE_ENDED, instance=self._id, reason=closed.reason)
        if closed.reason == "empty" and not self._moderation.closing:
            self._moderation.closing = True
            # Should the database be away, the node's sweep finds it later.
            self._persistence.delete(lambda _: None)
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
        if not self._moderation.closing:
            self._persistence.note(lambda: self._rules.empty_since)
        self._publisher.update()

    def _absolute(self, ban: records.Ban) -> records.Ban:
        here = self._around.address
        return replace(ban, user=at(ban.user, here), by=at(ban.by, here))
