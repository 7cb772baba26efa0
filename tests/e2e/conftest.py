"""What whole servers need in tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.ws import gateway
from tests.quick_start import quick_start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here starts a server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _quick_start() -> Iterator[None]:
    with quick_start():
        yield


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway looks at its sockets often enough for settings of a fraction of a second."""
    monkeypatch.setattr(gateway, "WATCH_S", 0.02)
