"""The interest of sockets: fewer values of far players, for those who asked for that.

The rules are in `reileta/rules/instance/interest.py`. Each process does this for its own sockets,
wherever the instance is hosted: `Fanout` and `RemoteSockets` hand over each batch once (`take`),
and write to the sockets that asked for something by way of their `ThinnedSink`. Values that have to
wait are written by `run`. Sockets that asked for nothing are written to as always.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Final

import trio

from actors.delivery.batch import Batch, Piece
from actors.delivery.pacing import CoreLoad
from actors.delivery.sink import Sink
from actors.delivery.writing import Picked, write_picked, write_pieces
from reileta.observability.metrics import Metrics
from reileta.rules.instance.interest import Index, Interest, Interests, Receiver, Value, runs
from reileta.rules.instance.position import Position

TICK_S: Final = 0.02
"""Seconds between two looks whether values are due that came meanwhile."""
PAUSE_S: Final = 0.002
"""Seconds between two turns at least: values that are due soon after one another go together."""


class ThinnedSink:
    """A socket that asked for fewer values. Use it in place of the socket to write frames of the
    instance, in their order."""

    __slots__ = ("frames", "group", "receiver", "sink")

    def __init__(self, group: InterestGroup, sink: Sink, receiver: Receiver) -> None:
        self.group = group
        self.sink = sink
        self.receiver = receiver
        self.frames = 0
        """How many frames were written."""

    def write(self, pieces: Sequence[Piece]) -> None:
        """Writes what goes out at once; the rest waits."""
        chosen: list[Piece] = []
        for place, piece in enumerate(pieces):
            batch, start, end = piece
            index = batch.index
            if isinstance(index, Index):
                ends = batch.ends
                first, behind = bisect_right(ends, start), bisect_right(ends, end)
                self.receiver.position = index.first + behind - 1
                numbers = index.chosen(self.receiver, first, behind)
                if numbers:
                    self.frames += len(numbers)
                    for one, other in runs(numbers):
                        chosen.append((batch, ends[one - 1] if one else 0, ends[other - 1]))
            elif batch.snapshot:
                self._begin_anew(pieces[place + 1 :], chosen)
                chosen.append(piece)
                self.frames += batch.count(start, end)
            elif batch.keys is None:
                chosen.append(piece)
                self.frames += batch.count(start, end)
            else:
                self._take_private(piece, chosen)
        if chosen:
            write_pieces(self.sink, chosen, self.group.metrics)

    def begin(self, batch: Batch) -> None:
        """`write` begins with this batch; all earlier ones were written."""
        assert batch.index is not None
        self.receiver.position = batch.index.first - 1

    def end(self, batch: Batch) -> None:
        """The whole batch was written, or waits."""
        assert batch.index is not None
        self.receiver.position = batch.index.first + len(batch.ends) - 1

    def write_at_once(self, batch: Batch, places: list[int]) -> None:
        """Writes these frames of a batch, as `InterestGroup.at_once` chose them."""
        assert batch.index is not None
        self.frames += len(places)
        picked = Picked(batch, batch.index.frames, places)
        write_picked(self.sink, (picked,), self.group.metrics)

    def write_values(self, values: Sequence[Value]) -> None:
        """Writes values that have waited, or that may not wait any more."""
        if values:
            write_pieces(self.sink, (_piece_of(values),), self.group.metrics)

    def _begin_anew(self, later: Sequence[Piece], chosen: list[Piece]) -> None:
        """A snapshot comes, which has all values before the `later` pieces."""
        rules = self.group.rules
        floor = self.receiver.position
        for batch, start, _ in later:
            if isinstance(batch.index, Index):
                floor = batch.index.first + bisect_right(batch.ends, start) - 1
                break
        early = rules.begin_anew(self.receiver, floor)
        if early:
            chosen.append(_piece_of(early))

    def _take_private(self, piece: Piece, chosen: list[Piece]) -> None:
        batch, start, end = piece
        assert batch.keys is not None
        rules, ends = self.group.rules, batch.ends
        for number in range(bisect_right(ends, start), bisect_right(ends, end)):
            begins = ends[number - 1] if number else 0
            key = batch.keys[number]
            if rules.is_value(key):
                pace = None if batch.paces is None else batch.paces[number]
                frame = batch.buffer[begins : ends[number]]
                if not rules.take_private(self.receiver, Value(0, key, frame, pace)):
                    self.group.wake()
                    continue
            else:
                rules.note_end(key)
            chosen.append((batch, begins, ends[number]))
            self.frames += 1


def _piece_of(values: Sequence[Value]) -> Piece:
    batch = _batch_of(values)
    return batch, 0, len(batch)


def _batch_of(values: Sequence[Value]) -> Batch:
    return Batch(
        [one.frame for one in values],
        [one.key for one in values],
        paces=[one.pace for one in values],
    )


class InterestGroup:
    """The sockets of this process that asked for fewer values of one instance."""

    def __init__(self, groups: InterestGroups, instance: str, position_key: str | None) -> None:
        self.rules = Interests(instance, position_key)
        self.sinks: dict[Sink, ThinnedSink] = {}
        self._by_receiver: dict[Receiver, ThinnedSink] = {}
        self._wanted: dict[Sink, tuple[str, Interest]] = {}
        """What sockets have asked for while they were held: it takes effect afterwards."""
        self._groups = groups
        self.wake = groups.wake
        self.metrics = groups.metrics

    def asked(self, sink: Sink) -> bool:
        """Whether the socket has asked for something, be it in effect or not yet."""
        wanted = self._wanted.get(sink)
        return sink in self.sinks if wanted is None else wanted[1].limits

    def target(self, sink: Sink) -> Sink | ThinnedSink:
        """What to write frames of the instance to, for this socket."""
        return self.sinks.get(sink, sink)

    def at_once(self, batch: Batch) -> dict[ThinnedSink, list[int]]:
        """The places of a batch's frames that go out at once, for each socket that gets some."""
        assert batch.index is not None
        by_receiver = self._by_receiver
        return {by_receiver[one]: places for one, places in self.rules.at_once(batch.index).items()}

    def write_whole(self, sinks: Iterable[ThinnedSink], batch: Batch) -> None:
        """Writes a batch to those of the sockets that get something of it at once."""
        chosen = self.at_once(batch)
        for thinned in sinks:
            thinned.end(batch)
            places = chosen.get(thinned)
            if places:
                thinned.write_at_once(batch, places)

    def take(self, batch: Batch) -> None:
        """Takes a batch that goes to everyone inside, before it is written to anybody."""
        batch.index = self.rules.take(batch.buffer, batch.ends, batch.keys, batch.paces)
        self.wake()

    def note_places(self, batch: Batch) -> None:
        """Looks for positions in a batch that goes to one socket only."""
        if batch.keys is not None and self.rules.position_key is not None:
            for number, key in enumerate(batch.keys):
                if self.rules.is_value(key) and key[2] == self.rules.position_key:
                    start = batch.ends[number - 1] if number else 0
                    self.rules.note_place(key[1], batch.buffer[start : batch.ends[number]])

    def ask(
        self, sink: Sink, player: str, interest: Interest, now: float, *, held: bool = False
    ) -> None:
        """A player's socket asks for something, or for something else. `held`: what is written to
        it waits for something, and `release` will follow."""
        thinned = self.sinks.get(sink)
        if thinned is not None and thinned.receiver.player != player:
            self.forget(sink)
            thinned = None
        if held or (thinned is not None and thinned.receiver.held):
            self._wanted[sink] = player, interest
        elif thinned is None:
            receiver = self.rules.add(player, interest, now)
            self.sinks[sink] = self._by_receiver[receiver] = ThinnedSink(self, sink, receiver)
        else:
            thinned.write_values(self.rules.change(thinned.receiver, interest, now))
        self.wake()

    def end(self, sink: Sink) -> None:
        """A socket asks for nothing any more: it gets what has waited, and then everything."""
        thinned = self.sinks.get(sink)
        if thinned is None:
            self.forget(sink)
        elif thinned.receiver.held:
            self._wanted[sink] = thinned.receiver.player, Interest()
        else:
            thinned.write_values(self._remove(thinned))

    def forget(self, sink: Sink) -> None:
        """A socket is not inside any more."""
        self._wanted.pop(sink, None)
        thinned = self.sinks.get(sink)
        if thinned is not None:
            self._remove(thinned)
        elif not self.sinks and not self._wanted:
            self._groups.forget(self)

    def _remove(self, thinned: ThinnedSink) -> list[Value]:
        del self.sinks[thinned.sink], self._by_receiver[thinned.receiver]
        values = self.rules.remove(thinned.receiver)
        if not self.sinks and not self._wanted:
            self._groups.forget(self)
        return values

    def hold(self, sink: Sink) -> None:
        """What is written to the socket waits for something from here on."""
        thinned = self.sinks.get(sink)
        if thinned is not None:
            self.rules.hold(thinned.receiver)

    def release(self, sink: Sink, now: float) -> None:
        """Nothing waits any more."""
        thinned = self.sinks.get(sink)
        if thinned is not None and thinned.receiver.held:
            thinned.write_values(self.rules.release(thinned.receiver))
            self.wake()
        wanted = self._wanted.pop(sink, None)
        if wanted is not None:
            player, interest = wanted
            if interest.limits:
                self.ask(sink, player, interest, now)
            else:
                self.end(sink)

    def tick(self, now: float) -> int:
        """Writes what is due; returns how many frames."""
        written = 0
        for receiver, values in self.rules.look(now):
            self._by_receiver[receiver].write_values(values)
            written += len(values)
        writes: dict[Receiver, list[Picked]] = {}
        for turn in self.rules.turns(now):
            batch = _batch_of(turn.values)
            frames = batch.frames()
            for receiver, own, places in turn.parts:
                picked = writes.setdefault(receiver, [])
                if own:
                    owed = _batch_of(own)
                    picked.append(Picked(owed, owed.frames(), range(len(own))))
                if places:
                    picked.append(Picked(batch, frames, places))
                written += len(own) + len(places)
        for receiver, picked in writes.items():
            write_picked(self._by_receiver[receiver].sink, picked, self.metrics)
        return written


