"""The commands of `/api/ws`, each declared once with its handler.

See `docs/protocol.md#commands`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from actors.console.console import Topic
from actors.console.watches import Watch
from actors.hub.messages import Subscribe, Unsubscribe
from actors.resource.messages import Subscriber
from actors.runtime.errors import ActorStopped
from actors.session.messages import Join, Leave
from api.audit import AuditNote, note_done
from api.ws.declarations import CommandReply, Commands
from api.ws.registry.connection import (
    MISSING,
    ClientMessage,
    CommandContext,
    RegistryConnection,
)
from api.ws.registry.events import EVENTS, Pong, PongView, TopicView, Welcome
from api.ws.registry.examples import IDENTITY, INSTANCE, PLAYER, SINCE, TOPIC, WELCOME
from api.ws.registry.inputs import (
    AdminWatchInput,
    AuthenticateInput,
    InstanceInput,
    InterestInput,
    ModerateInput,
    PingInput,
    ResourceInput,
    TopicInput,
)
from api.ws.resource_events import WATCHED, ResourceRefView, ResourceUpdatedView
from reileta.errors import (
    AlreadyConnected,
    Banned,
    CredentialInvalid,
    EventUnknown,
    GuestNotAllowed,
    InstanceFull,
    InstanceNotFound,
    InternalError,
    MessageInvalid,
    ModerationInvalid,
    NotAllowed,
    NotImplementedHere,
    NotInInstance,
    NotLoggedIn,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    PlayerNotFound,
    QuotaReached,
    ResourceNotFound,
    ResourceTypeUnknown,
    ServerBlocked,
    TooManyRequests,
    UserNotFound,
)
from reileta.protocol import commands, events
from reileta.protocol.frames import encode, event
from reileta.protocol.views.instance import AcceptedView, DirectWayView, PlaceView
from reileta.protocol.views.registry import IdentityView, NothingView
from reileta.rules.resource.json_values import is_deeper
from reileta.rules.resource.resource import ResourceKey

DATA_DEPTH: Final = 60
"""Arrays and objects within one another in data that is relayed; its event adds three more. Many
parsers, and so other players' clients, fail on data that is nested a few levels deeper."""

Relay: TypeAlias = Callable[[RegistryConnection, ClientMessage], None]

COMMANDS: Final = Commands[CommandContext, Relay]()


@COMMANDS.add(
    commands.PING,
    takes=PingInput,
    gives=Pong,
    need="none",
    guests="yes",
    errors=(MessageInvalid,),
    sent={"data": {"time": 12}},
    answered={"client": 12, "server": SINCE},
)
async def ping(call: CommandContext, params: PingInput) -> PongView:
    """Asks for the server's time. Without `state`, the answer is the event `ping`."""
    pong = PongView(params.time, call.node.clock.now_ms())
    if call.state is None:
        call.connection.send(event(events.PING, None, encode(pong)))
    return pong


@COMMANDS.add(
    commands.AUTHENTICATE,
    takes=AuthenticateInput,
    gives=IdentityView,
    need="none",
    answers="session",
    guests="yes",
    errors=(
        GuestNotAllowed,
        ServerBlocked,
        MessageInvalid,
        CredentialInvalid,
        AlreadyConnected,
        QuotaReached,
        Overloaded,
    ),
    sent={"data": {"token": "ua_5uqk0CZ1m0…"}},
    answered=IDENTITY,
)
async def authenticate(call: CommandContext, params: AuthenticateInput) -> None:
    """Gives the socket a credential, or a newer one of the same session. The event `authenticated`
    follows."""
    await call.connection.authenticate(params.token or params.integrity or "", call.state)


@COMMANDS.add(
    commands.SUBSCRIBE,
    takes=TopicInput,
    gives=TopicView,
    guests="yes",
    errors=(GuestNotAllowed, NotLoggedIn, MessageInvalid, EventUnknown, PermissionDenied),
    sent={"data": TOPIC},
    answered=TOPIC,
)
async def subscribe(call: CommandContext, params: TopicInput) -> CommandReply:
    """Subscribes to an event, a group of events, or `all`: of one object, or of all objects that
    the user may see. The event `subscribed` follows."""
    names, target = _topic(call, params)
    if call.by.guest and names == {events.INSTANCE_DATA}:
        raise GuestNotAllowed
    await call.node.hub.ask(Subscribe(call.transport, names, target))
    topic = TopicView(params.event, params.target)
    return CommandReply(topic, event(events.SUBSCRIBED, None, encode(topic)))


@COMMANDS.add(
    commands.UNSUBSCRIBE,
    takes=TopicInput,
    gives=TopicView,
    guests="yes",
    errors=(NotLoggedIn, MessageInvalid, EventUnknown),
    sent={"data": TOPIC},
    answered=TOPIC,
)
async def unsubscribe(call: CommandContext, params: TopicInput) -> CommandReply:
    """Ends a subscription. The event `unsubscribed` follows."""
    names, target = _topic(call, params)
    await call.node.hub.ask(Unsubscribe(call.transport, names, target))
    topic = TopicView(params.event, params.target)
    return CommandReply(topic, event(events.UNSUBSCRIBED, None, encode(topic)))


