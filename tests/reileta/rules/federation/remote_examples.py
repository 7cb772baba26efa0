"""Objects as another server, `peer.example`, answers with them."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

OWN, PEER, THIRD = "own.example:3032", "peer.example", "third.example"
UUID = "00000000-0000-4000-8000-000000000000"
TIMES = {"created_at": 1_790_000_000_000, "updated_at": 1_790_000_000_001}
USER: Json = {
    "id": f"u_{UUID}", "username": "ada", "displayname": "Ada L.", "description": "Engines.",
    "thumbnail": f"https://{PEER}/api/users/u_{UUID}/thumbnail", "tags": [], "server": PEER,
    **TIMES,
}  # fmt: skip
ASSET: Json = {
    "id": f"f_{UUID}", "version": "1.2", "engine": "unity", "platform": "windows",
    "url": f"https://{PEER}/api/worlds/w_{UUID}/assets/f_{UUID}/file", "hash": "0f" * 32,
    "size": 7, "empty": False, **TIMES,
}  # fmt: skip
WORLD: Json = {
    "id": f"w_{UUID}", "title": "Harbour", "capacity": 16, "owner": f"u_{UUID}@{PEER}",
    "server": PEER, "tags": ["avr:public"], "assets": [ASSET], **TIMES,
}  # fmt: skip
SERVICE: Json = {
    "id": "com.example.voice", "title": "Voice", "url": f"https://{PEER}/voice",
    "owner": f"u_{UUID}@{PEER}", "server": PEER, "tags": [], **TIMES,
}  # fmt: skip
INSTANCE: Json = {
    "id": f"i_{UUID}", "name": "picnic", "title": "Tea", "world": f"w_{UUID}:1.2@{PEER}",
    "owner": f"u_{UUID}@{PEER}", "master": f"u_{UUID}@{THIRD}", "capacity": 16, "connected": 3,
    "queued": 0, "tags": ["avr:public"], "server": PEER, "address": PEER, "secure": True, **TIMES,
}  # fmt: skip
SERVER: Json = {
    "id": UUID, "title": "Peer", "address": PEER, "secure": True, "version": "0.1.0",
    "gateways": {"http": f"https://{PEER}", "ws": f"wss://{PEER}/api/ws"}, "public_key": "k" * 43,
    "icon": f"https://{PEER}/icon.png", "ready_at": 1_790_000_000_002, **TIMES,
}  # fmt: skip
PLAYER: Json = {
    "player": f"p_{UUID}", "user": f"u_{UUID}@{PEER}", "displayname": "Ada", "role": "owner",
    "joined_at": 1_790_000_000_000,
}  # fmt: skip
QUEUE: Json = {"queued": 17}


def changed(value: Json, path: str, new: object) -> Json:
    """The object with another value at `path`: names and numbers, separated by dots."""
    copy: Json = json.loads(json.dumps(value))
    *steps, last = path.split(".")
    inside: Any = copy
    for step in steps:
        inside = inside[int(step) if isinstance(inside, list) else step]
    inside[int(last) if isinstance(inside, list) else last] = new
    return copy


def page(*items: Json, **more: object) -> Json:
    """A list with these objects."""
    return {"items": list(items), "total": len(items), "limit": 50, "offset": 0, **more}
