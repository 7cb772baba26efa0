"""Which node hosts an instance: reads places, claims them, and gives them back.

The row in `places` decides. A node hosts what it has claimed there, until it gives it back, hands
it over or falls. An instance without a host gets one when somebody asks for it: this node claims
it, or asks another node to. A node that does not answer is asked again, or another one is; both can
be done safely, since only one claim succeeds.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from random import SystemRandom
from typing import Final

import msgspec
import structlog
import trio

from actors.instance.hosted import Here, Holding, There, Where
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.cluster.member import Member, NodeSeen
from reileta.errors import DatabaseUnavailable, Detail, Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.rules.cluster.placement import Candidate, Place, Tenure, host_of
from reileta.store.cluster_leases import ClusterLeases, NodeFenced

PLACE_S: Final = 4.0
"""Seconds in which an instance must have a host; then the request for it is refused."""
CALL_S: Final = 2.0
"""Seconds in which a node must have begun to host an instance."""
AGAIN_S: Final = 0.1
"""Seconds between two attempts."""
LEAVE_AGAIN_S: Final = 0.5
DRAIN_AGAIN_S: Final = 0.5
"""Seconds until a drained node tries again to hand over what is left; doubled each time, up to
`DRAIN_AGAIN_MAX_S`, until another node is seen."""
DRAIN_AGAIN_MAX_S: Final = 10.0
DRAIN_SEEN_S: Final = 3.0
"""Seconds that an operator's answer waits for another node to be seen, if something is left."""
HOST: Final = "host"
"""The call that asks a node to host an instance."""
DRAIN: Final = "drain"
"""The call that asks a node to take no more instances."""

_random: Final = SystemRandom()
_log = structlog.get_logger()


class HostCall(msgspec.Struct, array_like=True, frozen=True):
    """Please host the instance, if it has no host."""

    instance: str


class HostAnswer(msgspec.Struct, array_like=True, frozen=True):
    """Its host now; `node` is None if the node that was asked takes no more instances."""

    node: str | None
    epoch: int


class DrainCall(msgspec.Struct, array_like=True, frozen=True):
    """Please take no more instances, and hand over those that you have; or (`on` is false) do take
    some again."""

    on: bool = True


class DrainAnswer(msgspec.Struct, array_like=True, frozen=True):
    """How many instances the node still hosts."""

    instances: int


class _Search:
    """A search for a host, for all who wait for it."""

    __slots__ = ("done", "failure", "where")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.where: Where | None = None
        self.failure: ReiletaError | None = None


class _Leaving:
    """A place that is being given back."""

    __slots__ = ("done", "tenure")

    def __init__(self, tenure: Tenure) -> None:
        self.done = trio.Event()
        self.tenure = tenure


