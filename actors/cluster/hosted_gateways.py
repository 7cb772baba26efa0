"""The gateways of an instance that this node hosts, and what comes from them."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from actors.cluster import wire
from actors.cluster.gateway_sockets import (
    Gateway,
    RelayMember,
    RemoteSession,
    RemoteSink,
    Spawn,
)
from actors.cluster.hosted_publisher import HostedPublisher
from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.hub.messages import RefreshObserver
from actors.instance.messages import InstanceMessage
from actors.instance.missed import UNDERWAY_S
from actors.instance.recovery import Member
from actors.membership import SocketLost
from actors.runtime.mailbox import Ref
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.errors import NotInInstance, ReiletaError
from reileta.observability import log_events
from reileta.protocol import commands
from reileta.protocol.frames import failure

MISSING_S: Final = 1.0
"""Seconds for a gateway to send what is missing."""
LAG_S: Final = 2.0
"""A gateway that is further behind is logged. It holds nobody up: all gateways get one message, and
what this one can't take in it loses, and gets a snapshot."""

_log = structlog.get_logger()


class HostedGateways(HostedPublisher):
    """The part of `HostedInstance` that knows the gateways, and takes what their sockets send."""

    def __init__(
        self,
        instance: str,
        epoch: int,
        *,
        member: RelayMember,
        calls: Calls,
        directory: Directory,
        spawn: Spawn,
    ) -> None:
        super().__init__(instance, epoch, member=member, calls=calls, spawn=spawn)
        self.ref: Ref[InstanceMessage] | None = None
        """The instance's actor, once it runs."""
        self.frozen = False
        """Whether the instance is handed over: nothing is taken from gateways, which keep it."""
        self._directory = directory

    # Moving to another node --------------------------------------------------------------------

    def freeze(self) -> dict[str, tuple[int, int]]:
        """Takes nothing more from gateways. Returns the last message of each (series, number) that
        was handed to the instance."""
        self.frozen = True
        return {node: (one.series, one.handed_on) for node, one in self.gateways.items()}

    def thaw(self) -> None:
        """Goes on; what came meanwhile is asked for."""
        self.frozen = False
        self.doubt()

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
        if gateway is not None and not self.frozen:
            self._hand_on(gateway, gateway.incoming.take(chunk.number, chunk.data))
            self._fetch(gateway)

    def heard(self, beat: wire.InBeat) -> bool:
        """A gateway tells its last number, and the last one that it has; False: it is unknown."""
        gateway = self.find(beat.gateway, beat.series)
        if gateway is None:
            return False
        if self.frozen:
            return True
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
        if gateway.incoming.missing is not None and not gateway.fetching and not self.frozen:
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
                if answer.chunks is None or self.frozen:
                    return  # it has begun another series, or the next host gets this
                if gateway.incoming.next == first:
                    self._hand_on(gateway, gateway.incoming.replayed(answer.chunks))
        finally:
            gateway.fetching = False

    def _hand_on(self, gateway: Gateway, ready: list[bytes]) -> None:
        if not ready:
            return
        for number, chunk in enumerate(ready, gateway.incoming.last + 1 - len(ready)):
            whole = gateway.joiner.take(chunk)
            if whole is None:
                continue
            gateway.handed_on = number
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
                    under_way = item.heard is not None and item.heard < self._framed
                    sink.ended(
                        lost_frames=item.lost_frames or under_way,
                        left=item.left,
                        vanished_at=self._vanished_at(item),
                        barred=item.barred,
                    )
                    self._lose_socket(sink)
            case wire.Observe():
                self._observe(gateway, item)
            case wire.Signal():
                message = wire.signal_of(item)
                if message is not None:
                    self.ref.signal(message)  # type: ignore[arg-type]  # one of `SIGNALS`

    def _vanished_at(self, lost: wire.Lost) -> float | None:
        """As `Sink.vanished_at`, by the clock of this node."""
        if lost.read is not None:
            vanished_at = self._reached.time_of(lost.read) + UNDERWAY_S
            return math.nextafter(vanished_at, math.inf)  # the sum may have been rounded down
        age = lost.vanished_s  # from an older node
        return None if age is None else trio.current_time() - age

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
