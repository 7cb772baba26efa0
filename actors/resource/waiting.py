"""The waiting line of a resource: who is told what, and when.

The rules are in `reileta/rules/resource/waiting_line.py`. The actor says when the resource is free.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.resource.frames import ResourceFrame, left_fields, place_fields
from actors.resource.messages import DeadlineReached
from actors.resource.parts import ResourceParts
from actors.resource.snapshot import Fields
from reileta.protocol import events
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource
from reileta.rules.resource.waiting_line import LeaveReason, LeftLine, Place


class Waiting:
    """The waiting line of one resource, for one incarnation of its actor."""

    def __init__(self, parts: ResourceParts) -> None:
        self._parts = parts
        self._line = parts.recovery.line
        self._deadline = parts.context.deadline(DeadlineReached(), parts.deps.clock)

    def join(self, who: Claimant) -> Place:
        """The session waits from now on. Raises QuotaReached."""
        deps = self._parts.deps
        present = bool(deps.sessions.sockets(who.session))
        if not present and deps.present_elsewhere is not None:
            present = deps.present_elsewhere(who.session)
        self._line.join(who, self._parts.now(), present=present)
        return self._line.place(who.session)

    def leave(self, session: str, reason: LeaveReason) -> None:
        """The session no longer waits."""
        self.notify_left(self._line.leave(session, reason))

    def set_presence(self, session: str, *, present: bool) -> None:
        """The session got a new socket, or lost its last one."""
        if present:
            self._line.present(session)
        else:
            self._line.absent(session, self._parts.now())

    def set_admin(self, user: str, *, admin: bool) -> None:
        """A user may have become an admin, or may have ceased to be one."""
        known = self._parts.recovery.known
        if self._line.set_admin(user, admin=admin) and known is not None:
            self.notify_left(self._line.ensure_allowed(known.resource.may))

    def tick(self) -> None:
        """Time has passed."""
        self._deadline.fired()
        self.notify_left(self._line.tick(self._parts.now()))

    def postpone(self) -> None:
        """The deadline has passed, while an operation runs that decides about the offer."""
        self._deadline.fired()

    def see(self, resource: Resource | None) -> None:
        """The resource was read; None: it is gone."""
        if resource is None:
            self.notify_left(self._line.dissolve(LeaveReason.DELETED))
            return
        self.notify_left(self._line.ensure_allowed(resource.may))
        holder = resource.lease.session
        if holder is not None and (self._line.offered is not None or holder in self._line):
            self.notify_left(self._line.taken(holder))

    def offer(self) -> None:
        """The resource is free, and the first session can acquire it."""
        self._line.offer(self._parts.now())

    def flush(self, *, running: bool) -> None:
        """Tells the sessions their places; `running`: an operation decides about the offer."""
        name = self._parts.recovery.name
        if name is not None:
            for change in self._line.changes():
                self._send(change.session, place_fields(name, change.place))
        if not running:
            self._deadline.set(self._line.next_deadline)

    def notify_left(self, left: Iterable[LeftLine]) -> None:
        """Tells sessions that they no longer wait."""
        name = self._parts.recovery.name
        for one in left:
            self._parts.deps.interests.remove_wait(one.session, self._parts.number)
            if name is not None:
                self._send(one.session, left_fields(name, one))

    def move_away(self) -> None:
        """Another node keeps the line from now on, and its sessions wait there."""
        for one in self._line.dissolve(LeaveReason.FAILED):
            self._parts.deps.interests.remove_wait(one.session, self._parts.number)

    def _send(self, session: str, fields: Fields) -> None:
        elsewhere = self._parts.deps.tell_elsewhere
        if elsewhere is not None:
            elsewhere(session, fields)
        sockets = self._parts.deps.sessions.sockets(session)
        if not sockets:
            return
        frame = ResourceFrame(events.RESOURCE_QUEUE, fields, self._parts.deps.clock)
        for sink in sockets.registry:
            frame.send(sink, None)
        for session_sink in sockets.session:
            frame.send(session_sink, session_sink)
