"""Who is notified of each event of an instance, and how: one table.

Sockets inside get an event as a frame of the drain. Users who are not inside get it on their open
sockets, and subscribers get it through the hub. The actor sends `update-instance`, for those who
watch the object, at the end of the drain.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import UNSET

from actors.delivery.sink import Sink
from actors.instance.members import Members
from actors.instance.parts import InstanceParts
from actors.instance.queue import Queue
from reileta.ids import user_ref
from reileta.protocol import events
from reileta.protocol.frames import encode, event
from reileta.protocol.views.instance import ModeratedView, RoleView, target_of
from reileta.protocol.views.registry import known
from reileta.rules.instance.events import (
    AdminChanged,
    BannedUser,
    CandidateChanged,
    Closed,
    InstanceEvent,
    Joined,
    Left,
    MasterChanged,
    Muted,
    QueueChanged,
    Renamed,
    RoleChanged,
    Unbanned,
    Unmuted,
    Updated,
    Warned,
)
from reileta.rules.instance.interest import LEFT
from reileta.rules.instance.seats import Player


class Notifications:
    """The notifications of one incarnation of an instance."""

    def __init__(self, parts: InstanceParts, members: Members, queue: Queue) -> None:
        self._parts = parts
        self._members = members
        self._queue = queue

    def deliver(self, domain_event: InstanceEvent, *, answered: Sink | None = None) -> None:
        """Notifies all whom the event concerns.

        `answered` is the socket that asked for it: it gets an answer instead.
        """
        match domain_event:
            case Joined():
                self._joined(domain_event)
            case Left():
                self._left(domain_event, answered)
            case Renamed(player):
                self._renamed(player)
            case CandidateChanged():
                self._queue.candidate_changed(domain_event)
            case QueueChanged():
                self._queue.places_changed()
            case MasterChanged(user, before):
                if before is not None and before in self._parts.rules.seats.users:
                    self._role(before)
                if user is not None:
                    self._role(user)
            case RoleChanged(user) | AdminChanged(user):
                self._role(user)
            case BannedUser(ban, saw_instance):
                view = ModeratedView(
                    type="ban",
                    **target_of(ban.user),
                    by=ban.by,
                    reason=known(ban.reason),
                    until=known(ban.until),
                )
                self._moderated(view, overseers=True, saw_instance=saw_instance)
            case Unbanned(user, by):
                view = ModeratedView(type="unban", **target_of(user), by=known(by))
                self._moderated(view, overseers=True)
            case Muted(user, until, reason, by, _):
                view = ModeratedView(
                    type="mute", user=user, by=by, reason=known(reason), until=known(until)
                )
                self._moderated(view, overseers=True)
            case Unmuted(user, by):
                view = ModeratedView(type="unmute", user=user, by=known(by))
                self._moderated(view, overseers=True)
            case Warned(user, reason, by):
                view = ModeratedView(type="warn", user=user, by=by, reason=known(reason))
                self._moderated(view, overseers=False)
            case Updated() | Closed():
                pass  # only those who watch the object are concerned
            case _:
                assert_never(domain_event)

    def _joined(self, joined: Joined) -> None:
        """Everybody inside but the player itself, and subscribers."""
        parts = self._parts
        frame, data = parts.frames.joined(joined.player)
        parts.fanout.broadcast(frame, without=parts.recovery.sinks_of((joined.player,)))
        parts.publisher.publish(events.INSTANCE_JOINED, data)

    def _renamed(self, player: Player) -> None:
        """Everybody inside, the player's own sockets too, and subscribers."""
        parts = self._parts
        self._members.replace(player)
        frame, data = parts.frames.updated(player)
        parts.fanout.broadcast(frame)
        parts.publisher.publish(events.PLAYER_UPDATED, data)

    def _left(self, left: Left, answered: Sink | None) -> None:
        """The player's sockets, its session, everybody still inside, and subscribers."""
        parts, player = self._parts, left.player
        frame, data = parts.frames.left(left)
        own_frame = parts.frames.left_of_player(left)
        member = self._members.remove(player)
        sinks = () if member is None else tuple(member.sinks)
        for sink in sinks:
            if sink is not answered:
                parts.fanout.private(sink, own_frame)
            self._members.refresh_observer(sink)
        # The key ends the player's values, at receivers for whom some wait.
        parts.fanout.broadcast(frame, (parts.id, player.id, LEFT))
        if member is not None:
            member.seat_lost(parts.id)
        parts.publisher.publish(events.INSTANCE_LEFT, data, informed=sinks)

    def _role(self, user: str) -> None:
        """Everybody inside, because they know its role; the user, inside or not; subscribers."""
        parts = self._parts
        data = encode(RoleView(user, parts.rules.role_of(user)))
        frame = event(events.INSTANCE_ROLE, parts.id, data)
        parts.fanout.broadcast(frame)
        outside: tuple[Sink, ...] = ()
        if user not in parts.rules.seats.users:
            outside = self._sockets(user)
        for sink in outside:
            parts.fanout.private(sink, frame)
        parts.publisher.publish(events.INSTANCE_ROLE, data, informed=outside)

    def _moderated(
        self, view: ModeratedView, *, overseers: bool, saw_instance: bool = False
    ) -> None:
        """The user, and with `overseers` all who oversee, inside or subscribed.

        A user who is not inside is notified only if it may see the instance, or could until now.
        """
        parts = self._parts
        data = encode(view)
        frame = event(events.INSTANCE_MODERATED, parts.id, data)
        user = view.user
        players = [] if user is UNSET else parts.rules.players_of(user)
        outside: tuple[Sink, ...] = ()
        if (
            user is not UNSET
            and not players
            and (saw_instance or parts.rules.audience.admits(user))
        ):
            outside = self._sockets(user)
        if overseers:
            players += parts.rules.overseers()
        sinks = (*parts.recovery.sinks_of(players), *outside)
        for sink in sinks:
            parts.fanout.private(sink, frame)
        for player in players:
            parts.recovery.missed.add_for(player.id, frame)
        if overseers:
            parts.publisher.publish(events.INSTANCE_MODERATED, data, informed=sinks, overseers=True)

    def _sockets(self, user: str) -> tuple[Sink, ...]:
        return self._parts.directory.sockets(user_ref(user, self._parts.config.address))
