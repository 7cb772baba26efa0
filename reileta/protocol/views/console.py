"""Views of a running server, for admins: nodes, figures, instances, actors, traces.

Nodes send them to each other, too, so a field that is added later has a default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta.protocol.views.instance import EntryView, PlayerId
from reileta.protocol.views.registry import (
    DisplayName,
    InstanceId,
    ListView,
    Millis,
    SessionId,
    UserAt,
    UserId,
)
from reileta.rules.instance.roles import Role

NodeState = Literal["ready", "unready", "silent"]
InstanceEventKind = Literal["joined", "left", "moderated"]

NodeId = Annotated[str, Meta(description="A node's id; `local` without a cluster")]
PerSecond = Annotated[float, Meta(description="Messages handled per second")]
DrainSize = Annotated[float, Meta(description="Messages per drain of the mailbox")]
WaitMs = Annotated[
    float, Meta(description="Milliseconds that the oldest message of a drain waited")
]
Waiting = Annotated[int, Meta(description="Messages that wait in the mailbox", ge=0)]
Restarts = Annotated[int, Meta(description="How often it was restarted after a crash", ge=0)]
BacklogBytes = Annotated[int, Meta(description="Bytes that wait for slow sockets here", ge=0)]


class NodeView(Struct, kw_only=True):
    """A node of the server, as it is now."""

    id: NodeId
    name: Annotated[str, Meta(description="Its name for operators")]
    state: Annotated[
        NodeState,
        Meta(description="`unready`: it takes no players; `silent`: it did not answer in time"),
    ]
    reason: Annotated[str, Meta(description="Why it is not ready")] | UnsetType = UNSET
    here: Annotated[bool, Meta(description="Whether it is the node that answers")]
    version: Annotated[str, Meta(description="Of Reileta")]
    ready_at: Annotated[Millis, Meta(description="When it was started")] | UnsetType = UNSET
    sockets: Annotated[int, Meta(description="Open WebSockets", ge=0)]
    players: Annotated[int, Meta(description="Players inside its instances", ge=0)]
    instances: Annotated[int, Meta(description="Instances that run there", ge=0)]
    cpu: Annotated[float, Meta(description="The part of one core that it used lately")]
    lag_ms: Annotated[float, Meta(description="How late its event loop was lately")]
    memory_bytes: Annotated[int, Meta(description="Memory of the process", ge=0)]
    database: Annotated[bool, Meta(description="Whether it reaches the database")]
    failing: Annotated[
        tuple[str, ...], Meta(description="Background tasks that crashed and don't work yet")
    ]
    crashes: Annotated[int, Meta(description="Crashes of actors since the start", ge=0)]


class ServerNodesView(Struct, kw_only=True):
    """All nodes of the server."""

    nodes: Annotated[tuple[NodeView, ...], Meta(description="The one that answers first")]


class FiguresView(Struct, kw_only=True):
    """Figures of a node over the last 15 minutes, one for each time in `at`."""

    node: NodeId
    every_ms: Annotated[int, Meta(description="Milliseconds between two samples")]
    at: Annotated[list[int], Meta(description="Times in ms since 1970 UTC, oldest first")]
    series: Annotated[
        dict[str, list[float]], Meta(description="By name; each list is as long as `at`")
    ]


class LiveInstanceView(Struct, kw_only=True):
    """An instance that runs. The rates are there once somebody has looked for a second."""

    id: InstanceId
    name: Annotated[str, Meta(description="Its name; empty if it has none")]
    title: Annotated[str, Meta(description="Its title; empty if it has none")]
    world: Annotated[str, Meta(description="The world's id, of another server with `@server`")]
    node: NodeId
    owner: UserAt
    capacity: Annotated[int, Meta(description="Seats", ge=0)]
    connected: Annotated[int, Meta(description="Players inside", ge=0)]
    queued: Annotated[int, Meta(description="Candidates who wait", ge=0)]
    master: UserAt | UnsetType = UNSET
    messages_per_s: PerSecond | UnsetType = UNSET
    drain_size: DrainSize | UnsetType = UNSET
    wait_ms: WaitMs | UnsetType = UNSET
    backlog_bytes: BacklogBytes
    mailbox: Waiting
    restarts: Restarts


class LivePlayerView(Struct, kw_only=True):
    """A player inside, with its connection."""

    player: PlayerId
    user: UserAt
    username: Annotated[str, Meta(description="Its username")]
    displayname: DisplayName
    role: Role
    joined_at: Millis
    muted: Annotated[bool, Meta(description="Whether it is muted")]
    sockets: Annotated[int, Meta(description="0: it may come back in time", ge=0)]
    node: (
        Annotated[str, Meta(description="The node of its sockets, if that is another one")]
        | UnsetType
    ) = UNSET
    lag_ms: (
        Annotated[float, Meta(description="How long its client took to answer a ping lately")]
        | UnsetType
    ) = UNSET
    backlog_bytes: BacklogBytes


class InstanceHappenedView(Struct, kw_only=True):
    """What happened in an instance lately."""

    at: Millis
    event: InstanceEventKind
    user: Annotated[str, Meta(description="The user, or the server of a ban of a server")]
    username: Annotated[str, Meta(description="If it is known")] | UnsetType = UNSET
    type: Annotated[str, Meta(description="Of a moderation")] | UnsetType = UNSET
    reason: Annotated[str, Meta(description="Why a player left")] | UnsetType = UNSET
    by: Annotated[UserAt, Meta(description="Who moderated")] | UnsetType = UNSET


class LiveInstanceDetailView(Struct, kw_only=True):
    """One instance as it happens. `players` and `queue` are the first 100."""

    instance: LiveInstanceView
    players: Annotated[tuple[LivePlayerView, ...], Meta(description="By the time of joining")]
    queue: Annotated[tuple[EntryView, ...], Meta(description="Candidates, in order")]
    events: Annotated[
        tuple[InstanceHappenedView, ...], Meta(description="The last 32, newest first")
    ]


class ActorView(Struct, kw_only=True):
    """An actor. The rates are there once somebody has looked for a second."""

    name: Annotated[str, Meta(description="Its kind, and the id of what it is for")]
    mailbox: Waiting
    limit: Annotated[int, Meta(description="Messages that may wait")]
    restarts: Restarts
    messages_per_s: PerSecond | UnsetType = UNSET
    drain_size: DrainSize | UnsetType = UNSET
    wait_ms: WaitMs | UnsetType = UNSET


class SupervisorView(Struct, kw_only=True):
    """A supervisor with its actors: the first 100, those with the fullest mailboxes first."""

    name: Annotated[str, Meta(description="What it supervises")]
    total: Annotated[int, Meta(description="How many actors run")]
    actors: Annotated[tuple[ActorView, ...], Meta(description="The busiest")]


class BackgroundTaskView(Struct, kw_only=True):
    """A loop of the node."""

    name: Annotated[str, Meta(description="What it does")]
    crashes: Annotated[int, Meta(description="How often it crashed", ge=0)]
    failing: Annotated[bool, Meta(description="Whether it crashed and has not worked since")]


class CrashView(Struct, kw_only=True):
    """A crash of an actor. It contains no payload of a message."""

    actor: Annotated[str, Meta(description="Its name")]
    at: Millis
    error: Annotated[str, Meta(description="The type of the exception")]
    message: Annotated[str, Meta(description="Its text")]
    traceback: Annotated[str, Meta(description="Its last 16 Ki characters, without secrets")]
    last_messages: Annotated[
        tuple[str, ...], Meta(description="Types, ids and ages of the last messages")
    ]
    restarted: Annotated[bool, Meta(description="Whether the actor was restarted")]


class ActorTreeView(Struct, kw_only=True):
    """The actors of a node."""

    node: NodeId
    supervisors: Annotated[tuple[SupervisorView, ...], Meta(description="In order of starting")]
    background: Annotated[tuple[BackgroundTaskView, ...], Meta(description="By name")]
    crashes: Annotated[tuple[CrashView, ...], Meta(description="The last ones, newest first")]


class SpanView(Struct, kw_only=True):
    """A part of a trace."""

    place: Annotated[str, Meta(description="A socket, `HTTP`, or an actor")]
    what: Annotated[str, Meta(description="The type of the message, or the event")]
    depth: Annotated[int, Meta(description="How far below the start", ge=0)]
    at_us: Annotated[int, Meta(description="Microseconds since the start of the trace")]
    took_us: Annotated[int, Meta(description="Microseconds; 0 for a moment")]
    waited_us: Annotated[int, Meta(description="Microseconds in the mailbox before")]
    error: Annotated[int, Meta(description="The code of a refusal")] | UnsetType = UNSET


class TraceView(Struct, kw_only=True):
    """A slow trace."""

    trace: Annotated[str, Meta(description="Its id, as in the log")]
    at: Millis
    took_us: Annotated[int, Meta(description="From its start to the end of its last part")]
    spans: Annotated[tuple[SpanView, ...], Meta(description="Parents before children")]


class SlowTracesView(Struct, kw_only=True):
    """The slowest traces of a node since somebody looked, of the last 15 minutes."""

    node: NodeId
    traces: Annotated[tuple[TraceView, ...], Meta(description="The slowest first")]


class HeldResourceView(Struct, kw_only=True):
    """A resource that a session holds."""

    type: Annotated[str, Meta(description="The resource's type")]
    id: Annotated[int, Meta(description="The resource's id")]
    session: SessionId
    user: UserId
    username: Annotated[str, Meta(description="Its username")]
    until: Annotated[Millis, Meta(description="When its time ends, unless the session keeps it")]
    connected: Annotated[bool, Meta(description="Whether the session has a WebSocket")]


class OnlineUserView(Struct, kw_only=True):
    """A user with an open WebSocket."""

    user: Annotated[str, Meta(description="The user's id; of a guest, with its server")]
    username: Annotated[str, Meta(description="Its username")]
    displayname: DisplayName
    sockets: Annotated[int, Meta(description="Open WebSockets", ge=0)]
    sessions: Annotated[int, Meta(description="Its sessions that are connected", ge=0)]
    instances: Annotated[int, Meta(description="Instances that it is inside", ge=0)]


class AdminFiguresView(Struct, kw_only=True):
    """What a watch of an admin shows now: a field for each of its topics.

    `figures` has only the samples since the last event, after the first one. Other fields replace
    what came before. `missing`: topics that have nothing to show, such as an instance that ended.
    """

    at: Millis
    nodes: ServerNodesView | UnsetType = UNSET
    figures: FiguresView | UnsetType = UNSET
    instances: ListView[LiveInstanceView] | UnsetType = UNSET
    instance: LiveInstanceDetailView | UnsetType = UNSET
    actors: ActorTreeView | UnsetType = UNSET
    traces: SlowTracesView | UnsetType = UNSET
    missing: Annotated[tuple[str, ...], Meta(description="Topics")] | UnsetType = UNSET
