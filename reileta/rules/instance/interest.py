"""Interest: how many values of far players a socket gets.

A socket can ask for at most so many values per key and second of all players, or of those who are
far. Values that have to wait are conflated: the newest one of each key (player and name) is sent at
the next turn. Nothing else waits.

Those with the same rate share a **lane**, so values that are due are gathered once for all of
them. A crowd is split into **shifts**, with lanes of their own whose turns are apart, so that not
all are written to in a row. A lane takes its turns by **slices** of the players: a slice's values
are sent together, and the slices of a lane at different times, so that no socket gets everything at
once.

Values are numbered in the order in which they came. A receiver has all values of a player up to
`since` of the player's lane and slice. There are exceptions, for players who have just become near
or far, and they last until the lane's next turn: `ahead` (it has more), `owed` (it lacks some).
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, TypeGuard

from reileta.rules.instance.position import Position, position_in

SLICES: Final = 8
STEP_S: Final = 0.05
"""Seconds between two turns of a lane at least: a fast lane takes several slices together, so that
they share a write. A receiver's turns are due at multiples of it, so that values of near and of far
players share one, too.
"""
SHIFT: Final = 96
"""A shift has so many receivers before another one begins."""
SHIFTS: Final = 4
"""So many shifts at most: in larger crowds, they are larger."""
LONG_S: Final = 10 * STEP_S
"""A period from this on is rounded up to a multiple of that."""
LATE_SHARE: Final = 0.25
"""A turn that is late by up to this share of the lane's period does not delay the next one."""
TOGETHER_S: Final = 0.001
"""Turns that are due within so many seconds are taken together."""
LEFT: Final = ""
"""In place of a value's name: the player has left, and its values are gone."""
LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Values that wait in an instance. When there are more, all of them are sent early."""
OWED_LIMIT_BYTES: Final = 256 * 1024
"""Values that wait for one receiver alone. When there are more, they are sent early."""
NEARNESS_S: Final = 0.5
"""Seconds between two looks at who is within a receiver's radius."""
LOOKS: Final = 400_000
"""So many distances are computed in a second at most; crowds are looked at less often."""
KEEPS_NEAR: Final = 1.1
"""A near player is far beyond so many times the radius, so that it does not change all the time."""

_NUMBER: Final = attrgetter("number")

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Interest:
    """What a socket asks for.

    Attributes:
        rate: values per key and second of each player (with `near`: of near players); None: all.
        near: the ids of near players, or the radius within which players are near; None: nobody is
            far.
        far_rate: values per key and second of each far player; None without `near`.
    """

    rate: float | None = None
    near: frozenset[str] | float | None = None
    far_rate: float | None = None

    @property
    def limits(self) -> bool:
        """Whether anything is limited."""
        return self.rate is not None or self.far_rate is not None


@dataclass(slots=True, eq=False)  # not frozen: that would cost more than all else about a value
class Value:
    """A value that waits: `key` is (instance, player, name).

    `number`: that of its frame; for a value for one receiver alone, between those of two frames.
    """

    number: float
    key: Key
    frame: bytes
    pace: Any = None

    @property
    def player(self) -> str:
        return self.key[1]


class Lane:
    """A rate, with those who asked for it: for their near players, or for the others."""

    __slots__ = ("due", "far", "near", "period_s", "since")

    def __init__(self, period_s: float, last: int, now: float, phase_s: float = 0.0) -> None:
        """`last`: the number of the last frame. `phase_s`: how far from the multiples of `STEP_S`
        its turns are."""
        if period_s >= LONG_S:
            period_s = math.ceil(period_s / STEP_S - 1e-9) * STEP_S
        self.period_s = period_s
        self.since = [last] * SLICES
        steps = max(1, min(SLICES, int(period_s / STEP_S)))
        grid_s = min(STEP_S, period_s)
        ends_at = now - (now - phase_s) % grid_s + period_s
        self.due = [
            ends_at - int(period_s * (number % steps) / steps / grid_s) * grid_s
            for number in range(SLICES)
        ]
        self.near: dict[Receiver, None] = {}
        self.far: dict[Receiver, None] = {}

    def take(self, number: int, last: int, now: float) -> None:
        """A slice has its turn, with all values up to `last`. It keeps its place in the period."""
        self.since[number] = last
        late_s = now - self.due[number]
        if late_s >= -TOGETHER_S:  # else the turn is an early one, besides the regular ones
            periods = max(1, math.ceil(late_s / self.period_s + 1 - LATE_SHARE))
            self.due[number] += periods * self.period_s


