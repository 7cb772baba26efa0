"""The events of `/api/ws`, each declared once."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from api.ws.declarations import Event, Events, opened
from api.ws.registry.examples import ADA, BOB, IDENTITY, INSIDE, PLAYER, SINCE, TOPIC, WELCOME
from api.ws.resource_events import (
    PLACE,
    QUEUE_TEXT,
    UNWATCHED,
    UNWATCHED_TEXT,
    UPDATED,
    UPDATED_TEXT,
    ResourceQueueView,
    ResourceUnwatchedView,
    ResourceUpdatedView,
)
from reileta.protocol import events
from reileta.protocol.views.console import AdminFiguresView
from reileta.protocol.views.federation import PeerChangeView
from reileta.protocol.views.instance import (
    CandidateView,
    DirectNewsView,
    LeftView,
    ModeratedView,
    PausedView,
    PlayerId,
    PlayerInsideView,
    RoleView,
    StandingView,
    WelcomeView,
)
from reileta.protocol.views.registry import (
    IdentityView,
    InstanceNodeView,
    InstanceView,
    Millis,
    NothingView,
    ServiceView,
    UserFriendView,
    UserMeView,
    UserView,
    WorldView,
)
from reileta.protocol.views.server import NoticeView, ServerView


class PongView(Struct):
    """The server's time, in milliseconds since 1970 UTC."""

    client: Annotated[Raw, Meta(description="`time` of the command")]
    server: Millis


class DataView(Struct):
    """Data of a player; `data` is the JSON that it sent, byte for byte."""

    player: PlayerId
    data: Annotated[Any, Meta(description="As the player sent it")]
    key: Annotated[str, Meta(description="As the player sent it")] | UnsetType = UNSET
    at: Annotated[int | float, Meta(description="As the player sent it")] | UnsetType = UNSET


class TopicView(Struct, omit_defaults=True):
    """A subscription, as the client asked for it."""

    event: str
    target: Annotated[str | None, Meta(description="The id of one object")] = None


# The server keeps parts of these as bytes.
Welcome: Final = opened(
    WelcomeView,
    players=Annotated[list[PlayerInsideView], Meta(description="All players inside")],
)
Pong: Final = opened(PongView)

_AUTHENTICATION: Final = "authentication"
_UPDATE: Final = "update"
_INSTANCE: Final = "instance"
_RESOURCE: Final = "resource"
_SERVER: Final = "server"

_INSTANCE_ID: Final = "the instance's id"
_SOCKET: Final = "the socket concerned"
_OVERSEERS: Final = "owner, admins, master and moderators inside"

