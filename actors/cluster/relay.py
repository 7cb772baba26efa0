"""The relay of a node: the instances that it hosts for others, and those it reaches elsewhere.

`run` listens for what other nodes' gateways send, and does what is due each second. The relay
answers the calls of `actors/cluster/wire.py`.
"""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog
import trio

from actors.cluster import wire
from actors.cluster.gateway_sockets import RelayMember
from actors.cluster.hosted_instance import HostedInstance, Kicks
from actors.cluster.remote_instance import RemoteInstance
from actors.cluster.remote_place import Places
from actors.cluster.soft_state import SoftFound, SoftStates
from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.instance.hosted import Holding, Hosts, There
from actors.instance.manager import InstanceManager
from actors.instance.messages import Frozen, InstanceMessage
from actors.instance.recovery import Member, RecoveryState
from actors.membership import InstanceMoved, SeatLost
from actors.runtime.errors import ActorStopped
from actors.runtime.failures import capture_failure
from actors.runtime.mailbox import Recipient
from actors.runtime.message import Request
from reileta.cluster.bus import Gap
from reileta.cluster.calls import Calls, NodeUnreachable, unpacked
from reileta.errors import Overloaded, ReiletaError
from reileta.observability import log_events

R = TypeVar("R")

TICK_S: Final = 1.0
SOFT: Final = 64
"""States of instances that are handed over to this node at the same time."""
RESEAT_S: Final = 0.3
"""Seconds that a new host waits for other nodes to say whether they have players."""
RESEAT_KNOWN_S: Final = 2.5
"""The same for gateways that are known to have players."""
RESEAT_AGAIN_S: Final = 0.75
"""Seconds for one answer, before the gateway is asked again."""
RESEAT_PAUSE_S: Final = 0.05
EXPECTED_S: Final = 10.0
"""Seconds in which an instance must be handed over, once that was announced."""
ADOPTED_S: Final = 2.0
"""Seconds for the old host to tell what it knows, once somebody asks for the instance here."""
FORMER_S: Final = 5.0
"""Seconds in which gateways can ask for messages of an instance that was handed over."""
PAUSE_AFTER_S: Final = 0.5
"""Seconds without the bus until players of instances elsewhere are told."""

_log = structlog.get_logger()


class Cluster(RelayMember, Protocol):
    """This process's part in the cluster (`reileta.cluster.member.Member`)."""

    @property
    def nodes(self) -> Mapping[str, object]: ...


@dataclass(eq=False, slots=True)
class _Expected:
    """An instance that `host` is about to hand over; `over` once it has, or is gone."""

    host: str
    until: float
    over: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True)
class Marks:
    """How far an instance that is being handed over has come.

    `taken`: the last message of each gateway (series, number) that was handed to it.
    """

    taken: dict[str, tuple[int, int]] = field(default_factory=dict)
    hosted: HostedInstance | None = None

    @property
    def last(self) -> int:
        """The number of its last message."""
        return 0 if self.hosted is None else self.hosted.last

    @property
    def seats(self) -> list[wire.Seat]:
        """All players, without their sockets."""
        recovery = None if self.hosted is None else self.hosted.recovery
        return [
            wire.Seat(replace(one.visitor, friends=frozenset()), one.player, [])
            for one in (() if recovery is None else recovery.seated.values())
        ]


class Nobody:
    """In place of a session's actor, while the session is at no node: a `SessionRecipient`."""

    gateway = ""

    def tell(self, message: SeatLost | InstanceMoved) -> None:
        """There is nobody to tell."""

    def signal(self, message: SeatLost | InstanceMoved) -> bool:
        return False

    async def ask(self, request: Request[R]) -> R:
        raise ActorStopped


class ClusterPlaces:
    """Finds instances in the cluster, and starts those that are placed here: `Places`."""

    def __init__(self, hosts: Hosts, instances: InstanceManager) -> None:
        self._hosts = hosts
        self._instances = instances

    async def find(self, instance_id: str) -> Recipient[InstanceMessage] | There:
        """As `Places.find`."""
        where = await self._hosts.place(instance_id)
        if isinstance(where, There):
            return where
        return await self._instances.start(instance_id)


