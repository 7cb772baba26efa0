"""A gateway's link to the host of an instance: numbered messages both ways.

Messages of the host are written to the sockets of this node (`remote_sockets.py`). Data and signals
go to the host in numbered messages, one for each turn of the loop, and are kept until it has them.
A link ends with its host, and another one begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog
import trio

from actors.cluster import wire
from actors.cluster.gateway_sockets import RelayMember, Spawn
from actors.cluster.remote_sockets import Connection, RemoteSockets
from actors.delivery.interest import InterestGroups
from actors.delivery.sink import Sink
from actors.instance.hosted import There
from actors.instance.messages import InstanceMessage
from actors.instance.recovery import Member
from actors.membership import SeatLost, SessionRecipient
from actors.runtime.errors import MailboxFull
from actors.runtime.failures import capture_failure
from actors.runtime.mailbox import Recipient
from reileta.cluster.bus import BusError, Gap
from reileta.cluster.calls import Calls, NodeUnreachable, pack, unpacked
from reileta.errors import InternalError, Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.protocol import commands
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import failure
from reileta.rules.cluster.stream import KEPT_BYTES, Incoming, Outgoing, Reached
from reileta.rules.identity import Visitor
from reileta.rules.instance.seats import Player

A = TypeVar("A")

CALL_S: Final = 1.0
"""Seconds for the host to let a session in, before its place is looked up again."""
AGAIN_S: Final = 0.1
"""Seconds between two attempts."""
OUT_BYTES: Final = KEPT_BYTES
"""Data that the host has not confirmed yet. More is refused with `MailboxFull`."""
BOX_ITEMS: Final = 4096
"""Data of one turn of the loop. More is refused with `MailboxFull`."""

_log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class SessionSeat:
    """A session of this node with a player inside; `player` is None until it has entered."""

    visitor: Visitor
    session: SessionRecipient
    player: Player | None = None


class RemoteLink(ABC):
    """The part of `RemoteInstance` that hears the host, and sends to it."""

    def __init__(
        self,
        instance: str,
        place: There,
        *,
        member: RelayMember,
        calls: Calls,
        spawn: Spawn,
        numbers: Callable[[], int],
        figures: wire.Figures,
        interests: InterestGroups,
    ) -> None:
        """`numbers` gives numbers that this node never uses again. `figures` are those of the
        node."""
        self.id = instance
        self.name = f"instance/{instance} at {place.node}"
        self.place = place
        self.local: Recipient[InstanceMessage] | None = None
        """The actor, once the instance has come to this node."""
        self.figures = figures
        self._member = member
        self._calls = calls
        self._spawn = spawn
        self._numbers = numbers
        self._sockets = RemoteSockets(instance, interests)
        self._seats: dict[str, SessionSeat] = {}
        self._roster: dict[str, wire.Seat] = {}
        """All players, as the host has told."""
        self.gateways: set[str] = set()
        """The gateways of which the host has told."""
        self._asks = 0
        self._attempts = 0
        """Joins, counted: the number of each is the same in its repetitions."""
        self._idle_since = trio.current_time()
        self._paused = False
        self._reseated = trio.Event()
        self._first = trio.Lock()
        self._restoring: trio.Event | None = None
        self._beginnings = 0
        """How often the players here were to get a snapshot."""
        self._returning = False
        """Whether this host has not asked for the players."""
        self._handed_over: list[Member] = []
        self._carried: list[wire.Item] = []
        self._carried_to_host: list[wire.Item] = []
        """The messages from before the change of hosts, which the new host gets first."""
        self._under_way: set[trio.CancelScope] = set()
        """The calls to the host that are under way."""
        self._begin_link()

    @abstractmethod
    def recover(self) -> None:
        """The host is gone, or not the host any more: looks for its place until it is found."""

    @abstractmethod
    def pause(self) -> None:
        """Tells the players that the instance can't be reached for now."""

    @abstractmethod
    async def _keep_whole(self) -> None:
        """Asks the host for what is missing, until nothing is."""

    # The link to one host ----------------------------------------------------------------------

    def _begin_link(self) -> None:
        """Begins with a host. What was on its way to another one is lost, besides `_carried`."""
        self.gateway = self._member.node
        self.series = self._numbers()
        self._incoming = Incoming()
        self._reached = Reached()
        self._outgoing = Outgoing(kept_bytes=2**62, kept_s=2**62)  # until it is confirmed
        self._joiner = wire.Joiner()
        self._box: list[wire.Item] = [*self._carried]  # what the last host may not have heard
        self._carried_to_host, self._carried = self._carried, []
        self._filled = trio.Event()
        self._repair = trio.Event()
        self._sockets.forget_parcels()
        self._sockets.begin()
        self._lost_players: set[str] = set()
        self._listening = trio.Event()
        self._scope = trio.CancelScope()
        self._cut = False
        """Whether the host does not answer."""
        self._must_restore = False
        """Whether the host does not know the players here, or they miss what it has forgotten."""
        for connection in self._sockets.by_number.values():
            if connection.observes:
                self._box.append(wire.Observe(connection.number, observes=True))
        self._spawn(partial(self._run_link, self._scope, self._listening, self.place))

    def _end_link(self) -> None:
        """Stops listening to the host. Data that it has not confirmed is refused, late."""
        self._scope.cancel()
        self._give_up_calls()
        sent = self._unconfirmed(self._outgoing.last - len(self._outgoing))
        box, self._box = self._box, []
        self._carried = [item for item in (*sent, *box) if isinstance(item, wire.Signal)]
        # The host may have passed on what was sent before it was lost: nobody knows.
        self._refuse_late(sent, InternalError())
        self._refuse_late(box, Overloaded())

    async def _call_host(self, name: str, argument: object, answer: type[A], timeout_s: float) -> A:
        """Calls the present host. Gives the call up as soon as the host changes."""
        node = self.place.node
        with trio.CancelScope() as scope:
            self._under_way.add(scope)
            try:
                return await self._calls.call(node, name, argument, answer, timeout_s)
            finally:
                self._under_way.discard(scope)
        raise NodeUnreachable(node, "is not the host any more")

    def _give_up_calls(self) -> None:
        """No call that is under way will be answered."""
        for scope in self._under_way:
            scope.cancel()

    def _end_handed_over(self, taken: tuple[int, int] | None) -> None:
        """Stops listening to the host, which has handed the instance over, and has taken this
        node's messages up to `taken`: the next one gets what came after them."""
        self._scope.cancel()
        self._give_up_calls()
        first = 0
        if taken is not None and taken[0] == self.series:
            first = taken[1]
        first = max(first, self._outgoing.last - len(self._outgoing))
        carried = [*self._unconfirmed(first), *self._box]
        self._box = []
        # A new link tells by itself who observes. No socket has heard anything of the next host.
        self._carried = [
            _unheard(item) if isinstance(item, wire.Lost) else item
            for item in carried
            if not isinstance(item, wire.Observe)
        ]

    def _unconfirmed(self, last: int) -> list[wire.Item]:
        """What was sent to the host after that message."""
        joiner, sent = wire.Joiner(), list[wire.Item]()
        for chunk in self._outgoing.since(last + 1) or []:
            whole = joiner.take(chunk)
            if whole is not None:
                sent += _items_of(whole)
        return sent

    def _refuse_late(self, items: Iterable[wire.Item], error: ReiletaError) -> None:
        for item in items:
            if isinstance(item, wire.Data) and item.state is not None:
                connection = self._sockets.by_number.get(item.connection)
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
                    await unless_ended()
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

    def _connect(self, sink: Sink, session: str) -> Connection:
        """A socket of a session, under a new number."""
        return self._sockets.connect(self._numbers(), sink, session)

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
                self.gateways = set(taken)
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
        if ready:
            self._reached.note(self._incoming.last, trio.current_time())

    def _apply(self, fan: wire.Fan) -> None:
        """Writes the frames of one drain to the sockets."""
        self.gateways.update(fan.gateways)
        mine = fan.gateways.index(self.gateway) if self.gateway in fan.gateways else -1
        self._sockets.apply(fan, mine)
        for seat in fan.seated:
            self._roster[seat.player.session] = seat
        for session, player in fan.lost:
            known = self._roster.get(session)
            if known is not None and known.player.id == player:
                del self._roster[session]
            self._seat_lost(session, player)
        for gateway, number, code, reason in fan.closed:
            connection = self._sockets.by_number.get(number)
            if gateway == mine and connection is not None:
                connection.sink.close(CloseCode[code], reason)
        self._confirm(next((last for gateway, last in fan.taken if gateway == mine), None))

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
            for connection in self._sockets.of(session):
                if not connection.observes:
                    self._sockets.forget(connection)
        seat.session.signal(SeatLost(self.id, player))

    # Out: to the host --------------------------------------------------------------------------

    def say(self, item: wire.Data) -> None:
        """Sends a player's data; never waits. Raises MailboxFull."""
        if self._outgoing.size > OUT_BYTES or len(self._box) >= BOX_ITEMS or self._cut:
            raise MailboxFull
        self._box.append(item)
        self._sockets.said(item)
        self._filled.set()

    def _put(self, item: wire.Item) -> None:
        self._box.append(item)
        self._filled.set()

    async def _pump(self) -> None:
        """Sends what has gathered in one turn of the loop, in one message."""
        while True:
            await self._filled.wait()
            await unless_ended()
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
        argument = wire.Tell(self.id, self.place.epoch, signals)
        try:
            answer = await self._calls.call(self.place.node, "tell", argument, wire.Told, CALL_S)
        except (NodeUnreachable, ReiletaError):
            answer = wire.Told(elsewhere=True)
        await unless_ended()  # then they are carried to the next host
        if answer.elsewhere:
            self.recover()
        else:
            told = {id(one) for one in signals}
            self._box = [one for one in self._box if id(one) not in told]

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

    def _begin_at(self, number: int) -> None:
        if self._incoming.next is None:
            self._apply_all(self._incoming.begin(number))
            self._filled.set()

    def _send_box_if_known(self) -> None:
        if self._incoming.next is not None:
            self._send_box()

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


async def unless_ended() -> None:
    """Ends a task of a link that has ended in the same turn of the loop in which the task was
    woken. Without this, it would go on with the state of the next link."""
    await trio.lowlevel.checkpoint_if_cancelled()


def _unheard(lost: wire.Lost) -> wire.Lost:
    """For the next host, of which no socket has heard anything."""
    return msgspec.structs.replace(lost, heard=0, read=None if lost.read is None else -1)


def _items_of(whole: bytes) -> list[wire.Item]:
    try:
        return wire.ins.decode(whole).items
    except msgspec.MsgspecError:
        return []