EVENTS: Final = Events(
    Event(
        name=events.PING,
        description="The answer to a `ping` without `state`.",
        data=Pong,
        sent_to="the client that sent `ping` without `state`",
        example={"client": None, "server": SINCE},
    ),
    Event(
        name=events.AUTHENTICATED,
        group=_AUTHENTICATION,
        description="The socket has a credential now.",
        data=IdentityView,
        sent_to=_SOCKET,
        example=IDENTITY,
    ),
    Event(
        name=events.UNAUTHENTICATED,
        group=_AUTHENTICATION,
        description="The credential is no longer valid. Close code 4000 follows.",
        data=NothingView,
        sent_to=_SOCKET,
    ),
    Event(
        name=events.SUBSCRIBED,
        group=_AUTHENTICATION,
        description="The socket has a new subscription.",
        data=TopicView,
        sent_to=_SOCKET,
        example=TOPIC,
    ),
    Event(
        name=events.UNSUBSCRIBED,
        group=_AUTHENTICATION,
        description="A subscription of the socket has ended.",
        data=TopicView,
        sent_to=_SOCKET,
        example=TOPIC,
    ),
    Event(
        name=events.UPDATE_USER,
        group=_UPDATE,
        description="A user changed. The data is what the receiver may see of it.",
        data=(UserView, UserFriendView, UserMeView),
        sent_to="the user's own sockets",
        subgroup="the user's id",
    ),
    Event(
        name=events.UPDATE_SERVER,
        group=_UPDATE,
        description="The server's description changed.",
        data=ServerView,
        subgroup="the server's id",
    ),
    Event(
        name=events.SERVER_NOTICE,
        group=_SERVER,
        description="An admin tells everyone something, or takes it back (`text` is null). Those"
        " who connect before `until` get it when they have a credential.",
        data=NoticeView,
        sent_to="everyone with a credential",
        example={
            "text": "Restart in five minutes",
            "level": "warning",
            "created_at": SINCE,
            "until": SINCE + 300_000,
        },
    ),
    Event(
        name=events.UPDATE_PEER,
        group=_UPDATE,
        description="Another server became known, offers a key that does not follow from the one"
        " known before, has a new key, or was blocked. Only admins get it.",
        data=PeerChangeView,
        sent_to="admins who subscribe",
        example={
            "address": "b.example.org",
            "state": "pending",
            "decision": "allow",
            "public_key": "9PGcCnTc3qSCt74zE1v5etMxaXgo7pycPPi9wz0CwRI",
            "offered_key": "tn1l3Cl-tyUW3vKlKVMmvXThmtSDyNxq1wFXqWHXVxk",
        },
        subgroup="the other server's address",
    ),
    Event(
        name=events.UPDATE_WORLD,
        group=_UPDATE,
        description="A world was created, or it, its thumbnail or its assets changed. Only the"
        " owner, admins and users with whom the owner shares it get the events of a private one.",
        data=WorldView,
        subgroup="the world's id",
    ),
    Event(
        name=events.UPDATE_SERVICE,
        group=_UPDATE,
        description="A service was created or changed.",
        data=ServiceView,
        subgroup="the service's id",
    ),
    Event(
        name=events.UPDATE_NODE,
        group=_UPDATE,
        description="An instance node was created or changed, was connected or disconnected.",
        data=InstanceNodeView,
        subgroup="the node's id",
    ),
    Event(
        name=events.UPDATE_INSTANCE,
        group=_UPDATE,
        description="An instance was created or changed, a player joined or left, or the master"
        " changed. Only the owner, admins and players inside get the events of an instance that"
        " is not public.",
        data=InstanceView,
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_JOINED,
        group=_INSTANCE,
        description="A player joined.",
        data=PlayerInsideView,
        sent_to="the others inside",
        example=INSIDE,
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_DATA,
        group=_INSTANCE,
        description="Another player sent data.",
        data=DataView,
        sent_to="the others inside, or those in `to`",
        example={"player": PLAYER, "key": "pose", "at": 12.5, "data": {"x": 1}},
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_LEFT,
        group=_INSTANCE,
        description="A player left, and its retained values are gone. `reason` is `left`,"
        " `disconnected`, `kicked`, `banned` or `closed`.",
        data=LeftView,
        sent_to="the others inside; the player's own sockets, unless they asked",
        example={"player": PLAYER, "user": BOB, "reason": "left"},
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_CANDIDATE,
        group=_INSTANCE,
        description="A candidate's entry is new, changed, or gone (null). `reason` is `asked`,"
        " `admitted`, `joined`, `withdrawn`, `refused`, `expired`, `kicked`, `banned` or `closed`.",
        data=CandidateView,
        sent_to=f"the candidate; {_OVERSEERS}; of a pending one, all who may admit it",
        example={
            "user": BOB,
            "reason": "admitted",
            "entry": {
                "user": BOB,
                "state": "admitted",
                "since": SINCE,
                "expires_at": SINCE + 30_000,
            },
        },
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_QUEUE,
        group=_INSTANCE,
        description="The queue changed. A candidate gets the number of those who wait and its own"
        " entry; those who oversee the instance get all `entries`. When the queue changes often,"
        " only the newest state is sent.",
        data=StandingView,
        sent_to=f"the candidates; {_OVERSEERS}",
        example={
            "queued": 17,
            "entry": {"user": BOB, "state": "waiting", "position": 3, "since": SINCE},
        },
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_ROLE,
        group=_INSTANCE,
        description="The role of a user changed.",
        data=RoleView,
        sent_to="everyone inside, and the user",
        example={"user": BOB, "role": "master"},
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_MODERATED,
        group=_INSTANCE,
        description="A user was muted, unmuted, warned, banned or unbanned. A user outside a"
        " private instance does not get the event.",
        data=ModeratedView,
        sent_to=f"the user; {_OVERSEERS} (not of a warning)",
        example={"type": "mute", "user": BOB, "by": ADA, "until": SINCE},
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.PLAYER_UPDATED,
        group=_INSTANCE,
        description="The user of a player inside changed its display name. The data is the player"
        " as it is now.",
        data=PlayerInsideView,
        sent_to="everyone inside",
        example=INSIDE,
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_RESTORED,
        group=_INSTANCE,
        description="Messages are lost: the instance failed and was restarted, or it runs at"
        " another node of the server, which could not be reached for too long. The data is the new"
        " snapshot; retained values that are not in it are lost.",
        data=Welcome,
        sent_to="everyone inside whom it concerns",
        example={**WELCOME, "retained": []},
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_PAUSED,
        group=_INSTANCE,
        description="The instance runs at another node, which can't be reached for now; data is"
        " refused with error 122. `instance-resumed`, `instance-restored` or `instance-left`"
        " follows. `until`: if it lives on an instance node, the time until which it waits.",
        data=PausedView,
        sent_to="the players whom it concerns",
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_DIRECT,
        group=_INSTANCE,
        description="Players can connect to the instance's node themselves, or this one has: see"
        " `instance-ticket`.",
        data=DirectNewsView,
        sent_to="the players whom it concerns",
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.INSTANCE_RESUMED,
        group=_INSTANCE,
        description="The instance can be reached again, and no message is lost.",
        data=NothingView,
        sent_to="the players who were told of the pause",
        subgroup=_INSTANCE_ID,
    ),
    Event(
        name=events.RESOURCE_UPDATED,
        group=_RESOURCE,
        description=UPDATED_TEXT,
        data=ResourceUpdatedView,
        sent_to="the sockets that watch it",
        example=UPDATED,
    ),
    Event(
        name=events.RESOURCE_UNWATCHED,
        group=_RESOURCE,
        description=UNWATCHED_TEXT,
        data=ResourceUnwatchedView,
        sent_to="the socket that watched",
        example=UNWATCHED,
    ),
    Event(
        name=events.RESOURCE_QUEUE,
        group=_RESOURCE,
        description=QUEUE_TEXT,
        data=ResourceQueueView,
        sent_to="the session's sockets",
        example=PLACE,
    ),
    Event(
        name=events.ADMIN_FIGURES,
        group=_SERVER,
        description="What an admin watches (`admin-watch`), as it is now.",
        data=AdminFiguresView,
        sent_to="the socket of an admin that watches",
        example={
            "at": SINCE,
            "figures": {
                "node": "local",
                "every_ms": 5000,
                "at": [SINCE],
                "series": {"sockets": [12.0], "players": [7.0]},
            },
        },
    ),
)
