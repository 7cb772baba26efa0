r"""The file format of a recording: the messages and rule calls of an instance actor.

    file    = "reileta recording 1\n" record*
    record  = length, CRC-32 (both of the body; unsigned, 4 bytes, little-endian), body
    body    = a MessagePack array, which begins with the record's kind

A file holds one incarnation of the actor. The first record is `Opened`. Each message of the mailbox
adds a `Received`, followed by a `Called` for each call of a rule that it caused, with the arguments
(including times) and the player ids that the call made. So the file holds all input of the rules in
`reileta.rules.instance` (`reileta/diagnostics/replay.py`). The last record is `Ended`, unless the
process was killed.

Records are only appended, so the file of a killed process can be read up to its last complete
record. A reader only reads its own version of the format; fields can be added at the end of a
record without a new version.

A recording contains ids, usernames, display names, roles, moderators' reasons, and the data that
players sent.
It never contains tokens, passwords or e-mail addresses, since none of them reaches an instance.
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
"""Largest body in bytes; a greater length means that the file is damaged."""

_MAGIC: Final = re.compile(rb"reileta recording (\d{1,9})\n")
_MAGIC_LIMIT: Final = 64
_HEAD: Final = struct.Struct("<II")
_BIG_INTEGER: Final = 1
"""The MessagePack extension for integers over 64 bits, as decimal digits."""

Reason: TypeAlias = Literal["stopped", "crashed", "overflow", "limit", "unrecordable"]
"""Why a recording ends: the actor stopped or crashed; or only the recording stopped, because the
disk was too slow, the folder was full, or a call could not be recorded."""


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    """The first record: the instance, the time (ms), and the version of Reileta."""

    instance: str
    at: int
    reileta: str


class Received(Struct, frozen=True, array_like=True, tag="received"):
    """A message was taken from the mailbox. `id`, `cause` and `trace` are the ones of the log.

    `socket` distinguishes the sockets of one recording; they count from 1.
    """

    at: int
    kind: str
    id: int
    cause: int
    trace: int
    socket: int | None


class Called(Struct, frozen=True, array_like=True, tag="called"):
    """A rule was called. `ids` are the player ids that it made; `raised` is the error's class."""

    rule: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    ids: Sequence[str]
    raised: str | None


class Ended(Struct, frozen=True, array_like=True, tag="ended"):
    """The last record. `state` is `replay.digest` of the rules' state, if it was known."""

    at: int
    reason: Reason
    error: str | None = None
    state: bytes | None = None


Record: TypeAlias = Opened | Received | Called | Ended


class NotARecording(Exception):
    """The file is not a recording, or has a format version that this Reileta can't read."""


def _hook(code: int, data: memoryview) -> int:
    if code != _BIG_INTEGER:
        raise ValueError("an unknown extension")
    return int(bytes(data))


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Record, ext_hook=_hook)


def encode(record: Record) -> bytes:
    """The bytes of a record in the file.

    Raises:
        TypeError, ValueError, OverflowError: it holds a value that can't be encoded.
    """
    try:
        body = _encoder.encode(record)
    except OverflowError:
        body = _encoder.encode(_with_big_integers(msgspec.to_builtins(record, builtin_types=_KEPT)))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


_KEPT: Final = (bytes, bytearray, memoryview)


def _with_big_integers(value: Any) -> Any:
    """The same value with extensions for integers that don't fit into MessagePack."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG_INTEGER, str(value).encode())
    if isinstance(value, dict):
        return {key: _with_big_integers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_big_integers(inner) for inner in value]
    return value


class RecordingReader:
    """Reads a recording, record by record. Iterate it once.

    The constructor raises NotARecording. After the iteration, `damage` says why it ended before the
    end of the file (a killed process leaves a truncated last record), or is None.
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
