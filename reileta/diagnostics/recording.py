"""The file that one incarnation of an instance is recorded in: what it was told, in order.

    file    = "reileta recording 1\\n" record*
    record  = length, CRC-32 (both of the body; unsigned, 4 bytes, little-endian), body
    body    = a MessagePack array, which begins with the record's kind

The first record is `Opened`. Then, for each message of the mailbox, a `Received`, and behind it a
`Called` for each call of the rules that the message led to, with its arguments (times among them)
and the player ids that it made. So the file holds all that the rules of `reileta.rules.instance`
need to do the same again (`reileta/diagnostics/replay.py`). The last record is `Ended`, if there
was time for it.

It is only ever appended to, so that what a killed process leaves behind can be read up to the last
whole record. A reader knows its own version of the format and no other; fields may be added at the
end of a record without a new version.

What it holds: ids, display names, roles, moderators' reasons, and what players sent. What it never
holds: tokens, passwords, e-mail addresses; none of them reaches an instance.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

VERSION: Final = 1
MAGIC: Final = b"reileta recording %d\n" % VERSION
RECORD_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of one body; a length beyond it is damage."""

_MAGIC: Final = re.compile(rb"reileta recording (\d{1,9})\n")
_MAGIC_LIMIT: Final = 64
_HEAD: Final = struct.Struct("<II")
_BIG_INTEGER: Final = 1
"""The MessagePack extension for integers past 64 bits, as decimal digits."""

Reason: TypeAlias = Literal["stopped", "crashed", "overflow", "limit", "unrecordable"]
"""Why a recording ends: the instance did, in order or not; or only the recording did, because the
disk was too slow, the folder was full, or a call could not be written down."""


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    """The beginning: of which instance, when (ms), by which version of Reileta."""

    instance: str
    at: int
    reileta: str


class Received(Struct, frozen=True, array_like=True, tag="received"):
    """A message was taken from the mailbox. `id`, `cause` and `trace` are those of the log.

    `socket` tells the sockets of one recording apart: they count from 1.
    """

    at: int
    kind: str
    id: int
    cause: int
    trace: int
    socket: int | None


class Called(Struct, frozen=True, array_like=True, tag="called"):
    """A rule was called. `ids` are the player ids that it made; `raised`, the error's class."""

    rule: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    ids: Sequence[str]
    raised: str | None


class Ended(Struct, frozen=True, array_like=True, tag="ended"):
    """The end. `state` is `reileta.replay.digest` of the rules' state, where it was known."""

    at: int
    reason: Reason
    error: str | None = None
    state: bytes | None = None


Record: TypeAlias = Opened | Received | Called | Ended


class NotARecording(Exception):
    """The file is none, or of a version of the format that this Reileta does not know."""


def _hook(code: int, data: memoryview) -> int:
    if code != _BIG_INTEGER:
        raise ValueError("an unknown extension")
    return int(bytes(data))


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Record, ext_hook=_hook)


def encode(record: Record) -> bytes:
    """A record as it stands in the file.

    Raises:
        TypeError, ValueError, OverflowError: it holds what can't be written down.
    """
    try:
        body = _encoder.encode(record)
    except OverflowError:
        body = _encoder.encode(_with_big_integers(msgspec.to_builtins(record, builtin_types=_KEPT)))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


_KEPT: Final = (bytes, bytearray, memoryview)


def _with_big_integers(value: Any) -> Any:
    """The same with integers as extensions where MessagePack has no room for them."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG_INTEGER, str(value).encode())
    if isinstance(value, dict):
        return {key: _with_big_integers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_big_integers(inner) for inner in value]
    return value


class Reader:
    """Reads a recording, a record at a time. Iterate it once.

    Raises NotARecording when made from what is none. Afterwards `damage` says why the reading
    ended before the end of the file (the last record is cut, as a killed process leaves it), or
    is None.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.damage: str | None = None
        line = file.readline(_MAGIC_LIMIT)
        match = _MAGIC.fullmatch(line)
        if match is None:
            raise NotARecording("this is not a recording of Reileta")
        if int(match[1]) != VERSION:
            raise NotARecording(
                f"its format has version {int(match[1])}; this Reileta reads version {VERSION}"
            )
        self._at = len(line)

    def __iter__(self) -> Iterator[Record]:
        while True:
            head = self._file.read(_HEAD.size)
            if not head:
                return
            length, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
            body = self._file.read(length) if 0 < length <= RECORD_LIMIT else b""
            if len(head) < _HEAD.size or (len(body) < length <= RECORD_LIMIT):
                self.damage = f"the last record is truncated, at byte {self._at}"
                return
            if not body or zlib.crc32(body) != checksum:
                self.damage = f"it is damaged from byte {self._at} on"
                return
            try:
                record = _decoder.decode(body)
            except (msgspec.DecodeError, ValueError, RecursionError):
                self.damage = f"it is damaged from byte {self._at} on"
                return
            self._at += _HEAD.size + length
            yield record
