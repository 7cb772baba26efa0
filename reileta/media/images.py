"""Pictures that users upload, re-encoded so that they hide no data.

Only PNG is accepted. Before anything is decoded, the file's chunks are checked: the size in the
header must be within limits, and each chunk must be complete. Only the chunks that make up the
picture are used: no text, no animation, nothing after the end. Those that say how to show it are
applied, so that the result is sRGB and upright without them. Pillow decodes the picture and writes
a new PNG.

Decoding takes up to 16 bytes per pixel, 256 MiB for the largest picture, and up to seconds of a
core. It runs in worker threads, one per two cores.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Final

import trio
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from reileta.errors import ImageInvalid, Overloaded
from reileta.media.png_pixels import GRAY, GRAY_ALPHA, PALETTE, decoded, file_of
from reileta.media.srgb import color_space
from reileta.settings import MIB

LIMIT_BYTES: Final = 2 * MIB
"""Largest upload of a picture."""
LIMIT_SIDE: Final = 4096
"""Largest width and height in pixels."""
LIMIT_CHUNKS: Final = 8192
"""Most chunks of a picture, since each takes time. Encoders usually write one per 8 KiB."""
WAITING_LIMIT: Final = 16
"""Pictures that may wait for a thread; beyond that, requests are refused with error 122."""
RETRY_AFTER_S: Final = 2.0

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SHOWN_AS: Final = (b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
"""Chunks that say how to show the picture, and that stand before it."""
# Exif's tag, and the type of its value.
_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
# By the value of Exif's orientation.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Bits per channel, by color type (PNG specification, 11.2.1).
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG written by the server: its bytes, its size in pixels, and the SHA-256 of the bytes in
    hex."""

    png: bytes
    width: int
    height: int
    hash: str


class Pictures:
    """Re-encodes pictures.

    A picture in work is finished even if its caller is cancelled: otherwise the limiter would lose
    count of the threads.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._limiter = trio.CapacityLimiter(threads or max((os.cpu_count() or 1) // 2, 1))

    async def renew(self, data: bytes, *, field: str = "image") -> Picture:
        """Re-encodes the picture in `data`, a PNG.

        Raises ImageInvalid, which names the field, if it is not a PNG, is broken or exceeds a
        limit; Overloaded if too many requests wait.
        """
        if self._limiter.statistics().tasks_waiting >= WAITING_LIMIT:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        return await trio.to_thread.run_sync(
            partial(renewed, data, field=field), limiter=self._limiter
        )


def renewed(data: bytes, *, field: str = "image") -> Picture:
    """Like `Pictures.renew`, in the calling thread. Raises ImageInvalid."""
    try:
        image = _upright(_Essence(data))
    except _Unfit as error:
        raise ImageInvalid.field(field, str(error)) from error
    out = BytesIO()
    image.save(out, "PNG")
    png = out.getvalue()
    return Picture(png, image.width, image.height, hashlib.sha256(png).hexdigest())


class _Unfit(Exception):
    """The reason why a picture is refused, as the end of a sentence."""


class _Essence:
    """The chunks of a PNG that make up the picture. Raises _Unfit."""

    def __init__(self, data: bytes) -> None:
        if len(data) > LIMIT_BYTES:
            raise _Unfit(f"must be at most {LIMIT_BYTES} bytes")
        if not data.startswith(_SIGNATURE):
            raise _Unfit("must be a PNG")
        self.shown_as: dict[bytes, bytes] = {}
        """The data of chunks that say how to show the picture, by type."""
        self._parts: list[bytes] = []
        pixels = False
        for number, (kind, chunk) in enumerate(_chunks(data)):
            if (number == 0) != (kind == b"IHDR"):
                raise _Unfit("is not a complete PNG")
            if number == 0:
                self.depth, self.color_type = _checked_header(chunk)
                self._header = chunk
            pixels = pixels or kind == b"IDAT"
            if kind == b"eXIf" or (kind in _SHOWN_AS and not pixels):
                self.shown_as.setdefault(kind, chunk[8:-4])
            transparency = kind == b"tRNS" and self.color_type == PALETTE
            if kind in (b"PLTE", b"IDAT", b"IEND") or transparency:
                self._parts.append(chunk)

    def opened(self, depth: int | None = None, kind: int | None = None) -> PngImageFile:
        """The picture, as if it had that depth and color type; None: as it is."""
        header = self._header
        if depth is not None and kind is not None:
            body = header[4:16] + bytes((depth, kind)) + header[18:-4]
            header = header[:4] + body + struct.pack(">I", zlib.crc32(body))
        return file_of(_SIGNATURE, header, *self._parts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk up to the picture's end: its type, and all its bytes. Raises _Unfit."""
    at = len(_SIGNATURE)
    for _ in range(LIMIT_CHUNKS):
        head = data[at : at + 8]
        if len(head) < 8:
            raise _Unfit("is truncated")
        length, kind = struct.unpack(">I4s", head)
        end = at + 12 + length
        if end > len(data):
            raise _Unfit("is truncated")
        chunk = data[at:end]
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise _Unfit("is corrupt: checksum mismatch")
        yield kind, chunk
        if kind == b"IEND":
            return
        at = end
    raise _Unfit(f"must have at most {LIMIT_CHUNKS} chunks")


def _checked_header(chunk: bytes) -> tuple[int, int]:
    """The depth and color type, checked before anything expensive happens. Raises _Unfit."""
    if len(chunk) != 12 + 13:
        raise _Unfit("is not a complete PNG")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", chunk[8:-4]
    )
    if not (1 <= width <= LIMIT_SIDE and 1 <= height <= LIMIT_SIDE):
        raise _Unfit(f"must have 1 to {LIMIT_SIDE} pixels a side")
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise _Unfit("is not a complete PNG")
    return depth, colour


def _upright(essence: _Essence) -> Image.Image:
    """The picture in sRGB, upright, with 8 bits per channel and no metadata. Raises _Unfit."""
    shown_as = essence.shown_as
    space = color_space(shown_as, gray=essence.color_type in (GRAY, GRAY_ALPHA))
    try:
        pixels = decoded(
            essence.opened,
            essence.depth,
            essence.color_type,
            shown_as.get(b"tRNS", b""),
            space.curve(),
        )
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise _Unfit("is not a complete PNG") from error
    image = space.to_srgb(pixels.color)
    if pixels.alpha is not None:
        image.putalpha(pixels.alpha)
    turn = _TURNS.get(_orientation(shown_as.get(b"eXIf", b"")))
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return image


def _orientation(exif: bytes) -> int:
    """The orientation in an Exif block: 1, upright, if it has none.

    Pillow's reader of Exif writes warnings about blocks that are broken.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for number in range(count):
            field = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * number)
            if field[:3] == (_ORIENTATION, _SHORT, 1):
                return int(field[3])
    except struct.error:
        pass
    return 1
