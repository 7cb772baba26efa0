"""Pictures for tests, honest and hostile."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int = 4, height: int = 3, *, extra: bytes = b"", said: int | None = None) -> bytes:
    """A grey picture; `extra` chunks stand behind its header, which says `said` pixels a side."""
    header = struct.pack(">IIBBBBB", said or width, said or height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + b"\x80" * width for _ in range(height))
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )
