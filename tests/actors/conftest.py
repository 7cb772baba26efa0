"""What the tests of the actors share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.actors.node_harness import NodeHarness, open_harness


@pytest.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NodeHarness]:
    """A node with one room. Tests take `autojump_clock` too: time passes when everyone waits."""
    async with open_harness(monkeypatch) as harness:
        yield harness
