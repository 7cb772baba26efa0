"""Pictures that users upload, re-encoded so that they hide no data.

Only PNG is accepted. Before anything is decoded, the file's chunks are checked: the size in the
header must be within limits, and each chunk must be complete. Only the chunks that make up the
picture are kept: no text, no color profile, no animation, nothing after the end. Pillow decodes the
rest and writes a new PNG.

Decoding takes 4 bytes per pixel, 64 MiB for the largest picture, and up to seconds of a core. It
runs in worker threads, one per two cores.
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
from PIL import Image, ImageFile, PngImagePlugin

from reileta.errors import ImageInvalid, Overloaded
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
_KEPT: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
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
        essence = _essence(data)
        image = _plain(_decoded(essence))
    except _Unfit as error:
        raise ImageInvalid.field(field, str(error)) from error
    out = BytesIO()
    image.save(out, "PNG")
    png = out.getvalue()
    return Picture(png, image.width, image.height, hashlib.sha256(png).hexdigest())


class _Unfit(Exception):
    """The reason why a picture is refused, as the end of a sentence."""


def _essence(data: bytes) -> bytes:
    """The PNG with only the chunks that make up the picture. Raises _Unfit."""
    if len(data) > LIMIT_BYTES:
        raise _Unfit(f"must be at most {LIMIT_BYTES} bytes")
    if not data.startswith(_SIGNATURE):
        raise _Unfit("must be a PNG")
    parts = [_SIGNATURE]
    for number, (kind, chunk) in enumerate(_chunks(data)):
        if (number == 0) != (kind == b"IHDR"):
            raise _Unfit("is not a complete PNG")
        if number == 0:
            _check_header(chunk)
        if kind in _KEPT:
            parts.append(chunk)
    return b"".join(parts)


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


def _check_header(chunk: bytes) -> None:
    """Checks the header before anything expensive happens. Raises _Unfit."""
    if len(chunk) != 12 + 13:
        raise _Unfit("is not a complete PNG")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", chunk[8:-4]
    )
    if not (1 <= width <= LIMIT_SIDE and 1 <= height <= LIMIT_SIDE):
        raise _Unfit(f"must have 1 to {LIMIT_SIDE} pixels a side")
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise _Unfit("is not a complete PNG")


def _decoded(essence: bytes) -> ImageFile.ImageFile:
    try:
        image = PngImagePlugin.PngImageFile(BytesIO(essence))
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise _Unfit("is not a complete PNG") from error
    return image


def _plain(image: Image.Image) -> Image.Image:
    """The picture with 8 bits per channel and no metadata."""
    if image.mode.startswith("I"):
        # 16-bit grayscale: Pillow's own conversion would clip instead of scale.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    image.info = {}
    return image
