"""Pixels of a PNG: 8 bits a channel, with exact transparency.

Pillow decodes the picture. It keeps only 8 bits of the samples of most 16-bit pictures, and
compares the transparent color of tRNS with samples that it has scaled. So 16-bit pictures are
decoded by their high and low bytes, and the transparent color is compared here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Protocol

from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngImageFile

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Color types (PNG specification, 11.2.1)."""

_BAND: Final = 256
"""Rows of a 16-bit picture that are converted at once, since that takes much memory per row."""
_KEY_BYTES: Final = {GRAY: 2, RGB: 6}


@dataclass(frozen=True, slots=True)
class Pixels:
    """`color` has the mode L or RGB; `alpha` has the mode L, or is None for an opaque picture."""

    color: Image.Image
    alpha: Image.Image | None


class Open(Protocol):
    """Opens the picture, as if it had that depth and color type; None: as it is."""

    def __call__(self, depth: int | None = None, kind: int | None = None) -> PngImageFile: ...


def decoded(opened: Open, depth: int, kind: int, trns: bytes, curve: Sequence[int]) -> Pixels:
    """Decodes a picture of that depth and color type.

    Args:
        opened: opens the file. For a palette, its tRNS chunk must be in it, and in no other file.
        trns: the data of the tRNS chunk; empty without one.
        curve: the 8-bit value of each of 65,536 levels.

    Raises the errors of Pillow.
    """
    key: tuple[int, ...] | None = None
    if len(trns) == _KEY_BYTES.get(kind):
        key = tuple(
            level & ((1 << depth) - 1) for level in struct.unpack(f">{len(trns) // 2}H", trns)
        )
    if depth == 16:
        return _sixteen(opened, kind, key, curve)
    small = [curve[level * 257] for level in range(256)]
    image: Image.Image = opened()
    image.load()
    alpha = None
    if kind == PALETTE:
        if "transparency" in image.info:
            image = image.convert("RGBA")
            alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif kind == GRAY:
        image = image.convert("L")
        step = 255 // ((1 << depth) - 1)
        alpha = _apart([image], [key[0] * step], 256) if key else None
    elif kind == RGB:
        alpha = _apart(image.split(), key, 256) if key else None
    else:
        alpha = image.getchannel("A")
        image = image.convert("L" if kind == GRAY_ALPHA else "RGB")
    return Pixels(image.point(small * len(image.getbands())), alpha)


def _sixteen(opened: Open, kind: int, key: tuple[int, ...] | None, curve: Sequence[int]) -> Pixels:
    """Like `decoded`, for 16 bits a channel."""
    if kind == GRAY:
        high, low = None, opened()
        low.load()
    elif kind == GRAY_ALPHA:
        # Four bytes a pixel, like 8-bit RGBA: the channels are the bytes.
        high, low = None, opened(8, RGBA)
        low.load()
    else:
        high, low = _bytes(opened, "B"), _bytes(opened, "L")
    width, height = low.size
    plain = [level // 257 + (level % 257 > 128) for level in range(65_536)]
    color = Image.new("L" if kind in (GRAY, GRAY_ALPHA) else "RGB", low.size)
    alpha = None if key is None and kind in (GRAY, RGB) else Image.new("L", low.size)
    for top in range(0, height, _BAND):
        box = (0, top, width, min(top + _BAND, height))
        planes = _planes(None if high is None else high.crop(box), low.crop(box))
        if alpha is not None:
            mask = planes.pop().point(plain, "L") if key is None else _apart(planes, key, 65_536)
            alpha.paste(mask, box)
        bands = [plane.point(curve, "L") for plane in planes]
        color.paste(bands[0] if len(bands) == 1 else Image.merge("RGB", bands), box)
    return Pixels(color, alpha)


def _bytes(opened: Open, order: str) -> PngImageFile:
    """The high (B) or low (L) bytes of 16-bit samples: Pillow drops the other ones."""
    image = opened()
    image.tile = [tile._replace(args=f"{image.mode};16{order}") for tile in image.tile]
    image.load()
    return image


def _planes(high: Image.Image | None, low: Image.Image) -> list[Image.Image]:
    """The 16-bit channels, each in the mode I."""
    if high is not None:
        pairs = list(zip(low.split(), high.split(), strict=True))
    elif low.mode == "RGBA":
        gray_high, gray_low, alpha_high, alpha_low = low.split()
        pairs = [(gray_low, gray_high), (alpha_low, alpha_high)]
    else:
        return [low.convert("I")]
    return [
        Image.frombytes("I;16", low.size, Image.merge("LA", pair).tobytes()).convert("I")
        for pair in pairs
    ]


def _apart(planes: Sequence[Image.Image], key: Sequence[int], levels: int) -> Image.Image:
    """The mask of all pixels but those of the key color: 255 where a channel differs from it."""
    mask: Image.Image | None = None
    for plane, level in zip(planes, key, strict=True):
        table = [255] * levels
        table[level] = 0
        differs = plane.point(table, "L")
        mask = differs if mask is None else ImageChops.lighter(mask, differs)
    assert mask is not None
    return mask


def file_of(*parts: bytes) -> PngImageFile:
    """The picture in a file made of these parts."""
    return PngImageFile(BytesIO(b"".join(parts)))
