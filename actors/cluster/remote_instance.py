"""An instance at another node, as the sockets and sessions of this node see it: the gateway's side.

`RemoteInstance` stands where an instance's actor would: sessions ask it and signal it. Requests
become calls to the host. Data and signals go to it in numbered messages, one for each turn of the
loop. Its messages come back numbered, too; each is written to the sockets as the host itself would
(`actors/cluster/hosted_instance.py`).

If the host is gone, or the instance has moved, this looks for its new place: and so does every
other gateway, and each request that waits. Meanwhile the players are told `instance-paused`. The
new host asks all gateways which players they have (`reseat`). If this node is the new host, the
players are handed to the local actor, and this is only kept for those who still hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import uuid4

import msgspec
import structlog
import trio

from actors.cluster import wire
from actors.cluster.gateway_sockets import RelayMember, Spawn
from actors.delivery.batch import Batch, Piece
from actors.delivery.sink import Sink
from actors.instance.hosted import There
from actors.instance.messages import InstanceMessage, SendData
from actors.instance.recovery import Member
from actors.membership import (
    AddMember,
    InstanceMoved,
    MemberSessionEnded,
    RenameUser,
    SeatLost,
    SessionRecipient,
    SocketLost,
)
from actors.runtime.errors import ActorStopped, MailboxFull
from actors.runtime.failures import capture_failure
from actors.runtime.mailbox import Recipient
from actors.runtime.message import Request
from reileta.cluster.bus import BusError, Gap
from reileta.cluster.calls import Calls, NodeUnreachable, pack, unpacked
from reileta.errors import InstanceNotFound, InternalError, Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.protocol import commands, events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import EMPTY, encode, event, failure
from reileta.protocol.views.instance import LeftView
from reileta.rules.cluster.stream import KEPT_BYTES, Incoming, Outgoing
from reileta.rules.identity import Visitor
from reileta.rules.instance.seats import Player

R = TypeVar("R")
A = TypeVar("A")

CALL_S: Final = 1.0
"""Seconds for the host to let a session in, before its place is looked up again."""
REQUEST_S: Final = 5.0
"""The same for other requests, which may wait for the database."""
PLACED_S: Final = 4.0
"""Seconds in all until a request is given up because the instance has no host that answers."""
AGAIN_S: Final = 0.1
"""Seconds between two attempts."""
RESEATED_S: Final = 0.5
"""Seconds in which a new host asks for the players; later they are told to it."""
OUT_BYTES: Final = KEPT_BYTES
"""Data that the host has not confirmed yet. More is refused with `MailboxFull`."""
BOX_ITEMS: Final = 4096
"""Data of one turn of the loop. More is refused with `MailboxFull`."""
HELD_S: Final = 3.0
"""A socket that waits for a parcel for so long gets a fresh snapshot."""
PARCEL_KEPT_S: Final = 10.0
IDLE_S: Final = 5.0
"""Seconds without players until this stops listening to the host."""

_log = structlog.get_logger()


class Places(Protocol):
    """Finds the hosts of instances."""

    async def find(self, instance_id: str) -> Recipient[InstanceMessage] | There:
        """Where the instance runs: its actor here, or another node. It is placed if it runs
        nowhere, and started if that is here.

        Raises:
            InstanceNotFound: it is gone.
            Overloaded: nobody can say now.
        """
        ...


class RemoteSeat:
    """A socket's seat in an instance at another node: the `InstanceHandle` of its player."""

    __slots__ = ("_connection", "_remote", "_session", "player")

    def __init__(self, remote: RemoteInstance, connection: int, player: str, session: str) -> None:
        self.player = player
        self._remote = remote
        self._connection = connection
        self._session = session

    def send_data(
        self,
        sink: Sink,
        data: bytes,
        key: str | None,
        at: float | None,
        to: tuple[str, ...] | None,
        state: bytes | None,
    ) -> None:
        """As `InstanceHandle.send_data`."""
        self._remote.say(wire.Data(self._connection, data, key, at, to, state))

    def lose(self, sink: Sink) -> None:
        """As `InstanceHandle.lose`."""
        self._remote.signal(SocketLost(self._session, sink))


@dataclass(eq=False, slots=True)
class _Connection:
    """A socket of this node in the instance.

    `held`: what waits for a parcel, and all after it; since `held_since`.
    """

    number: int
    sink: Sink
    session: str = ""
    receives: bool = False
    observes: bool = False
    held: list[list[tuple[Batch | int, int, int]]] = field(default_factory=list)
    held_since: float = 0.0


