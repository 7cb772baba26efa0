"""Hands instances over to other nodes, while their players stay inside and notice nothing.

The steps, for each instance:

1. The next host says whether it takes the instance (`prepare`).
2. The host stops hearing gateways: they keep the messages of their players. The actor is frozen
   once nothing is left to be written or asked. It says its last word, and keeps all later messages.
3. The database writes the new host into the place. If it refuses that or can't be asked, the
   instance continues here. If it was asked and its answer is lost, the instance stays frozen until
   the outcome is known: the new host may be the host already.
4. The messages that the frozen actor has kept go to the new host, and so do all that still come.
   The sockets of this node are from now on those of a gateway.
5. The new host gets the state that only the old one knew (`adopt`), the number of its last message,
   and how far it has heard each gateway. It asks the gateways for their players, as after a fall. A
   gateway makes sure that it has the last message, and sends again all messages that the old host
   has not taken: so all messages come once and in order, both ways.

A gateway that does not get the last message in time, and one that does not answer, get a snapshot
(`instance-restored`). If the new host does not answer after step 3, it is the host all the same: it
starts the instance when somebody asks for it, as after a fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import structlog
import trio

from actors.cluster import wire
from actors.cluster.relay import Marks, Relay
from actors.instance.hosted import Holding
from actors.instance.manager import InstanceManager
from actors.instance.messages import Depart, Freeze
from reileta.cluster.calls import Calls, CallUnknown, NodeUnreachable
from reileta.errors import DatabaseUnavailable, Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.rules.cluster.placement import Place, Tenure
from reileta.store.cluster_leases import Fenced, NodeFenced

AT_ONCE: Final = 8
ATTEMPTS: Final = 20
AGAIN_S: Final = 0.25
"""Seconds between two attempts, while something is still to be written."""
FREEZE_S: Final = 2.0
MOVE_S: Final = 2.0
MOVE_AGAIN_S: Final = 0.1
ADOPT_S: Final = 4.5
PREPARE_S: Final = 1.0
ADOPT_AGAIN_S: Final = 0.75
"""Seconds for one answer, before the new host is told again."""
ADOPT_PAUSE_S: Final = 0.05
DEPART_S: Final = 1.0
ENDED_S: Final = 1.0

_log = structlog.get_logger()


class NodeState(Protocol):
    """A node, as it described itself last."""

    @property
    def hosts(self) -> bool:
        """Whether it takes instances."""
        ...

    @property
    def instances(self) -> int: ...

    @property
    def capacity(self) -> int: ...


class Member(Protocol):
    """This process's part in the cluster."""

    @property
    def node(self) -> str: ...

    @property
    def nodes(self) -> Mapping[str, NodeState]: ...


class Hosting(Protocol):
    """The instances that this node hosts (`actors.cluster.hosting.Hosting`)."""

    @property
    def draining(self) -> bool: ...

    def held(self) -> Iterable[str]: ...

    def holding(self, instance_id: str) -> Holding | None: ...

    def moved(self, holding: Holding) -> None:
        """The instance has another host: it is dropped here."""
        ...

    def fenced(self, holding: Holding) -> None:
        """The tenure has ended, and nobody has told why: the instance is dropped here."""
        ...


class Leases(Protocol):
    """The rows of places (`reileta.store.cluster_leases.ClusterLeases`)."""

    async def place(self, instance_id: str) -> Place: ...

    async def move(self, tenure: Tenure, node: str) -> Tenure: ...


