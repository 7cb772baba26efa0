"""Pictures that users send, made anew so that nothing hides in them (PROTOCOL §5).

Only PNG is taken. Before anything is decoded, the file's chunks are walked: what the header claims
must be within bounds, each chunk must be whole, and of all kinds only those that make the picture
itself are kept: no text, no colour profile, no animation, nothing after the end. What remains goes
through Pillow, and what comes out was written by Pillow alone.

Decoding takes 4 bytes a pixel, some 64 MiB for the largest picture, and up to seconds of a core: it
happens in a worker thread, one at a time for two cores.
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
"""How large a picture may be as it is sent."""
LIMIT_SIDE: Final = 4096
"""How many pixels a side may have."""
LIMIT_CHUNKS: Final = 8192
"""Of how many chunks a picture may be: each costs a step of ours. Writers make one for 8 KiB."""
WAITING_LIMIT: Final = 16
"""How many pictures may wait for a thread. Over it, askers are sent away (122)."""
RETRY_AFTER_S: Final = 2.0

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KEPT: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Depth of a channel in bits, by the type of colour (PNG, 11.2.1).
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG that is ours: its bytes, its pixels, and the SHA-256 of the bytes in hex."""

    png: bytes
    width: int
    height: int
    hash: str


class Pictures:
    """Makes pictures anew.

    A picture that is being made is finished when its asker is cancelled: the limiter would lose
    count.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._limiter = trio.CapacityLimiter(threads or max((os.cpu_count() or 1) // 2, 1))

    async def renew(self, data: bytes, *, field: str = "image") -> Picture:
        """The picture in `data`, a PNG, written anew.

        Raises ImageInvalid, which names the field, for what is no PNG, broken, or over a limit, and
        Overloaded when too many wait.
        """
        if self._limiter.statistics().tasks_waiting >= WAITING_LIMIT:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        return await trio.to_thread.run_sync(
            partial(renewed, data, field=field), limiter=self._limiter
        )


def renewed(data: bytes, *, field: str = "image") -> Picture:
    """As `Pictures.renew`, in the thread that calls. Raises ImageInvalid."""
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
    """What is wrong with a picture, as the end of a sentence."""


def _essence(data: bytes) -> bytes:
    """The PNG with nothing but the picture in it. Raises _Unfit."""
    if len(data) > LIMIT_BYTES:
        raise _Unfit(f"must be at most {LIMIT_BYTES} bytes")
    if not data.startswith(_SIGNATURE):
        raise _Unfit("must be a PNG")
    parts = [_SIGNATURE]
    for number, (kind, chunk) in enumerate(_chunks(data)):
        if (number == 0) != (kind == b"IHDR"):
            raise _Unfit("is no whole PNG")
        if number == 0:
            _check_header(chunk)
        if kind in _KEPT:
            parts.append(chunk)
    return b"".join(parts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk up to the end of the picture: its kind, and all its bytes. Raises _Unfit."""
    at = len(_SIGNATURE)
    for _ in range(LIMIT_CHUNKS):
        head = data[at : at + 8]
        if len(head) < 8:
            raise _Unfit("is cut off")
        length, kind = struct.unpack(">I4s", head)
        end = at + 12 + length
        if end > len(data):
            raise _Unfit("is cut off")
        chunk = data[at:end]
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise _Unfit("is harmed: a checksum is wrong")
        yield kind, chunk
        if kind == b"IEND":
            return
        at = end
    raise _Unfit(f"must be of at most {LIMIT_CHUNKS} chunks")


def _check_header(chunk: bytes) -> None:
    """Raises _Unfit for a header that no picture of ours can have, before it costs anything."""
    if len(chunk) != 12 + 13:
        raise _Unfit("is no whole PNG")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", chunk[8:-4]
    )
    if not (1 <= width <= LIMIT_SIDE and 1 <= height <= LIMIT_SIDE):
        raise _Unfit(f"must have 1 to {LIMIT_SIDE} pixels a side")
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise _Unfit("is no whole PNG")


def _decoded(essence: bytes) -> ImageFile.ImageFile:
    try:
        image = PngImagePlugin.PngImageFile(BytesIO(essence))
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise _Unfit("is no whole PNG") from error
    return image


def _plain(image: Image.Image) -> Image.Image:
    """The picture in a form that holds its pixels and nothing else, in 8 bits a channel."""
    if image.mode.startswith("I"):
        # 16 bits of grey: Pillow's own conversion would cut off instead of scaling.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    image.info = {}
    return image
