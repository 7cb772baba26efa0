"""What strangers ask of private things: for each endpoint and command of a server, a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from tests.api.pngs import png
from tests.e2e.clients import Json

Body: TypeAlias = Json | bytes | None
Probe: TypeAlias = tuple[str, Body]
"""A path with its query, and a body. `{world}` and the like stand for ids of things."""

NOTHING: Final[tuple[Probe, ...]] = ()
"""Of an endpoint that is about nothing which can be private."""
BUILD: Final = {"version": "9", "engine": "unity", "platform": "windows"}
USERS: Final = ("{owner}", "{principal}", "nobody")
MEASURES: Final[tuple[Json, ...]] = (
    *({"user": user, "type": type_} for user in USERS for type_ in ("kick", "ban", "mute", "hug")),
    {"player": "p_9c4b7e55-3d2a-4b1f-8a6e-5f4d3c2b1a09", "type": "kick"},
    {"player": "p_1", "type": "kick"},
    {"user": "{owner}", "type": "ban", "until": 1},
    {"type": "kick"},
    {},
)
EDITS: Final[tuple[Json, ...]] = (
    {},
    {"title": "Mine"},
    {"title": ""},
    {"capacity": 1},
    {"capacity": 0},
    {"tags": ["avr:official"]},
    {"tags": ["avr:nonsense"]},
)


def each(path: str, *bodies: Body) -> tuple[Probe, ...]:
    return tuple((path, body) for body in bodies)


WORLD, ASSET, PLACE = "/api/worlds/{world}", "/api/worlds/{world}/assets/{asset}", "/api/instances"
HERE, RESOURCE = PLACE + "/{instance}", "/resource/world/{number}"

ENDPOINTS: Final[Mapping[str, tuple[Probe, ...]]] = {
    "GET /api/server": NOTHING,
    "POST /api/server": NOTHING,
    "GET /api/server/notice": NOTHING,
    "POST /api/server/notice": NOTHING,
    "DELETE /api/server/notice": NOTHING,
    "GET /api/time": NOTHING,
    "GET /.well-known/avr": NOTHING,
    "POST /api/auth/register": NOTHING,
    "POST /api/auth/temporary": NOTHING,
    "POST /api/auth/login": NOTHING,
    "GET /api/auth/logout": NOTHING,
    "DELETE /api/auth/logout": NOTHING,
    "GET /api/users": each("/api/users?query={title}", None),
    "POST /api/users": NOTHING,
    "GET /api/users/{ref}": each("/api/users/{owner}", None) + each("/api/users/{world}", None),
    "POST /api/users/{ref}": each("/api/users/{owner}", {}),
    "DELETE /api/users/{ref}": each("/api/users/{owner}", None),
    "POST /api/users/{ref}/suspension": each("/api/users/{owner}/suspension", None, {}),
    "DELETE /api/users/{ref}/suspension": each("/api/users/{owner}/suspension", None),
    "GET /api/users/{ref}/whereabouts": each("/api/users/{owner}/whereabouts", None),
    "GET /api/admin/nodes": NOTHING,
    "GET /api/admin/figures": NOTHING,
    "GET /api/admin/instances": each("/api/admin/instances?query={name}", None),
    "GET /api/admin/instances/{ref}": each("/api/admin/instances/{instance}", None),
    "GET /api/admin/online": each("/api/admin/online?query={owner}", None),
    "GET /api/admin/resources": NOTHING,
    "GET /api/admin/actors": NOTHING,
    "GET /api/admin/traces": NOTHING,
    "GET /api/audit": each("/api/audit?by={owner}&target={instance}", None),
    "GET /api/users/{ref}/sessions": each("/api/users/{owner}/sessions", None),
    "DELETE /api/users/{ref}/sessions/{session}": (
        *each("/api/users/{owner}/sessions/{session}", None),
        *each("/api/users/{principal}/sessions/{session}", None),
    ),
    "GET /api/users/{ref}/home": each("/api/users/{owner}/home", None),
    "POST /api/users/{ref}/home": each(
        "/api/users/{principal}/home",
        {"world": "{world}"},
        {"world": "{world}:1"},
        {"world": "{world}:2"},
        {"world": "{world}@{server}"},
    ),
    "DELETE /api/users/{ref}/home": each("/api/users/{owner}/home", None),
    "GET /api/users/{ref}/thumbnail": each("/api/users/{world}/thumbnail", None),
    "POST /api/users/{ref}/thumbnail": NOTHING,
    "DELETE /api/users/{ref}/thumbnail": NOTHING,
    "GET /api/users/{ref}/banner": each("/api/users/{world}/banner", None),
    "POST /api/users/{ref}/banner": NOTHING,
    "DELETE /api/users/{ref}/banner": NOTHING,
    "GET /api/worlds/{ref}/thumbnail": each(WORLD + "/thumbnail", None),
    "POST /api/worlds/{ref}/thumbnail": each(WORLD + "/thumbnail", png(), b"no picture"),
    "DELETE /api/worlds/{ref}/thumbnail": each(WORLD + "/thumbnail", None),
    "PUT /api/users/{ref}/follows/{other}": each("/api/users/{principal}/follows/{world}", None),
    "DELETE /api/users/{ref}/follows/{other}": each("/api/users/{principal}/follows/{world}", None),
    "GET /api/users/{ref}/follows": each("/api/users/{owner}/follows", None),
    "GET /api/users/{ref}/followers": each("/api/users/{owner}/followers", None),
    "GET /api/worlds": (
        *each("/api/worlds?query={title}", None),
        *each("/api/worlds?owner={owner}", None),
        *each("/api/worlds?tag=avr:private&query={title}&offset=0", None),
    ),
    "PUT /api/worlds": NOTHING,
    "GET /api/worlds/{ref}": each(WORLD, None) + each(WORLD + "@{server}", None),
    "POST /api/worlds/{ref}": each(WORLD, *EDITS),
    "DELETE /api/worlds/{ref}": each(WORLD, None),
    "GET /api/worlds/{ref}/assets": each(WORLD + "/assets?limit=1", None),
    "PUT /api/worlds/{ref}/assets": each(WORLD + "/assets", BUILD, {**BUILD, "version": "1"}, {}),
    "GET /api/worlds/{ref}/assets/{asset}": (
        *each(ASSET, None),
        *each("/api/worlds/{public}/assets/{asset}", None),
    ),
    "POST /api/worlds/{ref}/assets/{asset}": each(ASSET, {}, {"version": "3"}),
    "DELETE /api/worlds/{ref}/assets/{asset}": each(ASSET, None),
    "GET /api/worlds/{ref}/assets/{asset}/file": (
        *each(ASSET + "/file", None),
        *each("/api/worlds/{public}/assets/{asset}/file", None),
    ),
    "POST /api/worlds/{ref}/assets/{asset}/file": each(ASSET + "/file", b"build", b""),
    "GET /api/services": each("/api/services?query={title}&owner={owner}", None),
    "PUT /api/services": NOTHING,
    "GET /api/services/{ref}": NOTHING,
    "POST /api/services/{ref}": NOTHING,
    "DELETE /api/services/{ref}": NOTHING,
    "POST /api/services/{ref}/token": NOTHING,
    "DELETE /api/services/{ref}/token": NOTHING,
    "GET /api/nodes": each("/api/nodes?owner={owner}&query={title}", None),
    "PUT /api/nodes": NOTHING,
    "GET /api/nodes/{ref}": each("/api/nodes/{instance}", None),
    "POST /api/nodes/{ref}": NOTHING,
    "DELETE /api/nodes/{ref}": NOTHING,
    "POST /api/nodes/{ref}/token": NOTHING,
    "POST /api/nodes/{ref}/drain": NOTHING,
    "GET /api/instances": (
        *each(PLACE + "?world={world}", None),
        *each(PLACE + "?world={world}:1&owner={owner}", None),
        *each(PLACE + "?query={name}&free=true", None),
        *each(PLACE + "?tag=avr:private&query={name}", None),
    ),
    # A name that is taken is error 47, whoever has it: a name is unique on its server.
    "PUT /api/instances": each(
        PLACE,
        {"world": "{world}"},
        {"world": "{world}:1@{server}", "capacity": 2},
        {"world": "{world}", "tags": ["avr:official"]},
        {"world": "{world}", "name": "{name}"},
    ),
    "GET /api/instances/{ref}": each(HERE, None),
    "POST /api/instances/{ref}": each(HERE, *EDITS),
    "DELETE /api/instances/{ref}": each(HERE, None),
    "GET /api/instances/{ref}/queue": each(HERE + "/queue", None),
    "POST /api/instances/{ref}/candidate": each(
        HERE + "/candidate", None, *({"user": user} for user in USERS)
    ),
    "DELETE /api/instances/{ref}/candidate": (
        *each(HERE + "/candidate", None),
        *((HERE + "/candidate?user=" + user, None) for user in USERS),
    ),
    "GET /api/instances/{ref}/players": each(HERE + "/players?limit=1", None),
    "POST /api/instances/{ref}/moderate": each(HERE + "/moderate", *MEASURES),
    "GET /api/instances/{ref}/bans": each(HERE + "/bans", None),
    "GET /api/instances/{ref}/mutes": each(HERE + "/mutes", None),
    "GET /api/instances/{ref}/moderations": each(HERE + "/moderations", None),
    "POST /api/instances/{ref}/master": each(
        HERE + "/master", *({"user": user} for user in USERS), {}
    ),
    "PUT /api/instances/{ref}/moderators/{user}": tuple(
        (HERE + "/moderators/" + user, None) for user in USERS
    ),
    "DELETE /api/instances/{ref}/moderators/{user}": tuple(
        (HERE + "/moderators/" + user, None) for user in USERS
    ),
    "POST /auth/login": NOTHING,
    "POST /auth/refresh": NOTHING,
    "POST /auth/logout": NOTHING,
    "GET /session": NOTHING,
    "POST /resource/{type}": NOTHING,
    "GET /resource/{type}": (
        *each("/resource/world?query={title}", None),
        *each("/resource/document?query={title}", None),
    ),
    "POST /resource/{type}/{number}/acquire": each(RESOURCE + "/acquire", None),
    "POST /resource/{type}/{number}/release": each(RESOURCE + "/release", None),
    "GET /resource/{type}/{number}/preview": (
        *each(RESOURCE + "/preview", None),
        *each("/resource/world/{document}/preview", None),
        *each("/resource/document/{number}/preview", None),
    ),
    "GET /resource/{type}/{number}/view": each(RESOURCE + "/view", None),
    "PATCH /resource/{type}/{number}": each(
        RESOURCE, {}, {"title": "Mine"}, {"title": ""}, {"data": {"tags": ["avr:nonsense"]}}
    ),
    "DELETE /resource/{type}/{number}": each(RESOURCE, None),
    "POST /resource/{type}/{number}/queue": each(RESOURCE + "/queue", None),
    "DELETE /resource/{type}/{number}/queue": each(RESOURCE + "/queue", None),
    "POST /resource/{type}/{number}/share": each(
        RESOURCE + "/share", *({"user": user} for user in USERS)
    ),
    "POST /resource/{type}/{number}/unshare": each(
        RESOURCE + "/unshare", *({"user": user} for user in USERS)
    ),
    "GET /api/challenges": NOTHING,
    "PUT /api/challenges": NOTHING,
    "GET /api/challenges/{challenge}": NOTHING,
    "DELETE /api/challenges/{challenge}": NOTHING,
    "GET /api/integrity": NOTHING,
    "PUT /api/integrity": NOTHING,
    "POST /api/integrity": NOTHING,
    "DELETE /api/integrity/{token}": NOTHING,
    "GET /api/servers": NOTHING,
    "POST /api/servers": NOTHING,
    "GET /api/servers/{peer}": NOTHING,
    "POST /api/servers/{peer}": NOTHING,
    "DELETE /api/servers/{peer}": NOTHING,
    "GET /api/servers/rules": NOTHING,
    "PUT /api/servers/rules": NOTHING,
    "DELETE /api/servers/rules": NOTHING,
    "GET /api/clients/rules": NOTHING,
    "PUT /api/clients/rules": NOTHING,
    "DELETE /api/clients/rules": NOTHING,
    "GET /healthz": NOTHING,
    "GET /readyz": NOTHING,
}
"""By endpoint: what a stranger asks of something private, and of something that does not exist."""

TARGETS: Final[tuple[Json, ...]] = tuple(
    {"data": {"event": event, "target": target}}
    for event in ("update-instance", "instance-left", "update-world", "all")
    for target in ("{instance}", "{world}")
)
WHERE: Final[tuple[Json, ...]] = (
    {"data": {"instance": "{instance}"}},
    {"data": {"instance": "{instance}@{server}"}},
    {"subgroup": "{instance}"},
)
WATCHED: Final[tuple[Json, ...]] = (
    {"data": {"type": "world", "id": "#{number}"}},
    {"data": {"type": "document", "id": "#{number}"}},
)
"""`#`: the id is a number."""
COMMANDS: Final[Mapping[str, tuple[Json, ...]]] = {
    "ping": (),
    "authenticate": (),
    "subscribe": TARGETS,
    "unsubscribe": TARGETS,
    "instance-join": WHERE,
    "instance-leave": WHERE,
    "instance-data": (
        {"subgroup": "{instance}", "data": 1},
        {"subgroup": "{instance}", "data": 1, "key": "", "to": ["p_1"]},
        {"subgroup": "{instance}"},
    ),
    "instance-interest": (
        {"subgroup": "{instance}", "data": {}},
        {"subgroup": "{instance}", "data": {"near": [], "far_rate": 1}},
        {"subgroup": "{instance}", "data": {"near": 8, "far_rate": 1}},
    ),
    "instance-ticket": WHERE,
    "instance-moderate": tuple({"subgroup": "{instance}", "data": one} for one in MEASURES),
    "watch": WATCHED,
    "unwatch": WATCHED,
    "admin-watch": (
        {"data": {"topics": [{"topic": "instance", "instance": "{instance}"}]}},
        {"data": {"topics": [{"topic": "instances", "query": "{name}"}]}},
    ),
}
"""The same of the commands of `/api/ws`."""
SESSION_COMMANDS: Final = {"state", "watch", "unwatch"}
"""Those of the session API's sockets: of the session's own state, and those that are above."""
