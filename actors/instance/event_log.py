"""Logs who joins and leaves an instance, who moderates whom, and the instance's end."""

from __future__ import annotations

from actors.instance.messages import ModerationMessage
from actors.instance.moderation import Decision
from actors.instance.parts import InstanceParts
from reileta.ids import user_ref
from reileta.observability import log_events
from reileta.protocol.views.console import InstanceEventKind, InstanceHappenedView
from reileta.protocol.views.registry import known
from reileta.rules.instance.events import Closed, InstanceEvent, Joined, Left


class InstanceLog:
    """The log of one incarnation of an instance. It holds ids and usernames, and no text that a
    user wrote."""

    def __init__(self, parts: InstanceParts) -> None:
        self._parts = parts
        self._activity = parts.config.activity

    def note(self, domain_event: InstanceEvent) -> None:
        """Logs the event, if it is one for the log. Call it before a player that left is
        forgotten."""
        match domain_event:
            case Joined(player, role):
                self._keep("joined", player.user, self._username(player.session))
                self._activity.note(
                    log_events.PLAYER_JOINED,
                    player.user,
                    instance=self._parts.id,
                    player=player.id,
                    user=self._bare(player.user),
                    username=self._username(player.session),
                    role=role,
                )
            case Left(player, reason):
                self._keep("left", player.user, self._username(player.session), reason=reason)
                self._activity.note(
                    log_events.PLAYER_LEFT,
                    player.user,
                    instance=self._parts.id,
                    player=player.id,
                    user=self._bare(player.user),
                    username=self._username(player.session),
                    reason=reason,
                )
            case Closed(reason):
                owner = self._parts.rules.record.owner
                self._activity.note(
                    log_events.INSTANCE_ENDED, owner, instance=self._parts.id, reason=reason
                )
            case _:
                pass

    def moderated(self, message: ModerationMessage, decision: Decision) -> None:
        """Logs a moderation that changed something."""
        entry = decision.log_entry
        if entry is None:
            return
        self._keep(
            "moderated",
            entry.user,
            self._username_of(entry.user),
            type=entry.type,
            by=message.by.user,
        )
        self._activity.note(
            log_events.USER_MODERATED,
            message.by.user,
            instance=self._parts.id,
            type=entry.type,
            user=entry.user,
            username=self._username_of(entry.user),
            by=entry.by,
            by_username=message.by.username or None,
            until=entry.until,
        )

    def _keep(self, kind: InstanceEventKind, user: str, username: str | None, **more: str) -> None:
        """Keeps the event for admins."""
        happened = InstanceHappenedView(
            at=self._parts.now(), event=kind, user=user, username=known(username), **more
        )
        self._parts.recovery.happened.appendleft(happened)

    def _bare(self, user: str) -> str:
        return user_ref(user, self._parts.config.address)

    def _username(self, session: str) -> str | None:
        member = self._parts.recovery.seated.get(session)
        return None if member is None else member.visitor.username or None

    def _username_of(self, user: str) -> str | None:
        """The username of a user inside."""
        for member in self._parts.recovery.seated.values():
            if self._bare(member.visitor.user) == user:
                return member.visitor.username or None
        return None
