"""The sockets of this node in an instance at another node, and what the host writes to them.

Each is written to as the host itself would. A socket whose snapshot comes in a parcel waits for it,
and all later frames wait behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from actors.cluster import wire
from actors.delivery.batch import Batch, Piece
from actors.delivery.interest import InterestGroup, InterestGroups, ThinnedSink
from actors.delivery.sink import Sink
from actors.delivery.writing import write_whole
from actors.membership import SocketLost
from reileta.rules.instance.position import position_in_value

HELD_S: Final = 3.0
"""A socket that waits for a parcel for so long gets a fresh snapshot."""
PARCEL_KEPT_S: Final = 10.0


class Speaks(Protocol):
    """Where the data of a socket goes, and the word of its end (`RemoteInstance`)."""

    def say(self, item: wire.Data) -> None:
        """Sends a player's data; never waits. Raises MailboxFull."""
        ...

    def signal(self, message: SocketLost) -> bool:
        """As `Ref.signal`."""
        ...

    def holds(self, number: int) -> bool:
        """Whether frames for the socket of that number wait for a parcel."""
        ...


class RemoteSeat:
    """A socket's seat in an instance at another node: the `InstanceHandle` of its player."""

    __slots__ = ("_connection", "_remote", "_session", "player")

    def __init__(self, remote: Speaks, connection: int, player: str, session: str) -> None:
        self.player = player
        self._remote = remote
        self._connection = connection
        self._session = session

    @property
    def held(self) -> bool:
        """As `InstanceHandle.held`."""
        return self._remote.holds(self._connection)

    def send_data(
        self,
        sink: Sink,
        data: bytes,
        key: str | None,
        at: float | None,
        to: tuple[str, ...] | None,
        state: bytes | None,
    ) -> None:
        """As `InstanceHandle.send_data`."""
        self._remote.say(wire.Data(self._connection, data, key, at, to, state))

    def lose(self, sink: Sink) -> None:
        """As `InstanceHandle.lose`."""
        self._remote.signal(SocketLost(self._session, sink))


@dataclass(eq=False, slots=True)
class Connection:
    """A socket of this node in the instance.

    `held`: what waits for a parcel, and all after it; since `held_since`.
    """

    number: int
    sink: Sink
    session: str = ""
    receives: bool = False
    observes: bool = False
    held: list[list[tuple[Batch | int, int, int]]] = field(default_factory=list)
    held_since: float = 0.0
    welcomed: bool = False
    """Whether the host has let it in, and has answered that to the client."""


class RemoteSockets:
    """The sockets by number, and the parcels that they wait for or that came too early."""

    def __init__(self, instance: str, interests: InterestGroups) -> None:
        self._instance = instance
        self._interests = interests.by_instance
        self._metrics = interests.metrics
        self.by_number: dict[int, Connection] = {}
        self.by_sink: dict[Sink, Connection] = {}
        self._parcels: dict[int, tuple[float, Batch]] = {}

    @property
    def _group(self) -> InterestGroup | None:
        """The sockets of this node that asked for fewer values of the instance."""
        return self._interests.get(self._instance)

    def connect(self, number: int, sink: Sink, session: str) -> Connection:
        """A socket of a session; "": of an observer, or of one that only asks."""
        connection = Connection(number, sink, session)
        self.by_number[number] = connection
        self.by_sink[sink] = connection
        return connection

    def forget(self, connection: Connection, *, stays: bool = False) -> None:
        """The socket has no seat here any more; if it `stays` inside, it has one at this node."""
        if self._group is not None and not stays:
            self._group.forget(connection.sink)
        self.by_number.pop(connection.number, None)
        self.by_sink.pop(connection.sink, None)
        seat = connection.sink.seats.get(self._instance)
        if isinstance(seat, RemoteSeat):
            del connection.sink.seats[self._instance]

    def said(self, item: wire.Data) -> None:
        """Notes where a player of this node says that it is: the host sends that to others only."""
        group = self._group
        if group is None or item.key is None or item.key != group.rules.position_key:
            return
        connection = self.by_number.get(item.connection)
        seat = None if connection is None else connection.sink.seats.get(self._instance)
        if seat is not None:
            group.rules.note_position(seat.player, position_in_value(item.data))
            group.wake()

    def of(self, session: str) -> list[Connection]:
        """The session's sockets."""
        return [one for one in self.by_number.values() if one.session == session]

    @property
    def waiting(self) -> bool:
        """Whether a socket waits for a parcel."""
        return any(one.held for one in self.by_number.values())

    def begin(self) -> None:
        """The host begins anew: nobody receives, and nothing waits."""
        for connection in self.by_number.values():
            connection.receives = connection.welcomed = False
            connection.held.clear()
            self._release(connection)

    def forget_parcels(self) -> None:
        """Parcels of another host are of no use."""
        self._parcels.clear()

    def tick(self, now: float) -> bool:
        """Drops old parcels. Returns whether a socket has waited for one for too long."""
        for number in [one for one, (at, _) in self._parcels.items() if at < now - PARCEL_KEPT_S]:
            del self._parcels[number]
        return any(one.held and one.held_since < now - HELD_S for one in self.by_number.values())

    def apply(self, fan: wire.Fan, mine: int) -> None:
        """Writes the frames of one drain, for those who receive. `mine`: this node's index among
        the gateways; -1: it is not one of them."""
        for gateway, number in fan.came:
            if gateway == mine and (connection := self.by_number.get(number)) is not None:
                connection.receives = connection.welcomed = True
        edits = {number: spans for gateway, number, spans in fan.edits if gateway == mine}
        group = self._group
        if fan.buffers and (edits or fan.whole or group is not None):
            self._write(fan, edits)
        for gateway, number in fan.gone:
            if gateway == mine and (connection := self.by_number.get(number)) is not None:
                connection.receives = False
                if not connection.observes:
                    self.forget(connection)

    def _write(self, fan: wire.Fan, edits: dict[int, list[wire.Span]]) -> None:
        buffers: list[Batch | int] = [
            buffer.parcel or _batch(self._instance, buffer, fan.names) for buffer in fan.buffers
        ]
        first = buffers[0]
        whole = first if fan.whole and isinstance(first, Batch) else None
        plain: list[Sink] = []
        thinned: list[ThinnedSink] = []
        group = self._group
        if group is not None:
            self._take(group, fan, buffers)
        for connection in tuple(self.by_number.values()):
            spans = edits.get(connection.number)
            if spans is None:
                if not connection.receives or whole is None:
                    continue
                if not connection.held:
                    target = self._target(connection)
                    if isinstance(target, ThinnedSink):
                        thinned.append(target)
                    else:
                        plain.append(target)
                    continue
                spans = [(0, 0, len(whole))]
            if spans:
                self._write_to(
                    connection, [(buffers[one], start, end) for one, start, end in spans]
                )
        if whole is not None:
            write_whole(plain, whole, self._metrics)
            if group is not None:
                group.write_whole(thinned, whole)

    def _write_to(self, connection: Connection, pieces: list[tuple[Batch | int, int, int]]) -> None:
        if not connection.held:
            ready = self._resolved(pieces)
            if ready is not None:
                self._target(connection).write(ready)
                return
            connection.held_since = trio.current_time()
            group = self._group
            if group is not None:
                group.hold(connection.sink)
        connection.held.append(pieces)

    @staticmethod
    def _take(group: InterestGroup, fan: wire.Fan, buffers: list[Batch | int]) -> None:
        """Hands over the buffers that more than one socket gets, at all gateways together. One
        that a single socket gets may be addressed to it, and concerns nobody else."""
        readers = Counter(one for _, _, spans in fan.edits for one in {span[0] for span in spans})
        for number, batch in enumerate(buffers):
            if not isinstance(batch, Batch) or batch.snapshot:
                continue
            if readers[number] > 1 or (fan.whole and number == 0):
                group.take(batch)
            else:
                group.note_places(batch)

    def _target(self, connection: Connection) -> Sink | ThinnedSink:
        group = self._group
        return connection.sink if group is None else group.target(connection.sink)

    def _release(self, connection: Connection) -> None:
        group = self._group
        if group is not None:
            group.release(connection.sink, trio.current_time())

    def _resolved(self, pieces: Iterable[tuple[Batch | int, int, int]]) -> list[Piece] | None:
        """The pieces with their parcels; None if one is not there."""
        ready: list[Piece] = []
        for batch, start, end in pieces:
            if isinstance(batch, int):
                kept = self._parcels.get(batch)
                if kept is None:
                    return None
                batch = kept[1]
            ready.append((batch, start, end))
        return ready

    def take_parcels(self, parcels: Sequence[wire.Parcel]) -> None:
        """Parcels have come; what waited for them is written."""
        now = trio.current_time()
        for one in parcels:
            batch = Batch.of_buffer(one.data, one.ends, snapshot=True)
            self._parcels[one.number] = (now, batch)
        for connection in self.by_number.values():
            while connection.held:
                ready = self._resolved(connection.held[0])
                if ready is None:
                    break
                del connection.held[0]
                connection.held_since = now
                self._target(connection).write(ready)
            if not connection.held:
                self._release(connection)


def _batch(instance: str, buffer: wire.Buffer, names: list[str]) -> Batch:
    keys: list[tuple[str, ...] | None] | None = None
    if buffer.keys is not None:
        keys = [
            None if key is None else (instance, *(names[one] for one in key)) for key in buffer.keys
        ]
    return Batch.of_buffer(buffer.data, buffer.ends, keys, snapshot=buffer.snapshot)
