"""Names of the commands on `/api/ws`.

`api/ws/registry/commands.py` declares each of them with its input, answer and errors. See
`docs/protocol.md#commands`.
"""

from __future__ import annotations

from typing import Final

PING: Final = "ping"
AUTHENTICATE: Final = "authenticate"
SUBSCRIBE: Final = "subscribe"
UNSUBSCRIBE: Final = "unsubscribe"
INSTANCE_JOIN: Final = "instance-join"
INSTANCE_LEAVE: Final = "instance-leave"
INSTANCE_DATA: Final = "instance-data"
INSTANCE_INTEREST: Final = "instance-interest"
INSTANCE_TICKET: Final = "instance-ticket"
INSTANCE_MODERATE: Final = "instance-moderate"
WATCH: Final = "watch"
UNWATCH: Final = "unwatch"
ADMIN_WATCH: Final = "admin-watch"
