"""Sockets and sessions at another node, as the actor of an instance of this node sees them.

A `RemoteSink` is a sink like any other. It keeps what a flush writes to it, until the flush's
frames for all gateways are published in one message (`actors/cluster/hosted_publisher.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from actors.cluster import wire
from actors.delivery.batch import Batch, Piece
from actors.delivery.sink import InstanceHandle, Sink
from actors.membership import InstanceMoved, SeatLost
from actors.runtime.message import Request
from reileta.cluster.bus import Bus
from reileta.errors import ReiletaError
from reileta.protocol.close_codes import CloseCode
from reileta.rules.cluster.stream import Incoming


class RelayMember(Protocol):
    """This process's part in the cluster (`reileta.cluster.member.Member`)."""

    @property
    def node(self) -> str: ...

    @property
    def bus(self) -> Bus: ...

    def subject(self, *parts: str) -> str: ...

    def valid(self) -> bool: ...


Spawn = Callable[[Callable[[], Awaitable[None]]], None]
"""Starts a task beside the caller."""


class Host(Protocol):
    """The instance that these sockets are in (`actors.cluster.hosted_instance.HostedInstance`).

    Attributes:
        written: the sockets with frames that are not published.
        closing: the sockets to be closed, each with the reason.
        lost: the seats (session, player) that have ended, and whose gateways do not know that.
    """

    written: list[RemoteSink]
    closing: list[tuple[RemoteSink, CloseCode, str]]
    lost: list[tuple[str, str]]

    async def responds(self, sink: RemoteSink) -> bool:
        """Asks the gateway whether the client of a socket is there."""
        ...


class RemoteSink(Sink):
    """A socket at a gateway, as the instance's actor sees it."""

    def __init__(self, gateway: Gateway, number: int, session: str = "") -> None:
        self.gateway = gateway
        self.number = number
        self.session = session
        self.seats: dict[str, InstanceHandle] = {}
        self.pieces: list[Piece] | Sequence[Piece] | None = None
        """What was written since the last publication."""
        self._lost_frames = False
        self._left = False
        self._barred = False
        self._vanished_at: float | None = None

    def __repr__(self) -> str:
        return f"<RemoteSink {self.gateway.node}/{self.number}>"

    @property
    def waiting_bytes(self) -> int:
        return 0  # the gateway refuses a join itself while something waits

    @property
    def lost_frames(self) -> bool:
        return self._lost_frames

    @property
    def left(self) -> bool:
        return self._left

    @property
    def barred(self) -> bool:
        return self._barred

    @property
    def vanished_at(self) -> float | None:
        return self._vanished_at

    def ended(
        self, *, lost_frames: bool, left: bool, vanished_at: float | None, barred: bool = False
    ) -> None:
        """The socket has closed, in that way."""
        self._lost_frames, self._left, self._vanished_at = lost_frames, left, vanished_at
        self._barred = barred

    def unsure(self) -> None:
        """Its node is silent: what was written may not have reached the client."""
        self._lost_frames = True

    async def responds(self) -> bool:
        return await self.gateway.hosted.responds(self)

    def write(self, pieces: Sequence[Piece]) -> None:
        if self.pieces is None:
            self.pieces = pieces
            self.gateway.hosted.written.append(self)
        else:
            self.pieces = [*self.pieces, *pieces]

    def send(self, frame: bytes) -> None:
        batch = Batch((frame,))
        self.write([(batch, 0, len(batch))])

    def close(self, code: CloseCode, reason: str = "") -> None:
        self.gateway.hosted.closing.append((self, code, reason))


class RemoteSession:
    """A session at a gateway, as the instance's actor sees it: a `SessionRecipient`."""

    def __init__(self, hosted: Host, gateway: str, session: str) -> None:
        self.gateway = gateway
        self._hosted = hosted
        self._session = session

    def tell(self, message: SeatLost | InstanceMoved) -> None:
        self.signal(message)

    def signal(self, message: SeatLost | InstanceMoved) -> bool:
        if isinstance(message, SeatLost):  # the gateway itself tells it that the instance moved
            self._hosted.lost.append((self._session, message.player))
        return True

    async def ask(self, request: Request[Any]) -> Any:
        raise NotImplementedError("instances ask sessions nothing")


@dataclass(eq=False, slots=True)
class Entering:
    """A socket that is entering; `answer` None, once it is `over`: it was refused, for `refusal`
    if that is known."""

    attempt: int
    over: trio.Event = field(default_factory=trio.Event)
    answer: wire.Entered | None = None
    refusal: ReiletaError | None = None


@dataclass(eq=False)
class Gateway:
    """A gateway with players of an instance, or with observers of it.

    `series` tells its streams apart: a new one begins when it has lost everything.
    """

    hosted: Host
    node: str
    series: int
    sinks: dict[int, RemoteSink] = field(default_factory=dict)
    incoming: Incoming = field(default_factory=lambda: Incoming(1))
    joiner: wire.Joiner = field(default_factory=wire.Joiner)
    handed_on: int = 0
    """The number of its last message that was handed to the instance, with all its parts."""
    entering: dict[int, Entering] = field(default_factory=dict)
    """By the socket's number: the gateway repeats a call that takes long."""
    refused: OrderedDict[int, Entering] = field(default_factory=OrderedDict)
    """The last ones that were refused, at most `REFUSED`: the gateway may not have heard of it."""
    progress: trio.Event = field(default_factory=trio.Event)
    """Set when something was handed to the instance."""
    fetching: bool = False
    """Whether what is missing was asked for."""
    behind_since: float | None = None
    """Since when it has not got all that was sent."""
    sent_then: int = 0
    lagging: bool = False
