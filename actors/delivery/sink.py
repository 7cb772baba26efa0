"""A client's socket, as actors see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from actors.delivery.batch import Piece
from reileta.errors import ReiletaError
from reileta.protocol.close_codes import CloseCode


class InstanceHandle(Protocol):
    """A socket's seat in an instance: sends `instance-data` there as the seat's player."""

    @property
    def player(self) -> str:
        """The player's id."""
        ...

    @property
    def held(self) -> bool:
        """Whether what the instance writes to the socket waits for something at the moment."""
        ...

    def send_data(
        self,
        sink: Sink,
        data: bytes,
        key: str | None,
        at: float | None,
        to: tuple[str, ...] | None,
        state: bytes | None,
    ) -> None:
        """Sends a player's data to the instance; never waits.

        Args:
            sink: the player's socket that the data came from.
            data: JSON, relayed byte for byte.
            key: the retained value that the data replaces; None: it is not retained.
            at: the client's time of the value, by which older data is dropped.
            to: the ids of the players who receive the data; None: everybody else inside.
            state: the client's JSON for the answer; None: no answer.

        Raises:
            MailboxFull: the instance has too many messages waiting; nothing was sent.
            ActorStopped: the instance stops or has stopped.
        """
        ...

    def lose(self, sink: Sink) -> None:
        """Tells the instance that the player's socket has closed; never waits, never raises."""
        ...


class Sink(Protocol):
    """A socket that frames are written to. Nothing here waits or raises when the client is gone.

    `seats` holds the socket's handles by instance id. It is shared: each instance's actor writes
    its own entry, until the actor has ended and the instance manager removes it; the hub and the
    socket's connection read it.
    """

    seats: dict[str, InstanceHandle]

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        """Sends bytes at once, as `socket.send` does: returns how many the system has taken, or
        raises OSError. If it has not taken all, call `taken_in_part`. Count what it has sent in the
        metrics. None: something waits, or the bytes must be changed first, so use `write`."""
        return None

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait for the client to read them."""
        ...

    @property
    def lost_frames(self) -> bool:
        """Whether frames that were written may not have reached the client."""
        ...

    @property
    def left(self) -> bool:
        """Whether the client closed the socket itself, as one that goes does (1000, 1001)."""
        ...

    @property
    def barred(self) -> bool:
        """Whether the server closed the socket because a rule refuses its client."""
        ...

    @property
    def vanished_at(self) -> float | None:
        """When the client was last heard of (Trio's seconds), if it went without closing the
        socket: it may not have read what was written since. None: it closed it."""
        ...

    async def responds(self) -> bool:
        """Asks the client with a ping: whether anything is heard of it in about a second."""
        ...

    def write(self, pieces: Sequence[Piece]) -> None:
        """Sends the pieces in order, or keeps them until the client can take them."""
        ...

    def taken_in_part(self, pieces: Sequence[Piece], sent: int) -> None:
        """Keeps the pieces but for their first bytes, of which `direct` has sent so many."""
        raise AssertionError("this sink has no `direct`")

    def send(self, frame: bytes) -> None:
        """Sends one frame, after everything that waits."""
        ...

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Begins to close the connection, after everything that waits."""
        ...


class SessionSink(Sink, Protocol):
    """A socket of the session API, whose frames are Events and Acks.

    Frames wait until `flush`, so that a drain is one write.
    """

    def send_event(self, event_id: str, frame: bytes) -> None:
        """Sends an Event; the client must acknowledge it in time."""
        ...

    def ack(self, event_id: str) -> None:
        """Acknowledges the client's event."""
        ...

    def refuse(self, event_id: str, error: ReiletaError) -> None:
        """Tells the client why its event was refused, and acknowledges it."""
        ...

    def flush(self) -> None:
        """Writes the frames that wait."""
        ...
