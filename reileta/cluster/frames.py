"""The form of messages between nodes: one byte, then MessagePack of a tagged array.

Nodes of two versions talk to each other: fields are only added at the end of a struct, and a
message with an unknown tag is ignored.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

FORM: Final = b"\x01"

_encode: Final = msgspec.msgpack.Encoder().encode


def packed(message: msgspec.Struct) -> bytes:
    """A message as it goes over the bus."""
    return FORM + _encode(message)


class Unpacker(Generic[T]):
    """Reads messages of one union of structs."""

    def __init__(self, union: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)

    def read(self, data: bytes) -> T | None:
        """The message; None if it is of another version, or is none."""
        if not data.startswith(FORM):
            return None
        try:
            return self._decoder.decode(memoryview(data)[1:])
        except msgspec.DecodeError:
            return None