class InterestGroups:
    """All of this process, by instance. `run` is its task."""

    def __init__(self, metrics: Metrics) -> None:
        self.by_instance: dict[str, InterestGroup] = {}
        self.metrics = metrics
        self._awake = trio.Event()

    def ask(
        self,
        instance: str,
        sink: Sink,
        player: str,
        interest: Interest,
        position_key: str | None = None,
        *,
        held: bool = False,
    ) -> None:
        """A player's socket asks for fewer values; with an empty interest, for all of them again.

        `position_key`: the name of the values that hold positions. `held`: see `InterestGroup.ask`.
        """
        group = self.by_instance.get(instance)
        if not interest.limits:
            if group is not None:
                group.end(sink)
            return
        if group is None:
            group = self.by_instance[instance] = InterestGroup(self, instance, position_key)
        if position_key is not None:
            group.rules.position_key = position_key
        group.ask(sink, player, interest, trio.current_time(), held=held)

    def asked(self, instance: str, sink: Sink) -> bool:
        """Whether the socket has asked for fewer values of the instance."""
        group = self.by_instance.get(instance)
        return group is not None and group.asked(sink)

    def place(self, instance: str, player: str, at: Position) -> None:
        """A player's position, as the host knows it; one that came here is newer."""
        group = self.by_instance.get(instance)
        if group is not None:
            group.rules.place(player, at)
            self.wake()

    def forget(self, group: InterestGroup) -> None:
        """Nobody asks for anything in an instance any more."""
        if self.by_instance.get(group.rules.instance) is group:
            del self.by_instance[group.rules.instance]

    def forget_instance(self, instance: str) -> None:
        """An instance has ended."""
        self.by_instance.pop(instance, None)

    def wake(self) -> None:
        """Something may wait."""
        self._awake.set()

    def _next_at(self) -> float | None:
        """When to look again, at the latest. None: nothing waits."""
        times = (group.rules.next_at() for group in self.by_instance.values())
        return min((at for at in times if at is not None), default=None)

    async def run(self, load: CoreLoad | None = None) -> None:
        """Writes values when they are due. `load` learns how long that takes."""
        while True:
            for instance, group in tuple(self.by_instance.items()):
                if self.by_instance.get(instance) is not group:
                    continue  # it has ended meanwhile
                began_s = perf_counter()
                written = group.tick(trio.current_time())
                if load is not None:
                    load.traffic_s += perf_counter() - began_s
                if written:
                    self.metrics.deliveries_out += written
                    await trio.lowlevel.checkpoint()
            next_at = self._next_at()
            now = trio.current_time()
            if next_at is None:
                self._awake = trio.Event()
                await self._awake.wait()
                await trio.sleep(PAUSE_S)
            else:
                await trio.sleep(min(max(next_at - now, PAUSE_S), TICK_S))
