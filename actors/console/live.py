"""What this process has, as admins see it: itself, its instances, actors, traces and users.

It reads what the actors and the counters have anyway. What single actors handle is counted only
while somebody looks, and for `LOOK_S` after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Literal, Protocol, TypeAlias

import trio
from msgspec import UNSET, Struct

from actors.cluster.cluster import Cluster
from actors.cluster.shared import Shared
from actors.console.sampler import FigureSampler
from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.instance.manager import InstanceManager
from actors.instance.recovery import Member, RecoveryState
from actors.runtime.background import BackgroundTasks
from actors.runtime.meter import ActorFigures
from actors.runtime.supervisor import Supervisor
from actors.runtime.trace_watch import TraceWatch
from actors.server import LiveServer
from actors.session.manager import SessionManager
from reileta import __version__
from reileta.clock import Clock
from reileta.ids import At, at
from reileta.observability.metrics import Metrics
from reileta.protocol.views.console import (
    ActorTreeView,
    ActorView,
    BackgroundTaskView,
    CrashView,
    FiguresView,
    LiveInstanceDetailView,
    LiveInstanceView,
    LivePlayerView,
    NodeView,
    OnlineUserView,
    SlowTracesView,
    SpanView,
    SupervisorView,
    TraceView,
)
from reileta.protocol.views.instance import entry_view
from reileta.protocol.views.registry import known
from reileta.rules.console.figures import EVERY_S
from reileta.rules.console.listing import Part, first
from reileta.rules.console.rates import Count, RateBook
from reileta.rules.console.traces import SlowTrace, steps
from reileta.rules.instance.instance import Instance
from reileta.rules.instance.seats import Player
from reileta.settings import Settings
from reileta.store import Store

LOCAL: Final = "local"
"""The id of the node without a cluster."""
LOOK_S: Final = 15.0
"""For so long actors are counted after the last look at them."""
SHOWN: Final = 100
"""Players, candidates and actors that are shown at most."""
SPANS: Final = 200
LAG_S: Final = 5.0
"""Seconds between two pings of a player's client."""
PINGED: Final = 50
"""Clients that are pinged at a time."""

InstanceSort: TypeAlias = Literal[
    "connected",
    "queued",
    "capacity",
    "messages_per_s",
    "drain_size",
    "wait_ms",
    "backlog_bytes",
    "mailbox",
    "restarts",
    "name",
]
Order: TypeAlias = Literal["asc", "desc"]


class PlayerSockets(Struct, array_like=True):
    """The sockets of a player, as their node has them. `lag_ms`: None if it is not known."""

    player: str
    lag_ms: float | None
    backlog_bytes: int


class ConsoleNode(Protocol):
    """The node that the console shows (`actors.node.Node`)."""

    settings: Settings
    store: Store
    clock: Clock
    metrics: Metrics
    address: str
    server: LiveServer
    draining: bool
    unready: list[Callable[[], str | None]]
    directory: Directory
    instances: InstanceManager
    sessions: SessionManager
    background: BackgroundTasks
    shared: Shared | None
    cluster: Cluster | None
    traces: TraceWatch
    supervisors: Sequence[Supervisor]


def sort_key(sort: InstanceSort) -> Callable[[LiveInstanceView], object]:
    """The key by which live instances are sorted; those that are equal are sorted by their id."""

    def key(one: LiveInstanceView) -> object:
        value = getattr(one, sort)
        return ("" if sort == "name" else -1.0) if value is UNSET else value, one.id

    return key


def matches(one: LiveInstanceView, query: str) -> bool:
    """Whether an instance's id, name, title, world or owner contains the text, in any case."""
    texts = (one.id, one.name, one.title, one.world, one.owner)
    return any(query in text.casefold() for text in texts)


