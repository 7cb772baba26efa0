"""The part of the harness that runs inside a server."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from trio.testing import memory_stream_pair

from reileta import main
from tests.chaos.soak.observed import answer_one


@pytest.mark.parametrize("asked", [b"waits\n", b""])
async def test_whoever_asked_may_have_gone(asked: bytes) -> None:
    """As it is with a server that was paused: it must not end by that."""
    ours, theirs = memory_stream_pair()
    if asked:
        await theirs.send_all(asked)
    await theirs.aclose()
    with trio.fail_after(60):
        await answer_one(cast(main.Server, None), ours)
