"""What no client should say on a WebSocket, and what it gets."""

from __future__ import annotations

import zlib
from contextlib import suppress

import trio

from tests.e2e.clients import BINARY, CLOSE, CONT, PING, TEXT, RawClient, frame

LIMIT = 4096
"""`message_limit_bytes` where `BROKEN` is tried."""

BROKEN: dict[str, tuple[bytes, int]] = {
    "unmasked": (frame(TEXT, b"{}", masked=False), 1002),
    "reserved bit 1": (frame(TEXT, b"{}", reserved=4), 1002),
    "reserved bit 2": (frame(TEXT, b"{}", reserved=2), 1002),
    "reserved bit 3": (frame(TEXT, b"{}", reserved=1), 1002),
    "unknown data opcode": (frame(3, b"{}"), 1002),
    "unknown control opcode": (frame(11, b"{}"), 1002),
    "control frame too long": (frame(PING, b"x" * 126), 1002),
    "fragmented control frame": (frame(PING, b"x", fin=False), 1002),
    "continuation of nothing": (frame(CONT, b"{}"), 1002),
    "interleaved messages": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
    "close in a message": (frame(TEXT, b"{", fin=False) + frame(CLOSE, b"\x03\xe8"), 1002),
    "close with half a code": (frame(CLOSE, b"\x03"), 1002),
    "close with a code that may not be": (frame(CLOSE, b"\x03\xed"), 1002),
    "length with the sign bit": (frame(TEXT, b"", length=b"\x7f" + b"\xff" * 8), 1009),
    "a size that nobody has": (frame(TEXT, b"", length=b"\x7f" + b"\x7f" + b"\xff" * 7), 1009),
    "too large": (frame(TEXT, b"x" * (LIMIT + 1)), 1009),
    "too large, and not sent at all": (frame(TEXT, b"", length=b"\x7e\xff\xff"), 1009),
    "too large in fragments": (
        frame(TEXT, b"x" * LIMIT, fin=False) + frame(CONT, b"x"),
        1009,
    ),
    "binary too large": (frame(BINARY, b"x" * (LIMIT + 1)), 1009),
    "not UTF-8": (frame(TEXT, b'"\xff"'), 1007),
    "a surrogate in UTF-8": (frame(TEXT, b'{"command":"\xed\xa0\x80"}'), 1007),
    "overlong UTF-8": (frame(TEXT, b'"\xc0\xaf"'), 1007),
    "half a character": (frame(TEXT, '{"command":"é'.encode()[:-1]), 1007),
    "not UTF-8 in fragments": (frame(TEXT, b'"\xc3', fin=False) + frame(CONT, b'"'), 1007),
    "a goodbye that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}

UNREADABLE = [
    *("", "null", "[]", "{", "[] {}", "7", '"x"', "[" * 50_000),
    *('{"command":"instance-data","data":"\\ud800"}', '{"command":"ping","data":NaN}'),
]

# What is sent beside `state` and for `subgroup`, the code, and the field that is named.
REFUSED: list[tuple[str, int, str | None]] = [
    ('"command":null', 119, "command"),
    ('"command":8', 119, "command"),
    ('"data":1', 119, "command"),
    ('"command":"ping","data":[]', 119, "data"),
    ('"command":"ping","subgroup":1', 119, "subgroup"),
    ('"command":"dance"', 120, "command"),
    ('"command":""', 120, "command"),
    ('"command":"dance","data":%s' % ("[" * 400 + "]" * 400), 120, "command"),
    ('"command":"authenticate"', 119, "data.token"),
    ('"command":"authenticate","data":{}', 119, "data.token"),
    ('"command":"authenticate","data":{"token":7}', 119, "data.token"),
    ('"command":"authenticate","data":{"token":"x","integrity":"y"}', 119, "data.token"),
    ('"command":"subscribe"', 119, "data.event"),
    ('"command":"subscribe","data":{"event":"dance"}', 121, "data.event"),
    ('"command":"subscribe","data":{"event":"all","target":1}', 119, "data.target"),
    ('"command":"subscribe","data":{"event":"instance-data"}', 4, None),
    ('"command":"unsubscribe","data":{"event":5}', 119, "data.event"),
    ('"command":"instance-join"', 119, "data.instance"),
    ('"command":"instance-join","data":{"instance":""}', 119, "data.instance"),
    ('"command":"instance-join","data":{"instance":"%s"}' % ("i" * 600), 119, "data.instance"),
    ('"command":"instance-join","data":{"instance":"i_none"}', 36, None),
    ('"command":"instance-join","data":{"instance":"i_none@else.example"}', 36, None),
    ('"command":"instance-join","data":{"instance":"\\u0000"}', 119, "data.instance"),
    ('"command":"instance-join","data":{"instance":"@@@@"}', 36, None),
    ('"command":"instance-leave","data":{"instance":"i_none"}', 39, None),
    ('"command":"instance-data","data":1', 119, "subgroup"),
    ('"command":"instance-data","data":1,"subgroup":"avr"', 119, "subgroup"),
    ('"command":"instance-data","data":1,"subgroup":"i_none"', 39, None),
    ('"command":"instance-data","data":1,"subgroup":"@"', 39, None),
    ('"command":"instance-data","data":1,"subgroup":""', 39, None),
    ('"command":"instance-data","subgroup":PLACE,"data":1,"key":""', 119, "key"),
    ('"command":"instance-data","subgroup":PLACE,"data":1,"key":"%s"' % ("k" * 65), 119, "key"),
    ('"command":"instance-data","subgroup":PLACE,"data":1,"key":1', 119, "key"),
    ('"command":"instance-data","subgroup":PLACE,"data":1,"at":"1"', 119, "at"),
    ('"command":"instance-data","subgroup":PLACE,"data":1,"at":1e999', 119, "at"),
    ('"command":"instance-data","subgroup":PLACE,"data":1,"to":"p"', 119, "to"),
    ('"command":"instance-data","subgroup":PLACE,"data":1,"to":["p"%s]' % (',"p"' * 64), 119, "to"),
]


def deflated(message: bytes, *, fin: bool = True) -> bytes:
    compressor = zlib.compressobj(wbits=-12)
    data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, data[:-4] if fin else data, reserved=4, fin=fin)


async def pour(client: RawClient, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await client.send(data)