@dataclass(eq=False, slots=True)
class _Seat:
    """A session of this node with a player inside; `player` is None until it has entered."""

    visitor: Visitor
    session: SessionRecipient
    player: Player | None = None


class _Moved(Exception):
    """The instance runs at this node now."""

    def __init__(self, to: Recipient[InstanceMessage]) -> None:
        super().__init__()
        self.to = to


class RemoteInstance:
    """An instance at another node: a `Recipient[InstanceMessage]`."""

    def __init__(
        self,
        instance: str,
        place: There,
        *,
        member: RelayMember,
        calls: Calls,
        places: Places,
        spawn: Spawn,
        numbers: Callable[[], int],
    ) -> None:
        """`numbers` gives numbers that this node never uses again."""
        self.id = instance
        self.name = f"instance/{instance} at {place.node}"
        self.place = place
        self.local: Recipient[InstanceMessage] | None = None
        """The actor, once the instance has come to this node."""
        self.gaps = 0
        self.replays = 0
        self.restores = 0
        self._member = member
        self._calls = calls
        self._places = places
        self._spawn = spawn
        self._numbers = numbers
        self._connections: dict[int, _Connection] = {}
        self._of_sink: dict[Sink, _Connection] = {}
        self._seats: dict[str, _Seat] = {}
        self._roster: dict[str, wire.Seat] = {}
        """All players, as the host has told."""
        self._asks = 0
        self._idle_since = trio.current_time()
        self._paused = False
        self._looking: trio.Event | None = None
        """The end of a look for the place that is under way."""
        self._reseated = trio.Event()
        self._first = trio.Lock()
        self._restoring: trio.Event | None = None
        self._returning = False
        """Whether this host has not asked for the players."""
        self._handed_over: list[Member] = []
        self._carried: list[wire.Signal] = []
        self._begin_link()

    # The link to one host ----------------------------------------------------------------------

    def _begin_link(self) -> None:
        """Begins with a host from nothing; what was on its way to another one is lost."""
        self.gateway = self._member.node
        self.series = self._numbers()
        self._incoming = Incoming()
        self._outgoing = Outgoing(kept_bytes=2**62, kept_s=2**62)  # until it is confirmed
        self._joiner = wire.Joiner()
        self._box: list[wire.Item] = [*self._carried]  # what the last host may not have heard
        self._carried = []
        self._filled = trio.Event()
        self._repair = trio.Event()
        self._parcels: dict[int, tuple[float, Batch]] = {}
        self._lost_players: set[str] = set()
        self._listening = trio.Event()
        self._scope = trio.CancelScope()
        self._cut = False
        """Whether the host does not answer."""
        self._must_restore = False
        """Whether the host does not know the players here, or they miss what it has forgotten."""
        for connection in self._connections.values():
            connection.receives = False
            connection.held.clear()
            if connection.observes:
                self._box.append(wire.Observe(connection.number, observes=True))
        self._spawn(partial(self._run_link, self._scope, self._listening, self.place))

    def _end_link(self) -> None:
        """Stops listening to the host. Data that it has not confirmed is refused, late."""
        self._scope.cancel()
        chunks = self._outgoing.since(self._outgoing.last - len(self._outgoing) + 1) or []
        joiner, box, self._box = wire.Joiner(), self._box, []
        sent: list[wire.Item] = []
        for chunk in chunks:
            whole = joiner.take(chunk)
            if whole is not None:
                sent += _items_of(whole)
        self._carried = [item for item in (*sent, *box) if isinstance(item, wire.Signal)]
        # The host may have passed on what was sent before it was lost: nobody knows.
        self._refuse_late(sent, InternalError())
        self._refuse_late(box, Overloaded())

    def _refuse_late(self, items: Iterable[wire.Item], error: ReiletaError) -> None:
        for item in items:
            if isinstance(item, wire.Data) and item.state is not None:
                connection = self._connections.get(item.connection)
                if connection is not None:
                    state = bytes(item.state)
                    connection.sink.send(failure(commands.INSTANCE_DATA, state, self.id, error))

    async def _run_link(self, scope: trio.CancelScope, listening: trio.Event, place: There) -> None:
        async def run() -> None:
            subject = self._member.subject("i", self.id, str(place.epoch))
            async with (
                self._member.bus.subscribe(subject) as subscription,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._pump)
                nursery.start_soon(self._keep_whole)
                listening.set()
                while True:
                    received = await subscription.receive()
                    # After a pause, this node may have been given up, with the players here.
                    await self._until_here()
                    for item in received:
                        if isinstance(item, Gap):
                            self.doubt()
                            continue
                        message = unpacked(item.data, wire.from_host)
                        if message is not None:
                            self._heard(message)

        with scope:
            failed = await capture_failure(run)
            if failed is not None:
                _log.error(log_events.RELAY_FAILED, instance=self.id, exc_info=failed)
                del failed
                await trio.sleep(AGAIN_S)
                if self.local is None and not scope.cancel_called:
                    self._end_link()
                    self._begin_link()
                    self.recover()

    async def _until_here(self) -> None:
        """Waits while this node is suspended. If it falls, the link ends."""
        # A fall has no event.
        while not self._member.valid() or self.gateway != self._member.node:  # noqa: ASYNC110
            await trio.sleep(AGAIN_S)

    # In: from the host -------------------------------------------------------------------------

    def _heard(self, message: wire.FromHost) -> None:
        match message:
            case wire.Chunk(number, data):
                self._apply_all(self._incoming.take(number, data))
            case wire.Beat(last, taken):
                self._incoming.heard(last)
                self._confirm(taken.get(self.gateway))
        if self._incoming.missing is not None:
            self._repair.set()

    def doubt(self) -> None:
        """Messages may be missing: the bus lost its connection, or could not keep up."""
        self._incoming.doubt()
        self._repair.set()

    def _apply_all(self, ready: list[bytes]) -> None:
        for chunk in ready:
            whole = self._joiner.take(chunk)
            if whole is None:
                continue
            try:
                fan = wire.fans.decode(whole)
            except msgspec.MsgspecError:
                _log.warning(log_events.CALL_MALFORMED, subject="fan")
                continue
            self._apply(fan)

    def _apply(self, fan: wire.Fan) -> None:
        """Writes the frames of one drain to the sockets."""
        mine = fan.gateways.index(self.gateway) if self.gateway in fan.gateways else -1
        for gateway, number in fan.came:
            if gateway == mine and (connection := self._connections.get(number)) is not None:
                connection.receives = True
        edits = {number: spans for gateway, number, spans in fan.edits if gateway == mine}
        if fan.buffers and (edits or fan.whole):
            self._write(fan, edits)
        for gateway, number in fan.gone:
            if gateway == mine and (connection := self._connections.get(number)) is not None:
                connection.receives = False
                if not connection.observes:
                    self._forget(connection)
        for seat in fan.seated:
            self._roster[seat.player.session] = seat
        for session, player in fan.lost:
            known = self._roster.get(session)
            if known is not None and known.player.id == player:
                del self._roster[session]
            self._seat_lost(session, player)
        for gateway, number, code, reason in fan.closed:
            if gateway == mine and (connection := self._connections.get(number)) is not None:
                connection.sink.close(CloseCode[code], reason)
        self._confirm(next((last for gateway, last in fan.taken if gateway == mine), None))

    def _write(self, fan: wire.Fan, edits: dict[int, list[wire.Span]]) -> None:
        buffers: list[Batch | int] = [
            buffer.parcel or _batch(self.id, buffer, fan.names) for buffer in fan.buffers
        ]
        whole: list[Piece] = []
        first = buffers[0]
        if fan.whole and isinstance(first, Batch):
            whole = [(first, 0, len(first))]
        for connection in tuple(self._connections.values()):
            spans = edits.get(connection.number)
            if spans is None:
                if not connection.receives or not whole:
                    continue
                if not connection.held:
                    connection.sink.write(whole)
                    continue
                spans = [(0, 0, len(whole[0][0]))]
            if spans:
                self._write_to(
                    connection, [(buffers[one], start, end) for one, start, end in spans]
                )

    def _write_to(
        self, connection: _Connection, pieces: list[tuple[Batch | int, int, int]]
    ) -> None:
        if not connection.held:
            ready = self._resolved(pieces)
            if ready is not None:
                connection.sink.write(ready)
                return
            connection.held_since = trio.current_time()
        connection.held.append(pieces)

    def _resolved(self, pieces: Iterable[tuple[Batch | int, int, int]]) -> list[Piece] | None:
        """The pieces with their parcels; None if one is not there."""
        ready: list[Piece] = []
        for batch, start, end in pieces:
            if isinstance(batch, int):
                kept = self._parcels.get(batch)
                if kept is None:
                    return None
                batch = kept[1]
            ready.append((batch, start, end))
        return ready

    def parcels(self, parcels: Sequence[wire.Parcel]) -> None:
        """Parcels have come; what waited for them is written."""
        now = trio.current_time()
        for one in parcels:
            batch = Batch.of_buffer(one.data, one.ends, snapshot=True)
            self._parcels[one.number] = (now, batch)
        for connection in self._connections.values():
            while connection.held:
                ready = self._resolved(connection.held[0])
                if ready is None:
                    break
                del connection.held[0]
                connection.held_since = now
                connection.sink.write(ready)

    def _confirm(self, last: int | None) -> None:
        if last is not None:
            self._outgoing.taken(last)

    def _seat_lost(self, session: str, player: str) -> None:
        self._lost_players.add(player)
        seat = self._seats.get(session)
        if seat is None or (seat.player is not None and seat.player.id != player):
            return
        if seat.player is not None:  # else it is entering, and has a newer player
            del self._seats[session]
            for connection in tuple(self._connections.values()):
                if connection.session == session and not connection.observes:
                    self._forget(connection)
        seat.session.signal(SeatLost(self.id, player))

    def _forget(self, connection: _Connection) -> None:
        """The socket has no seat any more."""
        self._connections.pop(connection.number, None)
        self._of_sink.pop(connection.sink, None)
        seat = connection.sink.seats.get(self.id)
        if isinstance(seat, RemoteSeat):
            del connection.sink.seats[self.id]

    # Repair ------------------------------------------------------------------------------------

    async def _keep_whole(self) -> None:
        """Asks the host for what is missing, until nothing is."""
        while True:
            await self._repair.wait()
            self._repair = trio.Event()
            while True:
                if self._must_restore and self._seats:
                    await self._restore()
                    continue
                first = self._incoming.missing
                if first is None:
                    break
                await self._until_here()
                self.gaps += 1
                argument = wire.Replay(self.id, self.place.epoch, first)
                try:
                    answer = await self._calls.call(
                        self.place.node, "replay", argument, wire.Replayed, CALL_S
                    )
                except (NodeUnreachable, ReiletaError) as error:
                    self._cut = True
                    if isinstance(error, NodeUnreachable) and error.absent:
                        self.recover()
                    await trio.sleep(AGAIN_S)
                    continue
                if answer.elsewhere:
                    self.recover()
                    await trio.sleep(AGAIN_S)
                elif answer.chunks is None:
                    await self._restore()
                elif self._incoming.next == first:
                    self.replays += 1
                    self._apply_all(self._incoming.replayed(answer.chunks))
                    self._resume()

    async def _restore(self) -> bool:
        """Begins anew with the same host: the players get a snapshot. Whether it has answered."""
        if self._restoring is not None:
            await self._restoring.wait()
            return not self._cut
        self._restoring = trio.Event()
        try:
            return await self._restore_once()
        finally:
            self._restoring.set()
            self._restoring = None

    async def _restore_once(self) -> bool:
        self.restores += 1
        self._must_restore = True
        self._incoming = Incoming()
        self._joiner.clear()
        for connection in self._connections.values():
            connection.receives = False
            connection.held.clear()
        series = self.series
        argument = wire.Restore(self.id, self.place.epoch, series, self.seats(), self._returning)
        try:
            answer = await self._calls.call(
                self.place.node, "restore", argument, wire.Restored, REQUEST_S
            )
        except (NodeUnreachable, ReiletaError) as error:
            if isinstance(error, NodeUnreachable) and error.absent:
                self.recover()
            await trio.sleep(AGAIN_S)
            self._repair.set()
            return False
        if series != self.series:
            return True  # another host has taken over
        if answer.elsewhere:
            self.recover()
            await trio.sleep(AGAIN_S)
            self._repair.set()
            return False
        self._paused = self._cut = self._returning = self._must_restore = False
        self.parcels(answer.parcels)
        self._apply_all(self._incoming.begin(answer.number))
        for session, player in answer.lost:
            self._turn_away(session, player)
        return True

    def _turn_away(self, session: str, player: str) -> None:
        """The host has no seat for a player that was inside."""
        seat = self._seats.get(session)
        if seat is not None and seat.player is not None and seat.player.id == player:
            view = LeftView(player, seat.player.user, "disconnected")
            frame = event(events.INSTANCE_LEFT, self.id, encode(view))
            for connection in self._connections.values():
                if connection.session == session:
                    connection.sink.send(frame)
        self._seat_lost(session, player)

    def tick(self, now: float) -> bool:
        """Does what is due each second. Returns whether this object is still needed."""
        if self.local is not None:
            return False
        for number in [one for one, (at, _) in self._parcels.items() if at < now - PARCEL_KEPT_S]:
            del self._parcels[number]
        if any(one.held and one.held_since < now - HELD_S for one in self._connections.values()):
            self._must_restore = True
            self._repair.set()
        if self._seats or self._asks or self._connections or self._box:
            self._idle_since = now
        listens = self._listening.is_set() and self._incoming.next is not None
        if listens and (self._seats or len(self._outgoing)):
            self._beat()
        return now - self._idle_since < IDLE_S

    def _beat(self) -> None:
        beat = wire.InBeat(
            self.id,
            self.place.epoch,
            self.gateway,
            self.series,
            self._outgoing.last,
            self._incoming.last,
        )
        try:
            self._member.bus.publish(self._member.subject("n", self.place.node, "in"), pack(beat))
        except BusError:
            return

    # Out: to the host --------------------------------------------------------------------------

    def say(self, item: wire.Data) -> None:
        """Sends a player's data; never waits. Raises MailboxFull."""
        if self._outgoing.size > OUT_BYTES or len(self._box) >= BOX_ITEMS or self._cut:
            raise MailboxFull
        self._box.append(item)
        self._filled.set()

    def tell(self, message: InstanceMessage) -> None:
        """As `Ref.tell`."""
        if self.local is not None:
            self.local.tell(message)
            return
        if isinstance(message, SendData):
            connection = self._of_sink.get(message.sink)
            if connection is None:
                raise ActorStopped
            self.say(
                wire.Data(
                    connection.number,
                    message.data,
                    message.key,
                    message.at,
                    message.to,
                    message.state,
                )
            )
        else:
            self.signal(message)

    def signal(self, message: InstanceMessage) -> bool:
        """As `Ref.signal`. What is told now is not lost with a message of the bus."""
        if self.local is not None:
            return self.local.signal(message)
        match message:
            case SocketLost(session, sink):
                self._lose_socket(session, sink)
            case MemberSessionEnded(session):
                seat = self._seats.pop(session, None)
                for connection in tuple(self._connections.values()):
                    if connection.session == session:
                        self._forget(connection)
                if seat is not None:
                    self._put(wire.Signal(type(message).__name__, wire.fields_of(message)))
            case RenameUser(user, displayname):
                for seat in self._seats.values():
                    if seat.player is not None and seat.player.user == user:
                        seat.player = replace(seat.player, displayname=displayname)
                        seat.visitor = replace(seat.visitor, displayname=displayname)
                self._put(wire.Signal(type(message).__name__, wire.fields_of(message)))
            case _ if type(message).__name__ in wire.SIGNALS:
                self._put(wire.Signal(type(message).__name__, wire.fields_of(message)))
            case _:
                return False
        return True

    def _lose_socket(self, session: str, sink: Sink) -> None:
        connection = self._of_sink.get(sink)
        if connection is None:
            return
        vanished = sink.vanished_at
        age = None if vanished is None else max(0.0, trio.current_time() - vanished)
        self._put(
            wire.Lost(
                connection.number,
                session,
                sink.lost_frames or bool(connection.held),
                sink.left,
                age,
                None if self._incoming.next is None else self._incoming.last,
            )
        )
        self._forget(connection)

    def observers(self, sinks: Iterable[Sink]) -> None:
        """These sockets of admins are to get all data."""
        if self.local is not None:
            return
        wanted = dict.fromkeys(sinks)
        for sink in wanted:
            connection = self._of_sink.get(sink) or self._connect(sink, "")
            if not connection.observes:
                connection.observes = True
                self._put(wire.Observe(connection.number, observes=True))
        for connection in tuple(self._connections.values()):
            if connection.observes and connection.sink not in wanted:
                connection.observes = False
                self._put(wire.Observe(connection.number, observes=False))
                if not connection.session:
                    self._forget(connection)
        if wanted and self._incoming.next is None and not self._seats and not self._asks:
            self._spawn(self._watch)

    async def _watch(self) -> None:
        """Has the host send to observers, where nobody is inside."""

        def argument() -> wire.Watch:
            numbers = [one.number for one in self._connections.values() if one.observes]
            return wire.Watch(self.id, self.place.epoch, self.series, numbers)

        self._asks += 1
        try:
            async with self._first:
                if self._incoming.next is None:
                    answer = await self._called("watch", argument, wire.Watched, CALL_S)
                    self._begin_at(answer.number)
        except (_Moved, ReiletaError):
            return
        finally:
            self._asks -= 1

    def _put(self, item: wire.Item) -> None:
        self._box.append(item)
        self._filled.set()

    async def _pump(self) -> None:
        """Sends what has gathered in one turn of the loop, in one message."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            if self._incoming.next is not None:
                self._send_box()
                continue
            # The host does not know this gateway yet.
            await self._tell_signals()
            await trio.sleep(AGAIN_S)
            if self._box:
                self._filled.set()

    async def _tell_signals(self) -> None:
        """Sends signals in a call, where nobody is inside."""
        signals = [one for one in self._box if isinstance(one, wire.Signal)]
        if not signals or self._seats:
            return
        self._box = [one for one in self._box if not isinstance(one, wire.Signal)]
        argument = wire.Tell(self.id, self.place.epoch, signals)
        try:
            answer = await self._calls.call(self.place.node, "tell", argument, wire.Told, CALL_S)
        except (NodeUnreachable, ReiletaError):
            answer = wire.Told(elsewhere=True)
        if answer.elsewhere:
            self._box[:0] = signals
            self.recover()

    def _send_box(self) -> None:
        items, self._box = self._box, []
        if not items:
            return
        bus = self._member.bus
        subject = self._member.subject("n", self.place.node, "in")
        try:
            limit = bus.max_data_bytes
        except BusError:
            limit = wire.DEFAULT_BYTES
        for data in wire.chunks(wire.encode(wire.In(items)), limit):
            number = self._outgoing.add(data, 0)
            chunk = wire.InChunk(self.id, self.place.epoch, self.gateway, self.series, number, data)
            try:
                bus.publish(subject, pack(chunk))
            except BusError:
                continue  # the host finds out, and asks

    def sink(self, number: int) -> Sink | None:
        """The socket of that number."""
        connection = self._connections.get(number)
        return None if connection is None else connection.sink

    def missing(self, argument: wire.Missing) -> wire.Replayed:
        """The host's question for what it has missed; from 0 on: it does not know this gateway."""
        if (argument.series, argument.epoch) != (self.series, self.place.epoch):
            return wire.Replayed(None)
        if argument.first == 0:
            self.pause()
            self._returning = True
            self.recover()
            return wire.Replayed(None)
        return wire.Replayed(self._outgoing.since(argument.first))

    # Requests ----------------------------------------------------------------------------------

    async def ask(self, request: Request[R]) -> R:
        """As `Ref.ask`. It raises Overloaded if no host answers within `PLACED_S`."""
        if self.local is not None:
            return await self.local.ask(request)
        self._asks += 1
        try:
            if isinstance(request, AddMember):
                return await self._enter(request)  # type: ignore[return-value]  # a player's id
            return await self._request(request)
        except _Moved as moved:
            return await moved.to.ask(request)
        finally:
            self._asks -= 1

    async def _enter(self, message: AddMember) -> str:
        sink, session = message.sink, message.visitor.session
        connection = self._of_sink.get(sink)
        if connection is not None and self.id in sink.seats and sink.waiting_bytes:
            raise Overloaded
        new = connection is None
        connection = connection or self._connect(sink, session)
        connection.session = session
        seat = self._seats.get(session)
        if seat is None:
            seat = self._seats[session] = _Seat(message.visitor, message.session)
        seat.visitor, seat.session = message.visitor, message.session

        def argument() -> wire.Enter:
            self._send_box_if_known()
            return wire.Enter(
                self.id,
                self.place.epoch,
                self.series,
                self._outgoing.last,
                connection.number,
                message.visitor,
                message.state,
            )

        try:
            if self._incoming.next is None:
                # The first one to enter says where the messages begin.
                async with self._first:
                    answer = await self._called("enter", argument, wire.Entered, CALL_S)
                    self._begin_at(answer.number)
            else:
                answer = await self._called("enter", argument, wire.Entered, CALL_S)
        except BaseException as error:
            if self.local is None:
                if seat.player is None and self._seats.get(session) is seat:
                    del self._seats[session]
                if new:
                    if not isinstance(error, ReiletaError) or isinstance(error, Overloaded):
                        # The host may still let it in.
                        self._put(wire.Lost(connection.number, session, lost_frames=True))
                    self._forget(connection)
            raise
        if connection.number not in self._connections:
            raise Overloaded  # its socket has closed meanwhile
        self.parcels(answer.parcels)
        assert answer.player is not None
        player = answer.player.id
        if player not in self._lost_players:
            seat.player = answer.player
            sink.seats[self.id] = RemoteSeat(self, connection.number, player, session)
        return player

    def _begin_at(self, number: int) -> None:
        if self._incoming.next is None:
            self._apply_all(self._incoming.begin(number))
            self._filled.set()

    def _send_box_if_known(self) -> None:
        if self._incoming.next is not None:
            self._send_box()

    def _connect(self, sink: Sink, session: str) -> _Connection:
        connection = _Connection(self._numbers(), sink, session)
        self._connections[connection.number] = connection
        self._of_sink[sink] = connection
        return connection

    async def _request(self, request: Request[R]) -> R:
        name = type(request).__name__
        if name not in wire.REQUESTS:
            raise ActorStopped
        sink: Sink | None = getattr(request, "sink", None)
        connection = None if sink is None else self._of_sink.get(sink)
        asking = None
        if sink is not None and connection is None and self._incoming.next is not None:
            asking = connection = self._connect(sink, "")
        number = 0 if connection is None else connection.number
        deed = str(uuid4()) if isinstance(request, wire.WRITES) else ""
        fields = wire.fields_of(request)

        def argument() -> wire.Ask:
            self._send_box_if_known()
            return wire.Ask(
                self.id,
                self.place.epoch,
                self.series,
                self._outgoing.last,
                number,
                name,
                fields,
                deed,
            )

        try:
            answer = await self._called("ask", argument, wire.Answered, REQUEST_S)
            await self._applied(answer.number)
        finally:
            if asking is not None and asking.number in self._connections:
                self._connections.pop(asking.number)
                self._of_sink.pop(asking.sink, None)
        value: R = msgspec.msgpack.decode(answer.value, type=wire.ANSWERS[name])
        return value

    async def _applied(self, number: int) -> None:
        """Waits a moment until the host's messages up to that number are written."""
        if self._incoming.next is None:
            return
        with trio.move_on_after(CALL_S):
            while self._incoming.last < number:  # noqa: ASYNC110  # rarely needed
                await trio.sleep(0.002)

    async def _called(
        self, name: str, argument: Callable[[], object], answer: type[A], timeout_s: float
    ) -> A:
        """The answer of the host, wherever it is now. Raises _Moved, Overloaded and its errors."""
        with trio.move_on_after(PLACED_S if timeout_s <= PLACED_S else PLACED_S + timeout_s):
            while True:
                await self._listening.wait()
                series = self.series
                try:
                    answered = await self._calls.call(
                        self.place.node, name, argument(), answer, timeout_s
                    )
                except NodeUnreachable:
                    pass
                else:
                    current = name != "enter" or series == self.series
                    if current and not getattr(answered, "elsewhere", False):
                        return answered
                await self._look_again()
        raise Overloaded

    # Another place -----------------------------------------------------------------------------

    def recover(self) -> None:
        """The host is gone, or not the host any more: looks for its place until it is found."""
        if self.local is None and self._looking is None:
            self._spawn(self._recover)

    async def _recover(self) -> None:
        self.pause()
        while self.local is None:
            before = self.place
            try:
                await self._look_again()
            except (_Moved, InstanceNotFound):
                return
            if self.place != before or not self._cut:
                return

    async def _look_again(self) -> None:
        """Looks the place up, together with all who want to know it. Raises _Moved."""
        if self._looking is None:
            self._looking = trio.Event()
            try:
                await self._look()
            finally:
                self._looking.set()
                self._looking = None
        else:
            await self._looking.wait()
        if self.local is not None:
            raise _Moved(self.local)

    async def _look(self) -> None:
        epoch = self.place.epoch
        while not self._member.valid():  # noqa: ASYNC110  # suspended, or fallen
            await trio.sleep(AGAIN_S)
        try:
            place = await self._places.find(self.id)
        except InstanceNotFound:
            self._end()
            raise
        except ReiletaError:
            await trio.sleep(AGAIN_S)
            return
        if self.place.epoch != epoch or self.local is not None:
            return  # the new host was quicker
        if not isinstance(place, There):
            self.come_home(place)
        elif place.epoch > epoch:
            with trio.move_on_after(RESEATED_S):
                await self._reseated.wait()
            if self.place.epoch == epoch:
                self._follow(place)
                self._returning = True
                await self._listening.wait()
                if self._seats:
                    await self._restore()
        elif self._cut or self.gateway != self._member.node:
            if self.gateway != self._member.node:
                self._end_link()
                self._begin_link()
                await self._listening.wait()
            if not self._seats or await self._restore():
                self._cut = False
            else:
                await trio.sleep(AGAIN_S)
        else:
            await trio.sleep(AGAIN_S)

    def _follow(self, place: There) -> None:
        """Goes on with another host."""
        self._end_link()
        self.place = place
        self.name = f"instance/{self.id} at {place.node}"
        self._begin_link()

    async def reseat(self, place: There) -> wire.Reseated:
        """A new host asks for the players; it may send when this returns."""
        if self.local is not None or place.epoch <= self.place.epoch:
            return wire.Reseated()
        self._follow(place)
        self._incoming = Incoming(1)
        self._paused = self._cut = self._returning = self._must_restore = False
        await self._listening.wait()
        self._filled.set()
        self._reseated.set()
        self._reseated = trio.Event()
        others, self._roster = self.others(), {}
        return wire.Reseated(self.series, self.seats(), others)

    def others(self) -> list[wire.Seat]:
        """The players of other nodes, as the last host has told."""
        return [seat for session, seat in self._roster.items() if session not in self._seats]

    def seats(self) -> list[wire.Seat]:
        """The players of this node, with their sockets."""
        return [
            wire.Seat(
                seat.visitor,
                seat.player,
                [one.number for one in self._connections.values() if one.session == session],
            )
            for session, seat in self._seats.items()
            if seat.player is not None
        ]

    def hand_over(self) -> list[Member]:
        """The players as members of an actor of this node, which is about to start."""
        members = []
        for session, seat in self._seats.items():
            if seat.player is not None:
                member = Member(seat.visitor, seat.player, seat.session)
                for connection in self._connections.values():
                    if connection.session == session:
                        member.sinks[connection.sink] = None
                members.append(member)
        self._handed_over = members
        return members

    def come_home(self, recipient: Recipient[InstanceMessage]) -> None:
        """The instance runs at this node now: its sessions are told to ask it there."""
        if self.local is not None:
            return
        self._end_link()
        self.local = recipient
        for member in self._handed_over:  # what has changed since
            if member.player.session not in self._seats:
                recipient.signal(MemberSessionEnded(member.player.session))
                continue
            for sink in member.sinks:
                if sink not in self._of_sink:
                    recipient.signal(SocketLost(member.player.session, sink))
        for session, seat in self._seats.items():
            sinks = [one.sink for one in self._connections.values() if one.session == session]
            seat.session.signal(InstanceMoved(self.id, recipient, tuple(sinks)))
        for connection in tuple(self._connections.values()):
            self._forget(connection)
        self._seats.clear()

    def take_over(self, members: Iterable[Member]) -> None:
        """The players of an actor of this node, whose instance is elsewhere now."""
        for member in members:
            seat = _Seat(member.visitor, member.session, member.player)
            self._seats[member.player.session] = seat
            for sink in member.sinks:
                connection = self._connect(sink, member.player.session)
                sink.seats[self.id] = RemoteSeat(
                    self, connection.number, member.player.id, member.player.session
                )
            member.session.signal(InstanceMoved(self.id, self, tuple(member.sinks)))

    def _end(self) -> None:
        """The instance is gone: its players have left."""
        for session, seat in list(self._seats.items()):
            if seat.player is None:
                continue
            view = LeftView(seat.player.id, seat.player.user, "closed")
            frame = event(events.INSTANCE_LEFT, self.id, encode(view))
            for connection in tuple(self._connections.values()):
                if connection.session == session:
                    connection.sink.send(frame)
                    self._forget(connection)
            self._seat_lost(session, seat.player.id)

    # Pauses ------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Tells the players that the instance can't be reached for now."""
        self._cut = True
        if not self._paused and any(seat.player for seat in self._seats.values()):
            self._paused = True
            self._tell_all(event(events.INSTANCE_PAUSED, self.id, EMPTY))

    def _resume(self) -> None:
        """Nothing was lost."""
        self._cut = False
        if self._paused:
            self._paused = False
            self._tell_all(event(events.INSTANCE_RESUMED, self.id, EMPTY))

    def _tell_all(self, frame: bytes) -> None:
        for connection in self._connections.values():
            seat = self._seats.get(connection.session)
            if seat is not None and seat.player is not None:
                connection.sink.send(frame)

    def restart(self) -> None:
        """The relay itself has failed, and runs again."""
        if self.local is None:
            self._end_link()
            self._begin_link()
            self.pause()
            self.recover()

    def close(self) -> None:
        """Nobody needs this any more."""
        self._scope.cancel()


def _items_of(whole: bytes) -> list[wire.Item]:
    try:
        return wire.ins.decode(whole).items
    except msgspec.MsgspecError:
        return []


def _batch(instance: str, buffer: wire.Buffer, names: list[str]) -> Batch:
    keys: list[tuple[str, ...] | None] | None = None
    if buffer.keys is not None:
        keys = [
            None if key is None else (instance, *(names[one] for one in key)) for key in buffer.keys
        ]
    return Batch.of_buffer(buffer.data, buffer.ends, keys, snapshot=buffer.snapshot)
