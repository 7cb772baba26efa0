"""Pictures by a whole server over real connections: as they were shown before."""

from __future__ import annotations

import struct

import httpx

from tests.conftest import PATIENCE_S
from tests.e2e.servers import running
from tests.e2e.test_registry import RegistryClient
from tests.reileta.media.pngs import chunk, pixels, png


async def test_a_picture_is_shown_as_it_was(database_url: str) -> None:
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    sideways = [chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"eXIf", exif)]
    key = chunk(b"tRNS", struct.pack(">H", 300))
    async with (
        running(database_url, rate_limits="off") as harness,
        httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as client,
    ):
        ada = RegistryClient(client, await harness.account("ada"))
        for kind in ("thumbnail", "banner"):
            path = f"/api/users/@me/{kind}"
            content = png([[(300,), (301,)]], 16, 0, key, *sideways)
            headers = {"Content-Type": "image/png"}
            await ada.done("POST", path, content=content, headers=headers)
            answer = await ada.ask("GET", path)
            assert struct.unpack(">II", answer.content[16:24]) == (1, 2)
            assert pixels(answer.content) == [(14, 14, 14, 0), (15, 15, 15, 255)]
