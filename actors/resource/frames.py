"""The frames about a resource that watchers and waiting sessions get, for both APIs.

The objects are the same on both: in the form of the session API. Each is encoded once, however many
sockets get it.
"""

from __future__ import annotations

from typing import Final

from actors.delivery.batch import Batch
from actors.delivery.sink import SessionSink, Sink
from actors.resource.snapshot import Fields
from reileta.clock import Clock
from reileta.protocol import commands, events, session_frames
from reileta.protocol.frames import answer, encode, event
from reileta.protocol.session_frames import event_frame, iso, new_event_id
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.waiting_line import LeftLine, Place
from reileta.rules.resource.watchers import EndReason

_KINDS: Final = {
    events.RESOURCE_UPDATED: session_frames.RESOURCE_UPDATED,
    events.RESOURCE_UNWATCHED: session_frames.RESOURCE_UNWATCHED,
    events.RESOURCE_QUEUE: session_frames.RESOURCE_QUEUE,
}
"""The kind of each event in the session API."""


class ResourceFrame:
    """An event about a resource, encoded for each API when it is first needed there."""

    def __init__(self, name: str, fields: Fields, clock: Clock) -> None:
        self._name = name
        self._fields = fields
        self._clock = clock
        self._data: bytes | None = None
        self._batch: Batch | None = None
        self._event: tuple[str, bytes] | None = None

    @property
    def data(self) -> bytes:
        """The event's data."""
        if self._data is None:
            self._data = encode(self._fields)
        return self._data

    @property
    def batch(self) -> Batch:
        """For the sockets of the registry API."""
        if self._batch is None:
            self._batch = Batch((event(self._name, None, self.data),))
        return self._batch

    @property
    def session_event(self) -> tuple[str, bytes]:
        """For the sockets of the session API: the id of the Event, and its frame."""
        if self._event is None:
            id_, payload = new_event_id(), {"kind": _KINDS[self._name], **self._fields}
            self._event = id_, event_frame(id_, self._clock.now_ms(), payload)
        return self._event

    def send(self, sink: Sink, session_sink: SessionSink | None) -> None:
        """Sends it to a socket; `session_sink` is the same socket if it is of the session API."""
        if session_sink is None:
            sink.write(((self.batch, 0, len(self.batch)),))
        else:
            session_sink.send_event(*self.session_event)
            session_sink.flush()


def watch_answer(state: bytes, data: bytes) -> bytes:
    """The answer to `watch` on `/api/ws`."""
    return answer(commands.WATCH, state, None, data)


def unwatched(name: ResourceKey, reason: EndReason) -> Fields:
    """The data of `resource-unwatched`."""
    return {"type": name.type, "id": name.number, "reason": reason.value}


def place_fields(name: ResourceKey, place: Place) -> Fields:
    """The data of `resource-queue` for a session that waits."""
    until = place.offered_until
    return {
        "type": name.type,
        "id": name.number,
        "position": place.position,
        "offered_until": None if until is None else iso(until),
        "reason": None,
    }


def left_fields(name: ResourceKey, left: LeftLine) -> Fields:
    """The data of `resource-queue` for a session that no longer waits."""
    return {
        "type": name.type,
        "id": name.number,
        "position": None,
        "offered_until": None,
        "reason": left.reason.value,
    }
