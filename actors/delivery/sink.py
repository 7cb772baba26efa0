"""A client's socket, as actors see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from actors.runtime.message import Message
from actors.runtime.ref import Recipient

if TYPE_CHECKING:
    from actors.delivery.fanout import Piece
    from reileta.errors import ReiletaError
    from reileta.protocol.close_codes import CloseCode


@dataclass(frozen=True, slots=True)
class SendData(Message):
    """A player sends `instance-data` through one of its sockets.

    `data` is JSON, passed on byte for byte; `state` is the sender's, for the answer.
    """

    sink: Sink
    player: str
    key: str | None
    at: float | None
    to: tuple[str, ...] | None
    data: bytes
    state: bytes | None


@dataclass(frozen=True, slots=True)
class InstanceHandle:
    """A socket's seat in an instance: the instance's actor, and the socket's player."""

    instance: Recipient[SendData]
    player: str


class Sink(Protocol):
    """Where frames go. Nothing here waits, and nothing raises when the client is gone.

    `seats` are the socket's seats by instance id; instances put them in and take them out.
    """

    seats: dict[str, InstanceHandle]

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the client to read."""
        ...

    def write(self, pieces: Sequence[Piece]) -> None:
        """Sends the pieces in order, or keeps them until the client can take them."""
        ...

    def send(self, frame: bytes) -> None:
        """Sends one frame, after everything that waits."""
        ...

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Begins to close the connection, after everything that waits."""
        ...


class SessionSink(Sink, Protocol):
    """A socket of the session API, whose frames are Events and Acks (PROTOCOL §8).

    What it is told waits until `flush`, so that a drain is one write.
    """

    def tell(self, event_id: str, frame: bytes) -> None:
        """Sends an Event, which the client is to acknowledge in time."""
        ...

    def ack(self, event_id: str) -> None:
        """Acknowledges the client's event."""
        ...

    def refuse(self, event_id: str, error: ReiletaError) -> None:
        """Says that the client's event was refused, in place of the Ack."""
        ...

    def flush(self) -> None:
        """Writes what it was told."""
        ...
