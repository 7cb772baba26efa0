"""The host's side of the relay: the gateways through which players of an instance are connected.

For the instance's actor, a socket at another node is a `RemoteSink`: a sink like any other, which
collects what a flush writes to it. After the flush, `HostedInstance.publish` sends all of it in one
message for all gateways together: the buffer once, and for each socket what differs. So the bytes
on the bus depend on the number of gateways, not on that of their players; if all players are local,
nothing is sent.

Messages have numbers (`reileta/rules/cluster/stream.py`). Both sides find what is missing, and ask
for it. A large snapshot does not go to all gateways, but in a parcel to the one that needs it: with
the answer to its call, else in a call of its own.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import structlog
import trio

from actors.cluster import wire
from actors.delivery.batch import Batch, Piece
from actors.delivery.fanout import Fanout
from actors.delivery.sink import InstanceHandle, Sink
from actors.directory import Directory
from actors.hub.messages import RefreshObserver
from actors.instance.messages import InstanceMessage, RestoreMembers
from actors.instance.recovery import Member, RecoveryState
from actors.membership import AddMember, InstanceMoved, SeatLost, SocketLost
from actors.runtime.mailbox import Ref
from actors.runtime.message import Request
from reileta.cluster.bus import Bus, BusError
from reileta.cluster.calls import Calls, NodeUnreachable, pack
from reileta.errors import NotInInstance, Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.protocol import commands
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import failure
from reileta.rules.cluster.stream import Incoming, Outgoing

INLINE_BYTES: Final = 64 * 1024
"""A snapshot goes to all gateways if that costs no more than so many bytes; else in a parcel."""
PING_S: Final = 1.5
"""Seconds for a gateway to say whether a client is there."""
CATCH_UP_S: Final = 0.5
"""Seconds that a request waits for the data that was sent before it."""
ASK_S: Final = 10.0
"""Seconds for the instance to answer a request."""
MISSING_S: Final = 1.0
"""Seconds for a gateway to send what is missing."""
PARCELS_S: Final = 5.0
DEEDS: Final = 4096
"""Requests whose answer is kept for repetitions; the oldest are forgotten."""
SILENT_S: Final = 1.0
"""A gateway learns the last number after so many seconds of silence."""
LAG_S: Final = 2.0
"""A gateway that is further behind is logged. It holds nobody up: all gateways get one message, and
what this one can't take in it loses, and gets a snapshot."""

_log = structlog.get_logger()


class RelayMember(Protocol):
    """This process's part in the cluster (`reileta.cluster.member.Member`)."""

    @property
    def node(self) -> str: ...

    @property
    def bus(self) -> Bus: ...

    def subject(self, *parts: str) -> str: ...

    def valid(self) -> bool: ...


Spawn = Callable[[Callable[[], Awaitable[None]]], None]
"""Starts a task beside the caller."""


class RemoteSink(Sink):
    """A socket at a gateway, as the instance's actor sees it."""

    def __init__(self, gateway: Gateway, number: int, session: str = "") -> None:
        self.gateway = gateway
        self.number = number
        self.session = session
        self.seats: dict[str, InstanceHandle] = {}
        self.pieces: list[Piece] | Sequence[Piece] | None = None
        """What was written since the last publication."""
        self._lost_frames = False
        self._left = False
        self._vanished_at: float | None = None

    def __repr__(self) -> str:
        return f"<RemoteSink {self.gateway.node}/{self.number}>"

    @property
    def waiting_bytes(self) -> int:
        return 0  # the gateway refuses a join itself while something waits

    @property
    def lost_frames(self) -> bool:
        return self._lost_frames

    @property
    def left(self) -> bool:
        return self._left

    @property
    def vanished_at(self) -> float | None:
        return self._vanished_at

    def ended(self, *, lost_frames: bool, left: bool, vanished_at: float | None) -> None:
        """The socket has closed, in that way."""
        self._lost_frames, self._left, self._vanished_at = lost_frames, left, vanished_at

    async def responds(self) -> bool:
        return await self.gateway.hosted.responds(self)

    def write(self, pieces: Sequence[Piece]) -> None:
        if self.pieces is None:
            self.pieces = pieces
            self.gateway.hosted.written.append(self)
        else:
            self.pieces = [*self.pieces, *pieces]

    def send(self, frame: bytes) -> None:
        batch = Batch((frame,))
        self.write([(batch, 0, len(batch))])

    def close(self, code: CloseCode, reason: str = "") -> None:
        self.gateway.hosted.closing.append((self, code, reason))


