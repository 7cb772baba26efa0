"""Samples and transparency of every depth and color type, held against plain arithmetic."""

from __future__ import annotations

import random
import struct

import pytest

from reileta.media.images import renewed
from tests.reileta.media.pngs import CHANNELS, Sample, chunk, pixels, png

KINDS = [
    (color, depth)
    for color, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 4: (8, 16), 6: (8, 16)}.items()
    for depth in depths
]


def neighbours(key: Sample, most: int) -> list[Sample]:
    """Colors that differ from the key in one bit of one sample."""
    found = []
    for place, level in enumerate(key):
        for bit in range(most.bit_length()):
            found.append((*key[:place], level ^ (1 << bit), *key[place + 1 :]))
    return found


@pytest.mark.parametrize(("color", "depth"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_each_pixel_keeps_its_color_and_its_transparency(color: int, depth: int, seed: int) -> None:
    chance = random.Random(seed)
    most = (1 << depth) - 1
    key = tuple(chance.randint(0, most) for _ in range(CHANNELS[color]))
    samples = [key, *neighbours(key, most), tuple(0 for _ in key), tuple(most for _ in key)]
    samples += [tuple(chance.randint(0, most) for _ in key) for _ in range(600)]
    with_key = color in (0, 2)
    trns = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if with_key else b""
    # One pixel a line, and more lines than are converted at once.
    data = png([[sample] for sample in samples], depth, color, trns)
    expected = []
    for sample in samples:
        levels = [int(level * 255 / most + 0.5) for level in sample]
        *levels, alpha = levels if color in (4, 6) else [*levels, 255]
        red, green, blue = levels * 3 if color in (0, 4) else levels
        expected.append((red, green, blue, 0 if with_key and sample == key else alpha))
    assert pixels(renewed(data).png) == expected


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_keeps_its_transparency(depth: int) -> None:
    count = 1 << depth
    colors = [(n * 7 % 256, n * 13 % 256, n * 29 % 256) for n in range(count)]
    alphas = [n * 41 % 256 for n in range(count - 1)]  # the last is left out: opaque
    plte = chunk(b"PLTE", bytes(level for color in colors for level in color))
    data = png([[(n,) for n in range(count)]], depth, 3, plte, chunk(b"tRNS", bytes(alphas)))
    expected = [(*color, alpha) for color, alpha in zip(colors, [*alphas, 255], strict=True)]
    assert pixels(renewed(data).png) == expected


@pytest.mark.parametrize("trns", [b"", b"\0", b"\0\0\0", bytes(6), bytes(300)])
def test_transparency_of_another_kind_is_none(trns: bytes) -> None:
    data = png([[(0,), (3,)]], 2, 0, chunk(b"tRNS", trns))
    assert pixels(renewed(data).png) == [(0, 0, 0, 255), (255, 255, 255, 255)]


def test_the_highest_bits_of_a_transparent_level_do_not_count() -> None:
    data = png([[(1,), (2,)]], 2, 0, chunk(b"tRNS", b"\xff\xfd"))
    assert [alpha for *_, alpha in pixels(renewed(data).png)] == [0, 255]


def test_transparency_after_the_pixels_does_not_count() -> None:
    data = png([[(1,), (2,)]], 2, 0)
    end = len(data) - len(chunk(b"IEND"))
    data = data[:end] + chunk(b"tRNS", b"\0\1") + data[end:]
    assert [alpha for *_, alpha in pixels(renewed(data).png)] == [255, 255]
