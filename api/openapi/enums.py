"""The enumerations of both documents, each a component with a name.

A schema with several values becomes a reference to the component with the same values: see
`api/openapi/schemas.py`. So clients are generated with one type for each, not with one for each
field.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from actors.console.console import TopicName
from actors.console.live import InstanceSort, Order
from api.http.registry.users import ChosenStatus
from api.openapi.names import pascal
from api.ws.registry.inputs import TOPICS
from api.ws.resource_events import QueueEndReason, UnwatchReason, WatcherAccess
from reileta.errors import by_code
from reileta.protocol.session_frames import Status as EventStatus
from reileta.protocol.views.console import InstanceEventKind, NodeState
from reileta.protocol.views.federation import ChallengeDirection
from reileta.protocol.views.instance import DirectState, LogType
from reileta.protocol.views.registry import Status
from reileta.protocol.views.server import Health
from reileta.records import (
    AuditResult,
    AuditVia,
    HostKind,
    HostStatus,
    NoticeLevel,
    PeerState,
)
from reileta.rules.client_rules import ClientRuleKind
from reileta.rules.federation.server_rules import RuleKind
from reileta.rules.instance.candidates import State
from reileta.rules.instance.events import CandidateReason, LeaveReason
from reileta.rules.instance.roles import Role
from reileta.rules.instance.sanctions import ModerationAction
from reileta.rules.tags import INSTANCE_TAGS, SERVICE_TAGS, USER_TAGS, WORLD_TAGS

Json = dict[str, Any]


def _texts(values: Any, description: str) -> Json:
    names = [pascal(value.removeprefix("avr:")) for value in values]
    return {
        "type": "string",
        "enum": list(values),
        "x-enum-varnames": names,
        "description": description,
    }


def _codes() -> Json:
    """The codes of errors, with the names and messages that generators can use."""
    errors = by_code()
    return {
        "type": "integer",
        "enum": list(errors),
        "x-enum-varnames": [error.__name__ for error in errors.values()],
        "x-enum-descriptions": [error.message for error in errors.values()],
        "description": "The reason of a refusal: "
        + ", ".join(f"{code} {error.message}" for code, error in errors.items())
        + ".",
    }


ENUMS: Final[dict[str, Json]] = {
    "ErrorCode": _codes(),
    "UserStatus": _texts(get_args(Status), "Whether a user is there, as friends see it."),
    "ChosenStatus": _texts(
        get_args(ChosenStatus), "The status that friends see while a WebSocket is open."
    ),
    "AuditVia": _texts(get_args(AuditVia), "The way that an admin's action came."),
    "AuditResult": _texts(get_args(AuditResult), "Whether an admin's action took effect."),
    "PeerState": _texts(
        get_args(PeerState), "What is known of another server: its key is pinned, or must be."
    ),
    "ServerRuleKind": _texts(
        get_args(RuleKind), "What a rule about other servers does, or what holds for one of them."
    ),
    "ClientRuleKind": _texts(get_args(ClientRuleKind), "What a rule about clients is about."),
    "ChallengeDirection": _texts(
        get_args(ChallengeDirection), "Whether this server began a challenge, or refused it."
    ),
    "NoticeLevel": _texts(get_args(NoticeLevel), "How urgent a notice is."),
    "NodeState": _texts(get_args(NodeState), "Whether a node takes players."),
    "InstanceEventKind": _texts(get_args(InstanceEventKind), "What happened in an instance."),
    "AdminTopic": _texts(get_args(TopicName), "What an admin looks at."),
    "InstanceSort": _texts(get_args(InstanceSort), "By what instances are sorted."),
    "SortOrder": _texts(get_args(Order), "Whether the largest comes last or first."),
    "HealthStatus": _texts(get_args(Health), "Whether the server runs, or also takes requests."),
    "Role": _texts(
        get_args(Role), "A role inside an instance, from the highest down. Each may moderate lower."
    ),
    "CandidateState": _texts(
        get_args(State),
        "`admitted`: a seat is reserved. `waiting`: in the queue. `pending`: it needs an"
        " invitation.",
    ),
    "CandidateReason": _texts(
        get_args(CandidateReason), "Why the entry of a candidate is new, changed or gone."
    ),
    "LeaveReason": _texts(get_args(LeaveReason), "Why a player left."),
    "WatcherAccess": _texts(
        get_args(WatcherAccess), "What a watcher may see of a resource: all, or the preview."
    ),
    "DirectState": _texts(
        get_args(DirectState),
        "`offered`: `instance-ticket` gives a way to the instance's node. `begun`: data comes over"
        " the player's connection to it.",
    ),
    "UnwatchReason": _texts(get_args(UnwatchReason), "Why the watch of a resource ended."),
    "QueueEndReason": _texts(
        get_args(QueueEndReason), "Why a session no longer waits for a resource."
    ),
    "ModerationType": _texts(get_args(ModerationAction), "How a user is moderated."),
    "ModerationLogType": _texts(
        get_args(LogType), "The type of an entry of the moderation log: also changes of roles."
    ),
    "UserTag": _texts(sorted(USER_TAGS.known), "`avr:admin` marks an admin of this server."),
    "WorldTag": _texts(
        sorted(WORLD_TAGS.known),
        "`avr:public` and `avr:private` exclude each other, and so do `avr:development` and"
        " `avr:release`.",
    ),
    "InstanceTag": _texts(
        sorted(INSTANCE_TAGS.known), "One of them says who may join; the others are properties."
    ),
    "NodeKind": _texts(get_args(HostKind), "Whose instances an instance node hosts."),
    "NodeStatus": _texts(
        get_args(HostStatus), "Whether an instance node is connected, and takes instances."
    ),
    "ServiceTag": _texts(sorted(SERVICE_TAGS.known), "A property of a service."),
    "Topic": _texts(TOPICS, "An event, a group of events, or `all`."),
    "EventStatus": _texts(
        get_args(EventStatus), "`ok`, `error` for a refusal, `fatal` before the socket closes."
    ),
}


def _key(values: Any) -> frozenset[Any]:
    return frozenset((type(value), value) for value in values)


_NAMES: Final = {_key(schema["enum"]): name for name, schema in ENUMS.items()}
assert len(_NAMES) == len(ENUMS), "two enumerations have the same values"


def enum_of(values: Any) -> str | None:
    """The name of the enumeration with these values, if there is one."""
    return _NAMES.get(_key(values))