class Relay:
    """A `MemberListener`: what it hears of other nodes moves players, or ends their seats."""

    def __init__(
        self,
        member: Cluster,
        calls: Calls,
        directory: Directory,
        places: Places,
        kicks: Kicks,
        soft: SoftStates | None = None,
    ) -> None:
        """`kicks` reads the last kick of each user from an instance's log. `soft`: what is kept of
        instances for their next hosts; None: nothing is."""
        self._kept = soft
        self._kicks = kicks
        self._member = member
        self._calls = calls
        self._directory = directory
        self._places = places
        self._hosted: dict[str, HostedInstance] = {}
        self._remotes: dict[str, RemoteInstance] = {}
        self._soft: dict[str, wire.Adopt] = {}
        self._expected: dict[str, _Expected] = {}
        """Instances that other nodes are about to hand over to this one."""
        self._taking: dict[str, wire.Adopt] = {}
        """The same of instances that are about to start."""
        self._former: dict[str, tuple[float, HostedInstance]] = {}
        """Instances that this node has handed over, each with the time until which it is kept."""
        self._locating: set[str] = set()
        """Instances that gateways take for running here, and that are looked for."""
        self._numbers = itertools.count(1)
        self._figures = wire.Figures()
        self._nursery: trio.Nursery | None = None
        self._renamed = trio.Event()
        self.started = trio.Event()
        """Set once it answers."""
        calls.serve("enter", wire.Enter, self._enter)
        calls.serve("ask", wire.Ask, self._ask)
        calls.serve("tell", wire.Tell, self._tell)
        calls.serve("watch", wire.Watch, self._watch)
        calls.serve("replay", wire.Replay, self._replay)
        calls.serve("restore", wire.Restore, self._restore)
        calls.serve("reseat", wire.Reseat, self._reseat)
        calls.serve("figures", wire.GetFigures, self._get_figures)
        calls.serve("responds", wire.Connection, self._responds)
        calls.serve("parcels", wire.Parcels, self._take_parcels)
        calls.serve("missing", wire.Missing, self._missing)

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "hosted instances": len(self._hosted),
            "gateways": sum(len(one.gateways) for one in self._hosted.values()),
            "remote instances": len(self._remotes),
        }

    # Running -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Relays until it is cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._listen)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._watch_bus)
            for remote in self._remotes.values():  # of before a crash
                remote.restart()
            await trio.sleep_forever()

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs work beside; its failure is logged."""

        async def guarded() -> None:
            failure = await capture_failure(work)
            if failure is not None:
                _log.error(log_events.RELAY_FAILED, exc_info=failure)

        if self._nursery is not None:
            # Not in the context of the message that is handled, which it would keep, with its
            # socket, for as long as it runs.
            contextvars.Context().run(self._nursery.start_soon, guarded)

    async def _listen(self) -> None:
        """Hands on what gateways send to this node, whatever its id is."""
        while True:
            self._renamed, node = trio.Event(), self._member.node
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen_as, node)
                await self._renamed.wait()
                nursery.cancel_scope.cancel()
            while self._member.node == node:  # noqa: ASYNC110  # the member has no event for it
                await trio.sleep(0.05)

    async def _listen_as(self, node: str) -> None:
        async with self._member.bus.subscribe(
            self._member.subject("n", node, "in")
        ) as subscription:
            self.started.set()
            while True:
                for item in await subscription.receive():
                    if isinstance(item, Gap):
                        for hosted in self._hosted.values():
                            hosted.doubt()
                        continue
                    message = unpacked(item.data, wire.from_gateway)
                    if message is not None:
                        self._hear(message)

    def _hear(self, message: wire.FromGateway) -> None:
        hosted = self._hosts(message.instance, message.epoch)
        if hosted is None and self._prepares(message.instance, message.epoch):
            return  # it is asked for what came meanwhile, or told that it is not known
        if isinstance(message, wire.InChunk):
            if hosted is not None:
                hosted.take(message)
        elif self._former_of(message.instance, message.epoch) is not None:
            return  # the gateway is told where the instance is in a moment
        elif hosted is None and self._starts(message.instance, message.epoch):
            return  # it may be a gateway that this node has asked for its players
        elif hosted is None or not hosted.heard(message):
            # The gateway believes that it is known: it must begin anew.
            self._spawn(partial(self._tell_unknown, message))

    async def _tell_unknown(self, beat: wire.InBeat) -> None:
        argument = wire.Missing(beat.instance, beat.epoch, beat.series, 0)
        try:
            await self._calls.call(beat.gateway, "missing", argument, wire.Replayed, TICK_S)
        except (NodeUnreachable, ReiletaError):
            return

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            for hosted in list(self._hosted.values()):
                hosted.beat()
            now = trio.current_time()
            for instance in [one for one, (until, _) in self._former.items() if until <= now]:
                del self._former[instance]
            if self._directory.observed:
                await self._observe()
            for remote in list(self._remotes.values()):
                remote.observers(self._directory.watchers(remote.id))
                if not remote.tick(now):
                    remote.close()
                    if self._remotes.get(remote.id) is remote:
                        del self._remotes[remote.id]

    async def _observe(self) -> None:
        """Reaches the instances elsewhere whose data is observed here."""
        for instance in self._directory.observed_elsewhere():
            if instance not in self._remotes and instance not in self._hosted:
                with suppress(ReiletaError):
                    place = await self._places.find(instance)
                    if isinstance(place, There):
                        self.remote(instance, place)

    async def _watch_bus(self) -> None:
        """Tells players of instances elsewhere when the bus is away for a while."""
        connection = self._member.bus.connection
        while True:
            connection = await self._member.bus.changed_from(connection)
            if connection is not None:
                continue
            with trio.move_on_after(PAUSE_AFTER_S):
                connection = await self._member.bus.changed_from(None)
            if connection is None:
                for remote in self._remotes.values():
                    remote.pause()

    # Instances elsewhere -----------------------------------------------------------------------

    def remote(self, instance: str, place: There) -> RemoteInstance:
        """The instance at another node, for sessions and requests here."""
        known = self._remotes.get(instance)
        if known is not None and known.local is None:
            if place.epoch > known.place.epoch:
                known.recover()
            return known
        if self._nursery is None:
            raise Overloaded
        made = self._remotes[instance] = RemoteInstance(
            instance,
            place,
            member=self._member,
            calls=self._calls,
            places=self._places,
            spawn=self._spawn,
            numbers=lambda: next(self._numbers),
            figures=self._figures,
            interests=self._directory.interests,
        )
        return made

    def find_remote(self, instance: str) -> RemoteInstance | None:
        """The instance at another node, if players or requests of this node are there."""
        return self._remotes.get(instance)

    def entering(self, instance: str) -> frozenset[Sink]:
        """The sockets here that enter, or are inside, an instance elsewhere."""
        remote = self._remotes.get(instance)
        return frozenset() if remote is None else remote.entering()

    def joined_elsewhere(self) -> list[RemoteInstance]:
        """The instances at other nodes with players of this node."""
        return [one for one in self._remotes.values() if one.local is None and one.seats()]

    @property
    def remotes(self) -> Mapping[str, RemoteInstance]:
        """The instances elsewhere that this node reaches; only to be read."""
        return self._remotes

    @property
    def hosted(self) -> Mapping[str, HostedInstance]:
        """The instances of this node; only to be read."""
        return self._hosted

    # Instances here ----------------------------------------------------------------------------

    def host(self, recovery: RecoveryState, holding: Holding) -> None:
        """As `InstanceRelay.host`."""
        epoch = holding.tenure.epoch
        hosted = HostedInstance(
            recovery.record.id,
            epoch,
            member=self._member,
            calls=self._calls,
            directory=self._directory,
            spawn=self._spawn,
            soft=self._kept,
            kicks=self._kicks,
            prepare=self._prepare,
            begun=self._begun,
            ended=self._ended,
            departed=self._departed,
        )
        self._hosted[hosted.id] = hosted
        recovery.remote = hosted
        hosted.recovery = recovery

    async def _prepare(self, hosted: HostedInstance) -> None:
        """Collects the players that the instance has at gateways; the actor starts with them."""
        recovery, instance = hosted.recovery, hosted.id
        if recovery is None:
            return
        if hosted.epoch <= 1:  # nobody hosted it before
            if self._kept is not None:
                self._kept.keep(recovery, hosted.epoch, None)
            return
        await self._wait_adopted(instance)
        adopt, known = self._soft.pop(instance, None), set[str]()
        if adopt is not None and adopt.epoch != hosted.epoch:
            adopt = None
        members: dict[str, Member] = {}
        found, others = list[Member](), list[wire.Seat]()
        remote = self._remotes.get(instance)
        if remote is not None and remote.local is not None:
            remote = None
        if adopt is not None:
            soft = adopt.soft
            recovery.soft = Frozen(
                tuple(soft.values),
                soft.invited,
                tuple(soft.candidates),
                master=soft.master,
                absent=tuple(soft.absent),
            )
            known.update(adopt.gateways)
            self._taking[instance] = adopt
        elif remote is not None:
            known = remote.gateways & set(self._member.nodes)
        kept = SoftFound()

        async def read() -> None:
            nonlocal kept
            if self._kept is not None:
                kept = await self._kept.read(instance, hosted.epoch)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(
                self._collect, hosted, known - {self._member.node}, adopt, found, others
            )
            complete = False
            if remote is not None and adopt is not None:
                complete = await remote.wait_complete(adopt.epoch, adopt.last)
        if remote is not None:
            for member in remote.hand_over(complete=complete):
                _merge(members, member)
            others += remote.others()
        for member in found:
            _merge(members, member)
        inside: dict[str, str] | None = None
        if adopt is not None and adopt.last is not None:
            others = adopt.soft.seats  # the last host knows best
            inside = {one.player.session: one.player.id for one in others}
        else:
            others += kept.seats
        if recovery.soft is None:
            recovery.soft = kept.frozen
        for seat in others:  # their sockets were at a node that is gone
            member = Member(seat.visitor, seat.player, Nobody())
            members.setdefault(seat.player.session, member)
        # Those with sockets first: of the others, some may have left in the last moment.
        first = sorted(members.values(), key=lambda one: (not one.sinks, one.player.joined_at))
        kicks, seated = await self._kicks(instance), dict[str, Member]()
        for member in first:
            # The log may have a kick of which the member's gateway had not heard.
            session, player = member.player.session, member.player.id
            if inside is not None and inside.get(session) != player:
                recovery.turned_away.append((member, "disconnected"))
            elif kicks.get(member.player.user, 0) > member.player.joined_at:
                recovery.turned_away.append((member, "kicked"))
            elif len(seated) >= recovery.record.capacity:
                recovery.turned_away.append((member, "disconnected"))
            else:
                seated[member.player.session] = member
        for member in sorted(seated.values(), key=lambda one: one.player.joined_at):
            recovery.seated[member.player.session] = member
        if self._kept is not None:
            self._kept.keep(recovery, hosted.epoch, kept)

    async def _wait_adopted(self, instance: str) -> None:
        """Somebody may ask for an instance before the old host has told what it knows."""
        expected = self._expected.get(instance)
        if expected is None:
            return
        if expected.until > trio.current_time():
            with trio.move_on_after(ADOPTED_S):
                await expected.over.wait()
        self._expected.pop(instance, None)

    async def _collect(
        self,
        hosted: HostedInstance,
        known: Iterable[str],
        adopt: wire.Adopt | None,
        found: list[Member],
        others: list[wire.Seat],
    ) -> None:
        """Asks other nodes for the players they have, and for the others they know of. `known`: the
        gateways that must have players."""

        async def ask(node: str, within_s: float) -> None:
            argument = wire.Reseat(hosted.id, hosted.epoch)
            if adopt is not None:
                argument.last, argument.taken = adopt.last, adopt.taken.get(node)
            with trio.move_on_after(within_s):
                answer = await self._reseated(node, argument)
                if answer is None or not answer.series:
                    return
                gateway = hosted.gateway(node, answer.series)
                assert gateway is not None
                others.extend(answer.others)
                for seat in answer.seats:
                    member = hosted.seat(gateway, seat)
                    if answer.complete:
                        member.complete.update(member.sinks)
                    found.append(member)
                return
            _log.info(log_events.RESEAT_UNANSWERED, node=node, reason="no answer in time")

        async with trio.open_nursery() as nursery:
            for node in {*known, *self._member.nodes} - {self._member.node}:
                within_s = RESEAT_KNOWN_S if node in known else RESEAT_S
                nursery.start_soon(ask, node, within_s)

    async def _reseated(self, node: str, argument: wire.Reseat) -> wire.Reseated | None:
        """A gateway's answer, however often it must be asked; None: it is not there."""
        while True:
            try:
                return await self._calls.call(
                    node, "reseat", argument, wire.Reseated, RESEAT_AGAIN_S
                )
            except NodeUnreachable as error:
                if error.absent:
                    _log.info(log_events.RESEAT_UNANSWERED, node=node, reason=str(error))
                    return None
                await trio.sleep(RESEAT_PAUSE_S)
            except ReiletaError as error:
                _log.info(log_events.RESEAT_UNANSWERED, node=node, reason=str(error))
                return None

    def freeze(self, instance: str) -> Marks:
        """The instance is about to be handed over: takes nothing more from its gateways."""
        hosted = self._hosted.get(instance)
        return Marks() if hosted is None else Marks(hosted.freeze(), hosted)

    def thaw(self, instance: str) -> None:
        """It is not handed over."""
        hosted = self._hosted.get(instance)
        if hosted is not None:
            hosted.thaw()

    def _departed(self, hosted: HostedInstance, left: Sequence[InstanceMessage]) -> None:
        """An instance was handed over: its players here go on elsewhere, where all that is told to
        its actor goes from here on."""
        recovery, ref = hosted.recovery, hosted.ref
        if recovery is None or ref is None:
            return
        self._former[hosted.id] = (trio.current_time() + FORMER_S, hosted)
        if self._kept is not None:
            self._kept.leave(hosted.id, over=False)
        remote = self.remote(hosted.id, There(self._member.node, hosted.epoch))
        remote.take_over(_members_here(recovery), left, handed_over=True)
        recovery.seated.clear()
        ref.forward(remote)

    def expect(self, instance: str, host: str) -> None:
        """Another node is about to hand the instance over to this one."""
        if instance not in self._hosted:
            until = trio.current_time() + EXPECTED_S
            self._expected[instance] = _Expected(host, until)
            while len(self._expected) > SOFT:
                del self._expected[next(iter(self._expected))]

    def keep_soft(self, adopt: wire.Adopt) -> None:
        """An instance is handed over to this node; its actor starts with what is known of it."""
        if self._hosts(adopt.instance, adopt.epoch) is not None:
            return  # it has started: this is a repetition
        self._soft[adopt.instance] = adopt
        expected = self._expected.get(adopt.instance)
        if expected is not None:
            expected.over.set()
        while len(self._soft) > SOFT:
            del self._soft[next(iter(self._soft))]

    async def locate(self, instance: str) -> Recipient[InstanceMessage] | None:
        """The instance's actor, started if this node hosts it; None: it does not."""
        place = await self._places.find(instance)
        return None if isinstance(place, There) else place

    def _start_soon(self, instance: str) -> None:
        """A gateway believes that the instance runs here. Its actor may have failed to start: the
        node has the place, and nobody else starts it."""
        known = instance in self._hosted or instance in self._locating
        if not known and self._nursery is not None:
            self._locating.add(instance)
            self._spawn(partial(self._start_again, instance))

    async def _start_again(self, instance: str) -> None:
        try:
            with suppress(ReiletaError):
                await self.locate(instance)
        finally:
            self._locating.discard(instance)

    async def wait_ended(self, instance: str) -> None:
        """Waits until this node's actor of the instance has ended, and its players here wait."""
        while instance in self._hosted:  # noqa: ASYNC110  # a moment, while it is handed over
            await trio.sleep(0.005)
        await trio.lowlevel.checkpoint()

    def look_for(self, instance: str, epoch: int) -> None:
        """The instance was handed over: its players here go to its new host, unless that has asked
        for them already. To look then would pause them again, and lose what they say."""
        remote = self._remotes.get(instance)
        if remote is not None and remote.place.epoch < epoch:
            remote.recover()

    def _begun(self, hosted: HostedInstance) -> None:
        """The actor runs."""
        adopt = self._taking.pop(hosted.id, None)
        remote = self._remotes.pop(hosted.id, None)
        if remote is not None and hosted.ref is not None:
            if adopt is not None and adopt.epoch == remote.place.epoch + 1:
                taken = adopt.taken.get(self._member.node)
                remote.come_home(hosted.ref, taken, handed_over=adopt.last is not None)
            else:
                remote.come_home(hosted.ref)
        hosted.doubt()  # gateways may have sent something already

    def _ended(self, hosted: HostedInstance) -> None:
        """The actor has ended, or did not start."""
        if self._hosted.get(hosted.id) is hosted:
            del self._hosted[hosted.id]
            self._taking.pop(hosted.id, None)

    def _starts(self, instance: str, epoch: int) -> bool:
        """Whether the instance's actor is about to run here."""
        hosted = self._hosted.get(instance)
        return hosted is not None and hosted.epoch == epoch and hosted.ref is None

    def _former_of(self, instance: str, epoch: int) -> HostedInstance | None:
        """An instance that this node has handed over a moment ago."""
        _, hosted = self._former.get(instance, (0.0, None))
        return hosted if hosted is not None and hosted.epoch == epoch else None

    def _hosts(self, instance: str, epoch: int) -> HostedInstance | None:
        hosted = self._hosted.get(instance)
        if hosted is None or hosted.epoch != epoch or hosted.ref is None:
            return None
        return hosted

    def _prepares(self, instance: str, epoch: int) -> bool:
        """Whether the instance is about to start here."""
        hosted = self._hosted.get(instance)
        return hosted is not None and hosted.epoch == epoch and hosted.ref is None

    def lost(self, recovery: RecoveryState) -> None:
        """This node does not host the instance any more: its players here go on elsewhere."""
        instance, holding = recovery.record.id, recovery.holding
        assert holding is not None
        place = There(holding.tenure.node, holding.tenure.epoch)
        members = _members_here(recovery)
        if not members:
            return
        remote = self.remote(instance, place)
        remote.take_over(members)
        remote.recover()

    # The member's listener ---------------------------------------------------------------------

    def fell(self, was: str) -> None:
        """This process has fallen: as a new node, it begins new streams to each host."""
        self._renamed.set()
        for remote in self._remotes.values():
            remote.pause()
            remote.recover()

    def node_gone(self, node: str) -> None:
        """Another node is gone: as a gateway, and as a host."""
        for expected in self._expected.values():
            if expected.host == node:
                expected.over.set()
        for hosted in self._hosted.values():
            hosted.lose(node)
        for remote in self._remotes.values():
            if remote.place.node == node:
                remote.host_gone()

    def node_seen(self, node: str) -> None:
        """Another node is there."""

    def reconnected(self) -> None:
        """The bus was away: anything may be missing, on both sides."""
        for hosted in self._hosted.values():
            hosted.doubt()
        for remote in self._remotes.values():
            remote.doubt()

    # Calls of other nodes ----------------------------------------------------------------------

    async def _enter(self, argument: wire.Enter, caller: str) -> wire.Entered:
        hosted = self._hosts(argument.instance, argument.epoch)
        if hosted is None:
            self._start_soon(argument.instance)
            return wire.Entered(elsewhere=True)
        return await hosted.enter(caller, argument)

    async def _ask(self, argument: wire.Ask, caller: str) -> wire.Answered:
        hosted = self._hosts(argument.instance, argument.epoch)
        if hosted is None:
            self._start_soon(argument.instance)
            return wire.Answered(elsewhere=True)
        return await hosted.ask(caller, argument)

    async def _tell(self, argument: wire.Tell, caller: str) -> wire.Told:
        hosted = self._hosts(argument.instance, argument.epoch)
        return wire.Told(elsewhere=True) if hosted is None else hosted.tell(argument)

    async def _watch(self, argument: wire.Watch, caller: str) -> wire.Watched:
        hosted = self._hosts(argument.instance, argument.epoch)
        return wire.Watched(elsewhere=True) if hosted is None else hosted.watch(caller, argument)

    async def _replay(self, argument: wire.Replay, caller: str) -> wire.Replayed:
        hosted = self._hosts(argument.instance, argument.epoch)
        hosted = hosted or self._former_of(argument.instance, argument.epoch)
        if hosted is None:
            return wire.Replayed(elsewhere=True)
        return hosted.replay(argument)

    async def _restore(self, argument: wire.Restore, caller: str) -> wire.Restored:
        hosted = self._hosts(argument.instance, argument.epoch)
        if hosted is None:
            self._start_soon(argument.instance)
            return wire.Restored(elsewhere=True)
        return await hosted.restore(caller, argument)

    async def _reseat(self, argument: wire.Reseat, caller: str) -> wire.Reseated:
        remote = self._remotes.get(argument.instance)
        if remote is None:
            return wire.Reseated()
        return await remote.reseat(There(caller, argument.epoch), argument.last, argument.taken)

    async def _get_figures(self, argument: wire.GetFigures, caller: str) -> wire.Figures:
        gateways = (one for hosted in self._hosted.values() for one in hosted.gateways.values())
        self._figures.lagging = sum(one.lagging for one in gateways)
        return self._figures

    async def _responds(self, argument: wire.Connection, caller: str) -> bool:
        remote = self._remotes.get(argument.instance)
        sink: Sink | None = None if remote is None else remote.sink(argument.connection)
        return sink is not None and await sink.responds()

    async def _take_parcels(self, argument: wire.Parcels, caller: str) -> None:
        remote = self._remotes.get(argument.instance)
        if remote is not None and remote.place == There(caller, argument.epoch):
            remote.parcels(argument.parcels)

    async def _missing(self, argument: wire.Missing, caller: str) -> wire.Replayed:
        remote = self._remotes.get(argument.instance)
        return wire.Replayed(None) if remote is None else remote.missing(argument)


def _members_here(recovery: RecoveryState) -> list[Member]:
    """The players with a session of this node, with their sockets here."""
    members = [
        replace(one, session=one.recipients.get("", one.session))
        for one in recovery.seated.values()
        if "" in one.recipients or not hasattr(one.session, "gateway")
    ]
    for member in members:
        member.sinks = {one: None for one in member.sinks if not hasattr(one, "gateway")}
    return members


def _merge(members: dict[str, Member], member: Member) -> None:
    """A session may have sockets at several gateways."""
    session = member.player.session
    known = members.setdefault(session, member)
    known.recipients[_gateway_of(member)] = member.session
    if known is not member:
        known.sinks.update(member.sinks)
        known.complete |= member.complete


def _gateway_of(member: Member) -> str:
    return str(getattr(member.session, "gateway", ""))
