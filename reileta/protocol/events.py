"""The names of the protocol's events and their groups (R "Events", PROTOCOL §7)."""

from __future__ import annotations

from typing import Final

PING: Final = "ping"
AUTHENTICATED: Final = "authenticated"
UNAUTHENTICATED: Final = "unauthenticated"
SUBSCRIBED: Final = "subscribed"
UNSUBSCRIBED: Final = "unsubscribed"
UPDATE_USER: Final = "update-user"
UPDATE_SERVER: Final = "update-server"
UPDATE_WORLD: Final = "update-world"
UPDATE_SERVICE: Final = "update-service"
UPDATE_INSTANCE: Final = "update-instance"
INSTANCE_JOINED: Final = "instance-joined"
INSTANCE_DATA: Final = "instance-data"
INSTANCE_LEFT: Final = "instance-left"
INSTANCE_CANDIDATE: Final = "instance-candidate"
INSTANCE_QUEUE: Final = "instance-queue"
INSTANCE_ROLE: Final = "instance-role"
"""Someone inside has another role."""
INSTANCE_MODERATED: Final = "instance-moderated"
"""Someone was muted, unmuted, warned, banned or unbanned; who is kicked has `instance-left`."""
INSTANCE_RESTORED: Final = "instance-restored"
"""The instance failed and was set up again; its data is that of the answer to `instance-join`."""

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "authentication": (AUTHENTICATED, UNAUTHENTICATED, SUBSCRIBED, UNSUBSCRIBED),
    "update": (UPDATE_USER, UPDATE_SERVER, UPDATE_WORLD, UPDATE_SERVICE, UPDATE_INSTANCE),
    "instance": (
        INSTANCE_JOINED,
        INSTANCE_DATA,
        INSTANCE_LEFT,
        INSTANCE_CANDIDATE,
        INSTANCE_QUEUE,
        INSTANCE_ROLE,
        INSTANCE_MODERATED,
        INSTANCE_RESTORED,
    ),
}

EVENTS: Final = frozenset({PING, *(name for names in GROUPS.values() for name in names)})


def members(name: str) -> frozenset[str] | None:
    """The events that a subscription to `name` takes: an event, a group, or `all`; else None."""
    if name == "all":
        return EVENTS
    if name in GROUPS:
        return frozenset(GROUPS[name])
    return frozenset({name}) if name in EVENTS else None
