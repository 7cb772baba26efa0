"""A session's presence: what of it outlives a crash of its actor, and who hears of its coming."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.hub.messages import HubMessage, Publish, RemoveSocket
from actors.hub.update_feed import publish_user
from actors.membership import (
    Administers,
    CandidateOffline,
    CandidateOnline,
    InstanceRecipient,
    SocketLost,
)
from actors.runtime.ref import Ref
from actors.session.resource_jobs import LeaseConfig
from actors.session.revocations import RevocationList
from reileta.ids import at
from reileta.records import NO_PROFILE, Profile, User
from reileta.rules.instance.access import Visitor


@dataclass(slots=True)
class JoinedInstance:
    """An instance in which the session has a player: None while its id is not known."""

    instance: InstanceRecipient
    player: str | None = None


@dataclass(slots=True)
class SessionRecovery:
    """What of a session outlives a crash of its actor: whose it is, with what stands beside that
    user's record, its sockets with the id of the token they came with, which of them are lines,
    and its places by instance."""

    user: User
    profile: Profile = NO_PROFILE
    sockets: dict[Sink, bytes] = field(default_factory=dict)
    lines: set[Sink] = field(default_factory=set)
    joined_instances: dict[str, JoinedInstance] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What every session of a node shares.

    `instance` finds or starts an instance by id or name, if one may see it; `running` finds one by
    its id; `friends` are `UserIDAt`s, from the database.
    """

    address: str
    secure: bool
    directory: Directory
    hub: Ref[HubMessage]
    revoked: RevocationList
    instance: Callable[[str, Visitor], Awaitable[tuple[str, InstanceRecipient]]]
    running: Callable[[str], InstanceRecipient | None]
    friends: Callable[[User], Awaitable[frozenset[str]]]
    keeping: LeaseConfig


def release_socket(id_: str, presence: SessionRecovery, sink: Sink, around: SessionConfig) -> bool:
    """A socket of the session is gone; tells whom it concerns. Whether it was the user's last."""
    for place in presence.joined_instances.values():
        place.instance.signal(SocketLost(id_, sink))
    around.hub.signal(RemoveSocket(sink))
    last = around.directory.closed(presence.user.id, sink)
    if last:
        notify_candidacies(presence.user, around, present=False)
    return last


def notify_candidacies(user: User, around: SessionConfig, *, present: bool) -> None:
    """Tells the instances in which the user is a candidate that it came, or went."""
    name = at(user.id, around.address)
    for instance_id in around.directory.candidacies(user.id):
        instance = around.running(instance_id)
        if instance is not None:
            instance.signal(CandidateOnline(name) if present else CandidateOffline(name))


def rank_candidacies(user: User, around: SessionConfig) -> None:
    """Tells the instances in which the user is a candidate whether it is an admin now."""
    for instance_id in around.directory.candidacies(user.id):
        instance = around.running(instance_id)
        if instance is not None:
            instance.signal(Administers(at(user.id, around.address), user.admin))


def tell_rank(presence: SessionRecovery, around: SessionConfig) -> None:
    """Tells the instances where the session has a player whether its user is an admin now."""
    user = presence.user
    for place in presence.joined_instances.values():
        place.instance.signal(Administers(at(user.id, around.address), user.admin))


def status_update(presence: SessionRecovery, around: SessionConfig) -> Publish:
    """`update-user` of the session's user, which came or went; as it was when it changed last."""
    message = publish_user(
        presence.user,
        presence.profile,
        around.directory,
        address=around.address,
        secure=around.secure,
    )
    return replace(message, among=frozenset())