def _topic(call: CommandContext, params: TopicInput) -> tuple[frozenset[str], str | None]:
    """The names of the events, and the id of the object if there is one."""
    names = EVENTS.members(params.event)
    if names is None:
        raise EventUnknown.field("data.event", "must be an event, a group of events, or all")
    if params.target is None:
        return names, None
    target = call.connection.local(params.target)
    return names, call.by.user.id if target == "@me" else target


@COMMANDS.add(
    commands.INSTANCE_JOIN,
    takes=InstanceInput,
    gives=Welcome,
    subgroup="instance or data",
    answers="instance",
    guests="yes",
    errors=(
        GuestNotAllowed,
        NotLoggedIn,
        MessageInvalid,
        InstanceNotFound,
        InstanceFull,
        QuotaReached,
        NotAllowed,
        Banned,
        Overloaded,
    ),
    sent={"data": {"instance": "picnic"}},
    answered=WELCOME,
)
async def join(call: CommandContext, params: InstanceInput) -> None:
    """Joins an instance. The answer is a snapshot of it; everything that happens later comes as
    events. `subgroup` may hold the id in place of `data`."""
    instance = call.connection.local(params.instance)
    await call.session.ask(Join(call.transport, instance, call.state))


@COMMANDS.add(
    commands.INSTANCE_LEAVE,
    takes=InstanceInput,
    gives=PlaceView,
    subgroup="instance or data",
    answers="instance",
    guests="yes",
    errors=(NotLoggedIn, MessageInvalid, NotInInstance, Overloaded),
    sent={"data": {"instance": INSTANCE}},
    answered={"instance": INSTANCE, "player": PLAYER},
)
async def leave(call: CommandContext, params: InstanceInput) -> None:
    """Makes the session's player leave, with all its sockets. `subgroup` may hold the id in place
    of `data`."""
    instance = call.connection.local(params.instance)
    await call.session.ask(Leave(call.transport, instance, call.state))


@COMMANDS.add(
    commands.INSTANCE_INTEREST,
    takes=InterestInput,
    gives=NothingView,
    subgroup="instance",
    guests="yes",
    errors=(NotLoggedIn, MessageInvalid, NotInInstance, Overloaded),
    sent={"subgroup": INSTANCE, "data": {"near": [PLAYER], "far_rate": 1}},
    answered={},
)
async def interest(call: CommandContext, params: InterestInput) -> NothingView:
    """Asks for fewer values of the players in the instance that `subgroup` names: the socket gets
    the newest value of each key, but not more often than it asked for. It replaces what the socket
    asked for before; empty data ends it. Messages without `key` and other events are not
    affected."""
    await call.node.instance_service.set_interest(call.instance, call.transport, params.interest())
    return NothingView()


@COMMANDS.add(
    commands.INSTANCE_TICKET,
    takes=InstanceInput,
    gives=DirectWayView,
    subgroup="instance or data",
    guests="yes",
    errors=(
        NotLoggedIn,
        MessageInvalid,
        InstanceNotFound,
        NotInInstance,
        NotImplementedHere,
        Overloaded,
    ),
    sent={"data": {"instance": INSTANCE}},
    answered={
        "address": "attic.example",
        "secure": True,
        "ticket": "eyJhbGciOiJFZDI1NTE5Ii…",
        "expires_at": SINCE,
    },
)
async def ticket(call: CommandContext, params: InstanceInput) -> DirectWayView:
    """Asks for a ticket, with which the session's player connects to the instance's node
    directly. `subgroup` may hold the id in place of `data`. A socket that has asked for fewer
    values gets none: the node sends all of them."""
    instance = call.connection.local(params.instance)
    if call.node.directory.interests.asked(instance, call.transport):
        raise NotImplementedHere.field("instance", "the socket has asked for fewer values")
    way = await call.node.instance_service.ticket(instance, call.by)
    return DirectWayView(
        address=way.address, secure=way.secure, ticket=way.ticket, expires_at=way.expires_at
    )


@COMMANDS.add(
    commands.INSTANCE_MODERATE,
    takes=ModerateInput,
    gives=NothingView,
    subgroup="instance",
    answers="instance",
    guests="own",
    errors=(
        GuestNotAllowed,
        NotLoggedIn,
        MessageInvalid,
        InstanceNotFound,
        NotInInstance,
        ModerationInvalid,
        PermissionDenied,
        NotAllowed,
        PlayerNotFound,
        UserNotFound,
        Overloaded,
        OutcomeUnknown,
    ),
    sent={"subgroup": INSTANCE, "data": {"player": PLAYER, "type": "mute", "reason": "hush"}},
    answered={},
)
async def moderate(call: CommandContext, params: ModerateInput) -> None:
    """Moderates somebody in the instance that `subgroup` names, as
    `POST /api/instances/{ref}/moderate` does. The answer comes once the change is durable."""
    await call.node.instance_service.moderate(
        call.instance, call.by, params.request(), sink=call.transport, state=call.state
    )
    by = call.node.sessions.current(call.by)
    if by.administers:
        note = AuditNote(call.instance)
        note.add(type=params.type, user=params.user, player=params.player, server=params.server)
        await note_done(call.node.store.audit, note, "moderate", via="socket", by=by)


