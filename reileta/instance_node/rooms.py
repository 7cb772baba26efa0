"""The instances that an instance node hosts: it passes on what players say, in its order. Pure.

What a player says comes from the server, or over its direct connection. All of it goes to the
server, which has the other players and keeps values; players with a direct connection get it from
here.

Bounds: `ROOMS` instances; of each, what the server has not handled (`Outbox`). Data that does not
fit is kept by its key, or refused to its sender.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from reileta.errors import NotAllowed, Overloaded, ReiletaError
from reileta.protocol.frames import DataFrames
from reileta.protocol.node_link import (
    Change,
    Direct,
    End,
    Enter,
    Fan,
    FromServer,
    Hold,
    Host,
    Key,
    Leave,
    Ping,
    Pong,
    Refuse,
    Return,
    Say,
    Seat,
    Welcome,
    Window,
    size_of,
)
from reileta.rules.nodes.flow import Outbox

ROOMS: Final = 1000

Answered = Callable[[ReiletaError | None, bool], None]
"""Is told how a direct message went: why it was refused, or None; and whether a newer value has
taken its place."""


class Listener(Protocol):
    """A player's direct connection."""

    def send(self, frame: bytes) -> None:
        """Sends a frame; never waits."""
        ...

    def end(self, reason: str) -> None:
        """The player gets data over the server again, or is not inside any more."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What a player has said. `of`: the number of its `Say`; 0: it came directly, and `answered` is
    told how it went."""

    player: str
    data: bytes
    key: str | None
    at: float | None
    to: list[str] | None
    of: int = 0
    answered: Answered | None = None


class Room:
    """One instance: its players by id, their direct connections, and what goes to the server."""

    def __init__(self, host: Host) -> None:
        self.id = host.instance
        self.epoch = host.epoch
        self.players: dict[str, Seat] = {seat.player: seat for seat in host.players}
        self.heard = 0
        self.outbox: Outbox[object] = Outbox()
        self.listeners: dict[str, Listener] = {}
        self._frames: dict[str, DataFrames] = {}

    # From the server ---------------------------------------------------------------------------

    def hear(self, item: Enter | Leave | Change | Say | Return) -> None:
        """Takes an item of the server; one that came before is left out."""
        if item.epoch != self.epoch or item.number <= self.heard:
            return
        self.heard = item.number
        match item:
            case Enter(seat=seat) | Change(seat=seat):
                self.players[seat.player] = seat
            case Leave(player=player, reason=reason):
                self.players.pop(player, None)
                self._frames.pop(player, None)
                self.disconnect(player, f"is not inside any more: {reason}")
            case Return(player=player):
                self.disconnect(player, "gets data over the server again")
            case Say():
                self.say(Said(item.player, item.data, item.key, item.at, item.to, item.number))

    def handled(self, window: Window) -> None:
        """The server has handled items."""
        if window.epoch == self.epoch and self.outbox.acknowledge(window.number):
            for said, _ in self.outbox.released():
                if isinstance(said, Said) and said.player in self.players:
                    self._pass_on(said)

    # Direct connections ------------------------------------------------------------------------

    def connect(self, player: str, listener: Listener) -> None:
        """A player's direct connection gets data from here on; it replaces an earlier one, with
        which something may be lost."""
        before = self.listeners.get(player)
        if before is not None:
            self.left(player, before)
            before.end("is replaced by a newer connection")
        self.listeners[player] = listener
        self._put(Direct(self.id, self.epoch, self.outbox.next_number(), player, on=True))

    def left(self, player: str, listener: Listener) -> None:
        """A direct connection has ended by itself."""
        if self.listeners.get(player) is listener:
            del self.listeners[player]
            self._put(Direct(self.id, self.epoch, self.outbox.next_number(), player, on=False))

    def disconnect(self, player: str, reason: str) -> None:
        """Ends a player's direct connection."""
        listener = self.listeners.pop(player, None)
        if listener is not None:
            listener.end(reason)

    def close(self, reason: str) -> None:
        """The node hosts the instance no more."""
        for player in tuple(self.listeners):
            self.disconnect(player, reason)

    def say_directly(self, said: Said) -> None:
        """A player says something over its direct connection. Raises NotAllowed."""
        if self.players[said.player].muted:
            raise NotAllowed.field("user", "is muted")
        self.say(said)

    # Passing on --------------------------------------------------------------------------------

    def say(self, said: Said) -> None:
        """Gives what a player says its place in the order, or refuses it."""
        key: Hashable | None = None
        if said.key is not None and said.to is None:
            key = (said.player, said.key)
        size = size_of(said)
        if self.outbox.open and self.outbox.fits(size):
            self._pass_on(said)
        elif self.outbox.offers(size, key) and key is not None:
            replaced = self.outbox.hold(key, said, size)
            if isinstance(replaced, Said):
                self._answer(replaced, dropped=True)
        else:
            self._answer(said, dropped=False)

    def _pass_on(self, said: Said) -> None:
        number = self.outbox.next_number()
        fan = Fan(
            self.id,
            self.epoch,
            number,
            "data",
            said.player,
            said.data,
            said.key,
            said.at,
            said.to,
            said.of,
        )
        self._put(fan)
        if self.listeners:
            self._tell_listeners(said)
        if said.answered is not None:
            said.answered(None, False)

    def _tell_listeners(self, said: Said) -> None:
        frames = self._frames.get(said.player)
        if frames is None:
            frames = self._frames[said.player] = DataFrames(self.id, said.player)
        if said.key is None and said.at is None:
            frame = frames.plain(said.data)
        else:
            frame = frames.keyed(said.key, said.at, said.data)
        players = self.listeners if said.to is None else set(said.to)
        for player in tuple(players):
            listener = self.listeners.get(player)
            if listener is not None and player != said.player:
                listener.send(frame)

    def _answer(self, said: Said, *, dropped: bool) -> None:
        """Tells the sender what has become of a message that is not passed on."""
        if said.answered is not None:
            said.answered(None if dropped else Overloaded(), dropped)
        else:
            number = self.outbox.next_number()
            kind: Final = "dropped" if dropped else "refused"
            self._put(Fan(self.id, self.epoch, number, kind, said.player, of=said.of))

    def _put(self, item: Fan | Direct) -> None:
        self.outbox.put(item, size_of(item))


