"""Publishes what the instance's actor writes: one message for all gateways together.

The message has the frames once, and for each socket what differs. So the bytes on the bus depend on
the number of gateways, not on that of their players; if all players are local, nothing is sent.

Messages have numbers (`reileta/rules/cluster/stream.py`). A large snapshot does not go to all
gateways, but in a parcel to the one that needs it: with the answer to its call, else in a call of
its own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import structlog
import trio

from actors.cluster import wire
from actors.cluster.fan_buffers import FanBuffers, WaitingCall, commonest
from actors.cluster.gateway_sockets import Gateway, RelayMember, RemoteSink, Spawn
from actors.delivery.fanout import Fanout
from actors.instance.recovery import RecoveryState
from actors.membership import AddMember
from reileta.cluster.bus import BusError
from reileta.cluster.calls import Calls, NodeUnreachable, pack
from reileta.errors import ReiletaError
from reileta.observability import log_events
from reileta.protocol.close_codes import CloseCode
from reileta.rules.cluster.stream import Outgoing, Reached

PING_S: Final = 1.5
"""Seconds for a gateway to say whether a client is there."""
PARCELS_S: Final = 5.0
SILENT_S: Final = 1.0
"""A gateway learns the last number after so many seconds of silence."""

_log = structlog.get_logger()


class HostedPublisher:
    """The part of `HostedInstance` that sends."""

    def __init__(
        self,
        instance: str,
        epoch: int,
        *,
        member: RelayMember,
        calls: Calls,
        spawn: Spawn,
    ) -> None:
        self.id = instance
        self.epoch = epoch
        self.recovery: RecoveryState | None = None
        """The actor's state; only to be read."""
        self.gateways: dict[str, Gateway] = {}
        self.written: list[RemoteSink] = []
        self.closing: list[tuple[RemoteSink, CloseCode, str]] = []
        self.lost: list[tuple[str, str]] = []
        self.publishes = 0
        self.published_bytes = 0
        self._member = member
        self._calls = calls
        self._spawn = spawn
        self._outgoing = Outgoing()
        self._reached = Reached()
        self._receivers: dict[RemoteSink, None] = {}
        """Those that the gateways know of."""
        self._changes: tuple[int, int] | None = None
        """The fan-out and its changes at the last look at the receivers."""
        self._roster: dict[str, str] = {}
        self._roster_stale = True
        self._waiting: list[WaitingCall] = []
        self._parcels = 0
        self._taken: dict[str, int] = {}
        self._framed = 0
        """The last message with frames."""
        self._sent_at = -math.inf
        self._subject = member.subject("i", instance, str(epoch))

    @property
    def last(self) -> int:
        """The number of the last message."""
        return self._outgoing.last

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

    def _answered(self) -> list[WaitingCall]:
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
        waiting: list[WaitingCall],
    ) -> None:
        nodes: dict[str, int] = {}

        def address(sink: RemoteSink) -> tuple[int, int]:
            return nodes.setdefault(sink.gateway.node, len(nodes)), sink.number

        fan = wire.Fan([], [], False)
        buffers = FanBuffers(fan, self.id, len(self.gateways), self.parcel)
        whole = commonest(written, len(self._receivers))
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
        buffers.hand_parcels(waiting, self.send_parcels)

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
        self._reached.note(self.last, now)

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
            sink.unsure()
            return not error.absent  # if nobody is there, its sockets are gone
        except ReiletaError:
            return True