@dataclass(slots=True, eq=False)
class Receiver:
    """A socket that asked for something.

    Attributes:
        player: the socket's own player, whose values it never gets.
        near: who is near now.
        radius: None: `near` is the client's list.
        position: the number of the last frame that was written to it, or waits.
        floor: it has all values up to that number.
        held: whether what is written to it has to wait at the moment. Until that is over, nobody
            becomes near or far.
    """

    player: str
    near: frozenset[str]
    radius: float | None
    near_lane: Lane | None
    far_lane: Lane
    shift: int
    floor: float
    position: float
    ahead: dict[str, float] = field(default_factory=dict)
    owed: dict[Key, Value] = field(default_factory=dict)
    owed_bytes: int = 0
    held: bool = False

    def lane_of(self, player: str) -> Lane | None:
        """The lane of a player's values; None: they are not limited."""
        return self.near_lane if player in self.near else self.far_lane

    def owe(self, value: Value) -> None:
        """The value waits for this receiver's next turn, unless a newer one does."""
        before = self.drop(value.key)
        if before is not None and before.number > value.number:
            value = before
        self.owed[value.key] = value
        self.owed_bytes += len(value.frame)

    def drop(self, key: Key) -> Value | None:
        """A value does not wait any more."""
        value = self.owed.pop(key, None)
        if value is not None:
            self.owed_bytes -= len(value.frame)
        return value


