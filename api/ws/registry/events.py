"""What comes unasked on `/api/ws`, for `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from actors.instance.frames import LeftView, PlayerView
from actors.session.actor import IdentityView
from api.openapi.websockets import Event
from api.ws.registry.commands import (
    ADA,
    BOB,
    IDENTITY,
    INSIDE,
    PLAYER,
    SINCE,
    TOPIC,
    WELCOME,
    Pong,
    Welcome,
)
from api.ws.registry.messages import TopicData
from reileta.protocol import events
from reileta.protocol.views.instance import CandidateView, ModeratedView, RoleView, StandingView
from reileta.protocol.views.registry import (
    InstanceView,
    NothingView,
    ServiceView,
    UserFriendView,
    UserMeView,
    UserView,
    WorldView,
)
from reileta.protocol.views.server import ServerView


class SpokenView(Struct):
    """What a player said; `data` is its JSON, byte for byte."""

    player: str
    data: Any
    key: Annotated[str, Meta(description="As it was sent")] | UnsetType = UNSET
    at: Annotated[int | float, Meta(description="As it was sent")] | UnsetType = UNSET


_LEFT: Final = {"player": PLAYER, "user": BOB}
_ENTRY: Final = {"user": BOB, "state": "waiting", "position": 3, "since": SINCE}
_ADMITTED: Final = {
    "user": BOB,
    "state": "admitted",
    "since": SINCE,
    "expires_at": SINCE + 30_000,
}
_INSTANCE: Final = "the instance's id"
_OVERSEERS: Final = "owner, admins, master and moderators inside"

_GROUP_OF: Final = {name: group for group, names in events.GROUPS.items() for name in names}


def _event(
    name: str,
    about: str,
    data: Any,
    told: str = "",
    *,
    example: Any = None,
    subgroup: str | None = None,
) -> Event:
    return Event(
        name=name,
        about=about,
        data=data,
        told=told,
        example=example,
        group=_GROUP_OF.get(name),
        subgroup=subgroup,
    )


_CONCERNED: Final = "the socket concerned"
EVENTS: Final = (
    _event(
        events.PING,
        "The answer to a `ping` without `state`.",
        Pong,
        "the asker, if it gave no `state`",
        example={"client": None, "server": SINCE},
    ),
    _event(
        events.AUTHENTICATED,
        "The socket speaks for a user now.",
        IdentityView,
        _CONCERNED,
        example=IDENTITY,
    ),
    _event(
        events.UNAUTHENTICATED,
        "The credential is no longer valid; close code 4000 follows.",
        NothingView,
        _CONCERNED,
    ),
    _event(events.SUBSCRIBED, "As it was asked for.", TopicData, _CONCERNED, example=TOPIC),
    _event(events.UNSUBSCRIBED, "As it was asked for.", TopicData, _CONCERNED, example=TOPIC),
    _event(
        events.UPDATE_USER,
        "A user is another than it was; as the receiver may see it.",
        (UserView, UserFriendView, UserMeView),
        "the user's own sockets",
        subgroup="the user's id",
    ),
    _event(events.UPDATE_SERVER, "The server was changed.", ServerView, subgroup="the server's id"),
    _event(
        events.UPDATE_WORLD,
        "A world was made or changed, or its thumbnail or assets were. Of a private one, its owner,"
        " users it is shared with and admins alone hear.",
        WorldView,
        subgroup="the world's id",
    ),
    _event(
        events.UPDATE_SERVICE,
        "A service was made or changed.",
        ServiceView,
        subgroup="the service's id",
    ),
    _event(
        events.UPDATE_INSTANCE,
        "An instance was made or changed, someone came or went, another is the master. Of one that"
        " is not public, its owner, admins and those inside alone hear.",
        InstanceView,
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_JOINED,
        "A player came inside.",
        PlayerView,
        "the others inside",
        example=INSIDE,
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_DATA,
        "What another player said.",
        SpokenView,
        "the others inside, or those in `to`",
        example={"player": PLAYER, "key": "pose", "at": 12.5, "data": {"x": 1}},
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_LEFT,
        "A player is gone, and its kept values with it. `reason` is left, disconnected, kicked,"
        " banned or closed.",
        LeftView,
        "the others inside; the player's own sockets, unless they asked",
        example={**_LEFT, "reason": "left"},
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_CANDIDATE,
        "A candidate's entry is new, another, or gone (null). `reason` is asked, admitted, joined,"
        " withdrawn, refused, expired, kicked, banned or closed.",
        CandidateView,
        f"the candidate; {_OVERSEERS}; of a pending one, all who may admit it",
        example={"user": BOB, "reason": "admitted", "entry": _ADMITTED},
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_QUEUE,
        "The queue is another: how many wait, and one's own entry; to those who oversee the"
        " instance, all `entries` instead. When it changes often, the newest is told.",
        StandingView,
        f"the candidates; {_OVERSEERS}",
        example={"queued": 17, "entry": _ENTRY},
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_ROLE,
        "Someone has another role.",
        RoleView,
        "everyone inside, and the user",
        example={"user": BOB, "role": "master"},
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_MODERATED,
        "Someone was muted, unmuted, warned, banned or unbanned. A user outside a private instance"
        " does not hear of it.",
        ModeratedView,
        f"the user; {_OVERSEERS} (not of a warning)",
        example={"type": "mute", "user": BOB, "by": ADA, "until": SINCE},
        subgroup=_INSTANCE,
    ),
    _event(
        events.INSTANCE_RESTORED,
        "The instance failed and was set up again: take this as the new snapshot. What was kept is"
        " lost.",
        Welcome,
        "everyone inside",
        example={**WELCOME, "retained": []},
        subgroup=_INSTANCE,
    ),
)
