"""An instance as an actor: a shell around the rules of `reileta/rules/instance/instance.py`.

It passes messages to the rules in the order of its mailbox. The rules return events, and the actor
applies each in one place (`_apply`): `persistence.py` writes it and `notifications.py` delivers it.
Its helpers share one object of parts (`parts.py`); they return events and never call the actor.

One drain is one write to each socket inside, or a few if it has much data. Nothing here waits for
the database: writes run beside the actor, so the instance works while the database is down.

In a cluster, an instance is **suspended** while its node's lease has run out: it keeps its state
and its sockets, and writes, answers and sends nothing. Data and requests are refused, other
messages wait. It goes on when the lease is confirmed again, or is dropped when the node has fallen.

After a crash, a fresh incarnation gives the members whose sockets are still open their seats back,
with the same player ids (`recovery.py`), and sends them `instance-restored`. Retained values are
lost, so clients send them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar, assert_never

import msgspec
import outcome
import trio

from actors.delivery.fanout import Fanout
from actors.delivery.pacing import FanoutPace
from actors.delivery.sink import Sink
from actors.directory import Occupancy
from actors.hub.messages import RefreshObserver
from actors.instance.config import InstanceConfig
from actors.instance.event_log import InstanceLog
from actors.instance.hosted import Holding
from actors.instance.liveness import SilentSinks, ask_whether_there
from actors.instance.members import Members
from actors.instance.messages import (
    Absent,
    AddModerator,
    AdmitCandidate,
    CloseInstance,
    ContinueQueueRound,
    Depart,
    DirectWay,
    DurableOrder,
    ExcludeServers,
    Freeze,
    Frozen,
    GetBans,
    GetMutes,
    GetPlayers,
    GetQueue,
    GetTicket,
    GetValues,
    InstanceMessage,
    LookAgain,
    Moderate,
    ModerationMessage,
    NodeChanged,
    ReassignOwner,
    RecordGone,
    RejectCandidate,
    RemoveModerator,
    RequestEntry,
    RestoreMembers,
    RetryWrites,
    SendData,
    Tick,
    TransferMaster,
    UpdateInstance,
    WithdrawEntry,
)
from actors.instance.missed import EVERYBODY
from actors.instance.moderation import ModerationRequests
from actors.instance.node_side import HostedOnNode, NodeRelay
from actors.instance.notifications import Notifications
from actors.instance.parts import InstanceParts
from actors.instance.persistence import Persistence, load
from actors.instance.queue import Queue
from actors.instance.recovery import RecoveryState
from actors.instance.relay import DataRelay
from actors.instance.visibility import ensure_visible
from actors.membership import (
    AddMember,
    CandidateBarred,
    CandidateOffline,
    CandidateOnline,
    MemberSessionEnded,
    RefreshAdmin,
    RemoveMember,
    RenameUser,
    SocketLost,
)
from actors.runtime import Actor
from actors.runtime.message import Request
from reileta import records
from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    InstanceFull,
    InstanceNotFound,
    InternalError,
    NotImplementedHere,
    Overloaded,
    QuotaReached,
    ReiletaError,
)
from reileta.ids import at, is_id, new_id
from reileta.protocol import commands
from reileta.protocol.frames import failure
from reileta.rules.identity import Visitor
from reileta.rules.instance.access import BY_FRIENDS
from reileta.rules.instance.candidates import Candidates
from reileta.rules.instance.events import Closed, InstanceEvent
from reileta.rules.instance.instance import Instance
from reileta.rules.instance.sanctions import Mute
from reileta.store.host_writes import Suspended

MEASURED_OF: Final = 8
"""Of so many fan-outs of data, the time of one is measured. Measuring all of them would add a call
to each, which matters most where a fan-out reaches few sockets."""

SUSPENDED_S: Final = 0.05
"""Seconds between the looks of a suspended instance whether it may go on."""

POSTPONED: Final = 65_536
"""Messages that wait while an instance is suspended; there is one for each socket at most."""

KEPT_DATA_BYTES: Final = 4 * 1024 * 1024
"""Data that is kept for the next host while the instance is handed over."""

KEPT_HEAD_BYTES: Final = 256
"""What a message counts besides its data."""

ABSENT_BYTES: Final = 8 * 1024 * 1024
"""Messages that are handed over, for players without a socket."""

PART_BYTES: Final = 64 * 1024
"""A drain writes to the sockets after so many bytes of data, so that a player whose data waits for
others is held back before it sends more."""

AskingMessage = TypeVar("AskingMessage", AddMember, RequestEntry)
"""A request that may have to wait until sockets have been asked whether their clients are there."""


class InstanceActor(Actor[InstanceMessage]):
    """One live instance. `recovery` outlives this incarnation."""

    parts: InstanceParts
    """Made in `on_start`."""

    def __init__(self, recovery: RecoveryState, config: InstanceConfig) -> None:
        self._recovery = recovery
        self._config = config
        self._id = recovery.record.id
        self._closing = False  # whether its end is decided
        self._wrote_early = False  # whether this drain has written data before its end
        self._holding = recovery.holding
        self._suspended = False
        self._departing = False
        self._postponed: list[InstanceMessage] = []  # while it is suspended, or handed over
        self._kept_bytes = 0  # of data among them
        self._asking = 0  # how often sockets are being asked whether their clients are there
        self._until_measured = 0  # fan-outs until the next one whose time is measured
        self._pace = FanoutPace(config.load)
        self._dirty = True  # whether the directory and watchers of the object are to be updated

    # Start -------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        recovery, config = self._recovery, self._config
        speaks = self._holding is None or self._holding.valid()
        if recovery.fanout is not None and speaks:  # frames that a crash left unsent
            config.metrics.deliveries_out += recovery.fanout.flush()
            if recovery.remote is not None:
                recovery.remote.publish(recovery.fanout)
        if recovery.remote is not None and recovery.fanout is None:
            await recovery.remote.prepare()
        exists = await load(recovery, config.store)
        fanout = self._fanout = recovery.fanout = Fanout(self._id, config.directory.interests)
        before = recovery.rules
        rules = self._rules_after(before)
        self.parts = parts = InstanceParts.make(config, self.context, recovery, rules, fanout)
        self._relay = relay = DataRelay(parts) if recovery.node is None else NodeRelay(parts)
        self._node: HostedOnNode | None = None
        if recovery.node is not None and isinstance(relay, NodeRelay):
            self._node = HostedOnNode(parts, relay, recovery.node)
        self._send = self._relay.send
        self._members = Members(parts, self._relay)
        self._queue = Queue(parts)
        self._persistence = Persistence(parts)
        self._moderation = ModerationRequests(parts, self._persistence)
        self._notifications = Notifications(parts, self._members, self._queue)
        self._log = InstanceLog(parts)
        self._deadline = self.context.deadline(Tick(), config.clock)
        self._members.refresh_observers()
        soft, recovery.soft = recovery.soft, None
        absent: dict[str, Absent] = {}
        if soft is not None:
            self._take_values(soft)
            absent = {one.player: one for one in soft.absent}
        for session in self._members.restore(absent):
            known = absent.get(recovery.seated[session].player.id)
            grace_ms = None if known is None else known.left_ms
            self._apply(rules.disconnect(session, parts.now(), grace_ms=grace_ms))
        recovery.rules = rules
        if before is not None:
            self._apply(rules.resume(before.candidates, before.invited, parts.now()))
            self._queue.resume()
            self._persistence.resume()
        if soft is not None:
            # Who waited at an earlier host may have a socket by now, and know nothing.
            complete, candidates = self._members.all_complete and not soft.anew, Candidates()
            for state, candidate in soft.candidates:
                if soft.anew:
                    candidate = self._queue.begun_anew(state, candidate)
                candidates.put(state, candidate)
            now = parts.now()
            again = recovery.keeper is not None
            self._apply(
                rules.resume(candidates, soft.invited, now, soft.master, complete, again=again)
            )
            self._queue.resume(unchanged=complete)
            # The last host's words may still be on their way to a socket that vanishes now.
            recovery.missed.spoken(EVERYBODY, trio.current_time())
        if self._node is not None and exists:
            self._apply(self._node.begin(moved=soft is not None))
        if not exists:
            self._close()
        if recovery.remote is not None:
            recovery.remote.begun(self.context.ref)
        await self.flush()  # the next message may be long in coming

    def _rules_after(self, before: Instance | None) -> Instance:
        """The rules, from the database at the first start, else from those of before a crash."""
        recovery, address = self._recovery, self._config.address
        # Decisions from before a crash are in force, even if they are not written yet.
        if before is None:
            bans = [_with_server(ban, address) for ban in recovery.bans]
            mutes = [_mute(mute, address) for mute in recovery.mutes]
            # Users of other servers can't be moderators; earlier versions could name some.
            moderators = [at(user, address) for user in recovery.moderators if is_id(user, "u")]
        else:
            bans = list(before.bans.values())
            mutes = list(before.mutes.values())
            moderators = list(before.roles.moderators)
        return self._make_rules(
            recovery.record,
            owner=at(recovery.record.owner, address),
            bans=bans,
            moderators=moderators,
            mutes=mutes,
            limits=self._config.limits,
            now=self._config.clock.now_ms(),
            new_player_id=lambda: new_id("p"),
        )

    def _make_rules(self, record: records.InstanceRecord, **rest: Any) -> Instance:
        """The rules, from the arguments of `InstanceState`: a recording begins here."""
        return Instance(record, **rest)

    # Messages ----------------------------------------------------------------------------------

    def receive_now(self, message: InstanceMessage) -> bool:
        if not isinstance(message, SendData):
            return False
        if self._holding is not None and not self._holding.valid():
            return False
        self._send(message)
        if self._fanout.gathered > PART_BYTES:
            self._write_part()
        return True

    def _write_part(self) -> None:
        """Writes before the end of the drain."""
        self._write_to_sockets()
        self._wrote_early = True

    async def receive(self, message: InstanceMessage) -> None:
        if isinstance(message, SendData):  # nearly every message
            self._send(message)
            if self._fanout.gathered > PART_BYTES:
                self._write_part()
            return
        if isinstance(message, Depart):
            self._departing = True
            message.reply(None)
            return
        if self._holding is not None and not self._holding.valid():
            self._postpone(message)
            return
        rules, now = self.parts.rules, self.parts.now()
        ensure_visible(rules, message)
        match message:
            case AddMember():
                self._ensure_open()
                self._ensure_admitted(message)
                if self._node is not None:
                    self._node.ensure_takes(message)
                self._add_member(message)
            case RemoveMember(session, sink):
                player = self._members.player_of(session)
                self._apply(rules.leave(session, now), answered=sink)
                self._members.farewell(message, player)
            case SocketLost():
                self._apply(self._members.lose_socket(message))
                if self._node is not None:
                    self._node.socket_lost(message.session)
            case MemberSessionEnded(session, reason):
                self._apply(rules.leave(session, now, reason))
            case RefreshAdmin(user, admin):
                self._apply(rules.administers(user, admin, now))
            case RenameUser(user, displayname):
                self._apply(rules.rename(user, displayname, now))
            case CandidateOnline(user) | CandidateOffline(user):
                self._queue.refresh_presence(user)
            case CandidateBarred(user):
                self._apply(self._queue.bar(user))
            case RequestEntry():
                self._ensure_open()
                self._ensure_admitted(message)
                if self._node is not None:
                    self._node.ensure_takes(message)
                self._request_entry(message)
            case WithdrawEntry() | AdmitCandidate() | RejectCandidate():
                self._ensure_open()
                self._apply(self._queue.handle(message))
            case GetQueue():
                self._queue.answer(message)
            case ContinueQueueRound():
                self._queue.continue_round()
            case GetValues(key):
                self._members.list_values(message, key)
            case GetPlayers():
                self._members.list_players(message)
            case GetBans():
                self._moderation.list_bans(message)
            case GetMutes():
                self._moderation.list_mutes(message)
            case GetTicket(by):
                message.reply(self._direct_way(by))
            case Moderate() | TransferMaster() | AddModerator() | RemoveModerator():
                self._once(message)
            case ReassignOwner():
                self._apply(self._moderation.reassign_owner(message))
            case ExcludeServers(servers):
                self._apply(rules.exclude(servers, now))
                self._queue.notify()
                self._write_to_sockets()  # before the requester closes the sockets
                message.reply(None)
            case RestoreMembers():
                self._apply(self._members.readmit(message))
                self._apply(self._members.restore_remote(message))
            case Freeze():
                message.reply(self._freeze())
            case UpdateInstance() | CloseInstance():
                self._once(message)
            case RetryWrites():
                self._persistence.write_pending()
            case RecordGone():
                self._close()
            case RefreshObserver(sink):
                self._members.refresh_observer(sink)
            case NodeChanged():
                if self._node is not None and not self._closing:
                    self._apply(self._node.changed())
            case LookAgain():
                pass  # `flush` looks
            case Tick():
                self._deadline.fired()
                self._apply(rules.tick(now))
            case _:
                assert_never(message)

    def on_crash(self, message: InstanceMessage) -> None:
        if isinstance(message, SendData):
            error = failure(commands.INSTANCE_DATA, message.state, self._id, InternalError())
            message.sink.send(error)

    def on_drop(self, message: InstanceMessage) -> None:
        if isinstance(message, SendData) and message.state is not None:
            self._recovery.refuse(message.sink, message.state)

    async def flush(self) -> None:
        if self._departing:
            self._depart()
            return
        if self._holding is not None and not self._may_speak(self._holding):
            return
        self._queue.notify()
        self._send_out()
        if self._dirty:
            self._publish_state()
        self._deadline.set(self.parts.rules.next_deadline())

    def flush_now(self) -> None:
        if self._holding is not None and not self._may_speak(self._holding):
            return
        fanout, config = self._fanout, self._config
        may = config.in_turns and self._holding is None and self._recovery.remote is None
        self._send_out(fanout.turns if may and fanout.turns > 1 and config.load.suits_turns else 1)

    def _send_out(self, turns: int = 1) -> None:
        """Sends the frames so far, to all receivers or to those whose turn it is, and rests."""
        has_data = self._wrote_early or self._fanout.has_data
        begun = trio.current_time()
        self._write_to_sockets(in_turns=turns > 1)
        took_s = trio.current_time() - begun
        behind = self._fanout.behind
        if self._relay.speaker is not None:
            self._recovery.missed.spoken(self._relay.speaker, begun)
            if not behind:
                self._relay.speaker = None
        if has_data:
            self._wrote_early = False
            self._until_measured -= 1
            if self._until_measured < 0:
                self._until_measured = MEASURED_OF - 1
                waited_s = begun + took_s - self.context.oldest_at
                self._config.metrics.fanout.observe(waited_s)
        rest_s = self._pace.rest_s(took_s, turns)
        if rest_s or behind:
            self.context.rest(rest_s, again=behind)

    def _write_to_sockets(self, *, in_turns: bool = False) -> None:
        """Writes the drain's frames so far to each socket."""
        if self._holding is not None and not self._holding.valid():
            return  # the drain's end suspends it
        fanout = self.parts.fanout
        delivered = fanout.flush_turn() if in_turns else fanout.flush()
        if self._recovery.unanswered:
            self._recovery.unanswered.clear()
        if (remote := self.parts.recovery.remote) is not None:
            remote.publish(fanout)
        self._config.metrics.deliveries_out += delivered
        self.context.sent(delivered, fanout.reached)

    def _direct_way(self, by: Visitor) -> DirectWay:
        """A ticket for the player of a session."""
        self._members.player_of(by.session)
        if self._node is None:
            raise NotImplementedHere.field("instance", "does not live on an instance node")
        return self._node.ticket(self._recovery.seated[by.session])

    # Moving to another node ----------------------------------------------------------------------

    def _freeze(self) -> Frozen:
        """Says the last word, and returns what the next host must know."""
        holding = self._holding
        busy = self._asking or self._closing or not self._persistence.idle
        if holding is None or busy or not holding.valid():
            raise Overloaded
        self._queue.notify()
        if self._node is not None:
            self._node.depart()
        self._write_to_sockets()
        holding.moving = True
        self._send = self._keep_data
        rules, now = self.parts.rules, self.parts.now()
        only = {
            member.player.id: self._members.series_of(next(iter(member.sinks)))
            for member in self._recovery.seated.values()
            if len(member.sinks) == 1
        }
        values = [
            (player, key, at, data, series if series == only.get(player) else 0)
            for player, kept in rules.values.by_player()
            for key, (at, data, series) in kept.items()
        ]
        candidates = tuple(rules.candidates.each())
        absent = tuple(self._absent(now))
        return Frozen(
            tuple(values),
            dict(rules.invited),
            candidates,
            master=rules.master,
            absent=absent,
        )

    def _absent(self, now: int) -> Iterator[Absent]:
        """The players without a socket. Beyond `ABSENT_BYTES`, what they missed is a gap."""
        left_bytes = ABSENT_BYTES
        for session, member in self._recovery.seated.items():
            if member.sinks:
                continue
            missed = self._recovery.missed.of(member.player.id)
            frames = tuple(frame for batch in missed.batches for frame in batch.frames())
            left_bytes -= sum(map(len, frames))
            left_ms = self.parts.rules.seats.grace_left_ms(session, now)
            if left_bytes < 0:
                yield Absent(member.player.id, left_ms, gap=True)
            else:
                yield Absent(member.player.id, left_ms, missed.gap, frames)

    def _take_values(self, soft: Frozen) -> None:
        """The retained values of those who are inside."""
        inside = {member.player.id for member in self._recovery.seated.values()}
        for player, key, at_, data, series in soft.values:
            if player in inside:
                own = self._members.reserve_series(player) if series else 0
                self.parts.rules.values.keep(player, key, at_, data, own)

    def _keep_data(self, message: SendData) -> None:
        """Keeps data for the next host; more than `KEPT_DATA_BYTES` of it is refused."""
        self._kept_bytes += len(message.data) + KEPT_HEAD_BYTES
        if self._kept_bytes > KEPT_DATA_BYTES:
            self._relay.refuse(message)
        else:
            self._postponed.append(message)

    def _depart(self) -> None:
        """Passes on what came since the instance was frozen. Nobody else runs in a drain, so that
        is all, and no later message can overtake it."""
        self._departing = False
        postponed, self._postponed = self._postponed, []
        self.context.ref.drain()
        if self._recovery.remote is not None:
            for message in postponed:
                if isinstance(message, Request):
                    message.pass_on()
            self._recovery.remote.departed(postponed)

    # Suspension --------------------------------------------------------------------------------

    def _may_speak(self, holding: Holding) -> bool:
        """Whether the lease is valid; suspends the instance, or lets it go on."""
        if holding.valid():
            if self._suspended:
                self._suspended = False
                self._send = self._relay.send
                self._relay.resume()
                postponed, self._postponed, self._kept_bytes = self._postponed, [], 0
                for message in postponed:
                    if isinstance(message, SendData):
                        self._send(message)
                    else:
                        self.context.ref.signal(message)
            return True
        self._suspended = True
        if not holding.moving:
            self._send = self._relay.refuse
        if not holding.lost:
            self.context.after(SUSPENDED_S, LookAgain())
        return False

    def _postpone(self, message: InstanceMessage) -> None:
        """Refuses a request, and keeps another message, while the instance is suspended. While it
        is handed over, a request waits, too."""
        if isinstance(message, Tick):
            self._deadline.fired()  # `flush` sets it again
        elif isinstance(message, Request):
            if self._holding is None or not self._holding.moving:
                raise Suspended
            if len(self._postponed) >= POSTPONED:
                raise Overloaded
            message.defer()
            self._postponed.append(message)
        elif not isinstance(message, LookAgain) and len(self._postponed) < POSTPONED:
            self._postponed.append(message)

    # Events ------------------------------------------------------------------------------------

    def _apply(
        self, domain_events: Sequence[InstanceEvent], *, answered: Sink | None = None
    ) -> None:
        """Writes and delivers each event; `answered` is the socket that gets an answer instead."""
        for event in domain_events:
            self._dirty = True
            self._log.note(event)
            self._persistence.record(event)
            self._notifications.deliver(event, answered=answered)
            if self._node is not None:
                self._node.record(event)
            if isinstance(event, Closed):
                self._end(event)

    def _publish_state(self) -> None:
        """Writes who is inside to the directory, and publishes the object to its watchers."""
        self._dirty = False
        if (remote := self.parts.recovery.remote) is not None:
            remote.changed()
        if (keeper := self.parts.recovery.keeper) is not None:
            keeper.changed()
        rules = self.parts.rules
        occupancy = Occupancy(
            rules.connected,
            rules.queued,
            rules.master,
            full=rules.free <= 0,
            by_friends=rules.access in BY_FRIENDS,
            audience=rules.audience.frozen(),
        )
        self.parts.directory.occupy(self._id, occupancy)
        if not self._closing:
            self._persistence.note_empty(self._noted)
        self.parts.publisher.publish_object()

    def _noted(self, exists: bool) -> None:
        """`Persistence.note_empty` has written; `exists`: there is still a record."""
        if exists:
            self._persistence.note_empty(self._noted)
        else:
            self._close()

    # Entering, when the user or the session is inside already ----------------------------------

    def _add_member(self, message: AddMember) -> None:
        """Lets the session in, or asks first whether its user's other clients are still there."""
        user, session = message.visitor.user, message.visitor.session
        siblings = self._members.siblings(message)
        if siblings:
            # If their client has gone, nobody knows what reached it last, and the join says so.
            self._ask_first(message, siblings, self._enter_beside)
            return
        known = session in self.parts.recovery.seated
        others = () if known else self._members.sockets_of(user)
        try:
            self._enter(message)
        except (InstanceFull, QuotaReached):
            if not others:
                raise
            self._ask_first(message, others, self._enter_instead)
        else:
            if others:
                self._ask_sockets(others, partial(self._give_way, user, session))

    def _enter(
        self, message: AddMember, *, gap: bool = False, silent: frozenset[str] = frozenset()
    ) -> None:
        self._apply(self._members.join(message, silent))
        self._members.welcome(message, gap=gap)
        if self._node is not None:
            self._node.greet(message.sink)

    def _enter_beside(self, message: AddMember, silent: SilentSinks) -> None:
        """A session enters with a further socket; some of its others may be silent."""
        others = self._members.siblings(message)
        # Of a socket at a node that is silent, nobody knows what has reached it.
        self._enter(message, gap=bool(silent) or any(one.lost_frames for one in others))

    def _enter_instead(self, message: AddMember, silent: SilentSinks) -> None:
        """A session enters in place of those of its user whose sockets are silent."""
        sessions = self._members.silent_sessions(message.visitor.user, silent)
        self._enter(message, silent=sessions)

    def _give_way(self, user: str, session: str, silent: SilentSinks) -> None:
        """The other players of a user leave whose sockets are silent, if its new one is there."""
        rules = self.parts.rules
        if rules.seats.of_session(session) is None or rules.in_grace(session):
            return
        for other in self._members.silent_sessions(user, silent) - {session}:
            self._apply(rules.leave(other, self.parts.now(), "disconnected"))

    def _request_entry(self, message: RequestEntry) -> None:
        try:
            self._apply(self._queue.handle(message))
        except AlreadyConnected:
            sockets = self._members.sockets_of(message.visitor.user)
            if not sockets:
                raise
            self._ask_first(message, sockets, self._request_entry_instead)

    def _request_entry_instead(self, message: RequestEntry, silent: SilentSinks) -> None:
        sessions = self._members.silent_sessions(message.visitor.user, silent)
        self._apply(self._queue.handle(message, sessions))

    def _ask_first(
        self,
        message: AskingMessage,
        sockets: Sequence[Sink],
        then: Callable[[AskingMessage, SilentSinks], None],
    ) -> None:
        """Asks the sockets whether their clients are there, and handles the message after that."""

        def proceed(silent: SilentSinks) -> None:
            try:
                ensure_visible(self.parts.rules, message)
                self._ensure_open()
                self._ensure_admitted(message)
                then(message, silent)
            except ReiletaError as error:
                message.fail(error)

        message.defer()
        self._ask_sockets(sockets, proceed)

    def _ask_sockets(self, sockets: Sequence[Sink], then: Callable[[SilentSinks], None]) -> None:
        self._asking += 1

        def asked(silent: SilentSinks) -> None:
            self._asking -= 1
            then(silent)

        ask_whether_there(self.context, sockets, asked)

    # Durable orders ----------------------------------------------------------------------------

    def _once(self, message: DurableOrder) -> None:
        """Carries an order out, unless its deed is done already: then it is answered as before."""
        deed = message.deed
        if deed is None or not deed.again:
            self._carry_out(message)
            return
        if not isinstance(message, UpdateInstance | CloseInstance) and (
            self._persistence.when_deed_durable(deed, partial(self._moderation.answer, message))
        ):
            message.defer()  # this host has decided it, and writes it
            return
        self._persistence.look_up(deed, partial(self._looked_up, message))
        message.defer()

    def _looked_up(self, message: DurableOrder, result: outcome.Outcome[bytes | None]) -> None:
        try:
            answer = result.unwrap()
            if answer is not None:
                self._answer_again(message, answer)
                return
            if self._holding is not None and not self._holding.valid():
                raise Suspended
            ensure_visible(self.parts.rules, message)
            self._carry_out(message)
        except ReiletaError as error:
            message.fail(error)

    def _answer_again(self, message: DurableOrder, answer: bytes) -> None:
        match message:
            case UpdateInstance():
                message.reply(msgspec.msgpack.decode(answer, type=records.InstanceRecord))
            case CloseInstance():
                message.reply(None)
            case _:
                self._moderation.answer(message, None)

    def _carry_out(self, message: DurableOrder) -> None:
        match message:
            case UpdateInstance():
                self._update(message)
            case CloseInstance():
                self._close_for(message)
            case _:
                self._moderate(message)

    def _update(self, message: UpdateInstance) -> None:
        planned = self.parts.rules.plan(message.by, message.changes)
        message.defer()
        then = partial(self._updated, message)
        self._persistence.update(planned, message.changes, then, message.deed)

    def _updated(self, message: UpdateInstance, result: outcome.Outcome[object]) -> None:
        self._apply(self._moderation.updated(message, result))
        if isinstance(result, outcome.Error) and isinstance(result.error, InstanceNotFound):
            self._close()

    def _moderate(self, message: ModerationMessage) -> None:
        before = self._persistence.pending
        decision = self._moderation.decide(message)
        self._log.moderated(message, decision)
        self._apply(decision.domain_events)
        self._moderation.finish(message, decision, before)

    def _ensure_admitted(self, message: AddMember | RequestEntry) -> None:
        """Raises CredentialInvalid if the user's server was blocked while the message waited;
        ClientBlocked if the user was."""
        if message.visitor.guest and not self._config.admits(message.visitor.user):
            raise CredentialInvalid
        self._config.ensure_account(message.visitor.user)

    # The end -----------------------------------------------------------------------------------

    def _ensure_open(self) -> None:
        """Raises InstanceNotFound if the end is decided."""
        if self._closing:
            raise InstanceNotFound

    def _close_for(self, message: CloseInstance) -> None:
        self.parts.rules.ensure_governs(message.by)
        self._ensure_open()
        self._closing = True
        message.defer()
        self._persistence.delete(partial(self._deleted, message), message.deed)

    def _deleted(self, message: CloseInstance, result: outcome.Outcome[object]) -> None:
        if isinstance(result, outcome.Error):
            self._closing = False
            self._publish_state()  # `note_empty` was left out while it was to be closed
            message.slot.put(result)
            return
        self._apply(self.parts.rules.close(None, self.parts.now()))
        message.reply(None)

    def _close(self) -> None:
        """Ends the instance, because the database no longer has its record."""
        if not self._closing:
            self._closing = True
            self._apply(self.parts.rules.close(None, self.parts.now()))

    def _end(self, closed: Closed) -> None:
        """Stops the actor. An instance that ended because it was empty is deleted too."""
        if closed.reason == "empty" and not self._closing:
            self._closing = True
            self._persistence.delete()  # if the database is down, the node's sweep finds it later
        self.context.ref.drain()


def _mute(mute: records.MuteRecord, address: str) -> Mute:
    """The stored mute as the rules have it, with `UserIDAt`s."""
    return Mute(
        at(mute.user, address),
        mute.until,
        reason=mute.reason,
        by=at(mute.by, address),
        created_at=mute.created_at,
    )


def _with_server(ban: records.Ban, address: str) -> records.Ban:
    """The ban with `UserIDAt`s instead of ids."""
    return replace(ban, user=at(ban.user, address), by=at(ban.by, address))