class Index:
    """A batch's frames: which go to everyone, and which are values of whom."""

    __slots__ = ("always", "by_player", "first", "frames", "players")

    def __init__(self, first: int) -> None:
        self.first = first
        """The number of its first frame."""
        self.frames: list[bytes] = []
        self.players: list[str | None] = []
        """Whose value each frame is; None: it goes to everyone."""
        self.always: list[int] = []
        self.by_player: dict[str, list[int]] = {}

    def chosen(self, receiver: Receiver, start: int, end: int) -> list[int]:
        """Which of the frames from `start` to before `end` go to the receiver at once."""
        by_player = self.by_player
        numbers = self.always
        if receiver.near_lane is None:
            near = receiver.near & by_player.keys()
            if near:
                numbers = numbers.copy()
                for player in near:
                    numbers += by_player[player]
                numbers.sort()
        if not numbers or (numbers[0] >= start and numbers[-1] < end):
            return numbers
        return [one for one in numbers if start <= one < end]


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The runs of numbers in rising order: (first, behind the last)."""
    first = behind = -1
    for number in numbers:
        if number == behind:
            behind += 1
            continue
        if behind > first:
            yield first, behind
        first, behind = number, number + 1
    if behind > first:
        yield first, behind


class Turn:
    """The values of one turn of a lane, and the part of each receiver."""

    __slots__ = ("_all", "_by_key", "_by_player", "_players", "parts", "values")

    def __init__(self, values: list[Value]) -> None:
        self.values = values
        self.parts: list[tuple[Receiver, list[Value], Sequence[int]]] = []
        """Receiver, values of its own, and the places of those that it gets among `values`."""
        self._all = list(range(len(values)))
        self._by_player: dict[str, list[int]] = {}
        self._by_key: dict[Key, int] = {}
        for place, value in enumerate(values):
            self._by_key[value.key] = place
            player = value.key[1]
            if player in self._by_player:
                self._by_player[player].append(place)
            else:
                self._by_player[player] = [place]
        self._players = frozenset(self._by_player)

    def share(self, receiver: Receiver, *, near: bool, owed: list[Value], since: float) -> None:
        """Works out the part of one receiver; `owed` are values of its own that are due."""
        by_player = self._by_player
        places: list[int]
        if near:
            places = []
            for player in receiver.near & self._players:
                places += by_player[player]
            places.sort()
        else:
            others = [*by_player.get(receiver.player, ())]
            for player in receiver.near & self._players:
                others += by_player[player]
            places = self._all
            if others:
                places = places.copy()
                for place in sorted(others, reverse=True):
                    del places[place]
        if receiver.floor > since or receiver.ahead:
            places = [place for place in places if self._lacks(receiver, self.values[place])]
        own = []
        for value in owed:
            found = self._by_key.get(value.key)
            if found is None or self.values[found].number <= value.number:
                own.append(value)
                places = [one for one in places if one != found]
        if not places and not own:
            return
        if receiver.held:
            for value in (*own, *(self.values[place] for place in places)):
                receiver.owe(value)
        else:
            self.parts.append((receiver, own, places))

    @staticmethod
    def _lacks(receiver: Receiver, value: Value) -> bool:
        had = max(receiver.floor, receiver.ahead.get(value.player, 0))
        return value.number > had


@dataclass(slots=True)
class _Sender:
    slice: int
    place: bytes | None = None
    """The frame with its newest position."""
    at: Position | None = None


class Interests:
    """The interest of the sockets of one process in one instance."""

    def __init__(self, instance: str, position_key: str | None = None) -> None:
        self.instance = instance
        self.position_key = position_key
        self.last = 0
        """The number of the last frame."""
        self.receivers: dict[Receiver, None] = {}
        self.size = 0
        """Bytes of values that wait."""
        self._values: list[dict[Key, Value]] = [{} for _ in range(SLICES)]
        self._newest = [0] * SLICES
        self._lanes: dict[tuple[float, int], Lane] = {}
        """By period and shift."""
        self._shifts = [0] * SHIFTS
        """How many receivers each shift has."""
        self._phase_s = zlib.crc32(instance.encode()) / 2**32 * STEP_S
        """Other instances have their turns at other times."""
        self._at_once: dict[str, dict[Receiver, None]] = {}
        """The receivers that get a player's values at once, by player."""
        self._senders: dict[str, _Sender] = {}
        self._slices = itertools.cycle(range(SLICES))
        self._looked_at = -math.inf
        self._gone = set[str]()
        """Who has left while receivers were held: these may get older values yet."""
        self._moved = False
        """Whether somebody may have come nearer, or gone away, since the last look."""

    # Frames ------------------------------------------------------------------------------------

    def take(
        self,
        buffer: bytes,
        ends: Sequence[int],
        keys: Sequence[Hashable | None] | None,
        paces: Sequence[Any] | None = None,
    ) -> Index:
        """Takes the frames of a batch that goes to everyone inside."""
        index = Index(self.last + 1)
        frames, players = index.frames, index.players
        always, by_player, start = index.always, index.by_player, 0
        for place, end in enumerate(ends):
            frame, key = buffer[start:end], None if keys is None else keys[place]
            frames.append(frame)
            self.last += 1
            if not self.is_value(key):
                always.append(place)
                players.append(None)
                self.note_end(key)
            else:
                player = key[1]
                players.append(player)
                if player in by_player:
                    by_player[player].append(place)
                else:
                    by_player[player] = [place]
                self._keep(Value(self.last, key, frame, None if paces is None else paces[place]))
            start = end
        return index

    def _is_of(self, key: Hashable) -> TypeGuard[Key]:
        return isinstance(key, tuple) and len(key) == 3 and key[0] == self.instance

    def is_value(self, key: Hashable) -> TypeGuard[Key]:
        """Whether a frame's key is that of a player's value in this instance."""
        return self._is_of(key) and key[2] != LEFT

    def _sender(self, player: str) -> _Sender:
        sender = self._senders.get(player)
        if sender is None:
            sender = self._senders[player] = _Sender(next(self._slices))
        return sender

    def _keep(self, value: Value) -> None:
        sender = self._sender(value.key[1])
        values = self._values[sender.slice]
        before = values.pop(value.key, None)
        self.size += len(value.frame) - (0 if before is None else len(before.frame))
        values[value.key] = value
        self._newest[sender.slice] = self.last
        if value.key[2] == self.position_key:
            self.note_place(value.player, value.frame)

    def note_place(self, player: str, frame: bytes) -> None:
        """A frame has a player's newest position."""
        self._sender(player).place = frame
        self._moved = True

    def note_position(self, player: str, at: Position | None) -> None:
        """A player's newest position; None: it publishes none."""
        sender = self._sender(player)
        sender.place, sender.at = None, at
        self._moved = True

    def _mark(self, slice_: int) -> None:
        """A value of the slice waits, although none came just now."""
        self.last += 1
        self._newest[slice_] = self.last

    def note_end(self, key: Hashable) -> None:
        """Notes that a player has left, if a frame with this key says so; it is not a value's."""
        if self._is_of(key):
            self._left(key[1])

    def _left(self, player: str) -> None:
        if any(receiver.held for receiver in self.receivers):
            self._gone.add(player)
        sender = self._senders.pop(player, None)
        if sender is not None:
            values = self._values[sender.slice]
            for key in [one for one in values if one[1] == player]:
                self.size -= len(values.pop(key).frame)
        for receiver in self.receivers:
            receiver.ahead.pop(player, None)
            for key in [one for one in receiver.owed if one[1] == player]:
                receiver.drop(key)

    def take_private(self, receiver: Receiver, value: Value) -> bool:
        """Takes a value for one receiver alone; returns whether it goes out at once."""
        if value.player in self._gone or receiver.lane_of(value.player) is None:
            return True
        value = Value(receiver.position + 0.5, value.key, value.frame, value.pace)
        sender = self._sender(value.player)
        receiver.owe(value)
        self._mark(sender.slice)
        return False

    def hold(self, receiver: Receiver) -> None:
        """What is written to the receiver has to wait from now on; so do values for it."""
        receiver.held = True

    def release(self, receiver: Receiver) -> list[Value]:
        """Nothing has to wait any more. Returns the values that go out at once."""
        receiver.held = False
        if not any(one.held for one in self.receivers):
            self._gone.clear()
        self._look_soon(receiver)
        early = []
        for value in tuple(receiver.owed.values()):
            if receiver.lane_of(value.player) is None:
                receiver.drop(value.key)
                early.append(value)
            else:
                self._mark(self._senders[value.player].slice)
        return sorted(early, key=_NUMBER)

    def begin_anew(self, receiver: Receiver, floor: float) -> list[Value]:
        """The receiver gets a snapshot with all values up to the number `floor`. Returns what is to
        be sent before it."""
        early = [value for value in receiver.owed.values() if value.number < floor + 1]
        for value in early:
            receiver.drop(value.key)
        receiver.ahead.clear()
        receiver.floor = floor
        return early

    def at_once(self, index: Index) -> dict[Receiver, list[int]]:
        """The places of a batch's frames that go out at once, for each receiver that gets some."""
        at_once = self._at_once
        found: dict[Receiver, list[int]] = {}
        if index.always:
            found = {receiver: [] for receiver in self.receivers}
        everyone = list(found.values())
        for place, player in enumerate(index.players):
            if player is None:
                for places in everyone:
                    places.append(place)
            elif player in at_once:
                for receiver in at_once[player]:
                    if receiver in found:
                        found[receiver].append(place)
                    else:
                        found[receiver] = [place]
        return found

    # Receivers ---------------------------------------------------------------------------------

    def add(self, player: str, interest: Interest, now: float) -> Receiver:
        """A socket of a player asks for something; it has got everything until now."""
        shift = self._free_shift()
        self._shifts[shift] += 1
        near_lane, far_lane = self._lanes_for(interest, shift, now)
        near, radius = _near_of(interest, player)
        receiver = Receiver(player, near, radius, near_lane, far_lane, shift, self.last, self.last)
        self.receivers[receiver] = None
        self._enlist(receiver)
        self._look_soon(receiver)
        return receiver

    def change(self, receiver: Receiver, interest: Interest, now: float) -> list[Value]:
        """A socket asks for something else. Returns the values that it gets at once."""
        near, receiver.radius = _near_of(interest, receiver.player)
        if receiver.radius is not None:
            near = receiver.near
            self._look_soon(receiver)
        before = receiver.near_lane, receiver.far_lane
        lanes = self._lanes_for(interest, receiver.shift, now)
        if lanes == before:
            return self._move_near(receiver, near)
        players = {one: receiver.lane_of(one) for one in self._senders}
        self._delist(receiver)
        receiver.near, (receiver.near_lane, receiver.far_lane) = near, lanes
        self._enlist(receiver)
        early = self._move(receiver, players)
        self._forget_lanes()
        return early

    def remove(self, receiver: Receiver) -> list[Value]:
        """A socket asks for nothing any more. Returns the values that it lacks."""
        players = {one: receiver.lane_of(one) for one in self._senders}
        self._delist(receiver)
        self._shifts[receiver.shift] -= 1
        del self.receivers[receiver]
        early = [
            value
            for player, lane in players.items()
            for value in self._lacking(receiver, player, lane)
        ]
        receiver.owed.clear()
        self._forget_lanes()
        return sorted(early, key=_NUMBER)

    def _free_shift(self) -> int:
        """The first shift that is not full, or the smallest."""
        for shift, count in enumerate(self._shifts):
            if count < SHIFT:
                return shift
        return self._shifts.index(min(self._shifts))

    def _lanes_for(self, interest: Interest, shift: int, now: float) -> tuple[Lane | None, Lane]:
        if interest.near is None:
            assert interest.rate is not None
            return None, self._lane(interest.rate, shift, now)
        assert interest.far_rate is not None
        near = None if interest.rate is None else self._lane(interest.rate, shift, now)
        return near, self._lane(interest.far_rate, shift, now)

    def _lane(self, rate: float, shift: int, now: float) -> Lane:
        key = 1 / rate, shift
        lane = self._lanes.get(key)
        if lane is None:
            phase_s = self._phase_s + shift / SHIFTS * STEP_S
            lane = self._lanes[key] = Lane(1 / rate, self.last, now, phase_s)
        return lane

    def _enlist(self, receiver: Receiver) -> None:
        if receiver.near_lane is not None:
            receiver.near_lane.near[receiver] = None
        else:
            self._note_near(receiver, receiver.near)
        receiver.far_lane.far[receiver] = None

    def _delist(self, receiver: Receiver) -> None:
        if receiver.near_lane is not None:
            del receiver.near_lane.near[receiver]
        else:
            self._note_near(receiver, frozenset(), receiver.near)
        del receiver.far_lane.far[receiver]

    def _note_near(
        self, receiver: Receiver, come: frozenset[str], gone: frozenset[str] = frozenset()
    ) -> None:
        """Notes whose values a receiver gets at once from here on."""
        for player in come:
            self._at_once.setdefault(player, {})[receiver] = None
        for player in gone:
            receivers = self._at_once[player]
            del receivers[receiver]
            if not receivers:
                del self._at_once[player]

    def _forget_lanes(self) -> None:
        for key, lane in list(self._lanes.items()):
            if not lane.near and not lane.far:
                del self._lanes[key]

    # Who is near -------------------------------------------------------------------------------

    def _move_near(self, receiver: Receiver, near: frozenset[str]) -> list[Value]:
        changed = receiver.near ^ near
        before = {one: receiver.lane_of(one) for one in changed if one in self._senders}
        if receiver.near_lane is None:
            self._note_near(receiver, near - receiver.near, receiver.near - near)
        receiver.near = near
        return self._move(receiver, before)

    def _move(self, receiver: Receiver, before: Mapping[str, Lane | None]) -> list[Value]:
        """Players are in other lanes than before. Returns the values that go out at once."""
        early: list[Value] = []
        for player, lane in before.items():
            new = receiver.lane_of(player)
            if new is lane or player == receiver.player:
                continue
            had = self._had(receiver, player, lane)
            lacking = self._lacking(receiver, player, lane)
            receiver.ahead.pop(player, None)
            for value in lacking:
                receiver.drop(value.key)
            if new is None:
                early += lacking
                continue
            slice_ = self._senders[player].slice
            since = new.since[slice_]
            for value in lacking:
                newest = self._values[slice_].get(value.key)
                if newest is not value or value.number <= max(since, had):
                    receiver.owe(value)
                    self._mark(slice_)
            if had > since:
                receiver.ahead[player] = had
        return sorted(early, key=_NUMBER)

    def _had(self, receiver: Receiver, player: str, lane: Lane | None) -> float:
        if lane is None:
            return self.last
        since = lane.since[self._senders[player].slice]
        return max(since, receiver.floor, receiver.ahead.get(player, 0))

    def _lacking(self, receiver: Receiver, player: str, lane: Lane | None) -> list[Value]:
        """The values of a player that the receiver lacks, in their order."""
        if lane is None or player == receiver.player:
            return []
        had = self._had(receiver, player, lane)
        found = {one.key: one for one in receiver.owed.values() if one.player == player}
        for value in reversed(self._values[self._senders[player].slice].values()):
            if value.number <= had:
                break
            if value.key[1] == player:
                other = found.get(value.key)
                if other is None or other.number < value.number:
                    found[value.key] = value
        return sorted(found.values(), key=_NUMBER)

    def place(self, player: str, at: Position) -> None:
        """A player's position, from before this knew any; a newer one is kept."""
        sender = self._sender(player)
        if sender.place is None and sender.at is None:
            sender.at = at
            self._moved = True

    def _look_soon(self, receiver: Receiver) -> None:
        if receiver.radius is not None:
            self._looked_at, self._moved = -math.inf, True

    def look(self, now: float) -> list[tuple[Receiver, list[Value]]]:
        """Looks who is near whom, if it is time. Returns what goes out at once."""
        looking = [one for one in self.receivers if one.radius is not None and not one.held]
        pause_s = max(NEARNESS_S, len(looking) * len(self._senders) / LOOKS)
        if not self._moved or not looking or now < self._looked_at + pause_s:
            return []
        self._looked_at, self._moved = now, False
        places: list[tuple[str, Position]] = []
        for player, sender in self._senders.items():
            if sender.place is not None:
                sender.at, sender.place = position_in(sender.place), None
            if sender.at is not None:
                places.append((player, sender.at))
        early = []
        for receiver in looking:
            values = self._move_near(receiver, self._around(receiver, places))
            if values:
                early.append((receiver, values))
        return early

    def _around(self, receiver: Receiver, places: list[tuple[str, Position]]) -> frozenset[str]:
        own = self._senders.get(receiver.player)
        if own is None or own.at is None or receiver.radius is None:
            return frozenset()
        here, radius, near = own.at, receiver.radius, receiver.near
        found = [
            player
            for player, at in places
            if (away := math.dist(here, at)) <= radius
            or (away <= radius * KEEPS_NEAR and player in near)
        ]
        return frozenset(found) - {receiver.player}

    # Turns -------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `turns` is to be called; None: nothing waits."""
        if self.size > LIMIT_BYTES:
            return -math.inf
        newest = self._newest
        due = min(
            (
                lane.due[number]
                for lane in self._lanes.values()
                for number in range(SLICES)
                if newest[number] > lane.since[number]
            ),
            default=None,
        )
        if self._moved and any(one.radius is not None for one in self.receivers):
            looks_at = self._looked_at + NEARNESS_S
            return looks_at if due is None else min(due, looks_at)
        return due

    def turns(self, now: float) -> list[Turn]:
        """The values that are due."""
        full = self.size > LIMIT_BYTES
        soon = now + TOGETHER_S
        taken: list[Turn] = []
        for lane in self._lanes.values():
            due = [
                number
                for number in range(SLICES)
                if self._newest[number] > lane.since[number] and (full or lane.due[number] <= soon)
            ]
            if due:
                turn = self._turn(lane, due, now)
                if turn.parts:
                    taken.append(turn)
        for receiver in self.receivers:
            if receiver.owed_bytes > OWED_LIMIT_BYTES and not receiver.held:
                turn = Turn([])
                turn.parts.append((receiver, self._owed_early(receiver), ()))
                taken.append(turn)
        self._evict()
        return taken

    def _turn(self, lane: Lane, due: list[int], now: float) -> Turn:
        """The turn of these slices."""
        waiting: list[Value] = []
        floor: float = self.last
        for number in due:
            since = lane.since[number]
            for value in reversed(self._values[number].values()):
                if value.number <= since:
                    break
                waiting.append(value)
            floor = min(floor, since)
            lane.take(number, self.last, now)
        waiting.sort(key=_NUMBER)
        turn = Turn(waiting)
        for near, receivers in ((True, lane.near), (False, lane.far)):
            for receiver in receivers:
                owed: list[Value] = []
                if receiver.owed and not receiver.held:
                    owed = self._due_of(receiver, due, near)
                turn.share(receiver, near=near, owed=owed, since=floor)
                if receiver.ahead:
                    for player in [
                        one
                        for one in receiver.ahead
                        if (one in receiver.near) == near and self._senders[one].slice in due
                    ]:
                        del receiver.ahead[player]
        return turn

    def _due_of(self, receiver: Receiver, slices: list[int], near: bool) -> list[Value]:
        due = [
            value
            for value in receiver.owed.values()
            if (value.player in receiver.near) == near
            and self._senders[value.player].slice in slices
        ]
        for value in due:
            receiver.drop(value.key)
        return sorted(due, key=_NUMBER)

    def _owed_early(self, receiver: Receiver) -> list[Value]:
        """All that waits for this receiver alone, and all other values of the same players that it
        lacks: it gets none of them at their lanes' turns, so none that is older."""
        early: list[Value] = []
        for player in {value.player for value in receiver.owed.values()}:
            early += self._lacking(receiver, player, receiver.lane_of(player))
            receiver.ahead[player] = self.last
        receiver.owed.clear()
        receiver.owed_bytes = 0
        return sorted(early, key=_NUMBER)

    def _evict(self) -> None:
        """Forgets values that all lanes have sent."""
        for number, values in enumerate(self._values):
            had = min((lane.since[number] for lane in self._lanes.values()), default=self.last)
            while values:
                key = next(iter(values))
                if values[key].number > had:
                    break
                self.size -= len(values.pop(key).frame)


def _near_of(interest: Interest, player: str) -> tuple[frozenset[str], float | None]:
    """Who is near, but for the player itself; and the radius."""
    if isinstance(interest.near, frozenset):
        return interest.near - {player}, None
    return frozenset(), interest.near
