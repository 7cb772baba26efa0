"""What admins see of the whole server: this process, and the other nodes of its cluster.

Each node answers the call `console` for itself. A node that does not answer within `CALL_S` is left
out of lists, and shown as silent among the nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias, TypeVar, assert_never

import msgspec
import trio
from msgspec import Struct

from actors.console.live import (
    ConsoleNode,
    InstanceSort,
    Live,
    Order,
    PlayerSockets,
    sort_key,
)
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.errors import InstanceNotFound, NodeNotFound, Overloaded, ReiletaError
from reileta.protocol.views.console import (
    ActorTreeView,
    AdminFiguresView,
    FiguresView,
    LiveInstanceDetailView,
    LiveInstanceView,
    NodeView,
    OnlineUserView,
    ServerNodesView,
    SlowTracesView,
)
from reileta.protocol.views.registry import ListView, known
from reileta.rules.console.listing import REACH, Part, merged

CALL: Final = "console"
CALL_S: Final = 2.0
FRESH_S: Final = 0.4
"""An answer is given again for so long: many who look cost hardly more than one."""
ANSWERS: Final = 64
"""How many answers are kept for that."""

TopicName: TypeAlias = Literal["nodes", "figures", "instances", "instance", "actors", "traces"]
T = TypeVar("T")


class Topic(Struct, frozen=True, kw_only=True):
    """What an admin looks at. `node`: the one that answers, for figures, actors and traces; None:
    this one. `instance`: an id. The rest is for instances."""

    topic: TopicName
    node: str | None = None
    instance: str = ""
    sort: InstanceSort = "connected"
    order: Order = "desc"
    query: str | None = None
    limit: int = 50
    offset: int = 0


class ConsoleCall(Struct, array_like=True):
    """`what`: a topic, `online`, or `sockets`: those of `players` in the topic's instance.
    `topic`: its `Topic`, as JSON."""

    what: str
    topic: bytes = b""
    players: list[str] = []


class ConsoleAnswer(Struct, array_like=True):
    """The part of one node, as JSON; empty: it has none. `total`: of a list."""

    data: bytes = b""
    total: int = 0


class Console:
    """The service that endpoints and watches ask."""

    def __init__(self, node: ConsoleNode) -> None:
        self._node = node
        self.live = Live(node)
        self._answers: dict[tuple[object, ...], tuple[float, object]] = {}

    def serve(self, calls: Calls) -> None:
        """Answers other nodes."""
        calls.serve(CALL, ConsoleCall, self._answer)

    async def step(self) -> None:
        """Takes a sample for the charts, and ends what nobody looks at any more."""
        await self.live.sampler.step()
        self.live.tidy()

    # Topics ------------------------------------------------------------------------------------

    async def nodes(self) -> ServerNodesView:
        """All nodes, this one first."""
        here = self.live.health()
        here.here = True
        views = [here]
        cluster = self._node.cluster
        if cluster is not None:
            known = {id_: seen for id_, seen in cluster.member.nodes.items() if id_ != self.live.id}
            answers = await self._ask_all(ConsoleCall("nodes"))
            for id_, seen in known.items():
                answer = answers.get(id_)
                if answer is not None:
                    views.append(msgspec.json.decode(answer.data, type=NodeView))
                else:
                    views.append(
                        NodeView(
                            id=id_,
                            name=seen.name,
                            state="silent",
                            reason="did not answer in time",
                            here=False,
                            version=seen.version,
                            players=seen.players,
                            instances=seen.instances,
                            cpu=seen.load,
                            lag_ms=seen.lag_ms,
                            sockets=0,
                            memory_bytes=0,
                            database=True,
                            failing=(),
                            crashes=0,
                        )
                    )
        return ServerNodesView(nodes=tuple(views))

    async def figures(self, node: str | None = None, after_ms: int = -1) -> FiguresView:
        """The figures of a node that are newer than that. Raises NodeNotFound, and Overloaded: it
        does not answer."""
        if self._is_here(node):
            return self.live.figures(after_ms)
        view = await self._from(node, Topic(topic="figures"), FiguresView)
        newer = [place for place, at in enumerate(view.at) if at > after_ms]
        view.at = [view.at[place] for place in newer]
        view.series = {
            name: [values[place] for place in newer] for name, values in view.series.items()
        }
        return view

    async def instances(self, topic: Topic) -> ListView[LiveInstanceView]:
        """A page of the instances of all nodes."""
        reach = min(topic.offset + topic.limit, REACH)
        parts = [self._instances(topic, reach)]
        if self._node.cluster is not None:
            call = ConsoleCall("instances", msgspec.json.encode(topic))
            for answer in (await self._ask_all(call)).values():
                items = msgspec.json.decode(answer.data, type=list[LiveInstanceView])
                parts.append(Part(items, answer.total))
        page = merged(
            parts,
            sort_key(topic.sort),
            down=topic.order == "desc",
            limit=topic.limit,
            offset=topic.offset,
        )
        return ListView(
            items=tuple(page.items), total=page.total, limit=topic.limit, offset=topic.offset
        )

    def _instances(self, topic: Topic, reach: int) -> Part[LiveInstanceView]:
        return self.live.instances(
            sort=topic.sort, order=topic.order, query=topic.query, reach=reach
        )

    async def instance(self, instance_id: str) -> LiveInstanceDetailView:
        """One instance, wherever it runs, with the sockets of its players, wherever they are.

        Raises InstanceNotFound: it runs nowhere.
        """
        detail = await self._detail(instance_id)
        if self._node.cluster is not None:
            await self._add_sockets(detail)
        return detail

    async def _add_sockets(self, detail: LiveInstanceDetailView) -> None:
        """Adds what only the nodes of the sockets know, if they answer in time."""
        players = {player.player: player for player in detail.players}
        by_node: dict[str, list[str]] = {}
        for id_, player in players.items():
            if isinstance(player.node, str):
                by_node.setdefault(player.node, []).append(id_)

        async def ask(node: str, ids: list[str]) -> None:
            for one in await self._sockets(node, detail.instance.id, ids):
                if one.player in players:
                    players[one.player].lag_ms = known(one.lag_ms)
                    players[one.player].backlog_bytes = one.backlog_bytes

        async with trio.open_nursery() as nursery:
            for node, ids in by_node.items():
                nursery.start_soon(ask, node, ids)

    async def _sockets(self, node: str, instance: str, ids: list[str]) -> list[PlayerSockets]:
        if self._is_here(node):
            return await self.live.sockets(instance, ids)
        cluster = self._node.cluster
        assert cluster is not None
        topic = msgspec.json.encode(Topic(topic="instance", instance=instance))
        call = ConsoleCall("sockets", topic, ids)
        try:
            answer = await cluster.calls.call(node, CALL, call, ConsoleAnswer, CALL_S)
        except (NodeUnreachable, ReiletaError):
            return []
        if not answer.data:  # a node of an older version
            return []
        return msgspec.json.decode(answer.data, type=list[PlayerSockets])

    async def _detail(self, instance_id: str) -> LiveInstanceDetailView:
        here = await self.live.instance(instance_id)
        if here is not None:
            return here
        if self._node.cluster is not None:
            topic = Topic(topic="instance", instance=instance_id)
            call = ConsoleCall("instance", msgspec.json.encode(topic))
            for answer in (await self._ask_all(call)).values():
                if answer.data:
                    return msgspec.json.decode(answer.data, type=LiveInstanceDetailView)
        raise InstanceNotFound

    async def actors(self, node: str | None = None) -> ActorTreeView:
        """The actors of a node. Raises NodeNotFound, and Overloaded: it does not answer."""
        if self._is_here(node):
            return self.live.actors()
        return await self._from(node, Topic(topic="actors"), ActorTreeView)

    async def traces(self, node: str | None = None) -> SlowTracesView:
        """The slowest traces of a node. Raises NodeNotFound, and Overloaded: it does not answer."""
        if self._is_here(node):
            return self.live.slowest()
        return await self._from(node, Topic(topic="traces"), SlowTracesView)

    async def online(self, *, query: str | None, limit: int, offset: int) -> Part[OnlineUserView]:
        """A page of the users with a WebSocket at any node, by their names."""
        views = {view.user: view for view in self.live.online()}
        if self._node.cluster is not None:
            for answer in (await self._ask_all(ConsoleCall("online"))).values():
                for view in msgspec.json.decode(answer.data, type=list[OnlineUserView]):
                    have = views.setdefault(view.user, view)
                    if have is not view:
                        have.sockets += view.sockets
                        have.sessions = max(have.sessions, view.sessions)
                        have.instances = max(have.instances, view.instances)
        found: Iterable[OnlineUserView] = views.values()
        if query:
            wanted = query.casefold()
            found = [
                one
                for one in found
                if any(
                    wanted in text.casefold() for text in (one.user, one.username, one.displayname)
                )
            ]
        ordered = sorted(found, key=lambda one: (one.username, one.user))
        return Part(ordered[offset : offset + limit], len(ordered))

    # Watches -----------------------------------------------------------------------------------

    async def look(self, topics: Iterable[Topic], after_ms: int) -> AdminFiguresView:
        """The present view of each topic; of the figures, only samples after `after_ms`."""
        view = AdminFiguresView(at=self._node.clock.now_ms())
        missing: list[str] = []
        for topic in topics:
            try:
                value = await self._cached(topic, after_ms)
            except ReiletaError:  # it is gone, or does not answer now
                missing.append(topic.topic)
            else:
                setattr(view, topic.topic, value)
        if missing:
            view.missing = tuple(missing)
        return view

    async def _cached(self, topic: Topic, after_ms: int) -> object:
        key: tuple[object, ...] = (topic, after_ms if topic.topic == "figures" else 0)
        now = trio.current_time()
        kept = self._answers.get(key)
        if kept is not None and now < kept[0] + FRESH_S:
            return kept[1]
        value = await self._read(topic, after_ms)
        self._answers = {
            one: entry for one, entry in self._answers.items() if now < entry[0] + FRESH_S
        }
        if len(self._answers) < ANSWERS:
            self._answers[key] = (now, value)
        return value

    async def _read(self, topic: Topic, after_ms: int) -> object:
        match topic.topic:
            case "nodes":
                return await self.nodes()
            case "figures":
                return await self.figures(topic.node, after_ms)
            case "instances":
                return await self.instances(topic)
            case "instance":
                return await self.instance(topic.instance)
            case "actors":
                return await self.actors(topic.node)
            case "traces":
                return await self.traces(topic.node)
            case _:
                assert_never(topic.topic)

    # Other nodes -------------------------------------------------------------------------------

    def _is_here(self, node: str | None) -> bool:
        return node is None or node == self.live.id

    async def _from(self, node: str | None, topic: Topic, type_: type[T]) -> T:
        """Asks another node for a topic.

        Raises:
            NodeNotFound: the cluster has no such node.
            Overloaded: it does not answer.
        """
        cluster = self._node.cluster
        if cluster is None or node is None or node not in cluster.member.nodes:
            raise NodeNotFound
        call = ConsoleCall(topic.topic, msgspec.json.encode(topic))
        try:
            answer = await cluster.calls.call(node, CALL, call, ConsoleAnswer, CALL_S)
        except NodeUnreachable:
            raise Overloaded from None
        return msgspec.json.decode(answer.data, type=type_)

    async def _ask_all(self, call: ConsoleCall) -> dict[str, ConsoleAnswer]:
        """The answers of the other nodes that answer in time."""
        cluster = self._node.cluster
        assert cluster is not None
        answers: dict[str, ConsoleAnswer] = {}

        async def ask(node: str) -> None:
            try:
                answers[node] = await cluster.calls.call(node, CALL, call, ConsoleAnswer, CALL_S)
            except (NodeUnreachable, ReiletaError):
                return  # it is left out

        async with trio.open_nursery() as nursery:
            for node in cluster.member.nodes:
                if node != self.live.id:
                    nursery.start_soon(ask, node)
        return answers

    async def _answer(self, call: ConsoleCall, _: str) -> ConsoleAnswer:
        """This node's part of what another node shows."""
        topic = Topic(topic="nodes")
        if call.topic:
            topic = msgspec.json.decode(call.topic, type=Topic)
        total = 0
        value: Any
        match call.what:
            case "nodes":
                value = self.live.health()
            case "figures":
                value = self.live.figures()
            case "instances":
                part = self._instances(topic, min(topic.offset + topic.limit, REACH))
                value, total = part.items, part.total
            case "instance":
                value = await self.live.instance(topic.instance)
            case "actors":
                value = self.live.actors()
            case "traces":
                value = self.live.slowest()
            case "sockets":
                value = await self.live.sockets(topic.instance, call.players)
            case "online":
                value = self.live.online()
            case _:
                value = None
        return ConsoleAnswer(b"" if value is None else msgspec.json.encode(value), total)
