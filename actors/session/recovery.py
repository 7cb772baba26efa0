"""The state of a session that survives a crash of its actor."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.delivery.sink import SessionSink, Sink
from actors.membership import InstanceRecipient
from reileta.records import NO_PROFILE, Profile, User


@dataclass(slots=True)
class JoinedInstance:
    """An instance where the session has a player; `player` is None until its id is known."""

    instance: InstanceRecipient
    player: str | None = None


@dataclass(slots=True)
class SessionRecovery:
    """State that survives a crash of the session's actor. A restarted actor continues with it.

    `user`, `profile`: the session's user, as it was when it last changed. It can be a guest.
    `sockets`: the open sockets of both APIs, with the token that each authenticated with.
    `session_sockets`: those of them that belong to the session API.
    `resource_owner`: the id of the user who owns the resource that the session has, or had last.
    `joined_instances`: the instances where the session has a player, by id.

    The session's actor writes it; the node's `SessionManager` reads it.
    """

    user: User
    profile: Profile = NO_PROFILE
    sockets: dict[Sink, bytes] = field(default_factory=dict)
    session_sockets: dict[Sink, SessionSink] = field(default_factory=dict)
    resource_owner: str | None = None
    joined_instances: dict[str, JoinedInstance] = field(default_factory=dict)