class Live:
    """One process, as admins see it. `tidy` is called every few seconds."""

    def __init__(self, node: ConsoleNode) -> None:
        self._node = node
        self.sampler = FigureSampler(node.metrics, node.store.database, node.clock)
        self._rates = RateBook()
        self._looked_at: float | None = None
        self._traced_at: float | None = None
        self._lags: dict[Sink, tuple[float, float]] = {}
        self._pinging: set[Sink] = set()

    @property
    def id(self) -> str:
        """The id of this node."""
        cluster = self._node.cluster
        return LOCAL if cluster is None else cluster.member.node

    # Looking -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Somebody looks at actors: they are counted from now on."""
        now = self._looked_at = trio.current_time()
        figures: list[ActorFigures] = []
        for supervisor in self._node.supervisors:
            supervisor.measure(on=True)
            if self._rates.due(now):
                figures += supervisor.children()
        if figures:
            self._rates.read(
                now,
                {
                    one.name: Count(one.meter.messages, one.meter.drains, one.meter.waited_s)
                    for one in figures
                    if one.meter is not None
                },
            )

    def look_at_traces(self) -> None:
        """Somebody looks at traces: some are watched from now on."""
        self._traced_at = trio.current_time()
        self._node.traces.start()

    def tidy(self) -> None:
        """Ends what nobody looks at any more."""
        now = trio.current_time()
        if self._looked_at is not None and now > self._looked_at + LOOK_S:
            self._looked_at = None
            self._rates.clear()
            for supervisor in self._node.supervisors:
                supervisor.measure(on=False)
        if self._traced_at is not None and now > self._traced_at + LOOK_S:
            self._traced_at = None
            self._node.traces.stop()
        self._lags = {sink: lag for sink, lag in self._lags.items() if now < lag[0] + LOOK_S}

    @property
    def looked_at(self) -> bool:
        """Whether anything is counted or watched for somebody who looks."""
        return self._looked_at is not None or self._traced_at is not None

    # The node ----------------------------------------------------------------------------------

    def health(self) -> NodeView:
        """This node."""
        node, metrics = self._node, self._node.metrics
        row = self.sampler.ring.rows().series
        newest = {name: values[-1] for name, values in row.items() if values}
        reason = self._unready()
        name = node.settings.node_name or node.address
        return NodeView(
            id=self.id,
            name=name if node.cluster is None else node.cluster.member.name,
            state="ready" if reason is None else "unready",
            here=False,
            reason=known(reason),
            version=__version__,
            ready_at=known(node.server.ready_at),
            sockets=metrics.connections,
            players=metrics.players,
            instances=metrics.instances,
            cpu=newest.get("cpu", 0.0),
            lag_ms=newest.get("lag_ms", 0.0),
            memory_bytes=int(newest.get("memory_bytes", 0)),
            database=node.store.database.available,
            failing=tuple(node.background.failing),
            crashes=metrics.actor_crashes,
        )

    def _unready(self) -> str | None:
        node = self._node
        if node.draining:
            return "is stopping"
        if not node.store.database.available:
            return "does not reach the database"
        if node.store.lock.superseded:
            return "shares its database with another server"
        if node.background.failing:
            return "has background tasks that fail"
        reasons = (why() for why in node.unready)
        return next((reason for reason in reasons if reason is not None), None)

    def figures(self, after_ms: int = -1) -> FiguresView:
        """The figures of the last 15 minutes that are newer than that."""
        columns = self.sampler.ring.rows(after_ms)
        return FiguresView(
            node=self.id,
            every_ms=int(EVERY_S * 1000),
            at=columns.at,
            series=dict(columns.series),
        )

    # Instances ---------------------------------------------------------------------------------

    def instances(
        self, *, sort: InstanceSort, order: Order, query: str | None, reach: int
    ) -> Part[LiveInstanceView]:
        """The first instances in that order."""
        self.look()
        mailboxes = self._mailboxes("instances")
        rows: Iterable[LiveInstanceView] = (
            self._instance(id_, state, mailboxes)
            for id_, state in self._node.instances.states().items()
        )
        if query:
            wanted = query.casefold()
            rows = (row for row in rows if matches(row, wanted))
        rows = list(rows)
        return Part(first(rows, sort_key(sort), down=order == "desc", reach=reach), len(rows))

    async def instance(self, instance_id: str) -> LiveInstanceDetailView | None:
        """One instance as it happens; None: it does not run here."""
        self.look()
        state = self._node.instances.state(instance_id)
        rules = None if state is None else state.rules
        if state is None or rules is None:
            return None
        members = list(state.seated.values())[:SHOWN]
        await self._ask_lags(
            sink
            for member in members
            if not getattr(member.session, "gateway", "")
            for sink in member.sinks
        )
        now = self._node.clock.now_ms()
        return LiveInstanceDetailView(
            instance=self._instance(instance_id, state, self._mailboxes("instances")),
            players=tuple(self._player(rules, one, now) for one in members),
            queue=tuple(entry_view(entry) for entry in rules.entries()[:SHOWN]),
            events=tuple(state.happened),
        )

    def _instance(
        self, id_: str, state: RecoveryState, mailboxes: Mapping[str, ActorFigures]
    ) -> LiveInstanceView:
        record = state.record
        occupancy = self._node.directory.occupancy(id_)
        actor = mailboxes.get(f"instance/{id_}")
        rate = self._rates.of(f"instance/{id_}")
        sinks = {sink for member in state.seated.values() for sink in member.sinks}
        return LiveInstanceView(
            id=id_,
            name=record.name or "",
            title=record.title or "",
            world=record.world,
            node=self.id,
            owner=at(record.owner, self._node.address),
            capacity=record.capacity,
            connected=occupancy.connected,
            queued=occupancy.queued,
            master=known(occupancy.master),
            messages_per_s=UNSET if rate is None else rate.messages_per_s,
            drain_size=UNSET if rate is None else rate.drain_size,
            wait_ms=UNSET if rate is None else rate.wait_ms,
            backlog_bytes=sum(sink.waiting_bytes for sink in sinks),
            mailbox=0 if actor is None else actor.mailbox,
            restarts=0 if actor is None else actor.restarts,
        )

    def _player(self, rules: Instance, member: Member, now_ms: int) -> LivePlayerView:
        player: Player = rules.players.get(member.player.id, member.player)
        gateway = getattr(member.session, "gateway", "")
        lag_ms = self._lag_of(member.sinks)
        return LivePlayerView(
            player=player.id,
            user=player.user,
            username=member.visitor.username,
            displayname=player.displayname,
            role=rules.role_of(player.user),
            joined_at=player.joined_at,
            muted=rules.muted(player.user, now_ms),
            sockets=len(member.sinks),
            node=gateway or UNSET,
            lag_ms=known(lag_ms),
            backlog_bytes=sum(sink.waiting_bytes for sink in member.sinks),
        )

    async def sockets(self, instance_id: str, players: Iterable[str]) -> list[PlayerSockets]:
        """The sockets here of players in an instance, which runs here or elsewhere."""
        wanted = set(islice(players, SHOWN))
        found: dict[str, list[Sink]] = {}
        for recovery in self._node.sessions.recoveries.values():
            if instance_id in recovery.joined_instances:
                for sink in recovery.sockets:
                    seat = sink.seats.get(instance_id)
                    if seat is not None and seat.player in wanted:
                        found.setdefault(seat.player, []).append(sink)
        await self._ask_lags(sink for sinks in found.values() for sink in sinks)
        return [
            PlayerSockets(player, self._lag_of(sinks), sum(sink.waiting_bytes for sink in sinks))
            for player, sinks in found.items()
        ]

    def _lag_of(self, sinks: Iterable[Sink]) -> float | None:
        """The shortest of the last times that clients took to answer."""
        return min((self._lags[sink][1] for sink in sinks if sink in self._lags), default=None)

    async def _ask_lags(self, sinks: Iterable[Sink]) -> None:
        """Pings the clients at this node that were not pinged lately, a few at a time."""
        now = trio.current_time()
        due = [
            sink
            for sink in sinks
            if sink not in self._pinging and now > self._lags.get(sink, (-LAG_S, 0))[0] + LAG_S
        ]
        async with trio.open_nursery() as nursery:
            for sink in due[:PINGED]:
                nursery.start_soon(self._ask_lag, sink)

    async def _ask_lag(self, sink: Sink) -> None:
        asked_at = trio.current_time()
        self._pinging.add(sink)
        try:
            if await sink.responds():
                answered_at = trio.current_time()
                self._lags[sink] = (asked_at, round((answered_at - asked_at) * 1000, 2))
        finally:
            self._pinging.discard(sink)

    # Actors ------------------------------------------------------------------------------------

    def _mailboxes(self, supervisor: str) -> dict[str, ActorFigures]:
        return {
            one.name: one
            for some in self._node.supervisors
            if some.name == supervisor
            for one in some.children()
        }

    def actors(self) -> ActorTreeView:
        """The actors, with the last crashes."""
        self.look()
        node, now_ms, now_s = self._node, self._node.clock.now_ms(), trio.current_time()
        crashes = [crash for some in node.supervisors for crash in some.crashes]
        crashes.sort(key=lambda one: -one.at_s)
        return ActorTreeView(
            node=self.id,
            supervisors=tuple(self._supervisor(some) for some in node.supervisors),
            background=tuple(
                BackgroundTaskView(name=name, crashes=task.crashes, failing=task.failing)
                for name, task in sorted(node.background.tasks.items())
            ),
            crashes=tuple(
                CrashView(
                    actor=one.actor,
                    at=now_ms - int((now_s - one.at_s) * 1000),
                    error=one.error,
                    message=one.message,
                    traceback=one.traceback,
                    last_messages=one.last_messages,
                    restarted=one.restarted,
                )
                for one in crashes
            ),
        )

    def _supervisor(self, supervisor: Supervisor) -> SupervisorView:
        children = supervisor.children()
        busiest = first(
            children,
            lambda one: (one.mailbox, one.restarts, one.meter.messages if one.meter else 0),
            down=True,
            reach=SHOWN,
        )
        return SupervisorView(
            name=supervisor.name,
            total=len(children),
            actors=tuple(self._actor(one) for one in busiest),
        )

    def _actor(self, one: ActorFigures) -> ActorView:
        rate = self._rates.of(one.name)
        return ActorView(
            name=one.name,
            mailbox=one.mailbox,
            limit=one.limit,
            restarts=one.restarts,
            messages_per_s=UNSET if rate is None else rate.messages_per_s,
            drain_size=UNSET if rate is None else rate.drain_size,
            wait_ms=UNSET if rate is None else rate.wait_ms,
        )

    # Traces ------------------------------------------------------------------------------------

    def slowest(self) -> SlowTracesView:
        """The slowest traces that were watched."""
        self.look_at_traces()
        return SlowTracesView(
            node=self.id, traces=tuple(_trace(one) for one in self._node.traces.slowest)
        )

    # Users -------------------------------------------------------------------------------------

    def online(self) -> list[OnlineUserView]:
        """The users with a WebSocket here."""
        views: dict[str, OnlineUserView] = {}
        for recovery in self._node.sessions.recoveries.values():
            if not recovery.sockets:
                continue
            user = recovery.user
            view = views.get(user.id)
            if view is None:
                view = views[user.id] = OnlineUserView(
                    user=user.id,
                    username=user.username,
                    displayname=user.displayname,
                    sockets=0,
                    sessions=0,
                    instances=0,
                )
            view.sockets += len(recovery.sockets)
            view.sessions += 1
            view.instances += len(recovery.joined_instances)
        return list(views.values())

    def local(self, reference: str) -> str:
        """The id in a reference to an instance of this server."""
        target = At.parse(reference)
        return target.id if target.local_to(self._node.address) else reference


def _trace(slow: SlowTrace) -> TraceView:
    spans: list[SpanView] = []
    for depth, step in steps(slow.root):
        if len(spans) == SPANS:
            break
        what = step.what
        if step.sent is not None:
            what = f"{step.sent[0]} frames to {step.sent[1]} sockets"
        spans.append(
            SpanView(
                place=step.place,
                what=what,
                depth=depth,
                at_us=step.begins_us - slow.at_us,
                took_us=step.took_us or 0,
                waited_us=step.waited_us or 0,
                error=known(step.error),
            )
        )
    return TraceView(trace=slow.id, at=slow.at_us // 1000, took_us=slow.took_us, spans=tuple(spans))