class Hosting:
    """The instances that this node hosts. `run` must run beside its use.

    Attributes:
        start: starts the actor of an instance that this node hosts.
        hand_over: hands all instances here over to other nodes, as far as they take them.
        draining: whether it takes no more instances.
        drained: is called when it begins to be drained, before instances are handed over.
        dropped: is called with what this node hosted until its fall.
        counts: for metrics: places that were claimed, given back, and lost to a fence.
    """

    def __init__(
        self, member: Member, leases: ClusterLeases, calls: Calls, *, hosts: bool = True
    ) -> None:
        """`hosts`: whether this node takes instances at all (the role `ins`)."""
        self._member = member
        self._hosts = hosts
        self._leases = leases
        self._calls = calls
        self._held: dict[str, Holding] = {}
        self._searches: dict[str, _Search] = {}
        self._leaving: dict[str, _Leaving] = {}
        self._nursery: trio.Nursery | None = None
        self.start: Callable[[str], Awaitable[object]] | None = None
        self.dropped: Callable[[list[str]], None] = lambda _: None
        self.draining = False
        self.drained: Callable[[], None] = lambda: None
        self.counts: dict[str, int] = {"claimed": 0, "given_back": 0, "fenced": 0}
        self.hand_over: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._handing_over = trio.Lock()
        self._stirred = trio.Event()
        self._gone = trio.Event()
        """Set when an instance was handed over."""
        calls.serve(HOST, HostCall, self._host)
        calls.serve(DRAIN, DrainCall, self._drain)
        member.listeners.insert(0, self)

    def __len__(self) -> int:
        return len(self._held)

    def held(self) -> list[str]:
        """The instances that this node hosts."""
        return list(self._held)

    def holding(self, instance_id: str) -> Holding | None:
        """This node's right to host the instance, if it has one."""
        return self._held.get(instance_id)

    def tenure(self, instance_id: str) -> Tenure | None:
        """The same, as messages and writes name it."""
        holding = self._held.get(instance_id)
        return None if holding is None else holding.tenure

    async def run(self) -> None:
        """Searches for hosts, and gives places back; hands over what a drained node has."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for instance_id in self._leaving:  # of before a crash
                nursery.start_soon(self._leave, instance_id)
            try:
                await self._keep_draining()
            finally:
                self._nursery = None  # it takes no more tasks

    # Finding a host ----------------------------------------------------------------------------

    async def place(self, instance_id: str) -> Where:
        """As `actors.instance.hosted.Hosts.place`. One search for each instance at a time."""
        holding = self._held.get(instance_id)
        if holding is not None:
            return Here(holding)
        search = self._searches.get(instance_id)
        if search is None:
            if self._nursery is None:
                raise Overloaded
            search = self._searches[instance_id] = _Search()
            self._nursery.start_soon(self._search, instance_id, search)
        await search.done.wait()
        if search.where is None:
            raise search.failure or Overloaded()
        return search.where

    async def _search(self, instance_id: str, search: _Search) -> None:
        try:
            with trio.move_on_after(PLACE_S):
                search.where = await self._find(instance_id, search)
        except ReiletaError as error:
            search.failure = error
        finally:
            del self._searches[instance_id]
            search.done.set()

    async def _find(self, instance_id: str, search: _Search) -> Where:
        silent: set[str] = set()
        while True:
            leaving = self._leaving.get(instance_id)
            if leaving is not None:
                await leaving.done.wait()
            try:
                where = await self._find_once(instance_id, silent)
            except (NodeFenced, DatabaseUnavailable) as error:
                # This node is another one in a moment; or the database is back in time.
                if isinstance(error, DatabaseUnavailable):
                    search.failure = error
                where = None
            if where is not None:
                return where
            await trio.sleep(AGAIN_S)

    async def _find_once(self, instance_id: str, silent: set[str]) -> Where | None:
        me = self._member.node
        place = await self._leases.place(instance_id)
        if place.node == me:
            return self._holds(place)
        if place.node is not None:
            return There(place.node, place.epoch)
        chosen = host_of(place, self._candidates(), me, _random.randrange, silent)
        if chosen is None:
            if not self._hosts and not any(one.hosts for one in self._member.nodes.values()):
                return None  # a gateway that has just started sees the others within a second
            raise Overloaded(Detail("instance", "finds no node that can host it"))
        if chosen == me:
            return self._holds(await self._claim(place))
        try:
            answer = await self._calls.call(chosen, HOST, HostCall(instance_id), HostAnswer, CALL_S)
        except NodeUnreachable:
            silent.add(chosen)
            return None
        if answer.node is None:
            silent.add(chosen)
            return None
        return There(answer.node, answer.epoch) if answer.node != me else None

    async def _claim(self, place: Place) -> Place:
        """Claims the place for this node, unless it may not host; the place after that."""
        may = self._hosts or place.linked == self._member.node
        if not may or not self._member.valid():
            raise NodeFenced
        place = await self._leases.claim(place.instance, self._member.node)
        if place.node == self._member.node:
            self.counts["claimed"] += 1
        return place

    def _holds(self, place: Place) -> Where | None:
        """The place, if it has a host; a place of this node is held from now on."""
        if place.node is None:
            return None
        if place.node != self._member.node:
            return There(place.node, place.epoch)
        if place.instance in self._leaving:
            return None
        holding = self._held.get(place.instance)
        if holding is None or holding.tenure.epoch != place.epoch:
            tenure = Tenure(place.instance, place.node, place.epoch)
            holding = self._held[place.instance] = Holding(tenure, self._member.valid)
        return Here(holding)

    def _candidates(self) -> list[Candidate]:
        nodes: Mapping[str, NodeSeen] = self._member.nodes
        return [
            Candidate(
                node=one.id,
                hosts=one.hosts,
                instances=one.instances,
                capacity=one.capacity,
                load=one.load,
                lag_ms=one.lag_ms,
                up=one.state == "up",
            )
            for one in nodes.values()
        ]

    async def _host(self, call: HostCall, caller: str) -> HostAnswer:
        """Another node asks this one to host an instance."""
        if self.draining or self.start is None:
            return HostAnswer(None, 0)
        try:
            place = await self._leases.place(call.instance)
            if place.node is None:
                place = await self._claim(place)
        except NodeFenced:
            return HostAnswer(None, 0)
        where = self._holds(place)
        if isinstance(where, Here):
            await self.start(call.instance)
        return HostAnswer(place.node, place.epoch)

    async def _drain(self, call: DrainCall, caller: str) -> DrainAnswer:
        """An operator drains this node."""
        await self.drain(on=call.on)
        if call.on:
            # Another node may have been started a moment ago, and not be seen here yet.
            with trio.move_on_after(DRAIN_SEEN_S):
                while self._held:
                    await self._gone.wait()
        return DrainAnswer(len(self._held))

    async def drain(self, *, on: bool = True) -> None:
        """Takes no more instances, and hands over those that are here; or takes some again. What
        nobody takes now is handed over once somebody does."""
        self.draining = on
        _log.info(log_events.NODE_DRAINED, node=self._member.node, on=on, instances=len(self))
        if on:
            self.drained()
            await self._hand_over_all()
        self._stir()

    async def _hand_over_all(self) -> None:
        async with self._handing_over:
            if self.draining:
                await self.hand_over()

    async def _keep_draining(self) -> None:
        """Hands over what a drained node still has. Others may not have been seen yet, or have
        taken nothing; and an instance may have come while the node began to be drained."""
        pause_s, stirred = DRAIN_AGAIN_S, self._stirred
        while True:
            with trio.move_on_after(pause_s if self.draining else math.inf):
                await stirred.wait()
                pause_s = DRAIN_AGAIN_S
            stirred = self._stirred
            if self.draining and self._held:
                await self._hand_over_all()
                # Each attempt can silence instances for a moment.
                pause_s = min(2 * pause_s, DRAIN_AGAIN_MAX_S)

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    # Giving back -------------------------------------------------------------------------------

    def gave_up(self, instance_id: str) -> None:
        """The instance's actor has ended: its place is given back, and another node may host it."""
        holding = self._held.pop(instance_id, None)
        if holding is None:
            return
        holding.lost = True
        self._leaving[instance_id] = _Leaving(holding.tenure)
        if self._nursery is not None:
            self._nursery.start_soon(self._leave, instance_id)

    async def _leave(self, instance_id: str) -> None:
        leaving = self._leaving[instance_id]
        # If this node falls, its places are given back all the same.
        while leaving.tenure.node == self._member.node:
            with suppress(DatabaseUnavailable):
                if await self._leases.leave(leaving.tenure):
                    self.counts["given_back"] += 1
                break
            await trio.sleep(LEAVE_AGAIN_S)
        del self._leaving[instance_id]
        leaving.done.set()

    def moved(self, holding: Holding) -> None:
        """The instance was handed over to another node: it is dropped here."""
        instance_id = holding.tenure.instance
        if self._held.get(instance_id) is holding:
            del self._held[instance_id]
        holding.lost = True
        self.counts["given_back"] += 1
        self._gone.set()
        self._gone = trio.Event()
        self.dropped([instance_id])

    def fenced(self, holding: Holding) -> None:
        """A write has found that the tenure has ended: the instance is dropped."""
        self.counts["fenced"] += 1
        instance_id = holding.tenure.instance
        if self._held.get(instance_id) is holding:
            del self._held[instance_id]
            holding.lost = True
            self.dropped([instance_id])

    # As a listener of the member ---------------------------------------------------------------

    def fell(self, was: str) -> None:
        """This node hosts nothing any more."""
        held, self._held = self._held, {}
        for holding in held.values():
            holding.lost = True
        self.dropped(list(held))

    def node_gone(self, node: str) -> None:
        """Its instances get a host when somebody asks for them."""

    def node_seen(self, node: str) -> None:
        """It may take what this node has, if it is drained."""
        self._stir()

    def reconnected(self) -> None:
        """Places are not on the bus."""
