"""What whole servers need in tests: a watch that does not take its time."""

from __future__ import annotations

import pytest

from api.ws import gateway


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway looks at its sockets often enough for settings of a fraction of a second."""
    monkeypatch.setattr(gateway, "WATCH_S", 0.02)
