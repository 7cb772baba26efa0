"""Notes between the nodes where one session has sockets.

A session has an actor at each of these nodes. Its state and its resource are in the database, which
gives the one order of their changes (by compare-and-set, and by the lock on the lease). After a
change is written, the node tells the others so, and they read it there. A note that is lost is made
up for by the check that every node makes (`actors/cluster/revocations.py`), and by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias

import msgspec
import trio

from actors.cluster.facts import ClusterMember
from actors.directory import Directory
from reileta.cluster.bus import BusError, BusMessage
from reileta.cluster.calls import pack, unpacked
from reileta.protocol.frames import encode

NOTES: Final = "s"
"""The subject of notes; with a node's id, of those for it."""


class StateMoved(msgspec.Struct, frozen=True, array_like=True, tag="v"):
    """The session's state has that version in the database."""

    session: str
    version: int


class ResourceMoved(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """The session acquired or lost a resource, or the one that it has was changed."""

    session: str


class TokenRefreshed(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """A token of the session is valid until `expires` (ms)."""

    session: str
    token: bytes
    expires: int


class QueueTold(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    """The data of `resource-queue`, as JSON, for the session's sockets."""

    session: str
    data: bytes


SessionNote: TypeAlias = StateMoved | ResourceMoved | TokenRefreshed | QueueTold

_notes: msgspec.msgpack.Decoder[SessionNote] = msgspec.msgpack.Decoder(SessionNote)


class NoteReceiver(Protocol):
    """The sessions of a node (`actors.session.manager.SessionManager`)."""

    def state_moved(self, session_id: str, version: int) -> None: ...

    def resource_moved(self, session_id: str) -> None: ...

    def token_refreshed(self, session_id: str, token_hash: bytes, expires: int) -> None: ...


class SessionNotes:
    """Sends and receives the notes of one node. `receiver` and `tell_queue_here` must be set before
    `run`."""

    receiver: NoteReceiver
    tell_queue_here: Callable[[str, dict[str, Any]], None]

    def __init__(self, member: ClusterMember, directory: Directory) -> None:
        self._member = member
        self._directory = directory
        self._fallen = trio.Event()

    def tell_state(self, session_id: str, version: int) -> None:
        """The state was written here."""
        self._tell(session_id, StateMoved(session_id, version))

    def tell_resource(self, session_id: str) -> None:
        """What the session holds was changed here."""
        self._tell(session_id, ResourceMoved(session_id))

    def tell_token(self, session_id: str, token_hash: bytes, expires: int) -> None:
        """A token of the session was refreshed here."""
        self._tell(session_id, TokenRefreshed(session_id, token_hash, expires))

    def tell_queue(self, session_id: str, fields: Mapping[str, Any]) -> None:
        """The session has another place in the line of a resource, or none any more."""
        if self._directory.sessions_elsewhere(session_id):
            self._tell(session_id, QueueTold(session_id, encode(fields)))

    def _tell(self, session_id: str, note: SessionNote) -> None:
        for node in tuple(self._directory.sessions_elsewhere(session_id)):
            with suppress(BusError):  # the check of that node finds it
                self._member.bus.publish(self._member.subject(NOTES, node), pack(note))

    # MemberListener

    def fell(self, was: str) -> None:
        """This process has fallen, and has a new id as a node."""
        self._fallen.set()

    async def run(self) -> None:
        """Receives until cancelled."""
        while True:
            self._fallen = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive_as, self._member.node)
                await self._fallen.wait()
                nursery.cancel_scope.cancel()

    async def _receive_as(self, node: str) -> None:
        async with self._member.bus.subscribe(self._member.subject(NOTES, node)) as subscription:
            while True:
                for item in await subscription.receive():
                    if isinstance(item, BusMessage):
                        self._receive(item)

    def _receive(self, item: BusMessage) -> None:
        match unpacked(item.data, _notes):
            case StateMoved(session=session, version=version):
                self.receiver.state_moved(session, version)
            case ResourceMoved(session=session):
                self.receiver.resource_moved(session)
            case TokenRefreshed(session=session, token=token, expires=expires):
                self.receiver.token_refreshed(session, token, expires)
            case QueueTold(session=session, data=data):
                self.tell_queue_here(session, msgspec.json.decode(data, type=dict[str, Any]))
            case None:
                pass  # of another version