class Rooms:
    """All instances of a node."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.node = self.server = self.public_key = ""
        """As the last welcome says."""

    def holds(self) -> list[Hold]:
        """What a new link can go on with."""
        return [Hold(room.id, room.epoch, room.heard) for room in self.rooms.values()]

    def welcome(self, welcome: Welcome) -> list[object]:
        """A new link: drops what does not go on; returns what is to be sent again."""
        self.node, self.server = welcome.node, welcome.server
        self.public_key = welcome.public_key
        goes_on = {hold.instance: hold for hold in welcome.goes_on}
        out: list[object] = []
        for id_, room in tuple(self.rooms.items()):
            hold = goes_on.get(id_)
            if hold is None:
                self._drop(room)
            elif hold.epoch == room.epoch and room.outbox.resume(hold.heard):
                out += room.outbox.take()
            else:
                self._drop(room)
                out.append(Refuse(id_, hold.epoch, "is not known any more"))
        return out

    def _drop(self, room: Room) -> None:
        if self.rooms.get(room.id) is room:
            del self.rooms[room.id]
        room.close("the instance begins anew")

    def hear(self, items: Iterable[FromServer]) -> list[object]:
        """Takes the server's items; returns what is to be sent."""
        out: list[object] = []
        spoken: dict[str, Room] = {}
        for item in items:
            match item:
                case Host():
                    before = self.rooms.get(item.instance)
                    if len(self.rooms) >= ROOMS and before is None:
                        out.append(Refuse(item.instance, item.epoch, "has no room"))
                    else:
                        if before is not None:
                            self._drop(before)
                        self.rooms[item.instance] = Room(item)
                case End(instance, epoch):
                    room = self.rooms.get(instance)
                    if room is not None and room.epoch <= epoch:
                        self._drop(room)
                        spoken.pop(instance, None)
                case Enter() | Leave() | Change() | Say() | Return():
                    room = self.rooms.get(item.instance)
                    if room is not None:
                        room.hear(item)
                        spoken[item.instance] = room
                case Window(instance):
                    room = self.rooms.get(instance)
                    if room is not None:
                        room.handled(item)
                        spoken.setdefault(instance, room)
                case Ping(number):
                    out.append(Pong(number))
                case Key(public_key):
                    self.public_key = public_key
                case _:
                    pass
        for room in spoken.values():
            out += room.outbox.take()
            out.append(Window(room.id, room.epoch, room.heard))
        return out

    def news(self) -> list[object]:
        """What direct connections have left to be sent."""
        return [item for room in self.rooms.values() for item in room.outbox.take()]
