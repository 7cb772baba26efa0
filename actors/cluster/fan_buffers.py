"""The frames of one drain, as one message for all gateways of an instance (`wire.Fan`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from actors.cluster import wire
from actors.cluster.gateway_sockets import Gateway, RemoteSink
from actors.delivery.batch import Batch, Piece
from actors.runtime.message import Request

INLINE_BYTES: Final = 64 * 1024
"""A snapshot goes to all gateways if that costs no more than so many bytes; else in a parcel."""


@dataclass(eq=False)
class WaitingCall:
    """A call that is answered once the frames of its request are published."""

    request: Request[Any]
    gateway: Gateway
    reset: bool = False
    """Whether the gateway has forgotten its receivers."""
    number: int = 0
    parcels: list[wire.Parcel] = field(default_factory=list)
    published: trio.Event = field(default_factory=trio.Event)


class FanBuffers:
    """The buffers of one message, and the parcels that it needs."""

    def __init__(
        self, fan: wire.Fan, instance: str, gateways: int, parcel_number: Callable[[], int]
    ) -> None:
        self._fan = fan
        self._instance = instance
        self._gateways = gateways
        self._parcel_number = parcel_number
        self._known: dict[int, tuple[int, Batch]] = {}
        self._parcels: dict[Gateway, dict[int, wire.Parcel]] = {}
        self._names: dict[str, int] = {}

    def index(self, batch: Batch, sink: RemoteSink | None) -> int:
        """The batch's place among the buffers; `sink` gets frames of it, or (None) many do."""
        known = self._known.get(id(batch))
        if known is None:
            inline = len(batch) * self._gateways <= INLINE_BYTES
            if not batch.snapshot or inline or sink is None:
                buffer = wire.Buffer(batch.buffer, batch.ends, self._keys(batch), batch.snapshot)
            else:
                number = self._parcel_number()
                buffer = wire.Buffer(b"", [], None, snapshot=True, parcel=number)
            known = self._known[id(batch)] = (len(self._fan.buffers), batch)
            self._fan.buffers.append(buffer)
        index = known[0]
        parcel = self._fan.buffers[index].parcel
        if parcel and sink is not None:
            wanted = self._parcels.setdefault(sink.gateway, {})
            wanted[parcel] = wire.Parcel(parcel, batch.buffer, batch.ends)
        return index

    def _keys(self, batch: Batch) -> list[tuple[int, ...] | None] | None:
        if batch.keys is None:
            return None
        names = self._names
        keys: list[tuple[int, ...] | None] = []
        for key in batch.keys:
            if isinstance(key, tuple) and key[0] == self._instance:
                keys.append(tuple([names.setdefault(one, len(names)) for one in key[1:]]))
            else:
                keys.append(None)
        self._fan.names = list(names)
        return keys

    def hand_parcels(
        self, waiting: list[WaitingCall], send: Callable[[Gateway, list[wire.Parcel]], None]
    ) -> None:
        """Puts each gateway's parcels into the answer of a call of its, or sends them."""
        for gateway, parcels in self._parcels.items():
            answer = next((one for one in waiting if one.gateway is gateway), None)
            if answer is None:
                send(gateway, list(parcels.values()))
            else:
                answer.parcels += parcels.values()


def commonest(written: list[RemoteSink], receivers: int) -> Sequence[Piece] | None:
    """The pieces that most receivers got whole: one and the same list, of one buffer that is no
    snapshot. The flush writes it to all that have no edits."""
    lists = Counter(id(sink.pieces) for sink in written)
    for identity, count in lists.most_common():
        if count * 2 < receivers:
            return None  # it takes less to say who gets something than who gets nothing
        pieces = next(sink.pieces for sink in written if id(sink.pieces) == identity)
        assert pieces is not None
        if len(pieces) == 1 and not pieces[0][0].snapshot:
            batch, start, end = pieces[0]
            if (start, end) == (0, len(batch)):
                return pieces
    return None
