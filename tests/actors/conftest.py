"""What the tests of the actors share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.actors.nodes import World, open_world


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A node with one room. Tests take `autojump_clock` too: time passes when everyone waits."""
    async with open_world(monkeypatch) as world:
        yield world
