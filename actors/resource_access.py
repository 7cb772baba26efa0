"""How sessions use resources, and how resources reach a session's sockets.

Sessions and resources don't import each other: a session's actor calls a `ResourceAccess`
(`actors.resource.manager.ResourceManager`), and a resource's actor a `SessionSockets`
(`actors.session.manager.SessionManager`). A session's work may wait for a resource's actor; a
resource's actor never waits for a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.delivery.sink import SessionSink, Sink
from reileta import records
from reileta.errors import ReiletaError
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import ResourceKey, Write
from reileta.store.leases import LostLease


class ResourceAccess(Protocol):
    """The resources of a node, as sessions see them.

    The first four methods raise what the methods of the store raise that have their name, and
    Overloaded: it may have been carried out anyway.
    """

    async def acquire(
        self, name: ResourceKey, who: Claimant, *, until: int
    ) -> records.HeldResource: ...

    async def release(self, name: ResourceKey, who: Claimant) -> LostLease | None: ...

    async def write(
        self, name: ResourceKey, writes: Sequence[Write]
    ) -> Sequence[records.ResourceRecord | ReiletaError]: ...

    async def delete(
        self, name: ResourceKey, who: Claimant, *, fence: int | None, if_version: int | None
    ) -> records.ResourceRecord: ...

    def changed(self, number: int) -> None:
        """The resource or its lease may have changed without its actor."""
        ...

    def session_present(self, session_id: str) -> None:
        """The session has a new socket."""
        ...

    def session_absent(self, session_id: str) -> None:
        """The session has lost its last socket."""
        ...

    def session_ended(self, session_id: str) -> None:
        """The session has ended."""
        ...

    def user_changed(self, user: records.User) -> None:
        """The user's name or tags may have changed."""
        ...


@dataclass(frozen=True, slots=True)
class OpenSockets:
    """The open sockets of a session, by API."""

    registry: tuple[Sink, ...] = ()
    session: tuple[SessionSink, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.registry or self.session)


class SessionSockets(Protocol):
    """The sessions of a node, as resources see them."""

    def sockets(self, session_id: str) -> OpenSockets:
        """The session's open sockets here."""
        ...
