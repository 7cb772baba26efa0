"""PNGs of any depth and color type, made sample by sample."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

Sample = tuple[int, ...]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: Sequence[Sequence[Sample]], depth: int, color: int, *before: bytes) -> bytes:
    """A PNG with these samples; `before` are chunks between header and pixels."""
    lines = b""
    for row in rows:
        bits = "".join(format(level, f"0{depth}b") for pixel in row for level in pixel)
        bits += "0" * (-len(bits) % 8)
        lines += b"\0" + int(bits, 2).to_bytes(len(bits) // 8)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), depth, color, 0, 0, 0)
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", header),
            *before,
            chunk(b"IDAT", zlib.compress(lines)),
            chunk(b"IEND"),
        )
    )


def pixels(data: bytes) -> list[tuple[int, int, int, int]]:
    """The pixels of a PNG that holds nothing to interpret, as RGBA."""
    raw = Image.open(BytesIO(data)).convert("RGBA").tobytes()
    return [(raw[at], raw[at + 1], raw[at + 2], raw[at + 3]) for at in range(0, len(raw), 4)]
