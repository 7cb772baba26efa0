"""Colors that a picture declares, and what they are in sRGB."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import ImageCms

from reileta.media.images import renewed
from reileta.media.srgb import PROFILE_LIMIT_BYTES
from tests.reileta.media.pngs import Sample, chunk, pixels, png

SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
P3_ORANGE, ORANGE = (200, 100, 50), (215, 93, 31)
"""A color of Display P3, and the same one in sRGB."""
LINEAR = 100_000
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gama(exponent: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", exponent))


def chrm(values: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(profile))


def swapped() -> bytes:
    """A profile like sRGB, whose red and blue primaries changed places."""
    other = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}
    data = bytearray(SRGB_PROFILE)
    for number in range(int.from_bytes(data[128:132])):
        at = 132 + 12 * number
        name = bytes(data[at : at + 4])
        data[at : at + 4] = other.get(name, name)
    return bytes(data)


def linear_gray() -> bytes:
    """A profile of gray, whose levels are proportional to light."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    tags = struct.pack(">I", 2)
    tags += struct.pack(">4sII", b"wtpt", 156, 20) + struct.pack(">4sII", b"kTRC", 176, 12)
    head = struct.pack(
        ">I4s4s4s4s4s12x4s24xI3i48x",
        188, b"\0" * 4, b"\x02\x40\0\0", b"mntr", b"GRAY", b"XYZ ", b"acsp", 0, 63190, 65536, 54061,
    )  # fmt: skip
    assert len(head) == 128, len(head)
    return head + tags + white + curve


def shown(sample: Sample, depth: int, color: int, *chunks: bytes) -> tuple[int, ...]:
    """The pixel that comes out of a picture with one pixel."""
    (pixel,) = pixels(renewed(png([[sample]], depth, color, *chunks)).png)
    return pixel[: 3 if color in (0, 2, 3) else 4]


def near(one: tuple[int, ...], other: tuple[int, ...], by: int = 1) -> bool:
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("sample", "depth", "color", "exponent", "expected"),
    [
        ((128,), 8, 0, LINEAR, (188, 188, 188)),
        ((1,), 1, 0, LINEAR, (255, 255, 255)),
        ((128, 64, 32), 8, 2, LINEAR, (188, 137, 99)),
        ((300, 0, 65535), 16, 2, LINEAR, (14, 0, 255)),
        ((300,), 16, 0, LINEAR, (14, 14, 14)),
        ((128, 77), 8, 4, LINEAR, (188, 188, 188, 77)),
        ((0x8080, 0x4D4D), 16, 4, LINEAR, (188, 188, 188, 77)),
        ((128, 64, 32, 77), 8, 6, LINEAR, (188, 137, 99, 77)),
        ((100,), 8, 0, 55_556, (119, 119, 119)),
        ((100,), 8, 0, 45_455, (100, 100, 100)),
        ((100,), 8, 0, 0, (100, 100, 100)),
        ((100,), 8, 0, 2**31, (100, 100, 100)),
    ],
)
def test_gamma_is_applied_to_colors_alone(
    sample: Sample, depth: int, color: int, exponent: int, expected: tuple[int, ...]
) -> None:
    assert shown(sample, depth, color, gama(exponent)) == expected


def test_gamma_applies_to_palettes_and_keeps_what_is_transparent() -> None:
    plte = chunk(b"PLTE", bytes((128, 64, 32)))
    assert shown((0,), 8, 3, gama(LINEAR), plte) == (188, 137, 99)
    data = png([[(1,), (2,)]], 2, 0, gama(LINEAR), chunk(b"tRNS", b"\0\1"))
    assert pixels(renewed(data).png) == [(156, 156, 156, 0), (213, 213, 213, 255)]


def test_primaries_are_applied() -> None:
    assert near(shown(P3_ORANGE, 8, 2, gama(45_455), chrm(P3)), ORANGE)
    assert shown(P3_ORANGE, 8, 2, gama(45_455), chrm(SRGB)) == P3_ORANGE
    assert shown(P3_ORANGE, 8, 2, chrm(P3)) == P3_ORANGE, "it counts beside gAMA alone"
    assert shown((99,), 8, 0, gama(45_455), chrm(P3)) == (99, 99, 99)


@pytest.mark.parametrize(
    "values", [(0.0,) * 8, (0.3,) * 8, (9.0,) * 8, (0.3127, 0.3290, 0.64, 0, 0.3, 0.6, 0.15, 0.06)]
)
def test_primaries_that_make_no_sense_are_ignored(values: tuple[float, ...]) -> None:
    assert shown(P3_ORANGE, 8, 2, gama(45_455), chrm(values)) == P3_ORANGE


def test_a_profile_is_applied() -> None:
    assert near(shown((200, 100, 50), 8, 2, iccp(swapped())), (50, 100, 200))
    assert near(shown((200, 100, 50, 77), 8, 6, iccp(swapped())), (50, 100, 200, 77))
    assert near(shown((51400, 25700, 12850), 16, 2, iccp(swapped())), (50, 100, 200))
    plte = chunk(b"PLTE", bytes((200, 100, 50)))
    assert near(shown((0,), 8, 3, iccp(swapped()), plte), (50, 100, 200))
    assert shown((200, 100, 50), 8, 2, iccp(SRGB_PROFILE)) == (200, 100, 50)
    assert near(shown((128,), 8, 0, iccp(linear_gray())), (188, 188, 188))


@pytest.mark.parametrize(
    "chunk_",
    [
        chunk(b"iCCP", b""),
        chunk(b"iCCP", b"name\0\0no deflate"),
        chunk(b"iCCP", b"name\0\1" + zlib.compress(swapped())),
        iccp(b"no profile"),
        iccp(swapped()[:200]),
        iccp(swapped() + bytes(PROFILE_LIMIT_BYTES)),
        iccp(linear_gray()),
    ],
)
def test_a_profile_that_can_not_be_used_is_ignored(chunk_: bytes) -> None:
    assert shown((200, 100, 50), 8, 2, chunk_) == (200, 100, 50)
    assert shown((128, 64, 32), 8, 2, chunk_, gama(LINEAR)) == (188, 137, 99)


def test_the_first_way_that_can_be_used_counts() -> None:
    linear, srgb = gama(LINEAR), chunk(b"sRGB", b"\0")
    p3 = chunk(b"cICP", bytes((12, 13, 0, 1)))
    hdr = chunk(b"cICP", bytes((9, 16, 0, 1)))
    assert shown((128, 64, 32), 8, 2, linear, srgb) == (128, 64, 32)
    assert near(shown((200, 100, 50), 8, 2, linear, iccp(swapped())), (50, 100, 200))
    assert near(shown(P3_ORANGE, 8, 2, linear, iccp(swapped()), p3), ORANGE)
    assert near(shown((200, 100, 50), 8, 2, hdr, iccp(swapped())), (50, 100, 200))
    assert shown((128, 64, 32), 8, 2, chunk(b"cICP", bytes((1, 8, 0, 1)))) == (188, 137, 99)


def test_a_picture_without_any_is_srgb() -> None:
    assert shown((200, 100, 50), 8, 2) == (200, 100, 50)