class RemoteSession:
    """A session at a gateway, as the instance's actor sees it: a `SessionRecipient`."""

    def __init__(self, hosted: HostedInstance, gateway: str, session: str) -> None:
        self.gateway = gateway
        self._hosted = hosted
        self._session = session

    def tell(self, message: SeatLost | InstanceMoved) -> None:
        self.signal(message)

    def signal(self, message: SeatLost | InstanceMoved) -> bool:
        if isinstance(message, SeatLost):  # the gateway itself tells it that the instance moved
            self._hosted.lost.append((self._session, message.player))
        return True

    async def ask(self, request: Request[Any]) -> Any:
        raise NotImplementedError("instances ask sessions nothing")


@dataclass(eq=False)
class Gateway:
    """A gateway with players of an instance, or with observers of it.

    `series` tells its streams apart: a new one begins when it has lost everything.
    """

    hosted: HostedInstance
    node: str
    series: int
    sinks: dict[int, RemoteSink] = field(default_factory=dict)
    incoming: Incoming = field(default_factory=lambda: Incoming(1))
    joiner: wire.Joiner = field(default_factory=wire.Joiner)
    progress: trio.Event = field(default_factory=trio.Event)
    """Set when something was handed to the instance."""
    fetching: bool = False
    """Whether what is missing was asked for."""
    behind_since: float | None = None
    """Since when it has not got all that was sent."""
    sent_then: int = 0
    lagging: bool = False


@dataclass(eq=False)
class _Waiting:
    """A call that is answered once the frames of its request are published."""

    request: Request[Any]
    gateway: Gateway
    reset: bool = False
    """Whether the gateway has forgotten its receivers."""
    number: int = 0
    parcels: list[wire.Parcel] = field(default_factory=list)
    published: trio.Event = field(default_factory=trio.Event)


