"""Colors of a PNG, converted to sRGB.

A PNG says in one of four ways how its samples stand for colors; the first one that can be used
counts: cICP, iCCP, sRGB, and gAMA with cHRM. A picture without any of them is sRGB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Final

from PIL import Image, ImageCms, ImageFilter

PROFILE_LIMIT_BYTES: Final = 1024 * 1024
"""Largest ICC profile, decompressed; a larger one is ignored."""

Matrix = tuple[tuple[float, float, float], ...]
Chromaticities = tuple[float, ...]
"""x and y of white, red, green and blue."""

_SRGB: Final[Chromaticities] = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# ITU-T H.273: the primaries and the exponents of transfer functions that pictures have. The others,
# such as those of HDR, have no one result in sRGB, so the next way counts.
_PRIMARIES: Final[Mapping[int, Chromaticities]] = {
    1: _SRGB,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_EXPONENTS: Final[Mapping[int, float | None]] = {4: 1 / 2.2, 5: 1 / 2.8, 8: 1.0, 13: None}
_NEAR: Final = 0.005
"""Chromaticities that differ by less are the same."""
_SRGB_EXPONENTS: Final = (0.45, 0.46)
"""Exponents by which programs mean the curve of sRGB: 1/2.2 stands beside each sRGB chunk, for
decoders that do not know that one."""
_GRID: Final = 33
"""Points of a color table along each side."""
_BRADFORD: Final[Matrix] = (
    (0.8951, 0.2664, -0.1614),
    (-0.7502, 1.7135, 0.0367),
    (0.0389, -0.0685, 1.0296),
)


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """The color space of a picture.

    Attributes:
        exponent: light to this power is the sample; None for the curve of sRGB.
        primaries: the chromaticities of white and of the three primaries.
        profile: the ICC profile, in place of both.
    """

    exponent: float | None = None
    primaries: Chromaticities = _SRGB
    profile: ImageCms.ImageCmsProfile | None = None

    def curve(self) -> Sequence[int]:
        """The 8-bit value, with the curve of sRGB, of each of 65,536 levels."""
        return _curve(self.exponent)

    def to_srgb(self, color: Image.Image) -> Image.Image:
        """Converts a picture (L or RGB) to which `curve` was applied."""
        if self.profile is not None:
            return _through(self.profile, color)
        if color.mode == "RGB" and not _same(self.primaries, _SRGB):
            return color.filter(_table(self.primaries))
        return color


def color_space(chunks: Mapping[bytes, bytes], *, gray: bool) -> ColorSpace:
    """The color space that the chunks (type to data) of a picture declare."""
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) == 4 and cicp[2:] == b"\0\1":
        primaries, transfer = cicp[:2]
        if primaries in _PRIMARIES and transfer in _EXPONENTS:
            return ColorSpace(_EXPONENTS[transfer], _PRIMARIES[primaries])
    profile = _profile(chunks.get(b"iCCP", b""), "GRAY" if gray else "RGB")
    if profile is not None:
        return ColorSpace(profile=profile)
    gamma = chunks.get(b"gAMA", b"")
    if b"sRGB" in chunks or len(gamma) != 4:
        return ColorSpace()
    exponent = int.from_bytes(gamma) / 100_000
    if not 0.05 <= exponent <= 20:
        return ColorSpace()
    near = _SRGB_EXPONENTS[0] <= exponent <= _SRGB_EXPONENTS[1]
    return ColorSpace(None if near else exponent, _chromaticities(chunks.get(b"cHRM", b"")))


def _profile(iccp: bytes, space: str) -> ImageCms.ImageCmsProfile | None:
    """The ICC profile of a chunk, if it can be used for pictures of that color space."""
    name, _, rest = iccp.partition(b"\0")
    if not name or rest[:1] != b"\0":
        return None
    try:
        data = zlib.decompressobj().decompress(rest[1:], PROFILE_LIMIT_BYTES + 1)
        if len(data) > PROFILE_LIMIT_BYTES:
            return None
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        if profile.profile.xcolor_space.strip() != space:
            return None
        _through(profile, Image.new("L" if space == "GRAY" else "RGB", (1, 1)))
    except (ImageCms.PyCMSError, OSError, ValueError, zlib.error):
        return None
    return profile


def _through(profile: ImageCms.ImageCmsProfile, color: Image.Image) -> Image.Image:
    target = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    transform = ImageCms.buildTransform(profile, target, color.mode, "RGB", intent)
    converted = ImageCms.applyTransform(color, transform)
    assert converted is not None
    return converted


@cache
def _plain() -> list[int]:
    return [(level * 255 + 32_767) // 65_535 for level in range(65_536)]


def _curve(exponent: float | None) -> list[int]:
    if exponent is None:
        return _plain()
    return [round(255 * _encoded((level / 65_535) ** (1 / exponent))) for level in range(65_536)]


def _encoded(light: float) -> float:
    """The sample of sRGB for light from 0 to 1."""
    light = min(max(light, 0.0), 1.0)
    return light * 12.92 if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def _light(sample: float) -> float:
    """The light for a sample of sRGB."""
    return sample / 12.92 if sample <= 0.04045 else ((sample + 0.055) / 1.055) ** 2.4


def _same(one: Chromaticities, other: Chromaticities) -> bool:
    return all(abs(a - b) < _NEAR for a, b in zip(one, other, strict=True))


def _chromaticities(chrm: bytes) -> Chromaticities:
    """The chromaticities of a cHRM chunk; those of sRGB, if they make no sense."""
    if len(chrm) != 32:
        return _SRGB
    values = tuple(value / 100_000 for value in struct.unpack(">8I", chrm))
    pairs = list(zip(values[::2], values[1::2], strict=True))
    if any(y <= 0 or x + y > 1 for x, y in pairs):
        return _SRGB
    (ax, ay), (bx, by), (cx, cy) = pairs[1:]
    flat = abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) < 0.001
    return _SRGB if flat else values


def _table(primaries: Chromaticities) -> ImageFilter.Color3DLUT:
    """The table from these primaries to those of sRGB, both with the curve of sRGB."""
    source, target = _to_xyz(primaries), _to_xyz(_SRGB)
    matrix = _times(_inverse(target), _times(_adapted(primaries[:2], _SRGB[:2]), source))

    def converted(red: float, green: float, blue: float) -> tuple[float, float, float]:
        light = (_light(red), _light(green), _light(blue))
        to = [_encoded(sum(a * b for a, b in zip(row, light, strict=True))) for row in matrix]
        return to[0], to[1], to[2]

    return ImageFilter.Color3DLUT.generate(_GRID, converted)


def _to_xyz(primaries: Chromaticities) -> Matrix:
    """The matrix from linear light of these primaries to CIE XYZ."""
    columns = [_xyz(x, y) for x, y in zip(primaries[2::2], primaries[3::2], strict=True)]
    unscaled: Matrix = tuple(zip(*columns, strict=True))
    scale = _applied(_inverse(unscaled), _xyz(*primaries[:2]))
    return tuple(tuple(a * b for a, b in zip(row, scale, strict=True)) for row in unscaled)  # type: ignore[misc]


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y


def _adapted(white: Chromaticities, to: Chromaticities) -> Matrix:
    """Bradford's matrix, which adapts XYZ from one white to another."""
    cones, wanted = (_applied(_BRADFORD, _xyz(*one)) for one in (white, to))
    scaled: Matrix = tuple(
        tuple(value * b / a for value in row)  # type: ignore[misc]
        for row, a, b in zip(_BRADFORD, cones, wanted, strict=True)
    )
    return _times(_inverse(_BRADFORD), scaled)


def _applied(matrix: Matrix, vector: Sequence[float]) -> tuple[float, float, float]:
    one, two, three = (sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)
    return one, two, three


def _times(one: Matrix, other: Matrix) -> Matrix:
    columns = [_applied(one, column) for column in zip(*other, strict=True)]
    return tuple(zip(*columns, strict=True))


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    adjugate = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    return tuple(tuple(value / determinant for value in row) for row in adjugate)  # type: ignore[misc]
