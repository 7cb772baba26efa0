"""An instance at another node, as the sockets and sessions of this node see it: the gateway's side.

`RemoteInstance` stands where an instance's actor would: sessions ask it and signal it. Requests
become calls to the host; data and signals go over the link (`remote_link.py`). While the host
changes, requests wait (`remote_place.py`). Once the instance runs at this node, this is only kept
for those who still hold it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import trio

from actors.cluster import wire
from actors.cluster.orders import repeated
from actors.cluster.remote_link import AGAIN_S, CALL_S, SessionSeat
from actors.cluster.remote_place import COMPLETE_LOOK_S, REQUEST_S, Moved, RemotePlace
from actors.cluster.remote_sockets import Connection, RemoteSeat
from actors.delivery.sink import Sink
from actors.instance.frames import left_answer, moderated_answer
from actors.instance.messages import InstanceMessage, Moderate, SendData
from actors.instance.missed import UNDERWAY_S
from actors.instance.recovery import Member
from actors.membership import (
    AddMember,
    InstanceMoved,
    MemberSessionEnded,
    RemoveMember,
    RenameUser,
    SeatLost,
    SocketLost,
)
from actors.runtime.errors import ActorStopped
from actors.runtime.message import Request
from reileta.cluster.calls import NodeUnreachable
from reileta.errors import OutcomeUnknown, Overloaded, ReiletaError
from reileta.rules.instance.seats import Player

R = TypeVar("R")
A = TypeVar("A")

PLACED_S: Final = 4.0
"""Seconds in all until a request is given up because the instance has no host that answers."""
OUTCOME_S: Final = 5.0
"""Seconds until it counts as unknown how an order went that nobody answers."""
IDLE_S: Final = 5.0
"""Seconds without players until this stops listening to the host."""


class RemoteInstance(RemotePlace):
    """An instance at another node: a `Recipient[InstanceMessage]`."""

    def tick(self, now: float) -> bool:
        """Does what is due each second. Returns whether this object is still needed."""
        if self.local is not None:
            return False
        if self._sockets.tick(now):
            self._must_restore = True
            self._repair.set()
        if self._seats or self._asks or self._sockets.by_number or self._box:
            self._idle_since = now
        self._look_if_stalled(now)
        listens = self._listening.is_set() and self._incoming.next is not None
        if listens and (self._seats or len(self._outgoing)):
            self._beat()
        return now - self._idle_since < IDLE_S

    def tell(self, message: InstanceMessage) -> None:
        """As `Ref.tell`."""
        if self.local is not None:
            self.local.tell(message)
            return
        if isinstance(message, SendData):
            connection = self._sockets.by_sink.get(message.sink)
            if connection is None:
                raise ActorStopped
            self.say(_data_of(connection.number, message))
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
                for connection in self._sockets.of(session):
                    self._sockets.forget(connection)
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
        connection = self._sockets.by_sink.get(sink)
        if connection is None:
            return
        vanished = sink.vanished_at
        age = None if vanished is None else max(0.0, trio.current_time() - vanished)
        read = None if vanished is None else self._read_by(connection, vanished)
        self._put(
            wire.Lost(
                connection.number,
                session,
                sink.lost_frames or bool(connection.held),
                sink.left,
                age,
                None if self._incoming.next is None else self._incoming.last,
                sink.barred,
                read,
            )
        )
        self._sockets.forget(connection)

    def _read_by(self, connection: Connection, heard_at: float) -> int:
        """The last of the host's messages that the client of a socket has surely read, which was
        last heard of then; -1: none is known."""
        surely_at = heard_at - UNDERWAY_S
        held = connection.held or connection.held_since > surely_at
        return -1 if held else self._reached.number_at(surely_at)

    def observers(self, sinks: Iterable[Sink]) -> None:
        """These sockets of admins are to get all data."""
        if self.local is not None:
            return
        wanted = dict.fromkeys(sinks)
        for sink in wanted:
            connection = self._sockets.by_sink.get(sink) or self._connect(sink, "")
            if not connection.observes:
                connection.observes = True
                self._put(wire.Observe(connection.number, observes=True))
        for connection in tuple(self._sockets.by_number.values()):
            if connection.observes and connection.sink not in wanted:
                connection.observes = False
                self._put(wire.Observe(connection.number, observes=False))
                if not connection.session:
                    self._sockets.forget(connection)
        if wanted and self._incoming.next is None and not self._seats and not self._asks:
            self._spawn(self._watch)

    async def _watch(self) -> None:
        """Has the host send to observers, where nobody is inside."""

        def argument() -> wire.Watch:
            numbers = [one.number for one in self._sockets.by_number.values() if one.observes]
            return wire.Watch(self.id, self.place.epoch, self.series, numbers)

        self._asks += 1
        try:
            async with self._first:
                if self._incoming.next is None:
                    answer = await self._called("watch", argument, wire.Watched, CALL_S)
                    self._begin_at(answer.number)
        except (Moved, ReiletaError):
            return
        finally:
            self._asks -= 1

    def entering(self) -> frozenset[Sink]:
        """The sockets with a seat, and those that are about to get one. The host may have told of
        their players already."""
        return frozenset(one.sink for one in self._sockets.by_number.values() if one.session)

    def parcels(self, parcels: Sequence[wire.Parcel]) -> None:
        """Parcels have come; what waited for them is written."""
        self._sockets.take_parcels(parcels)

    def holds(self, number: int) -> bool:
        """Whether frames for the socket of that number wait for a parcel."""
        connection = self._sockets.by_number.get(number)
        return connection is not None and bool(connection.held)

    def sink(self, number: int) -> Sink | None:
        """The socket of that number."""
        connection = self._sockets.by_number.get(number)
        return None if connection is None else connection.sink

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
        except Moved as moved:
            return await moved.to.ask(repeated(request))
        finally:
            self._asks -= 1

    async def _enter(self, message: AddMember) -> str:
        sink, session = message.sink, message.visitor.session
        connection = self._sockets.by_sink.get(sink)
        if connection is not None and self.id in sink.seats and sink.waiting_bytes:
            raise Overloaded
        new = connection is None
        connection = connection or self._connect(sink, session)
        connection.session = session
        seat = self._seats.get(session)
        if seat is None:
            seat = self._seats[session] = SessionSeat(message.visitor, message.session)
        seat.visitor, seat.session = message.visitor, message.session

        again = connection.welcomed
        self._attempts += 1
        attempt = self._attempts

        def argument() -> wire.Enter:
            self._send_box_if_known()
            # The host may have let it in, although its answer to the call was lost.
            answered = connection.welcomed and not again
            return wire.Enter(
                self.id,
                self.place.epoch,
                self.series,
                self._outgoing.last,
                connection.number,
                message.visitor,
                None if answered else message.state,
                self._incoming.next is not None,
                attempt,
            )

        entered = refused = False
        try:
            answer = await self._entered(connection.number, argument)
            entered = True
        except ReiletaError as error:
            refused = not isinstance(error, Overloaded)
            raise
        finally:
            if not entered and self.local is None:
                if seat.player is None and self._seats.get(session) is seat:
                    del self._seats[session]
                if new:
                    if not refused:
                        # The host may still let it in.
                        self._put(wire.Lost(connection.number, session, lost_frames=True))
                    self._sockets.forget(connection)
        if connection.number not in self._sockets.by_number:
            raise Overloaded  # its socket has closed meanwhile
        assert answer.player is not None
        player = answer.player.id
        if player not in self._lost_players:
            seat.player = answer.player
            sink.seats[self.id] = RemoteSeat(self, connection.number, player, session)
        return player

    async def _entered(self, number: int, argument: Callable[[], wire.Enter]) -> wire.Entered:
        """The host's answer to the socket of that number. Raises as `_called`, also if others have
        to enter first for too long."""
        call = partial(
            self._called,
            "enter",
            argument,
            wire.Entered,
            CALL_S,
            has_come=partial(self._has_come, number),
        )
        with trio.move_on_after(PLACED_S):
            if self._incoming.next is None:
                # The first one to enter says where the messages begin.
                async with self._first:
                    if self._incoming.next is None:
                        return await call()
            return await call()
        raise Overloaded

    async def _has_come(self, number: int, answer: wire.Entered) -> bool:
        """Waits until the frames that belong to the answer are written, if the socket of that
        number is there: the client's own answer is one of them. False: the link to the host has
        begun anew, and they will not come. Raises Moved."""
        link = self._link
        self._begin_at(answer.number)
        self._sockets.take_parcels(answer.parcels)
        while link == self._link and self.local is None:
            connection = self._sockets.by_number.get(number)
            if self._incoming.last >= answer.number and (connection is None or connection.welcomed):
                return True
            self._incoming.heard(answer.number)
            self._repair.set()
            await trio.sleep(COMPLETE_LOOK_S)
        if self.local is not None:
            raise Moved(self.local)
        return False

    async def _request(self, request: Request[R]) -> R:
        name = type(request).__name__
        if name not in wire.REQUESTS:
            raise ActorStopped
        sink: Sink | None = getattr(request, "sink", None)
        connection = None if sink is None else self._sockets.by_sink.get(sink)
        asking = None
        if sink is not None and connection is None and self._incoming.next is not None:
            asking = connection = self._connect(sink, "")
        number = 0 if connection is None else connection.number
        deed, again = wire.deed_of(request), wire.comes_again(request)
        leaves = request.session if isinstance(request, RemoveMember) else ""
        seat = self._seats.get(leaves)
        link = self._link

        def argument() -> wire.Ask:
            nonlocal request, link
            link = self._link
            self._send_box_if_known()
            fields, request = wire.fields_of(request), repeated(request)
            return wire.Ask(
                self.id,
                self.place.epoch,
                self.series,
                self._outgoing.last,
                number,
                name,
                fields,
                deed,
                again,
            )

        try:
            answer = await self._called(
                "ask", argument, wire.Answered, REQUEST_S, orders=bool(deed)
            )
            written = await self._applied(answer.number, link)
            player = None if seat is None else seat.player
            if sink is not None and not (number and answer.number and written):
                self._answer(request, sink, player)
            if seat is not None and player is not None and self._seats.get(leaves) is seat:
                # The host's word that it has left is lost: the next host must hear it.
                self.signal(MemberSessionEnded(leaves))
                seat.session.signal(SeatLost(self.id, player.id))
        finally:
            if asking is not None and asking.number in self._sockets.by_number:
                self._sockets.by_number.pop(asking.number)
                self._sockets.by_sink.pop(asking.sink, None)
        value: R = msgspec.msgpack.decode(answer.value, type=wire.ANSWERS[name])
        return value

    def _answer(self, request: Request[Any], sink: Sink, player: Player | None) -> None:
        """Answers a command on its socket. The host does so for the sockets that it knows, in order
        with the other frames; but it sends nothing to a node that has nobody inside, and what it
        sent is lost if the link to it begins anew."""
        frame = None
        match request:
            case Moderate():
                frame = moderated_answer(request, self.id)
            case RemoveMember(_, _, bytes() as state) if player is not None:
                frame = left_answer(state, self.id, player.id)
            case _:
                pass
        if frame is not None:
            sink.send(frame)

    @property
    def _link(self) -> tuple[int, int]:
        """Changes when what a host has sent will not come any more."""
        return self.series, self._beginnings

    async def _applied(self, number: int, link: tuple[int, int]) -> bool:
        """Waits a moment until the host's messages up to that number are written. False: they are
        not, or the link to the host has begun anew since."""
        with trio.move_on_after(CALL_S):
            while link == self._link and self.local is None:
                if self._incoming.next is None or self._incoming.last >= number:
                    return True
                self._incoming.heard(number)
                self._repair.set()
                await trio.sleep(COMPLETE_LOOK_S)
        return False

    async def _called(
        self,
        name: str,
        argument: Callable[[], object],
        answer: type[A],
        timeout_s: float,
        *,
        orders: bool = False,
        has_come: Callable[[A], Awaitable[bool]] | None = None,
    ) -> A:
        """The answer of the host, wherever it is now. Raises Moved, Overloaded and its errors.
        `orders`: it changes something, so that OutcomeUnknown is raised if it may have done so.
        `has_come`: whether all that belongs to the answer has come; else it is asked again."""
        maybe, begins = False, name in ("enter", "watch")
        limit_s = PLACED_S if timeout_s <= PLACED_S else PLACED_S + timeout_s
        with trio.move_on_after(OUTCOME_S if orders else limit_s):
            while True:
                await self._listening.wait()
                if begins:
                    await self._until_restored()
                link = self._link
                # While it is under way, nobody can say whether it is done.
                before, maybe = maybe, orders
                try:
                    answered = await self._call_host(name, argument(), answer, timeout_s)
                except NodeUnreachable as error:
                    maybe = before if error.absent else orders
                except OutcomeUnknown:
                    await trio.sleep(AGAIN_S)
                except Overloaded as error:
                    if not before:
                        raise
                    raise OutcomeUnknown from error
                else:
                    if begins and link != self._link:
                        continue  # the host may have forgotten the socket since then
                    if not getattr(answered, "elsewhere", False):
                        if has_come is None or await has_come(answered):
                            return answered
                        continue
                    maybe = before
                await self._look_again()
        raise OutcomeUnknown if maybe else Overloaded

    def take_over(
        self,
        members: Iterable[Member],
        left: Iterable[InstanceMessage] = (),
        *,
        handed_over: bool = False,
    ) -> None:
        """The players of an actor of this node, whose instance is elsewhere now. `handed_over`:
        their sockets have got everything, and the next host is to be told what is `left`."""
        self._was_host = handed_over
        for member in members:
            seat = SessionSeat(member.visitor, member.session, member.player)
            self._seats[member.player.session] = seat
            for sink in member.sinks:
                connection = self._connect(sink, member.player.session)
                sink.seats[self.id] = RemoteSeat(
                    self, connection.number, member.player.id, member.player.session
                )
            member.session.signal(InstanceMoved(self.id, self, tuple(member.sinks)))
        for message in left:
            self._resend(message)

    def _resend(self, message: InstanceMessage) -> None:
        """Tells the next host what the actor of this node was told after its last word."""
        if isinstance(message, SendData):
            connection = self._sockets.by_sink.get(message.sink)
            if connection is not None:
                self._put(_data_of(connection.number, message))
        elif isinstance(message, Request):
            self._spawn(partial(self._ask_for, message))
        else:
            self.signal(message)

    async def _ask_for(self, request: Request[Any]) -> None:
        """Answers a request that the actor of this node has not answered."""
        try:
            request.reply(await self.ask(request))
        except ReiletaError as error:
            request.fail(error)

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


def _data_of(connection: int, message: SendData) -> wire.Data:
    return wire.Data(connection, message.data, message.key, message.at, message.to, message.state)
