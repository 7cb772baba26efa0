"""Messages on `/api/ws` as bytes: JSON in an unmasked WebSocket frame.

A server's frames have no mask, so one `bytes` serves every receiver (RFC 6455, section 5.1).
`state` and `data` are JSON texts that pass through byte for byte. See `docs/protocol.md#messages`.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import msgspec

from reileta.errors import ReiletaError
from reileta.protocol.events import INSTANCE_DATA

EMPTY: Final = b"{}"
DEFLATE_FROM: Final = 128
"""Bytes; shorter frames are not compressed."""

FIN: Final = 0x80
TEXT: Final = 0x01
BINARY: Final = 0x02

encode: Final = msgspec.json.Encoder().encode
"""Any value as JSON text."""


def text_frame(payload: bytes) -> bytes:
    """The payload (UTF-8) as one final, unmasked text frame."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def binary_frame(payload: bytes) -> bytes:
    """The payload as one final, unmasked binary frame."""
    frame = bytearray(text_frame(payload))
    frame[0] = FIN | BINARY
    return bytes(frame)


def fragment(payload: bytes, *, first: bool = False, last: bool = False) -> bytes:
    """A part of a text message that is sent as several frames in a row."""
    frame = bytearray(text_frame(payload))
    frame[0] = (FIN if last else 0) | (TEXT if first else 0)
    return bytes(frame)


def payload_of(frame: bytes | memoryview) -> bytes:
    """The payload of a frame that `text_frame` made."""
    size = frame[1]
    return bytes(frame[{126: 4, 127: 10}.get(size, 2) :])


def deflate(frame: bytes | memoryview) -> bytes:
    """The text frame, compressed by permessage-deflate without context takeover (RFC 7692).

    Small frames, which would hardly shrink, stay as they are: the RFC allows it for each message.
    Fragments are all compressed, each independently of those before it.
    """
    first, last = bool(frame[0] & TEXT), bool(frame[0] & FIN)
    if len(frame) < DEFLATE_FROM and first and last:
        return bytes(frame)
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(payload_of(frame)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    packed = bytearray(text_frame(data[:-4] if last else data))
    packed[0] = frame[0]
    if first:
        packed[0] |= 0x40  # RSV1: this message is compressed
    return bytes(packed)


def answer(command: str, state: bytes | None, subgroup: str | None, data: bytes = EMPTY) -> bytes:
    """The frame that answers a request; `state` is the request's, as it came."""
    return text_frame(
        b"".join(
            (
                b"{",
                b"" if state is None else b'"state":%b,' % state,
                b'"command":%b,' % encode(command),
                b"" if subgroup is None else b'"subgroup":%b,' % encode(subgroup),
                b'"data":%b}' % data,
            )
        )
    )


def failure(
    command: str | None, state: bytes | None, subgroup: str | None, error: ReiletaError
) -> bytes:
    """The frame that answers a request with an error; `command` is None if it had none."""
    fields: dict[str, Any] = {} if state is None else {"state": msgspec.Raw(state)}
    if command is not None:
        fields["command"] = command
    if subgroup is not None:
        fields["subgroup"] = subgroup
    fields["error"] = error_fields(error)
    return text_frame(encode(fields))


def error_fields(error: ReiletaError) -> dict[str, Any]:
    """An error as JSON: `{code, message, details?}`."""
    fields: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.details:
        fields["details"] = [
            {"field": detail.field, "message": detail.message} for detail in error.details
        ]
    return fields


def event(name: str, subgroup: str | None, data: bytes) -> bytes:
    """The frame of an event: like an answer, without `state`."""
    return answer(name, None, subgroup, data)


class DataFrames:
    """`instance-data` events of one player of one instance."""

    __slots__ = ("_head", "_plain")

    def __init__(self, instance_id: str, player_id: str) -> None:
        self._head = b'{"command":"%b","subgroup":"%b","data":{"player":"%b",' % (
            INSTANCE_DATA.encode(),
            instance_id.encode(),
            player_id.encode(),
        )
        self._plain = self._head + b'"data":'

    def plain(self, data: bytes) -> bytes:
        """The frame of a message with neither `key` nor `at`: the common case."""
        plain = self._plain
        size = len(plain) + len(data) + 2
        if 126 <= size < 65536:
            return b"\x81\x7e%b%b%b}}" % (size.to_bytes(2), plain, data)
        return text_frame(b"%b%b}}" % (plain, data))

    def keyed(self, key: str | None, at: float | None, data: bytes) -> bytes:
        return text_frame(
            b"".join(
                (
                    self._head,
                    b"" if key is None else b'"key":%b,' % encode(key),
                    b"" if at is None else b'"at":%b,' % encode(at),
                    b'"data":%b}}' % data,
                )
            )
        )