class HostedInstance:
    """An instance that this node hosts, with its gateways. It outlives crashes of the actor."""

    def __init__(
        self,
        instance: str,
        epoch: int,
        *,
        member: RelayMember,
        calls: Calls,
        directory: Directory,
        spawn: Spawn,
        prepare: Callable[[HostedInstance], Awaitable[None]],
        begun: Callable[[HostedInstance], None],
        ended: Callable[[HostedInstance], None],
    ) -> None:
        """`prepare` collects the players before the actor starts; `begun` and `ended` are told."""
        self.id = instance
        self.epoch = epoch
        self.ref: Ref[InstanceMessage] | None = None
        """The instance's actor, once it runs."""
        self.recovery: RecoveryState | None = None
        """Its state; only to be read."""
        self.gateways: dict[str, Gateway] = {}
        self.written: list[RemoteSink] = []
        self.closing: list[tuple[RemoteSink, CloseCode, str]] = []
        self.lost: list[tuple[str, str]] = []
        self.publishes = 0
        self.published_bytes = 0
        self._member = member
        self._calls = calls
        self._directory = directory
        self._spawn = spawn
        self._outgoing = Outgoing()
        self._receivers: dict[RemoteSink, None] = {}
        """Those that the gateways know of."""
        self._changes: tuple[int, int] | None = None
        """The fan-out and its changes at the last look at the receivers."""
        self._roster: dict[str, str] = {}
        self._roster_stale = True
        self._waiting: list[_Waiting] = []
        self._parcels = 0
        self._taken: dict[str, int] = {}
        self._framed = 0
        """The last message with frames."""
        self._sent_at = -math.inf
        self._prepare, self._begun, self._ended = prepare, begun, ended
        self._deeds: OrderedDict[str, Request[Any]] = OrderedDict()
        self._subject = member.subject("i", instance, str(epoch))

    @property
    def last(self) -> int:
        """The number of the last message."""
        return self._outgoing.last

    # Its life, as the actor and its manager tell it ----------------------------------------------

    async def prepare(self) -> None:
        """As `RemoteReceivers.prepare`."""
        await self._prepare(self)

    def begun(self, ref: Ref[InstanceMessage]) -> None:
        """As `RemoteReceivers.begun`."""
        self.ref = ref
        self._begun(self)

    def ended(self) -> None:
        """As `RemoteReceivers.ended`."""
        for gateway in self.gateways.values():
            for sink in gateway.sinks.values():
                self._directory.unwatch(sink, self.id)
        self._ended(self)

    # Out ---------------------------------------------------------------------------------------

    def publish(self, fanout: Fanout | None) -> None:
        """Sends what was written to remote sockets. The actor calls it after each flush.

        `fanout` None: the receivers are as before.
        """
        if not (self.gateways or self.written or self._receivers):
            self.lost.clear()  # else a gateway that comes back would take new seats for these
            return
        if not self._member.valid():
            return  # it is kept, and goes with the next
        waiting = self._answered()
        for one in waiting:
            if one.reset:
                for sink in one.gateway.sinks.values():
                    self._receivers.pop(sink, None)
                self._changes = None
        came, gone = self._changed_receivers(fanout)
        for one in waiting:
            # The gateway may have given up the first attempt to enter, and what was sent then.
            if isinstance(one.request, AddMember):
                entered = one.request.sink
                if (
                    isinstance(entered, RemoteSink)
                    and entered in self._receivers
                    and entered not in came
                ):
                    came.append(entered)
        seated = self._newly_seated()
        written, self.written = self.written, []
        number = self._outgoing.last + 1
        if written or came or gone or seated or self.lost or self.closing:
            self._send_fan(written, came, gone, seated, waiting)
        for one in waiting:
            one.number = number
            one.published.set()

    def _answered(self) -> list[_Waiting]:
        """The calls whose request was answered in this drain; they wait no more."""
        if not self._waiting:
            return []
        answered = [one for one in self._waiting if one.request.slot.answered]
        if answered:
            self._waiting = [one for one in self._waiting if not one.request.slot.answered]
        return answered

    def _changed_receivers(
        self, fanout: Fanout | None
    ) -> tuple[list[RemoteSink], list[RemoteSink]]:
        if fanout is None or self._changes == (id(fanout), fanout.changes):
            return [], []
        self._changes = (id(fanout), fanout.changes)
        self._roster_stale = True
        now = {
            sink: None
            for gateway in self.gateways.values()
            for sink in gateway.sinks.values()
            if sink in fanout
        }
        came = [sink for sink in now if sink not in self._receivers]
        gone = [sink for sink in self._receivers if sink not in now]
        self._receivers = now
        return came, gone

    def _newly_seated(self) -> list[wire.Seat]:
        """The players of whom the gateways do not know; adds those who left to `lost`.

        So each gateway can tell the next host of all players, also of those whose gateway is gone.
        """
        if not self._roster_stale or self.recovery is None or not self.gateways:
            return []
        self._roster_stale = False
        members = self.recovery.seated
        self.lost += [
            (session, player)
            for session, player in self._roster.items()
            if session not in members and (session, player) not in self.lost
        ]
        seated = [
            wire.Seat(replace(one.visitor, friends=frozenset()), one.player, [])
            for session, one in members.items()
            if self._roster.get(session) != one.player.id
        ]
        self._roster = {session: one.player.id for session, one in members.items()}
        return seated

    def _send_fan(
        self,
        written: list[RemoteSink],
        came: list[RemoteSink],
        gone: list[RemoteSink],
        seated: list[wire.Seat],
        waiting: list[_Waiting],
    ) -> None:
        nodes: dict[str, int] = {}

        def address(sink: RemoteSink) -> tuple[int, int]:
            return nodes.setdefault(sink.gateway.node, len(nodes)), sink.number

        fan = wire.Fan([], [], False)
        buffers = _Buffers(self, fan)
        whole = _commonest(written, len(self._receivers))
        if whole is not None:
            fan.whole = True
            buffers.index(whole[0][0], None)
        leaving = dict.fromkeys(gone)
        for sink in (*self._receivers, *gone) if fan.whole else ():
            if sink.pieces is None:
                fan.edits.append((*address(sink), []))
        for sink in written:
            pieces, sink.pieces = sink.pieces, None
            assert pieces is not None
            if pieces is whole and (sink in self._receivers or sink in leaving):
                nodes.setdefault(sink.gateway.node, len(nodes))
                continue
            spans = [(buffers.index(batch, sink), start, end) for batch, start, end in pieces]
            fan.edits.append((*address(sink), spans))
        fan.came = [address(sink) for sink in came]
        fan.gone = [address(sink) for sink in gone]
        fan.seated = seated
        fan.lost, self.lost = self.lost, []
        fan.closed = [(*address(sink), code.name, reason) for sink, code, reason in self.closing]
        self.closing = []
        fan.taken = [
            (nodes.setdefault(gateway.node, len(nodes)), gateway.incoming.last)
            for gateway in self.gateways.values()
            if self._taken.get(gateway.node) != gateway.incoming.last
        ]
        self._taken = {node: one.incoming.last for node, one in self.gateways.items()}
        fan.gateways = list(nodes)
        self._send(wire.encode(fan))
        if fan.buffers:
            self._framed = self._outgoing.last
        buffers.send_parcels(waiting)

    def _send(self, data: bytes) -> None:
        """Sends a message in numbered chunks. What can't be sent is found by its number."""
        now = self._sent_at = trio.current_time()
        try:
            limit = self._member.bus.max_data_bytes
        except BusError:
            limit = wire.DEFAULT_BYTES
        for chunk in wire.chunks(data, limit):
            number = self._outgoing.add(chunk, now)
            try:
                self._member.bus.publish(self._subject, pack(wire.Chunk(number, chunk)))
            except BusError:
                continue
            self.publishes += 1
            self.published_bytes += len(chunk)

    def parcel(self) -> int:
        """The number of the next parcel."""
        self._parcels += 1
        return self._parcels

    def send_parcels(self, gateway: Gateway, parcels: list[wire.Parcel]) -> None:
        """Sends parcels in a call of their own. If it fails, the gateway asks for a snapshot."""

        async def send() -> None:
            argument = wire.Parcels(self.id, self.epoch, parcels)
            try:
                await self._calls.call(gateway.node, "parcels", argument, type(None), PARCELS_S)
            except (NodeUnreachable, ReiletaError) as error:
                _log.info(log_events.PARCELS_LOST, instance=self.id, reason=str(error))

        self._spawn(send)

    def beat(self) -> None:
        """Tells the gateways the last number, if nothing else did."""
        now = trio.current_time()
        self._outgoing.forget_old(now)
        if not self.gateways or not self._member.valid():
            return
        if now - self._sent_at < SILENT_S:
            return
        taken = {node: gateway.incoming.last for node, gateway in self.gateways.items()}
        try:
            self._member.bus.publish(self._subject, pack(wire.Beat(self.last, taken)))
        except BusError:
            return

    async def responds(self, sink: RemoteSink) -> bool:
        """Asks the gateway whether a client is there. A gateway that is silent says nothing about
        the client."""
        argument = wire.Connection(self.id, sink.number)
        try:
            return await self._calls.call(sink.gateway.node, "responds", argument, bool, PING_S)
        except NodeUnreachable as error:
            return not error.absent  # if nobody is there, its sockets are gone
        except ReiletaError:
            return True

    # Gateways ----------------------------------------------------------------------------------

    def gateway(self, node: str, series: int) -> Gateway | None:
        """The gateway, made if it is new; None: that series of it is over."""
        known = self.gateways.get(node)
        if known is not None:
            if known.series == series:
                return known
            if known.series > series:
                return None
            self.lose(node)
        made = self.gateways[node] = Gateway(self, node, series)
        self._roster, self._roster_stale = {}, True  # it knows nobody
        return made

    def find(self, node: str, series: int) -> Gateway | None:
        """The gateway, if it is known in that series."""
        known = self.gateways.get(node)
        return known if known is not None and known.series == series else None

    def lose(self, node: str) -> None:
        """A gateway is gone: all its sockets are lost at once."""
        gateway = self.gateways.pop(node, None)
        if gateway is None:
            return
        for sink in list(gateway.sinks.values()):
            self._receivers.pop(sink, None)  # if it comes back, it begins anew
            sink.ended(lost_frames=True, left=False, vanished_at=None)
            self._lose_socket(sink)
        gateway.sinks.clear()

    def _lose_socket(self, sink: RemoteSink) -> None:
        if self.ref is None:
            return
        self._directory.unwatch(sink, self.id)
        self.ref.signal(RefreshObserver(sink))
        if sink.session:
            self.ref.signal(SocketLost(sink.session, sink))

    def seat(self, gateway: Gateway, seat: wire.Seat) -> Member:
        """A session inside through a gateway, with its sockets."""
        sinks: dict[Sink, None] = {}
        for number in seat.connections:
            sink = gateway.sinks.get(number)
            if sink is None:
                sink = gateway.sinks[number] = RemoteSink(gateway, number)
            sink.session = seat.visitor.session
            sinks[sink] = None
        session = RemoteSession(self, gateway.node, seat.visitor.session)
        return Member(seat.visitor, seat.player, session, sinks)

    # In ----------------------------------------------------------------------------------------

    def take(self, chunk: wire.InChunk) -> None:
        """A gateway's message has come."""
        gateway = self.find(chunk.gateway, chunk.series)
        if gateway is not None:
            self._hand_on(gateway, gateway.incoming.take(chunk.number, chunk.data))
            self._fetch(gateway)

    def heard(self, beat: wire.InBeat) -> bool:
        """A gateway tells its last number, and the last one that it has; False: it is unknown."""
        gateway = self.find(beat.gateway, beat.series)
        if gateway is None:
            return False
        gateway.incoming.heard(beat.last)
        self._fetch(gateway)
        self._note_lag(gateway, beat.applied)
        return True

    def _note_lag(self, gateway: Gateway, applied: int) -> None:
        now = trio.current_time()
        if gateway.behind_since is None or applied >= gateway.sent_then:
            gateway.lagging = False
            gateway.behind_since, gateway.sent_then = now, self.last
        elif now - gateway.behind_since > LAG_S and not gateway.lagging:
            gateway.lagging = True
            _log.warning(log_events.GATEWAY_BEHIND, instance=self.id, node=gateway.node)

    def doubt(self) -> None:
        """The bus lost its connection: anything may be missing."""
        for gateway in self.gateways.values():
            gateway.incoming.doubt()
            self._fetch(gateway)

    def _fetch(self, gateway: Gateway) -> None:
        if gateway.incoming.missing is not None and not gateway.fetching:
            gateway.fetching = True
            self._spawn(partial(self._fetch_missing, gateway))

    async def _fetch_missing(self, gateway: Gateway) -> None:
        """Asks a gateway for what is missing, until nothing is or the gateway is gone."""
        try:
            while self.gateways.get(gateway.node) is gateway:
                first = gateway.incoming.missing
                if first is None:
                    return
                argument = wire.Missing(self.id, self.epoch, gateway.series, first)
                try:
                    answer = await self._calls.call(
                        gateway.node, "missing", argument, wire.Replayed, MISSING_S
                    )
                except (NodeUnreachable, ReiletaError):
                    await trio.sleep(MISSING_S / 4)
                    continue
                if answer.chunks is None:
                    return  # it has begun another series
                if gateway.incoming.next == first:
                    self._hand_on(gateway, gateway.incoming.replayed(answer.chunks))
        finally:
            gateway.fetching = False

    def _hand_on(self, gateway: Gateway, ready: list[bytes]) -> None:
        if not ready:
            return
        for chunk in ready:
            whole = gateway.joiner.take(chunk)
            if whole is None:
                continue
            try:
                items = wire.ins.decode(whole).items
            except msgspec.MsgspecError:
                _log.warning(log_events.CALL_MALFORMED, subject="in")
                continue
            for item in items:
                self._apply(gateway, item)
        gateway.progress.set()
        gateway.progress = trio.Event()

    def _apply(self, gateway: Gateway, item: wire.Item) -> None:
        assert self.ref is not None
        match item:
            case wire.Data():
                self._say(gateway, item)
            case wire.Lost():
                sink = gateway.sinks.pop(item.connection, None)
                if sink is not None:
                    now, age = trio.current_time(), item.vanished_s
                    under_way = item.heard is not None and item.heard < self._framed
                    sink.ended(
                        lost_frames=item.lost_frames or under_way,
                        left=item.left,
                        vanished_at=None if age is None else now - age,
                    )
                    self._lose_socket(sink)
            case wire.Observe():
                self._observe(gateway, item)
            case wire.Signal():
                message = wire.signal_of(item)
                if message is not None:
                    self.ref.signal(message)  # type: ignore[arg-type]  # one of `SIGNALS`

    def _say(self, gateway: Gateway, item: wire.Data) -> None:
        sink = gateway.sinks.get(item.connection)
        seat = None if sink is None else sink.seats.get(self.id)
        try:
            if sink is None or seat is None:
                raise NotInInstance
            seat.send_data(sink, item.data, item.key, item.at, item.to, item.state)
        except ReiletaError as error:
            if sink is not None:
                sink.send(failure(commands.INSTANCE_DATA, item.state, self.id, error))
                self.publish(None)

    def _observe(self, gateway: Gateway, item: wire.Observe) -> None:
        assert self.ref is not None
        sink = gateway.sinks.get(item.connection)
        if item.observes:
            if sink is None:
                sink = gateway.sinks[item.connection] = RemoteSink(gateway, item.connection)
            self._directory.watch(sink, self.id)
        elif sink is not None:
            self._directory.unwatch(sink, self.id)
            if self.id not in sink.seats:
                gateway.sinks.pop(item.connection, None)
        if sink is not None:
            self.ref.signal(RefreshObserver(sink))

    # Calls -------------------------------------------------------------------------------------

    async def enter(self, node: str, argument: wire.Enter) -> wire.Entered:
        """A session enters through a gateway."""
        gateway = self.gateway(node, argument.series)
        if gateway is None or self.ref is None or self.ref.stopped:
            return wire.Entered(elsewhere=True)
        await self._caught_up(gateway, argument.after)
        sink = gateway.sinks.get(argument.connection)
        new = sink is None
        if sink is None:
            sink = gateway.sinks[argument.connection] = RemoteSink(gateway, argument.connection)
        sink.session = argument.visitor.session
        session = RemoteSession(self, node, argument.visitor.session)
        request = AddMember(argument.visitor, sink, session, argument.state)
        try:
            player, waiting = await self._ask(gateway, request)
        except ReiletaError:
            if new and self.id not in sink.seats:
                gateway.sinks.pop(argument.connection, None)
            raise
        member = None if self.recovery is None else self.recovery.seated.get(sink.session)
        if member is None or member.player.id != player:
            raise Overloaded  # it has left already
        return wire.Entered(member.player, waiting.number, waiting.parcels)

    async def ask(self, node: str, argument: wire.Ask) -> wire.Answered:
        """A request of a gateway to the instance."""
        if self.ref is None or self.ref.stopped:
            return wire.Answered(elsewhere=True)
        gateway = self.find(node, argument.series)
        socket: dict[str, Any] = {}
        if argument.connection and gateway is not None:
            await self._caught_up(gateway, argument.after)
            sink = gateway.sinks.get(argument.connection)
            socket["sink"] = sink or RemoteSink(gateway, argument.connection)
        request = wire.request_of(argument, **socket)
        if request is None:
            raise Overloaded  # a node of a newer version asks; it can ask another one soon
        value = await self._do(gateway, request, argument.deed)
        number = 0 if gateway is None else self.last
        return wire.Answered(msgspec.Raw(wire.encode(value)), number)

    def tell(self, argument: wire.Tell) -> wire.Told:
        """Signals of a node that has nobody inside."""
        if self.ref is None or self.ref.stopped:
            return wire.Told(elsewhere=True)
        for signal in argument.signals:
            message = wire.signal_of(signal)
            if message is not None:
                self.ref.signal(message)  # type: ignore[arg-type]  # one of `SIGNALS`
        return wire.Told()

    def watch(self, node: str, argument: wire.Watch) -> wire.Watched:
        """A gateway with observers, which may have nobody inside."""
        gateway = self.gateway(node, argument.series)
        if gateway is None or self.ref is None or self.ref.stopped:
            return wire.Watched(elsewhere=True)
        for number in argument.connections:
            self._observe(gateway, wire.Observe(number, observes=True))
        return wire.Watched(self.last + 1)

    async def _do(self, gateway: Gateway | None, request: Request[Any], deed: str) -> Any:
        """The answer to a request; a deed that is done, or under way, is not done again."""
        known = self._deeds.get(deed) if deed else None
        if known is not None:
            return await _answer_again(known)
        if deed:
            self._deeds[deed] = request
            while len(self._deeds) > DEEDS:
                self._deeds.popitem(last=False)
        try:
            if gateway is None:
                return await self._ask_actor(request)
            answer, _ = await self._ask(gateway, request)
        except ReiletaError as error:
            if isinstance(error, Overloaded) and deed:
                self._deeds.pop(deed, None)  # it was not done; a repetition may succeed
            raise
        return answer

    async def _ask(self, gateway: Gateway, request: Request[Any]) -> tuple[Any, _Waiting]:
        """The answer, once the frames that belong to it are published."""
        waiting = _Waiting(request, gateway, reset=isinstance(request, RestoreMembers))
        self._waiting.append(waiting)
        try:
            answer = await self._ask_actor(request)
            with trio.move_on_after(CATCH_UP_S):
                await waiting.published.wait()
            if not waiting.published.is_set():
                raise Overloaded
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return answer, waiting

    async def _ask_actor(self, request: Request[Any]) -> Any:
        assert self.ref is not None
        with trio.move_on_after(ASK_S):
            return await self.ref.ask(request)
        raise Overloaded

    async def _caught_up(self, gateway: Gateway, after: int) -> None:
        """Waits a moment for what the gateway sent before."""
        with trio.move_on_after(CATCH_UP_S):
            while gateway.incoming.last < after:
                gateway.incoming.heard(after)
                self._fetch(gateway)
                await gateway.progress.wait()

    def replay(self, argument: wire.Replay) -> wire.Replayed:
        """What was sent from a number on, if it is still kept."""
        self._outgoing.forget_old(trio.current_time())
        return wire.Replayed(self._outgoing.since(argument.first))

    async def restore(self, node: str, argument: wire.Restore) -> wire.Restored:
        """A gateway's players get a snapshot, since messages are lost; it says whom it has."""
        gateway = self.gateway(node, argument.series)
        if gateway is None or self.ref is None or self.ref.stopped:
            return wire.Restored(elsewhere=True)
        seated = {number for seat in argument.seats for number in seat.connections}
        for number in gateway.sinks.keys() - seated:
            sink = gateway.sinks[number]
            if self.id in sink.seats:
                del gateway.sinks[number]
                sink.ended(lost_frames=True, left=False, vanished_at=None)
                self._lose_socket(sink)
        members = tuple(self.seat(gateway, seat) for seat in argument.seats)
        lost, waiting = await self._ask(gateway, RestoreMembers(members, argument.returning))
        return wire.Restored(waiting.number, waiting.parcels, list(lost))


