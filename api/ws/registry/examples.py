"""Values that the examples of commands and events on `/api/ws` share."""

from __future__ import annotations

from typing import Final

INSTANCE: Final = "i_c0ffee00-1234-4321-8abc-def012345678"
ADA: Final = "u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11@play.example.org"
BOB: Final = "u_bb1f69d9-6c1e-4f7a-9d53-0a4c2e8b7f16@play.example.org"
PLAYER: Final = "p_9c4b7e55-3d2a-4b1f-8a6e-5f4d3c2b1a09"
SESSION: Final = "s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
SINCE: Final = 1790000000000
INSIDE: Final = {
    "player": PLAYER,
    "user": BOB,
    "displayname": "Bob",
    "role": "normal",
    "joined_at": SINCE,
}
WELCOME: Final = {
    "instance": INSTANCE,
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
    "session": SESSION,
}
TOPIC: Final = {"event": "update-instance", "target": INSTANCE}
