"""The host's side of the relay: an instance of this node, with players at other nodes.

For the instance's actor, a socket at another node is a sink like any other (`gateway_sockets.py`).
Three classes make the host's side: `HostedPublisher` sends, `HostedGateways` knows the gateways and
takes what comes from them, and `HostedInstance` answers their calls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
import trio

from actors.cluster import wire
from actors.cluster.fan_buffers import WaitingCall
from actors.cluster.gateway_sockets import (
    Entering,
    Gateway,
    RelayMember,
    RemoteSession,
    RemoteSink,
    Spawn,
)
from actors.cluster.hosted_gateways import HostedGateways
from actors.cluster.soft_state import SoftStates
from actors.directory import Directory
from actors.instance.messages import InstanceMessage, RestoreMembers
from actors.membership import AddMember
from actors.runtime.mailbox import Ref
from actors.runtime.message import Request
from reileta.cluster.calls import Calls, NodeUnreachable, without_frames
from reileta.errors import OutcomeUnknown, Overloaded, ReiletaError

Kicks: TypeAlias = Callable[[str], Awaitable[Mapping[str, int]]]
"""The users (`UserIDAt`) that were kicked from an instance, each with the time (ms) of its last
kick."""

CATCH_UP_S: Final = 0.5
"""Seconds that a request waits for the data that was sent before it."""
ASK_S: Final = 10.0
"""Seconds for the instance to answer a request."""
UNKNOWN_S: Final = 1.0
"""Seconds for a gateway to hear that it is not known."""
REFUSED: Final = 256
"""Refused sockets of one gateway whose error is kept for a repetition of the call."""
DEEDS: Final = 4096
"""Requests whose answer is kept for repetitions; the oldest are forgotten."""


class HostedInstance(HostedGateways):
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
        soft: SoftStates | None,
        kicks: Kicks,
        prepare: Callable[[HostedInstance], Awaitable[None]],
        begun: Callable[[HostedInstance], None],
        ended: Callable[[HostedInstance], None],
        departed: Callable[[HostedInstance, Sequence[InstanceMessage]], None],
    ) -> None:
        """`kicks` reads the last kick of each user from the log. `prepare` collects the players
        before the actor starts; the others are told."""
        super().__init__(
            instance, epoch, member=member, calls=calls, directory=directory, spawn=spawn
        )
        self._soft = soft
        self._kicks = kicks
        self._prepare, self._begun = prepare, begun
        self._ended, self._departed = ended, departed
        self._deeds: OrderedDict[str, Request[Any]] = OrderedDict()

    # Its life, as the actor and its manager tell it ----------------------------------------------

    async def prepare(self) -> None:
        """As `RemoteReceivers.prepare`."""
        await self._prepare(self)

    def begun(self, ref: Ref[InstanceMessage]) -> None:
        """As `RemoteReceivers.begun`."""
        if self.ref is None:  # in a later incarnation of the actor, frames may wait
            self._reached.note(self.last, trio.current_time())
        self.ref = ref
        self._begun(self)

    def changed(self) -> None:
        """As `RemoteReceivers.changed`."""
        if self._soft is not None:
            self._soft.changed(self.id)

    def ended(self) -> None:
        """As `RemoteReceivers.ended`."""
        if self._soft is not None and self.recovery is not None:
            rules = self.recovery.rules
            self._soft.leave(self.id, over=rules is not None and rules.closed)
        for gateway in self.gateways.values():
            for sink in gateway.sinks.values():
                self._directory.unwatch(sink, self.id)
        self._ended(self)

    def departed(self, left: Sequence[InstanceMessage]) -> None:
        """As `RemoteReceivers.departed`."""
        self._departed(self, left)

    def _answers(self) -> bool:
        """Whether the instance takes requests here."""
        return self.ref is not None and not self.ref.stopped and not self.frozen

    # Calls -------------------------------------------------------------------------------------

    async def enter(self, node: str, argument: wire.Enter) -> wire.Entered:
        """A session enters through a gateway."""
        if argument.known and self.find(node, argument.series) is None:
            # To let it in would hide that the gateway's other players are not known here.
            self._spawn(partial(self._tell_unknown, node, argument.series))
            return wire.Entered(elsewhere=True)
        gateway = self.gateway(node, argument.series)
        if gateway is None or not self._answers():
            return wire.Entered(elsewhere=True)
        await self._caught_up(gateway, argument.after)
        if not self._answers():
            return wire.Entered(elsewhere=True)
        refused = gateway.refused.pop(argument.connection, None)
        first = gateway.entering.get(argument.connection)
        if first is None and refused is not None and refused.attempt == argument.attempt:
            first = refused  # the answer came too late, or was lost
        if first is not None:
            await first.over.wait()
            if first.refusal is not None:
                raise first.refusal
            return first.answer or wire.Entered(elsewhere=True)  # then it asks again
        entering = gateway.entering[argument.connection] = Entering(argument.attempt)
        try:
            entering.answer = await self._enter(gateway, argument)
        except ReiletaError as error:
            entering.refusal = without_frames(error)
            if argument.attempt:
                gateway.refused[argument.connection] = entering
                if len(gateway.refused) > REFUSED:
                    gateway.refused.popitem(last=False)
            raise
        finally:
            entering.over.set()
            del gateway.entering[argument.connection]
        return entering.answer

    async def _tell_unknown(self, node: str, series: int) -> None:
        """Has a gateway begin anew, which believes that it is known."""
        argument = wire.Missing(self.id, self.epoch, series, 0)
        with suppress(NodeUnreachable, ReiletaError):
            await self._calls.call(node, "missing", argument, wire.Replayed, UNKNOWN_S)

    async def _enter(self, gateway: Gateway, argument: wire.Enter) -> wire.Entered:
        sink = gateway.sinks.get(argument.connection)
        new = sink is None
        if sink is None:
            sink = gateway.sinks[argument.connection] = RemoteSink(gateway, argument.connection)
        sink.session = argument.visitor.session
        session = RemoteSession(self, gateway.node, argument.visitor.session)
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
        if not self._answers():
            return wire.Answered(elsewhere=True)
        gateway = self.find(node, argument.series)
        socket: dict[str, Any] = {}
        if argument.connection and gateway is not None:
            await self._caught_up(gateway, argument.after)
            if not self._answers():
                return wire.Answered(elsewhere=True)
            sink = gateway.sinks.get(argument.connection)
            socket["sink"] = sink or RemoteSink(gateway, argument.connection)
        request = wire.request_of(argument, **socket)
        if request is None:
            raise Overloaded  # a node of a newer version asks; it can ask another one soon
        value = await self._do(gateway, request, argument.deed, again=argument.again)
        number = 0 if gateway is None else self.last
        return wire.Answered(msgspec.Raw(wire.encode(value)), number)

    def tell(self, argument: wire.Tell) -> wire.Told:
        """Signals of a node that has nobody inside."""
        if self.ref is None or not self._answers():
            return wire.Told(elsewhere=True)
        for signal in argument.signals:
            message = wire.signal_of(signal)
            if message is not None:
                self.ref.signal(message)  # type: ignore[arg-type]  # one of `SIGNALS`
        return wire.Told()

    def watch(self, node: str, argument: wire.Watch) -> wire.Watched:
        """A gateway with observers, which may have nobody inside."""
        gateway = self.gateway(node, argument.series)
        if gateway is None or not self._answers():
            return wire.Watched(elsewhere=True)
        for number in argument.connections:
            self._observe(gateway, wire.Observe(number, observes=True))
        return wire.Watched(self.last + 1)

    async def _do(
        self, gateway: Gateway | None, request: Request[Any], deed: str, *, again: bool
    ) -> Any:
        """The answer to a request; a deed that is done, or under way, is not done again. `again`:
        the client repeats it, and waits for another answer on its socket."""
        known = self._deeds.get(deed) if deed else None
        if known is not None and not (again and known.slot.answered):
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
                # It was not done; or its repetition finds out. That may succeed.
                self._deeds.pop(deed, None)
            raise
        return answer

    async def _ask(self, gateway: Gateway, request: Request[Any]) -> tuple[Any, WaitingCall]:
        """The answer, once the frames that belong to it are published."""
        waiting = WaitingCall(request, gateway, reset=isinstance(request, RestoreMembers))
        self._waiting.append(waiting)
        try:
            answer = await self._ask_actor(request)
            with trio.move_on_after(CATCH_UP_S):
                await waiting.published.wait()
            if not waiting.published.is_set():
                raise OutcomeUnknown if isinstance(request, wire.WRITES) else Overloaded
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return answer, waiting

    async def _ask_actor(self, request: Request[Any]) -> Any:
        assert self.ref is not None
        with trio.move_on_after(ASK_S):
            return await self.ref.ask(request)
        raise OutcomeUnknown if isinstance(request, wire.WRITES) else Overloaded

    async def _caught_up(self, gateway: Gateway, after: int) -> None:
        """Waits a moment for what the gateway sent before."""
        with trio.move_on_after(CATCH_UP_S):
            while gateway.incoming.last < after:
                gateway.incoming.heard(after)
                self._fetch(gateway)
                await gateway.progress.wait()

    def replay(self, argument: wire.Replay) -> wire.Replayed:
        """The messages from the number `first` on, if they are still kept."""
        self._outgoing.forget_old(trio.current_time())
        return wire.Replayed(self._outgoing.since(argument.first))

    async def restore(self, node: str, argument: wire.Restore) -> wire.Restored:
        """A gateway's players get a snapshot, since messages are lost; it says whom it has."""
        gateway = self.gateway(node, argument.series)
        if gateway is None or not self._answers():
            return wire.Restored(elsewhere=True)
        seats, kicked = argument.seats, list[wire.Seat]()
        if argument.returning and seats:
            # The log may have a kick of which the gateway had not heard.
            kicks = await self._kicks(self.id)
            if not self._answers():
                return wire.Restored(elsewhere=True)
            kicked = [one for one in seats if kicks.get(one.player.user, 0) > one.player.joined_at]
            seats = [one for one in seats if one not in kicked]
        seated = {number for seat in seats for number in seat.connections}
        for number in gateway.sinks.keys() - seated:
            sink = gateway.sinks[number]
            if self.id in sink.seats:
                del gateway.sinks[number]
                sink.ended(lost_frames=True, left=False, vanished_at=None)
                self._lose_socket(sink)
        members = tuple(self.seat(gateway, seat) for seat in seats)
        lost, waiting = await self._ask(gateway, RestoreMembers(members, argument.returning))
        out = [(one.player.session, one.player.id) for one in kicked]
        return wire.Restored(waiting.number, waiting.parcels, [*lost, *out], kicked=out)


async def _answer_again(request: Request[Any]) -> Any:
    """The answer to a request that somebody else may wait for, too."""
    with trio.move_on_after(ASK_S):
        while not request.slot.answered:  # noqa: ASYNC110  # a slot wakes one task only
            await trio.sleep(0.02)
        return request.slot.again()
    raise OutcomeUnknown
