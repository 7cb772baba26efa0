"""The instances that an instance node hosts: it passes on what players say, in its order. Pure.

Bounds: `ROOMS` instances; of each, what the server has not handled (`Outbox`). Data that does not
fit is kept by its key, or refused to its sender.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from reileta.protocol.node_link import (
    Change,
    End,
    Enter,
    Fan,
    FromServer,
    Hold,
    Host,
    Leave,
    Ping,
    Pong,
    Refuse,
    Say,
    Seat,
    Welcome,
    Window,
    size_of,
)
from reileta.rules.nodes.flow import Outbox

ROOMS: Final = 1000


class Room:
    """One instance: its players by id, and what goes to the server."""

    def __init__(self, host: Host) -> None:
        self.id = host.instance
        self.epoch = host.epoch
        self.players: dict[str, Seat] = {seat.player: seat for seat in host.players}
        self.heard = 0
        self.outbox: Outbox[object] = Outbox()

    def hear(self, item: Enter | Leave | Change | Say) -> None:
        """Takes an item of the server; one that came before is left out."""
        if item.epoch != self.epoch or item.number <= self.heard:
            return
        self.heard = item.number
        match item:
            case Enter(seat=seat) | Change(seat=seat):
                self.players[seat.player] = seat
            case Leave(player=player):
                self.players.pop(player, None)
            case Say():
                self._say(item)

    def _say(self, said: Say) -> None:
        key = None if said.key is None or said.to is not None else (said.player, said.key)
        size = size_of(said)
        if self.outbox.open and self.outbox.fits(size):
            self._put(said)
        elif self.outbox.offers(size, key) and key is not None:
            replaced = self.outbox.hold(key, said, size)
            if isinstance(replaced, Say):
                self._put(replaced, "dropped")
        else:
            self._put(said, "refused")

    def _put(self, said: Say, kind: str = "data") -> None:
        number = self.outbox.next_number()
        if kind == "data":
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
                said.number,
            )
        else:
            fan = Fan(
                self.id,
                self.epoch,
                number,
                "dropped" if kind == "dropped" else "refused",
                said.player,
                of=said.number,
            )
        self.outbox.put(fan, size_of(fan))

    def handled(self, window: Window) -> None:
        """The server has handled items."""
        if window.epoch == self.epoch and self.outbox.acknowledge(window.number):
            for said, _ in self.outbox.released():
                if isinstance(said, Say) and said.player in self.players:
                    self._put(said)


class Rooms:
    """All instances of a node."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}

    def holds(self) -> list[Hold]:
        """What a new link can go on with."""
        return [Hold(room.id, room.epoch, room.heard) for room in self.rooms.values()]

    def welcome(self, welcome: Welcome) -> list[object]:
        """A new link: drops what does not go on; returns what is to be sent again."""
        goes_on = {hold.instance: hold for hold in welcome.goes_on}
        self.rooms = {id_: room for id_, room in self.rooms.items() if id_ in goes_on}
        out: list[object] = []
        for id_, room in tuple(self.rooms.items()):
            hold = goes_on[id_]
            if hold.epoch == room.epoch and room.outbox.resume(hold.heard):
                out += room.outbox.take()
            else:
                del self.rooms[id_]
                out.append(Refuse(id_, hold.epoch, "is not known any more"))
        return out

    def hear(self, items: Iterable[FromServer]) -> list[object]:
        """Takes the server's items; returns what is to be sent."""
        out: list[object] = []
        spoken: dict[str, Room] = {}
        for item in items:
            match item:
                case Host():
                    if len(self.rooms) >= ROOMS and item.instance not in self.rooms:
                        out.append(Refuse(item.instance, item.epoch, "has no room"))
                    else:
                        self.rooms[item.instance] = Room(item)
                case End(instance, epoch):
                    room = self.rooms.get(instance)
                    if room is not None and room.epoch <= epoch:
                        del self.rooms[instance]
                        spoken.pop(instance, None)
                case Enter() | Leave() | Change() | Say():
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
                case _:
                    pass
        for room in spoken.values():
            out += room.outbox.take()
            out.append(Window(room.id, room.epoch, room.heard))
        return out
