"""What may be sent on `/api/ws`, for `/openapi.json`, and values that examples share."""

from __future__ import annotations

from typing import Any, Final

from actors.instance.frames import PlaceView, PlayerView, WelcomeView
from actors.session.actor import IdentityView
from api.openapi.examples import Json
from api.openapi.websockets import Codes, Command, opened
from api.ws.registry.connection import PongView
from api.ws.registry.messages import InstanceData, ModerateData, PingData, TokenData, TopicData
from reileta.errors import (
    AlreadyConnected,
    Banned,
    CredentialInvalid,
    EventUnknown,
    InstanceFull,
    InstanceNotFound,
    MessageInvalid,
    ModerationInvalid,
    NotAllowed,
    NotInInstance,
    NotLoggedIn,
    Overloaded,
    PermissionDenied,
    PlayerNotFound,
    QuotaReached,
    UserNotFound,
)
from reileta.protocol import commands
from reileta.protocol.views.registry import NothingView

PLACE: Final = "i_c0ffee00-1234-4321-8abc-def012345678"
ADA: Final = "u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11@play.example.org"
BOB: Final = "u_bb1f69d9-6c1e-4f7a-9d53-0a4c2e8b7f16@play.example.org"
PLAYER: Final = "p_9c4b7e55-3d2a-4b1f-8a6e-5f4d3c2b1a09"
_SESSION: Final = "s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
SINCE: Final = 1790000000000
INSIDE: Final = {
    "player": PLAYER,
    "user": BOB,
    "displayname": "Bob",
    "role": "normal",
    "joined_at": SINCE,
}
WELCOME: Final = {
    "instance": PLACE,
    "player": PLAYER,
    "role": "normal",
    "players": [INSIDE],
    "retained": [{"player": PLAYER, "key": "pose", "data": {"x": 1}, "at": 12.5}],
}
IDENTITY: Final = {
    "user": {
        "id": ADA.partition("@")[0],
        "username": "ada",
        "displayname": "Ada L.",
        "tags": [],
        "server": "play.example.org",
        "created_at": SINCE,
        "updated_at": SINCE,
        "status": "online",
        "following": [],
    },
    "session": _SESSION,
}
TOPIC: Final = {"event": "update-instance", "target": PLACE}
# Of these the server has parts as bytes.
Welcome: Final = opened(WelcomeView, players=list[PlayerView])
Pong: Final = opened(PongView)


def _command(
    name: str,
    about: str,
    data: Any,
    answer: Any,
    errors: Codes,
    *,
    sent: Json,
    answered: Any,
    where: str | None = None,
    need: bool = True,
) -> Command:
    """`sent` is what stands beside `command`; `where`, the answer's `subgroup`."""
    place = {} if where is None else {"subgroup": where}
    return Command(
        name=name,
        about=about,
        data=data,
        answer=answer,
        errors=errors,
        example={"state": 1, "command": name, **sent},
        answered={"state": 1, "command": name, **place, "data": answered},
        need=need,
    )


COMMANDS: Final = (
    _command(
        commands.PING,
        "Asks for the server's time. Without `state`, the answer is the event `ping`.",
        opened(PingData),
        Pong,
        (MessageInvalid,),
        sent={"data": {"time": 12}},
        answered={"client": 12, "server": SINCE},
        need=False,
    ),
    _command(
        commands.AUTHENTICATE,
        "Says who the socket speaks for, or gives it another credential of the same session. The"
        " event `authenticated` follows.",
        TokenData,
        IdentityView,
        (MessageInvalid, CredentialInvalid, AlreadyConnected, Overloaded),
        sent={"data": {"token": "ua_5uqk0CZ1m0…"}},
        answered=IDENTITY,
        need=False,
    ),
    _command(
        commands.SUBSCRIBE,
        "Asks for an event, a group of events, or `all`: of one object, or of all that one may"
        " see. The event `subscribed` follows.",
        TopicData,
        TopicData,
        (NotLoggedIn, MessageInvalid, EventUnknown, PermissionDenied),
        sent={"data": TOPIC},
        answered=TOPIC,
    ),
    _command(
        commands.UNSUBSCRIBE,
        "Takes a subscription back. The event `unsubscribed` follows.",
        TopicData,
        TopicData,
        (NotLoggedIn, MessageInvalid, EventUnknown),
        sent={"data": TOPIC},
        answered=TOPIC,
    ),
    _command(
        commands.INSTANCE_JOIN,
        "Goes into an instance. The answer is all that is so inside; what happens after it comes"
        " as events. The id may stand in `subgroup`, without `data`.",
        InstanceData,
        Welcome,
        (
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
        where=PLACE,
    ),
    _command(
        commands.INSTANCE_LEAVE,
        "Has the session's player leave, with all its sockets. The id may stand in `subgroup`,"
        " without `data`.",
        InstanceData,
        PlaceView,
        (NotLoggedIn, MessageInvalid, NotInInstance, Overloaded),
        sent={"data": {"instance": PLACE}},
        answered={"instance": PLACE, "player": PLAYER},
        where=PLACE,
    ),
    _command(
        commands.INSTANCE_DATA,
        "Says something to those inside the instance that `subgroup` names, or to the players in"
        " `to`: any JSON, which they get byte for byte. With `key`, its newest value is kept for"
        " those who join later.",
        Any,
        NothingView,
        (NotLoggedIn, MessageInvalid, NotInInstance, NotAllowed, Overloaded),
        sent={"subgroup": PLACE, "key": "pose", "at": 12.5, "data": {"x": 1}},
        answered={},
        where=PLACE,
    ),
    _command(
        commands.INSTANCE_MODERATE,
        "Moderates someone in the instance that `subgroup` names, as"
        " `POST /api/instances/{ref}/moderate` does. The answer comes when it is durable.",
        ModerateData,
        NothingView,
        (
            NotLoggedIn,
            MessageInvalid,
            InstanceNotFound,
            NotInInstance,
            ModerationInvalid,
            NotAllowed,
            PlayerNotFound,
            UserNotFound,
            Overloaded,
        ),
        sent={"subgroup": PLACE, "data": {"player": PLAYER, "type": "mute", "reason": "hush"}},
        answered={},
        where=PLACE,
    ),
)
