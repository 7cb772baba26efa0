"""The place of an instance at another node: pauses, repair, and the search for its host.

The gateway asks for messages of the host that are missing; if the host has forgotten them, the
players get a snapshot. If the host is gone, or the instance has moved, its new place is looked up:
so does every other gateway, and each request that waits. Meanwhile the players get
`instance-paused`. The new host asks all gateways which players they have (`reseat`). If this node
is the new host, the players are handed to the local actor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, Protocol

import structlog
import trio

from actors.cluster import wire
from actors.cluster.gateway_sockets import RelayMember, Spawn
from actors.cluster.remote_link import AGAIN_S, CALL_S, RemoteLink, unless_ended
from actors.cluster.remote_sockets import RemoteSeat
from actors.delivery.interest import InterestGroups
from actors.instance.hosted import There
from actors.instance.messages import InstanceMessage
from actors.instance.recovery import Member
from actors.membership import InstanceMoved, MemberSessionEnded, SocketLost
from actors.runtime.mailbox import Recipient
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.errors import InstanceNotFound, ReiletaError
from reileta.observability import log_events
from reileta.protocol import commands, events
from reileta.protocol.frames import EMPTY, encode, event, failure
from reileta.protocol.views.instance import LeftView
from reileta.rules.cluster.stream import Incoming

REQUEST_S: Final = 5.0
"""Seconds for the host to answer a request, which may wait for the database."""
COMPLETE_S: Final = 1.0
"""Seconds in which missing messages of the last host must come."""
COMPLETE_LOOK_S: Final = 0.005
RESEATED_S: Final = 1.5
"""Seconds in which a new host asks for the players; later they are told to it."""
STALLED_S: Final = 0.5
"""Players who wait for so long, while nothing is done about it, are looked after."""

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


class Moved(Exception):
    """The instance runs at this node now."""

    def __init__(self, to: Recipient[InstanceMessage]) -> None:
        super().__init__()
        self.to = to


@dataclass(eq=False, slots=True)
class _Look:
    """A look for the place. `found_nothing`: the instance is gone."""

    over: trio.Event = field(default_factory=trio.Event)
    found_nothing: bool = False


class RemotePlace(RemoteLink):
    """The part of `RemoteInstance` that finds the host, and keeps up with it."""

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
        figures: wire.Figures,
        interests: InterestGroups,
    ) -> None:
        """As `RemoteLink`."""
        super().__init__(
            instance,
            place,
            member=member,
            calls=calls,
            spawn=spawn,
            numbers=numbers,
            figures=figures,
            interests=interests,
        )
        self._places = places
        self._looking: _Look | None = None
        """A look for the place that is under way."""
        self._recovering = False
        """Whether a task looks for the place until the host answers."""
        self._repairing = False
        """Whether missing messages are being asked for."""
        self._stalled_since = trio.current_time()
        self._reseating = trio.Lock()
        self._former: tuple[list[wire.Seat], bool] | None = None
        """The players that this gateway reported to the host, kept in case the host asks again."""
        self._was_host = False
        """Whether the last host was this node, which has written everything to these sockets."""

    # Repair ------------------------------------------------------------------------------------

    async def _keep_whole(self) -> None:
        """Asks the host for missing messages, until there are none."""
        while True:
            self._repairing = False
            await self._repair.wait()
            await unless_ended()
            self._repair, self._repairing = trio.Event(), True
            while True:
                if self._must_restore and self._seats:
                    await self._restore()
                    await unless_ended()
                    continue
                first = self._incoming.missing
                if first is None:
                    break
                await self._until_here()
                self.figures.gaps += 1
                argument = wire.Replay(self.id, self.place.epoch, first)
                answer, absent = None, False
                try:
                    answer = await self._call_host("replay", argument, wire.Replayed, CALL_S)
                except (NodeUnreachable, ReiletaError) as error:
                    absent = isinstance(error, NodeUnreachable) and error.absent
                await unless_ended()
                if answer is None:
                    self._cut = True
                    if absent:
                        self.recover()
                    await trio.sleep(AGAIN_S)
                elif answer.elsewhere:
                    self.recover()
                    await trio.sleep(AGAIN_S)
                elif answer.chunks is None:
                    await self._restore()
                elif self._incoming.next == first:
                    self.figures.replays += 1
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
        self.figures.restores += 1
        self._beginnings += 1
        self._must_restore = True
        self._incoming = Incoming()
        self._joiner.clear()
        self._sockets.begin()
        series = self.series
        argument = wire.Restore(self.id, self.place.epoch, series, self.seats(), self._returning)
        answer, absent = wire.Restored(elsewhere=True), True
        try:
            answer = await self._call_host("restore", argument, wire.Restored, REQUEST_S)
        except (NodeUnreachable, ReiletaError) as error:
            absent = isinstance(error, NodeUnreachable) and error.absent
        if series != self.series or self.local is not None:
            return True  # another host has taken over
        if answer.elsewhere:
            if absent:
                self.recover()
            await trio.sleep(AGAIN_S)
            self._repair.set()
            return False
        self._paused = self._cut = self._returning = self._must_restore = False
        self._sockets.take_parcels(answer.parcels)
        self._apply_all(self._incoming.begin(answer.number))
        for session, player in answer.lost:
            kicked = (session, player) in answer.kicked
            self._turn_away(session, player, "kicked" if kicked else "disconnected")
        return True

    def _turn_away(
        self, session: str, player: str, reason: Literal["kicked", "disconnected"]
    ) -> None:
        """The host has no seat for a player that was inside."""
        seat = self._seats.get(session)
        if seat is not None and seat.player is not None and seat.player.id == player:
            view = LeftView(player, seat.player.user, reason)
            frame = event(events.INSTANCE_LEFT, self.id, encode(view))
            for connection in self._sockets.of(session):
                connection.sink.send(frame)
        self._seat_lost(session, player)

    # Another place -----------------------------------------------------------------------------

    def recover(self) -> None:
        """The host is gone, or not the host any more: looks for its place until it is found."""
        if self.local is None:
            self.pause()
            if not self._recovering:
                self._spawn(self._recover)
                self._recovering = True

    def host_gone(self) -> None:
        """The host's node was fenced: it answers nothing more."""
        self._give_up_calls()
        self.recover()

    async def _recover(self) -> None:
        try:
            while self.local is None and self._cut:
                await self._look_again()
        except (Moved, InstanceNotFound):
            return
        finally:
            self._recovering = False

    async def _look_again(self) -> None:
        """Looks the place up, together with all who want to know it.

        The look is a task of its own: it changes the link, and must not end half-way because the
        request that began it is given up.

        Raises:
            Moved: it is here.
            InstanceNotFound: it is gone.
        """
        look = self._looking
        if look is None:
            look = _Look()
            self._spawn(partial(self._run_look, look))
            self._looking = look
        await look.over.wait()
        if self.local is not None:
            raise Moved(self.local)
        if look.found_nothing:
            raise InstanceNotFound

    async def _run_look(self, look: _Look) -> None:
        try:
            await self._look()
        except InstanceNotFound:
            look.found_nothing = True
        finally:
            self._looking = None
            look.over.set()

    def _look_if_stalled(self, now: float) -> None:
        """Looks again if the players wait, and nothing is under way that ends that. Other events
        end each wait; this is for those that are lost."""
        waits = self._cut or self._paused or self._must_restore or self._incoming.next is None
        tried = self._recovering or self._repairing or self._looking or self._restoring
        if (
            tried
            or not waits
            or self._member.bus.connection is None
            or not self._member.valid()
            or not any(seat.player for seat in self._seats.values())
        ):
            self._stalled_since = now
        elif now - self._stalled_since > STALLED_S:
            _log.warning(log_events.LINK_STALLED, instance=self.id, node=self.place.node)
            self._stalled_since = now
            self._returning = True
            self.recover()

    async def _until_restored(self) -> None:
        """Waits while the players here are about to get a snapshot: the host forgets the sockets
        that are not among theirs."""
        while self._restoring is not None:
            await self._restoring.wait()

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
                self._end_link()
                self._follow(place)
                self._returning = True
                await self._listening.wait()
                if self._seats:
                    await self._restore()
                elif self.place == place:
                    self._cut = self._paused = False
        elif self._cut or self.gateway != self._member.node:
            if self.gateway != self._member.node:
                self._end_link()
                self._begin_link()
                await self._listening.wait()
            if not self._seats:
                self._cut = self._paused = False
            elif not await self._restore():
                await trio.sleep(AGAIN_S)
        else:
            await trio.sleep(AGAIN_S)

    def _follow(self, place: There) -> None:
        """Goes on with another host, after the link to the last one has ended."""
        self.place = place
        self._was_host, self._former = False, None
        self.name = f"instance/{self.id} at {place.node}"
        self._begin_link()

    async def reseat(
        self, place: There, last: int | None = None, taken: tuple[int, int] | None = None
    ) -> wire.Reseated:
        """A new host asks for the players; it may send when this returns. It may ask again."""
        async with self._reseating:
            if self.local is not None:
                return wire.Reseated()
            if place == self.place and self._former is not None:
                return wire.Reseated(self.series, self.seats(), *self._former)
            if place.epoch <= self.place.epoch:
                return wire.Reseated()
            complete = await self.wait_complete(place.epoch, last)
            if self.local is not None or place.epoch <= self.place.epoch:
                return wire.Reseated()
            if last is not None and place.epoch == self.place.epoch + 1:
                self._end_handed_over(taken)
            else:
                self._end_link()
            welcomed = [one for one in self._sockets.by_number.values() if one.welcomed]
            self._follow(place)
            self._incoming = Incoming(1)
            self._reached.note(0, trio.current_time())
            if complete:
                for connection in welcomed:
                    connection.welcomed = True
                self._resume()
            self._paused = self._cut = self._returning = self._must_restore = False
            others, self._roster = self.others(), {}
            self._former = others, complete
            await self._listening.wait()
            self._filled.set()
            self._reseated.set()
            self._reseated = trio.Event()
            return wire.Reseated(self.series, self.seats(), others, complete)

    async def wait_complete(self, epoch: int, last: int | None) -> bool:
        """Whether the players have got all messages of the host, up to the last one, before the
        epoch began. Asks for missing ones, for a moment."""
        if last is None or epoch != self.place.epoch + 1:
            return False
        if self._was_host:
            return True
        if self._incoming.next is None:
            return not self._seats
        with trio.move_on_after(COMPLETE_S):
            while self._incoming.last < last:
                self._incoming.heard(last)
                self._repair.set()
                await trio.sleep(COMPLETE_LOOK_S)
        return (
            self._incoming.next is not None
            and self._incoming.last >= last
            and not (self._must_restore or self._sockets.waiting)
        )

    def others(self) -> list[wire.Seat]:
        """The players of other nodes, as the last host has told."""
        return [seat for session, seat in self._roster.items() if session not in self._seats]

    def seats(self) -> list[wire.Seat]:
        """The players of this node, with their sockets."""
        # A socket whose end the host is about to hear had its place there.
        ended = [item for item in self._carried_to_host if isinstance(item, wire.Lost)]
        return [
            wire.Seat(
                seat.visitor,
                seat.player,
                [
                    *(one.number for one in self._sockets.of(session)),
                    *(one.connection for one in ended if one.session == session),
                ],
            )
            for session, seat in self._seats.items()
            if seat.player is not None
        ]

    def hand_over(self, *, complete: bool = False) -> list[Member]:
        """The players as members of an actor of this node, which is about to start. `complete`:
        their sockets have got everything from the last host."""
        members = []
        for session, seat in self._seats.items():
            if seat.player is not None:
                member = Member(seat.visitor, seat.player, seat.session)
                for connection in self._sockets.of(session):
                    member.sinks[connection.sink] = None
                if complete:
                    member.complete.update(member.sinks)
                members.append(member)
        self._handed_over = members
        return members

    def come_home(
        self,
        recipient: Recipient[InstanceMessage],
        taken: tuple[int, int] | None = None,
        *,
        handed_over: bool = False,
    ) -> None:
        """The instance runs at this node now: its sessions are told to ask it there. If it was
        `handed_over`, it gets the items that the last host has not `taken`."""
        if self.local is not None:
            return
        if handed_over:
            self._end_handed_over(taken)
        else:
            self._end_link()
        self.local = recipient
        for item in self._carried:
            self._pass_on(item, recipient)
        self._carried = []
        for member in self._handed_over:  # what has changed since
            if member.player.session not in self._seats:
                recipient.signal(MemberSessionEnded(member.player.session))
                continue
            for sink in member.sinks:
                if sink not in self._sockets.by_sink:
                    recipient.signal(SocketLost(member.player.session, sink))
        for session, seat in self._seats.items():
            sinks = [one.sink for one in self._sockets.of(session)]
            seat.session.signal(InstanceMoved(self.id, recipient, tuple(sinks)))
        for connection in tuple(self._sockets.by_number.values()):
            self._sockets.forget(connection, stays=True)
        self._seats.clear()

    def _pass_on(self, item: wire.Item, recipient: Recipient[InstanceMessage]) -> None:
        """Tells the actor of this node an item that a host has not taken."""
        if isinstance(item, wire.Signal):
            message = wire.signal_of(item)
            if message is not None:
                recipient.signal(message)  # type: ignore[arg-type]  # one of `SIGNALS`
        elif isinstance(item, wire.Data):
            connection = self._sockets.by_number.get(item.connection)
            seat = None if connection is None else connection.sink.seats.get(self.id)
            if connection is None or seat is None or isinstance(seat, RemoteSeat):
                return  # its socket has closed, or it has no seat here
            state = None if item.state is None else bytes(item.state)
            try:
                seat.send_data(connection.sink, item.data, item.key, item.at, item.to, state)
            except ReiletaError as error:
                frame = failure(commands.INSTANCE_DATA, state, self.id, error)
                connection.sink.send(frame)

    def _end(self) -> None:
        """The instance is gone: its players have left."""
        self._give_up_calls()
        for session, seat in list(self._seats.items()):
            if seat.player is None:
                continue
            view = LeftView(seat.player.id, seat.player.user, "closed")
            frame = event(events.INSTANCE_LEFT, self.id, encode(view))
            for connection in self._sockets.of(session):
                connection.sink.send(frame)
                self._sockets.forget(connection)
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
        for connection in self._sockets.by_number.values():
            seat = self._seats.get(connection.session)
            if seat is not None and seat.player is not None:
                connection.sink.send(frame)
