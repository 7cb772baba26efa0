"""Synchronizes a session's state and resource to its session API sockets.

The rules (`reileta/rules/session/session.py`) know sockets by names, which this file gives out.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, assert_never

from actors.delivery.sink import SessionSink, Sink
from actors.session.messages import PatchState
from actors.session.parts import SessionParts
from reileta.errors import CredentialInvalid, ReiletaError
from reileta.protocol import session_frames
from reileta.protocol.session_frames import event_frame, new_event_id
from reileta.protocol.views.session import ResourceMetadata, session_view
from reileta.rules.identity import FOR_EVER
from reileta.rules.session.shared_state import PatchRefused, StateChange, StateChanged


class StateSync:
    """The sockets of one session as its rules know them, and the frames that they get."""

    def __init__(self, parts: SessionParts) -> None:
        self._parts = parts
        self._names: dict[Sink, str] = {}
        self._session_sockets: dict[str, SessionSink] = {}
        self._next_name = 0

    # Sockets -----------------------------------------------------------------------------------

    def connect_session_socket(self, sink: SessionSink, token: bytes, expires: int) -> bool:
        """Adds a socket of the session API; returns whether the session had no socket before.

        Raises:
            SessionNotFound: the session has ended.
            CredentialInvalid: the token is not valid.
            AlreadyConnected: the token has a socket of the session API.
        """
        self._parts.loaded.admit(token, expires)
        first = self._connect(sink, token, exclusive=True)
        self._session_sockets[self._names[sink]] = sink
        return first

    def connect_registry_socket(self, sink: Sink, token: bytes) -> bool:
        """Adds a socket of the registry API; returns whether the session had no socket before.

        The registry API itself checks its tokens, and closes the socket of one that is not valid.
        """
        rules = self._parts.rules
        if rules is None or rules.ended:
            return False
        if token not in rules.tokens:
            rules.admit(token, FOR_EVER)  # the registry API ends it
        with suppress(CredentialInvalid):
            return self._connect(sink, token, exclusive=False)
        return False

    def _connect(self, sink: Sink, token: bytes, *, exclusive: bool) -> bool:
        rules = self._parts.loaded
        first = not rules.present
        self._next_name += 1
        name = str(self._next_name)
        rules.connect(name, token, self._parts.now(), exclusive=exclusive)
        self._names[sink] = name
        return first

    def disconnect(self, sink: Sink) -> bool:
        """Removes a socket of either API; returns whether it was the session's last."""
        name = self._names.pop(sink, None)
        rules = self._parts.rules
        if name is None or rules is None:
            return False
        self._session_sockets.pop(name, None)
        rules.disconnect(name, self._parts.now())
        return not rules.present

    # Frames ------------------------------------------------------------------------------------

    def send_hello(self, sink: SessionSink, resource: ResourceMetadata | None) -> None:
        """Greets a new socket with the session, as it is in the database."""
        rules = self._parts.loaded
        hello = {
            "kind": session_frames.HELLO,
            "session": session_view(rules.id, self._parts.user, rules.state, resource),
            "version": rules.version,
            "ack_timeout_ms": rules.limits.ack_timeout_ms,
        }
        self._send([sink], hello)

    def send_resource(self, resource: ResourceMetadata | None) -> None:
        """Sends the session's resource to all sockets; None: it has none."""
        payload = {"kind": session_frames.RESOURCE, "resource": resource}
        self._send(list(self._session_sockets.values()), payload)

    def send_change(self, event: StateChange) -> None:
        """Sends a change of the state to all other sockets, and its sender the acknowledgement."""
        sockets = self._session_sockets
        match event:
            case StateChanged(version=version, patch=patch, change=change):
                by = None if change is None else change.by
                payload = {"kind": session_frames.STATE, "version": version, "patch": patch}
                self._send([sink for name, sink in sockets.items() if name != by], payload)
                if change is not None and by in sockets:
                    sockets[by].ack(str(change.ref))
            case PatchRefused(change=change, error=error):
                if change.by in sockets:
                    sockets[change.by].refuse(str(change.ref), error)
            case _:
                assert_never(event)

    def flush(self) -> None:
        """Writes the frames that wait to the sockets."""
        for sink in self._session_sockets.values():
            sink.flush()

    def _send(self, sinks: list[SessionSink], payload: dict[str, Any]) -> None:
        if sinks:
            event_id = new_event_id()
            frame = event_frame(event_id, self._parts.now(), payload)
            for sink in sinks:
                sink.send_event(event_id, frame)

    # The state ---------------------------------------------------------------------------------

    def patch(self, message: PatchState) -> None:
        """Changes the state for a socket, or refuses its event."""
        name, rules = self._names.get(message.sink), self._parts.rules
        if name is None or rules is None:
            return  # the socket has closed meanwhile
        try:
            rules.change(message.patch, name, message.event_id)
        except ReiletaError as error:
            message.sink.refuse(message.event_id, error)
