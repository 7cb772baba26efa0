"""The names of the commands that clients send on `/api/ws` (R "Requests", PROTOCOL §7)."""

from __future__ import annotations

from typing import Final

PING: Final = "ping"
AUTHENTICATE: Final = "authenticate"
SUBSCRIBE: Final = "subscribe"
UNSUBSCRIBE: Final = "unsubscribe"
INSTANCE_JOIN: Final = "instance-join"
INSTANCE_LEAVE: Final = "instance-leave"
INSTANCE_DATA: Final = "instance-data"
INSTANCE_MODERATE: Final = "instance-moderate"
