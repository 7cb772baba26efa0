"""Writing to sockets at once, as long as nothing waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from actors.delivery.batch import Batch, Piece
from actors.delivery.sink import Sink
from reileta.observability.metrics import Metrics
from reileta.rules.instance.interest import runs

COPIED_BYTES: Final = 16_384
"""More bytes are not copied for one receiver."""


def write_whole(sinks: Iterable[Sink], batch: Batch, metrics: Metrics) -> None:
    """Writes a batch to each of the sinks.

    Most of what a server does is the body of this loop, so it holds as little as can be: beside the
    system call, an eighth of the time that a `write` needs.
    """
    buffer, size, direct = batch.buffer, len(batch.buffer), 0
    whole: tuple[Piece] = ((batch, 0, size),)
    for sink in sinks:
        send = sink.direct
        if send is None:
            sink.write(whole)
            continue
        try:
            sent = send(buffer)
        except OSError:  # also if the system takes nothing now: `write` knows what to do
            sink.write(whole)
            continue
        if sent == size:
            direct += 1
        else:
            sink.taken_in_part(whole, sent)
    metrics.bytes_out += direct * size


def write_pieces(sink: Sink, pieces: Sequence[Piece], metrics: Metrics) -> None:
    """Writes pieces to one sink. To copy a few short ones costs less than to pass each on."""
    send = sink.direct
    if send is None or sum(end - start for _, start, end in pieces) > COPIED_BYTES:
        sink.write(pieces)
        return
    data = b"".join([batch.buffer[start:end] for batch, start, end in pieces])
    _write(sink, send, data, lambda: pieces, metrics)


@dataclass(slots=True)
class Picked:
    """Some frames of a batch: their places, in rising order."""

    batch: Batch
    frames: Sequence[bytes]
    """All frames of the batch, one by one."""
    places: Sequence[int]

    def pieces(self) -> Iterator[Piece]:
        """The same as pieces of the batch."""
        ends = self.batch.ends
        for first, behind in runs(self.places):
            yield self.batch, ends[first - 1] if first else 0, ends[behind - 1]


def write_picked(sink: Sink, picked: Sequence[Picked], metrics: Metrics) -> None:
    """Writes single frames to one sink. There are too many of them to pass each on as a piece."""
    send = sink.direct
    if send is None:
        sink.write(_pieces(picked))
        return
    frames = []
    for one in picked:
        batch_frames = one.frames
        frames += [batch_frames[place] for place in one.places]
    _write(sink, send, b"".join(frames), lambda: _pieces(picked), metrics)


def _pieces(picked: Sequence[Picked]) -> list[Piece]:
    return [piece for one in picked for piece in one.pieces()]


def _write(
    sink: Sink,
    send: Callable[[bytes], int],
    data: bytes,
    pieces: Callable[[], Sequence[Piece]],
    metrics: Metrics,
) -> None:
    """Sends `data`, which are the bytes of `pieces`; what the system does not take, waits."""
    try:
        sent = send(data)
    except OSError:
        sink.write(pieces())
        return
    if sent == len(data):
        metrics.bytes_out += sent
    else:
        sink.taken_in_part(pieces(), sent)