async def _answer_again(request: Request[Any]) -> Any:
    """The answer to a request that somebody else may wait for, too."""
    with trio.move_on_after(ASK_S):
        while not request.slot.answered:  # noqa: ASYNC110  # a slot wakes one task only
            await trio.sleep(0.02)
        return await request.slot.wait()
    raise Overloaded


class _Buffers:
    """The buffers of one message, and the parcels that it needs."""

    def __init__(self, hosted: HostedInstance, fan: wire.Fan) -> None:
        self._hosted = hosted
        self._fan = fan
        self._known: dict[int, tuple[int, Batch]] = {}
        self._parcels: dict[Gateway, dict[int, wire.Parcel]] = {}
        self._names: dict[str, int] = {}

    def index(self, batch: Batch, sink: RemoteSink | None) -> int:
        """The batch's place among the buffers; `sink` gets frames of it, or (None) many do."""
        known = self._known.get(id(batch))
        if known is None:
            inline = len(batch) * len(self._hosted.gateways) <= INLINE_BYTES
            if not batch.snapshot or inline or sink is None:
                buffer = wire.Buffer(batch.buffer, batch.ends, self._keys(batch), batch.snapshot)
            else:
                number = self._hosted.parcel()
                buffer = wire.Buffer(b"", [], None, snapshot=True, parcel=number)
            known = self._known[id(batch)] = (len(self._fan.buffers), batch)
            self._fan.buffers.append(buffer)
        index = known[0]
        parcel = self._fan.buffers[index].parcel
        if parcel and sink is not None:
            wanted = self._parcels.setdefault(sink.gateway, {})
            wanted[parcel] = wire.Parcel(parcel, batch.buffer, batch.ends)
        return index

    def _keys(self, batch: Batch) -> list[tuple[int, ...] | None] | None:
        if batch.keys is None:
            return None
        names = self._names
        keys: list[tuple[int, ...] | None] = []
        for key in batch.keys:
            if isinstance(key, tuple) and key[0] == self._hosted.id:
                keys.append(tuple([names.setdefault(one, len(names)) for one in key[1:]]))
            else:
                keys.append(None)
        self._fan.names = list(names)
        return keys

    def send_parcels(self, waiting: list[_Waiting]) -> None:
        """Puts each gateway's parcels into the answer of a call of its, or sends them."""
        for gateway, parcels in self._parcels.items():
            answer = next((one for one in waiting if one.gateway is gateway), None)
            if answer is None:
                self._hosted.send_parcels(gateway, list(parcels.values()))
            else:
                answer.parcels += parcels.values()


def _commonest(written: list[RemoteSink], receivers: int) -> Sequence[Piece] | None:
    """The pieces that most receivers got whole: one and the same list, of one buffer that is no
    snapshot. The flush writes it to all that have no edits."""
    lists = Counter(id(sink.pieces) for sink in written)
    for identity, count in lists.most_common():
        if count * 2 < receivers:
            return None  # it takes less to say who gets something than who gets nothing
        pieces = next(sink.pieces for sink in written if id(sink.pieces) == identity)
        assert pieces is not None
        if len(pieces) == 1 and not pieces[0][0].snapshot:
            batch, start, end = pieces[0]
            if (start, end) == (0, len(batch)):
                return pieces
    return None
