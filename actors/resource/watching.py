"""Tells the watchers of a resource what changed.

Once for each drain, and with a pause after each fan-out that is as long as the fan-out took (at
most `PAUSE_S`): changes that come meanwhile share the next event. A watcher whose socket has
`LAG_BYTES` waiting gets nothing, until it has read them; then it gets the newest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from actors.delivery.sink import Sink
from actors.delivery.writing import write_whole
from actors.resource.frames import ResourceFrame, unwatched, watch_answer
from actors.resource.messages import CatchUp, Tell, Watch
from actors.resource.parts import ResourceParts
from actors.resource.snapshot import Fields, Snapshot
from actors.runtime.timers import Timer
from reileta.protocol import events
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource
from reileta.rules.resource.watchers import Owed, WatchChanges

PAUSE_S: Final = 0.005
"""The longest pause between two fan-outs."""
LAG_BYTES: Final = 64 * 1024
"""A socket that has more bytes waiting is a slow watcher."""
CATCH_UP_S: Final = 0.1
"""How often slow watchers are looked at."""


class Watching:
    """The watchers of one resource, for one incarnation of its actor."""

    def __init__(self, parts: ResourceParts) -> None:
        self._parts = parts
        self._recovery = parts.recovery
        self._pause: Timer | None = None
        self._catch_up: Timer | None = None
        self._access_changed = False
        self._first_of: Snapshot | None = None
        self._first: dict[Owed, ResourceFrame] = {}
        """The encoded first frames of that snapshot, for new watchers."""

    # Watchers come and go ----------------------------------------------------------------------

    def add(self, message: Watch, who: Claimant) -> None:
        """Adds a watcher, and sends it the resource as it is known. Raises as `Watchers.add`."""
        recovery, subscriber = self._recovery, message.subscriber
        known = recovery.known
        assert known is not None
        self._tell_changes()  # the others, before the newcomer is one of them
        owed = recovery.watchers.add(subscriber.sink, who, known.resource)
        frame = self._first_frame(known, owed)
        session_sink = subscriber.session_sink
        if session_sink is not None:
            recovery.session_sinks[subscriber.sink] = session_sink
            session_sink.ack(subscriber.event_id)
            frame.send(subscriber.sink, session_sink)
        elif subscriber.state is not None:
            subscriber.sink.send(watch_answer(subscriber.state, frame.data))
        else:  # it wants no answer, but must know where it begins
            frame.send(subscriber.sink, None)
        self._parts.context.sent(1, 1)

    def _first_frame(self, known: Snapshot, owed: Owed) -> ResourceFrame:
        """The first frame for a new watcher. Watchers that come at the same time share it."""
        if self._first_of is not known:
            self._first_of, self._first = known, {}
        frame = self._first.get(owed)
        if frame is None:
            view = {} if owed is Owed.PREVIEW else known.view()
            fields = known.update(owed, None, view)
            frame = ResourceFrame(events.RESOURCE_UPDATED, fields, self._parts.deps.clock)
            self._first[owed] = frame
        return frame

    def remove(self, sink: Sink) -> None:
        """The socket no longer watches; the manager has removed it from the interests."""
        self._recovery.watchers.remove(sink)
        self._recovery.session_sinks.pop(sink, None)

    def set_admin(self, user: str, *, admin: bool) -> None:
        """A user may have become an admin, or may have ceased to be one."""
        self._access_changed |= self._recovery.watchers.set_admin(user, admin=admin)

    def _forget(self, sink: Sink) -> None:
        self._recovery.session_sinks.pop(sink, None)
        self._parts.deps.interests.remove_watch(sink, self._parts.number)

    # Events ------------------------------------------------------------------------------------

    def paused(self) -> None:
        """The pause after the last events is over."""
        self._pause = None

    def caught_up(self) -> None:
        """Slow watchers may be able to take more."""
        self._catch_up = None

    def tell(self) -> None:
        """Tells the watchers what is due; call it at the end of a drain."""
        if self._pause is not None or not len(self._recovery.watchers):
            return
        began = trio.current_time()
        self._tell_changes()
        pause_s = min(PAUSE_S, trio.current_time() - began)
        if pause_s > PAUSE_S / 10:
            self._pause = self._parts.context.after(pause_s, Tell())
        watchers = self._recovery.watchers
        if self._catch_up is None and watchers.lagging():
            self._apply(watchers.catch_up(_is_slow))
            if watchers.lagging():
                self._catch_up = self._parts.context.after(CATCH_UP_S, CatchUp())

    def tell_gone(self) -> None:
        """The resource is deleted: all watches end."""
        changes = self._recovery.watchers.change(self._told, None, _is_slow)
        self._recovery.told = None
        self._apply(changes)

    @property
    def _told(self) -> Resource | None:
        told = self._recovery.told
        return None if told is None else told.resource

    def _tell_changes(self) -> None:
        recovery = self._recovery
        if recovery.known is None or (recovery.known is recovery.told and not self._access_changed):
            return
        self._access_changed = False
        changes = recovery.watchers.change(self._told, recovery.known.resource, _is_slow)
        self._apply(changes)
        recovery.told = recovery.known

    def _apply(self, changes: WatchChanges[Sink]) -> None:
        """Sends what the watchers are owed, from what they were told last to what is known."""
        recovery = self._recovery
        frames = sockets = 0
        if changes.owed:
            known = recovery.known
            assert known is not None
            whole = any(owed is not Owed.PREVIEW for owed in changes.owed)
            view = known.view() if whole else {}
            for owed, sinks in changes.owed.items():
                fields = known.update(owed, recovery.told, view)
                self._send(events.RESOURCE_UPDATED, fields, sinks)
                frames += len(sinks)
                sockets += len(sinks)
        for reason, sinks in changes.ended.items():
            assert recovery.name is not None
            self._send(events.RESOURCE_UNWATCHED, unwatched(recovery.name, reason), sinks)
            for sink in sinks:
                self._forget(sink)
            frames += len(sinks)
            sockets += len(sinks)
        self._parts.context.sent(frames, sockets)
        self._parts.deps.metrics.deliveries_out += frames

    def _send(self, name: str, fields: Fields, sinks: Iterable[Sink]) -> None:
        frame = ResourceFrame(name, fields, self._parts.deps.clock)
        session_sinks = self._recovery.session_sinks
        plain: list[Sink] = []  # often a thousand
        for sink in sinks:
            session_sink = session_sinks.get(sink)
            if session_sink is None:
                plain.append(sink)
            else:
                frame.send(sink, session_sink)
        if plain:
            write_whole(plain, frame.batch, self._parts.deps.metrics)


def _is_slow(sink: Sink) -> bool:
    return sink.waiting_bytes > LAG_BYTES
