"""Names of the events on `/api/ws`.

`api/ws/registry/events.py` declares each of them with its group, data and receivers. See
`docs/protocol.md#events`.
"""

from __future__ import annotations

from typing import Final

PING: Final = "ping"
AUTHENTICATED: Final = "authenticated"
UNAUTHENTICATED: Final = "unauthenticated"
SUBSCRIBED: Final = "subscribed"
UNSUBSCRIBED: Final = "unsubscribed"
UPDATE_USER: Final = "update-user"
UPDATE_SERVER: Final = "update-server"
UPDATE_PEER: Final = "update-peer"
"""What is known of another server changed; for admins."""
SERVER_NOTICE: Final = "server-notice"
"""What an admin tells everyone who is connected."""
UPDATE_WORLD: Final = "update-world"
UPDATE_SERVICE: Final = "update-service"
UPDATE_NODE: Final = "update-node"
UPDATE_INSTANCE: Final = "update-instance"
INSTANCE_JOINED: Final = "instance-joined"
INSTANCE_DATA: Final = "instance-data"
INSTANCE_LEFT: Final = "instance-left"
INSTANCE_CANDIDATE: Final = "instance-candidate"
INSTANCE_QUEUE: Final = "instance-queue"
INSTANCE_ROLE: Final = "instance-role"
"""The role of a user inside changed."""
INSTANCE_MODERATED: Final = "instance-moderated"
"""A user was muted, unmuted, warned, banned or unbanned; a kicked player gets `instance-left`."""
PLAYER_UPDATED: Final = "player-updated"
"""The user of a player inside changed its display name."""
INSTANCE_RESTORED: Final = "instance-restored"
"""Messages are lost, since the instance was restarted or could not be reached; its data is that of
the answer to `instance-join`."""
INSTANCE_PAUSED: Final = "instance-paused"
"""The instance can't be reached for now: it runs at another node of the server."""
INSTANCE_RESUMED: Final = "instance-resumed"
"""It can be reached again, and nothing is lost."""
INSTANCE_DIRECT: Final = "instance-direct"
"""From here on the player gets the instance's data over its direct connection to the node."""
RESOURCE_UPDATED: Final = "resource-updated"
"""A resource that the socket watches changed."""
RESOURCE_UNWATCHED: Final = "resource-unwatched"
"""The socket no longer watches a resource."""
RESOURCE_QUEUE: Final = "resource-queue"
"""The session's place in a waiting line changed."""
ADMIN_FIGURES: Final = "admin-figures"
"""What an admin watches, as it is now."""