@COMMANDS.add(
    commands.WATCH,
    takes=ResourceInput,
    gives=ResourceUpdatedView,
    answers="resource",
    errors=(
        GuestNotAllowed,
        NotLoggedIn,
        MessageInvalid,
        ResourceTypeUnknown,
        ResourceNotFound,
        PermissionDenied,
        QuotaReached,
        Overloaded,
    ),
    sent={"data": {"type": "document", "id": 17}},
    answered=WATCHED,
)
async def watch(call: CommandContext, params: ResourceInput) -> None:
    """Watches a resource of the session API, which the user may see. The answer is the resource as
    it is now; without `state`, it comes as the event `resource-updated`. Each change comes as that
    event. Watching again gives the whole resource again."""
    await call.node.resources.watch(
        _resource(call, params),
        call.node.sessions.current(call.by).as_claimant(),
        Subscriber(call.transport, call.state),
    )


@COMMANDS.add(
    commands.UNWATCH,
    takes=ResourceInput,
    gives=ResourceRefView,
    errors=(GuestNotAllowed, NotLoggedIn, MessageInvalid, ResourceTypeUnknown, PermissionDenied),
    sent={"data": {"type": "document", "id": 17}},
    answered={"type": "document", "id": 17},
)
async def unwatch(call: CommandContext, params: ResourceInput) -> ResourceRefView:
    """Ends a watch. If the socket does not watch the resource, nothing happens."""
    name = _resource(call, params)
    call.node.resources.unwatch(name, call.transport)
    return ResourceRefView(name.type, name.number)


def _resource(call: CommandContext, params: ResourceInput) -> ResourceKey:
    return ResourceKey(call.node.store.resources.types.of(params.type).name, params.id)


class AdminWatchView(Struct):
    """A watch, as it is now."""

    topics: Annotated[tuple[str, ...], Meta(description="What is watched")]
    every_ms: Annotated[int, Meta(description="Milliseconds between two events")]


@COMMANDS.add(
    commands.ADMIN_WATCH,
    takes=AdminWatchInput,
    gives=AdminWatchView,
    errors=(GuestNotAllowed, NotLoggedIn, MessageInvalid, PermissionDenied, QuotaReached),
    sent={"data": {"topics": [{"topic": "figures"}, {"topic": "instances"}], "every_ms": 1000}},
    answered={"topics": ["figures", "instances"], "every_ms": 1000},
)
async def admin_watch(call: CommandContext, params: AdminWatchInput) -> AdminWatchView:
    """Has the event `admin-figures` sent again and again, with what the topics show. It replaces
    the watch of before. For admins."""
    node, by, sink = call.node, call.by, call.transport
    if not node.sessions.current(by).administers:
        raise PermissionDenied
    topics = [
        Topic(
            topic=one.topic,
            node=one.node or None,
            instance=call.connection.local(one.instance or ""),
            sort=one.sort,
            order=one.order,
            query=one.query,
            limit=one.limit,
            offset=one.offset,
        )
        for one in params.topics
    ]
    if topics:
        every_s = params.every_ms / 1000
        node.watches.set(
            Watch(sink, topics, every_s, lambda: node.sessions.current(by).administers)
        )
    else:
        node.watches.end(sink)
    for one in topics:
        if one.instance:
            note = AuditNote(one.instance)
            await note_done(node.store.audit, note, "watch_instance", via="socket", by=by)
    return AdminWatchView(tuple(one.topic for one in topics), params.every_ms)


@COMMANDS.add_relay(
    commands.INSTANCE_DATA,
    gives=AcceptedView,
    options=("key", "at", "to"),
    errors=(
        NotLoggedIn,
        MessageInvalid,
        NotInInstance,
        NotAllowed,
        TooManyRequests,
        Overloaded,
        InternalError,
    ),
    sent={"subgroup": INSTANCE, "key": "pose", "at": 12.5, "data": {"x": 1}},
    answered={},
)
def send_data(connection: RegistryConnection, message: ClientMessage) -> None:
    """Sends any JSON to the players inside the instance that `subgroup` names, or to those in
    `to`. They get it byte for byte; data that is left out is null. With `key`, the newest value is
    retained for players who join later; null deletes it."""
    instance = message.subgroup
    seats = connection.transport.seats
    seat = None if instance is None else seats.get(instance)
    if seat is None:
        seat = seats.get(connection.local(instance or ""))
        if seat is None:
            connection.refuse(message, connection.why_not_inside(instance))
            return
    data = bytes(message.data) or b"null"
    if is_deeper(data, DATA_DEPTH):
        error = MessageInvalid.field("data", f"must be nested at most {DATA_DEPTH} levels deep")
        connection.refuse(message, error)
        return
    try:
        state = None if message.state is MISSING else message.wanted
        seat.send_data(connection.transport, data, message.key, message.at, message.to, state)
    except ActorStopped:
        connection.refuse(message, NotInInstance())
    except Overloaded as error:
        connection.refuse(message, error)
