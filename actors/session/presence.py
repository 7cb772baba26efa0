"""Tells instances and the hub about a session's sockets and user."""

from __future__ import annotations

from dataclasses import replace

import structlog

from actors.delivery.sink import Sink
from actors.elsewhere import SessionElsewhere
from actors.hub.messages import RemoveSocket
from actors.hub.update_feed import publish_user
from actors.membership import (
    CandidateBarred,
    CandidateOffline,
    CandidateOnline,
    RefreshAdmin,
    RenameUser,
    SocketLost,
)
from actors.session.config import SessionDeps
from actors.session.recovery import SessionRecovery
from reileta.errors import Overloaded
from reileta.ids import at
from reileta.observability import log_events
from reileta.records import User

_log = structlog.get_logger()


def presence_of(recovery: SessionRecovery) -> SessionElsewhere:
    """What the session has here, as other nodes know it."""
    return SessionElsewhere(
        recovery.user.id,
        len(recovery.sockets),
        {name: joined.player for name, joined in recovery.joined_instances.items()},
        frozenset(recovery.sockets[sink] for sink in recovery.session_sockets),
    )


def socket_closed(
    session_id: str, recovery: SessionRecovery, sink: Sink, deps: SessionDeps
) -> bool:
    """Tells instances and the hub that a socket closed; returns whether it was the user's last."""
    for joined in recovery.joined_instances.values():
        joined.instance.signal(SocketLost(session_id, sink))
    deps.hub.signal(RemoveSocket(sink))
    last = deps.directory.closed(recovery.user.id, sink)
    if last:
        notify_candidacies(recovery.user.id, deps, online=False)
    return last


def notify_candidacies(user_id: str, deps: SessionDeps, *, online: bool) -> None:
    """Tells the instances here in whose queue the user waits that it came online or went
    offline."""
    name = at(user_id, deps.address)
    for instance_id in deps.directory.candidacies(user_id):
        instance = deps.instances.running(instance_id)
        if instance is not None:
            instance.signal(CandidateOnline(name) if online else CandidateOffline(name))


def notify_candidacies_of_admin(user: User, deps: SessionDeps) -> None:
    """Tells the instances in whose queue the user waits whether it is an admin."""
    for instance_id in deps.directory.candidacies(user.id):
        instance = deps.instances.running(instance_id)
        if instance is not None:
            instance.signal(RefreshAdmin(at(user.id, deps.address), user.admin))


def notify_candidacies_of_barred(user_id: str, deps: SessionDeps) -> None:
    """Tells the instances in whose queue the user waits that it was suspended or deleted."""
    for instance_id in deps.directory.candidacies(user_id):
        instance = deps.instances.running(instance_id)
        if instance is not None:
            instance.signal(CandidateBarred(at(user_id, deps.address)))


def notify_joined_of_admin(recovery: SessionRecovery, deps: SessionDeps) -> None:
    """Tells the instances that the session has joined whether its user is an admin."""
    user = recovery.user
    for joined in recovery.joined_instances.values():
        joined.instance.signal(RefreshAdmin(at(user.id, deps.address), user.admin))


def notify_joined_of_name(recovery: SessionRecovery, deps: SessionDeps) -> None:
    """Tells the instances that the session has joined the display name of its user."""
    user = recovery.user
    for joined in recovery.joined_instances.values():
        joined.instance.signal(RenameUser(at(user.id, deps.address), user.displayname))


def publish_status(session_id: str, recovery: SessionRecovery, deps: SessionDeps) -> None:
    """Publishes `update-user` after the user came online or went offline.

    It goes to the user itself, its friends and admins. If the hub is full, it is dropped and
    logged: the next update of the user has the whole user.
    """
    message = publish_user(
        recovery.user,
        recovery.profile,
        deps.directory,
        deps.server.site,
    )
    try:
        deps.hub.tell(replace(message, among=frozenset()))
    except Overloaded:
        _log.warning(log_events.HUB_FULL, session=session_id)
