"""The frames of the server's notice, for the sockets of both APIs."""

from __future__ import annotations

from msgspec import UNSET

from actors.delivery.sink import SessionSink, Sink
from reileta.clock import Clock
from reileta.protocol import events, session_frames
from reileta.protocol.frames import encode, event
from reileta.protocol.session_frames import event_frame, iso, new_event_id
from reileta.protocol.views.server import NoticeView


class NoticeFrame:
    """A notice, encoded for each API when it is first needed there.

    Make a new one when the notice is sent again: an Event's id must differ from those of Events
    that wait for their Ack.
    """

    def __init__(self, notice: NoticeView, clock: Clock) -> None:
        self._notice = notice
        self._clock = clock
        self._frame: bytes | None = None
        self._event: tuple[str, bytes] | None = None

    def send(self, sink: Sink, session_sink: SessionSink | None) -> None:
        """Sends it to a socket; `session_sink` is the same socket if it is of the session API."""
        if session_sink is None:
            if self._frame is None:
                self._frame = event(events.SERVER_NOTICE, None, encode(self._notice))
            sink.send(self._frame)
            return
        if self._event is None:
            id_ = new_event_id()
            self._event = id_, event_frame(id_, self._clock.now_ms(), self._payload())
        session_sink.send_event(*self._event)
        session_sink.flush()

    def _payload(self) -> dict[str, object]:
        """The notice in the form of the session API."""
        notice = self._notice
        return {
            "kind": session_frames.SERVER_NOTICE,
            "text": notice.text,
            "level": notice.level,
            "created_at": iso(notice.created_at),
            "until": None if notice.until is UNSET else iso(notice.until),
        }