class Handover:
    """Hands over what this node hosts, and takes over what others hand to it."""

    def __init__(
        self,
        member: Member,
        hosting: Hosting,
        leases: Leases,
        calls: Calls,
        relay: Relay,
        instances: InstanceManager,
    ) -> None:
        self._member = member
        self._hosting = hosting
        self._leases = leases
        self._calls = calls
        self._relay = relay
        self._instances = instances
        self._giving = trio.Semaphore(AT_ONCE)
        self._under_way: set[str] = set()
        """Instances that are being handed over, by an operator or after their link."""
        self.moved = 0
        """How many instances were handed over."""
        calls.serve("prepare", wire.Prepare, self._prepare)
        calls.serve("adopt", wire.Adopt, self._adopt)

    async def run(self) -> None:
        """Hands over all instances that this node hosts, as far as others take them."""
        limit = trio.Semaphore(AT_ONCE)
        given: dict[str, int] = {}
        refused: set[str] = set()

        async def one(instance_id: str) -> None:
            async with limit:
                await self._hand_over(instance_id, given, refused)

        async with trio.open_nursery() as nursery:
            for instance_id in list(self._hosting.held()):
                nursery.start_soon(one, instance_id)

    async def give(self, instance_id: str, target: str) -> bool:
        """Hands the instance over to that node; whether it is not here any more."""
        async with self._giving:
            if self._hosting.holding(instance_id) is None:
                return True
            if not await self._takes(target, instance_id):
                return False
            await self._hand_over_to(instance_id, target)
        return self._hosting.holding(instance_id) is None

    async def _target(
        self, instance_id: str, given: dict[str, int], refused: set[str]
    ) -> str | None:
        """The node with the fewest instances that takes this one; before all, the one that has the
        link of the instance node on which it lives."""
        with suppress(DatabaseUnavailable):
            linked = (await self._leases.place(instance_id)).linked
            if linked in self._member.nodes and linked not in {self._member.node, *refused}:
                assert linked is not None
                if await self._takes(linked, instance_id):
                    return linked
        while True:
            counts = {
                node: seen.instances + given.get(node, 0)
                for node, seen in self._member.nodes.items()
                if node not in refused and node != self._member.node and seen.hosts
            }
            room = [one for one in counts if counts[one] < self._member.nodes[one].capacity]
            target = min(room, key=lambda node: counts[node], default=None)
            if target is None:
                return None
            given[target] = given.get(target, 0) + 1
            if await self._takes(target, instance_id):
                return target
            refused.add(target)

    async def _takes(self, target: str, instance_id: str) -> bool:
        argument = wire.Prepare(instance_id)
        try:
            return await self._calls.call(target, "prepare", argument, bool, PREPARE_S)
        except CallUnknown:
            return True  # a node of an older version takes any instance
        except (NodeUnreachable, ReiletaError):
            return False

    async def _hand_over(self, instance_id: str, given: dict[str, int], refused: set[str]) -> None:
        target = await self._target(instance_id, given, refused)
        if target is not None:
            await self._hand_over_to(instance_id, target)

    async def _hand_over_to(self, instance_id: str, target: str) -> None:
        holding = self._hosting.holding(instance_id)
        if holding is None or instance_id in self._under_way:
            return
        self._under_way.add(instance_id)
        try:
            await self._hand_over_held(instance_id, holding, target)
        finally:
            self._under_way.discard(instance_id)

    async def _hand_over_held(self, instance_id: str, holding: Holding, target: str) -> None:
        frozen: tuple[wire.SoftState, Marks] | None = None
        for _ in range(ATTEMPTS):
            frozen = await self._frozen(instance_id, holding)
            if frozen is not None or holding.lost:
                break
            await trio.sleep(AGAIN_S)
        if frozen is None or holding.lost:
            return
        soft, marks = frozen
        tenure = await self._move(holding, target)
        if tenure is None:
            if not holding.lost:
                self._thaw(instance_id, holding)
            _log.warning(log_events.HANDOVER_FAILED, instance=instance_id, node=target)
            return
        if _ended(holding):
            return  # this node has fallen meanwhile
        await self._depart(instance_id, holding)
        gateways = list(dict.fromkeys((self._member.node, *marks.taken)))
        adopt = wire.Adopt(instance_id, tenure.epoch, soft, gateways, marks.last, marks.taken)
        if await self._adopted(target, adopt):
            self.moved += 1
            _log.info(log_events.INSTANCE_MOVED, instance=instance_id, node=target)
        self._relay.look_for(instance_id, tenure.epoch)

    async def _move(self, holding: Holding, target: str) -> Tenure | None:
        """Makes the target the host; None: this node still is, or has fallen.

        Does not try without a database. A move whose answer is lost is repeated until it is known
        whether it was made, else two nodes would be the host until the next write.
        """
        try:
            with trio.fail_after(MOVE_S):
                await self._leases.place(holding.tenure.instance)
        except (DatabaseUnavailable, trio.TooSlowError):
            return None
        asked_at, told = trio.current_time(), False
        while not holding.lost:
            try:
                return await self._leases.move(holding.tenure, target)
            except (Fenced, NodeFenced):
                # The target may be fenced since a first move that was made.
                if await self._kept(holding):
                    return None
            except DatabaseUnavailable:
                pass
            if not told and trio.current_time() > asked_at + MOVE_S:
                told = True
                instance_id = holding.tenure.instance
                _log.warning(log_events.HANDOVER_UNKNOWN, instance=instance_id, node=target)
            await trio.sleep(MOVE_AGAIN_S)
        return None

    async def _kept(self, holding: Holding) -> bool:
        """Whether this node is the host still. If another is, the instance is dropped here."""
        tenure = holding.tenure
        with suppress(DatabaseUnavailable):
            place = await self._leases.place(tenure.instance)
            if (place.node, place.epoch) == (tenure.node, tenure.epoch):
                return True
            self._hosting.fenced(holding)
        return False

    async def _depart(self, instance_id: str, holding: Holding) -> None:
        """Ends the frozen actor; messages that it has kept, and all later ones, go elsewhere."""
        holding.lost = True
        with suppress(ReiletaError), trio.move_on_after(DEPART_S):
            ref = self._instances.running(instance_id)
            if ref is not None:
                await ref.ask(Depart())
        self._hosting.moved(holding)
        with trio.move_on_after(ENDED_S):
            await self._relay.wait_ended(instance_id)

    async def _adopted(self, target: str, adopt: wire.Adopt) -> bool:
        """Tells the new host until it answers; False: it does not."""
        reason = "no answer"
        with trio.move_on_after(ADOPT_S):
            while True:
                try:
                    await self._calls.call(target, "adopt", adopt, type(None), ADOPT_AGAIN_S)
                    return True
                except NodeUnreachable as error:
                    reason = str(error)
                    if error.absent:
                        break
                except ReiletaError as error:
                    reason = str(error)
                await trio.sleep(ADOPT_PAUSE_S)
        _log.warning(
            log_events.HANDOVER_FAILED, instance=adopt.instance, node=target, reason=reason
        )
        return False

    async def _frozen(
        self, instance_id: str, holding: Holding
    ) -> tuple[wire.SoftState, Marks] | None:
        """Stops the actor, and returns the state that only it knows; None: it can't stop yet."""
        try:
            ref = await self._instances.start(instance_id)
            marks = self._relay.freeze(instance_id)
            with trio.move_on_after(FREEZE_S):
                frozen = await ref.ask(Freeze())
                soft = wire.SoftState(
                    list(frozen.values),
                    dict(frozen.invited),
                    list(frozen.candidates),
                    frozen.master,
                    list(frozen.absent),
                    marks.seats,
                )
                return soft, marks
        except ReiletaError:
            pass
        self._thaw(instance_id, holding)  # it may freeze later, for nothing
        return None

    def _thaw(self, instance_id: str, holding: Holding) -> None:
        holding.moving = False
        self._relay.thaw(instance_id)

    async def _prepare(self, argument: wire.Prepare, caller: str) -> bool:
        """Another node asks whether this one takes an instance of its."""
        if self._hosting.draining:
            return False
        self._relay.expect(argument.instance, caller)
        return True

    async def _adopt(self, argument: wire.Adopt, caller: str) -> None:
        """Another node hands an instance over to this one."""
        self._relay.keep_soft(argument)
        if await self._relay.locate(argument.instance) is None:
            raise Overloaded


def _ended(holding: Holding) -> bool:
    return holding.lost
