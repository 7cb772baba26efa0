"""Hands instances over to other nodes, while their players stay inside.

The actor is frozen once nothing is left to be written: it sends nothing more, and refuses data. Its
place gets the new host, which is told what only the old one knew: retained values, the queue and
invitations. Then the new host asks all gateways for their players, as after a fall; for its own
sockets, the old host is one of them. The players get `instance-restored`, under the same ids and
with all values.

If the place can't be changed, the actor goes on. If the new host does not answer after that, it is
the host all the same: it starts the instance when somebody asks for it, without those values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import structlog
import trio

from actors.cluster import wire
from actors.cluster.relay import Relay
from actors.instance.hosted import Holding
from actors.instance.manager import InstanceManager
from actors.instance.messages import Freeze
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.errors import DatabaseUnavailable, Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.rules.cluster.placement import Tenure
from reileta.store.cluster_leases import Fenced, NodeFenced

AT_ONCE: Final = 8
ATTEMPTS: Final = 20
AGAIN_S: Final = 0.25
"""Seconds between two attempts, while something is still to be written."""
FREEZE_S: Final = 2.0
MOVE_S: Final = 2.0
ADOPT_S: Final = 3.0
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


class Member(Protocol):
    """This process's part in the cluster."""

    @property
    def node(self) -> str: ...

    @property
    def nodes(self) -> Mapping[str, NodeState]: ...


class Hosting(Protocol):
    """The instances that this node hosts (`actors.cluster.hosting.Hosting`)."""

    def held(self) -> Iterable[str]: ...

    def holding(self, instance_id: str) -> Holding | None: ...

    def moved(self, holding: Holding) -> None:
        """The instance has another host: it is dropped here."""
        ...


class Leases(Protocol):
    """The rows of places (`reileta.store.cluster_leases.ClusterLeases`)."""

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
        self.moved = 0
        """How many instances were handed over."""
        calls.serve("adopt", wire.Adopt, self._adopt)

    async def run(self) -> None:
        """Hands over all instances that this node hosts, as far as others take them."""
        limit = trio.Semaphore(AT_ONCE)
        given: dict[str, int] = {}

        async def one(instance_id: str) -> None:
            async with limit:
                await self._hand_over(instance_id, given)

        async with trio.open_nursery() as nursery:
            for instance_id in list(self._hosting.held()):
                nursery.start_soon(one, instance_id)

    def _target(self, given: dict[str, int]) -> str | None:
        """The node with the fewest instances that takes some."""
        counts = {
            node: seen.instances + given.get(node, 0)
            for node, seen in self._member.nodes.items()
            if node != self._member.node and seen.hosts
        }
        target = min(counts, key=lambda node: counts[node], default=None)
        if target is not None:
            given[target] = given.get(target, 0) + 1
        return target

    async def _hand_over(self, instance_id: str, given: dict[str, int]) -> None:
        target, holding = self._target(given), self._hosting.holding(instance_id)
        if target is None or holding is None:
            return
        soft: wire.SoftState | None = None
        for _ in range(ATTEMPTS):
            soft = await self._frozen(instance_id, holding)
            if soft is not None or holding.lost:
                break
            await trio.sleep(AGAIN_S)
        if soft is None or holding.lost:
            return
        tenure: Tenure | None = None
        with suppress(Fenced, NodeFenced, DatabaseUnavailable), trio.move_on_after(MOVE_S):
            tenure = await self._leases.move(holding.tenure, target)
        if tenure is None:
            # If the move was made all the same, the next write finds that out.
            holding.moving = False
            _log.warning(log_events.HANDOVER_FAILED, instance=instance_id, node=target)
            return
        gateways = [self._member.node, *self._relay.gateways(instance_id)]
        self._hosting.moved(holding)
        with trio.move_on_after(ENDED_S):
            await self._relay.wait_ended(instance_id)
        adopt = wire.Adopt(instance_id, tenure.epoch, soft, gateways)
        try:
            await self._calls.call(target, "adopt", adopt, type(None), ADOPT_S)
        except (NodeUnreachable, ReiletaError) as error:
            _log.warning(
                log_events.HANDOVER_FAILED, instance=instance_id, node=target, reason=str(error)
            )
        else:
            self.moved += 1
            _log.info(log_events.INSTANCE_MOVED, instance=instance_id, node=target)
        self._relay.look_for(instance_id, tenure.epoch)

    async def _frozen(self, instance_id: str, holding: Holding) -> wire.SoftState | None:
        """Stops the actor, and returns what only it knows; None: it can't be stopped yet."""
        try:
            ref = await self._instances.start(instance_id)
            with trio.move_on_after(FREEZE_S):
                frozen = await ref.ask(Freeze())
                return wire.SoftState(
                    list(frozen.values), dict(frozen.invited), list(frozen.candidates)
                )
        except ReiletaError:
            return None
        holding.moving = False  # it may freeze later, for nothing
        return None

    async def _adopt(self, argument: wire.Adopt, caller: str) -> None:
        """Another node hands an instance over to this one."""
        self._relay.keep_soft(argument)
        if await self._relay.locate(argument.instance) is None:
            raise Overloaded
