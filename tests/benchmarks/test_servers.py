"""Finding servers, and the line that says that one is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.servers import REILETA, Servers, ready_url


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("ready 4567", "ws://127.0.0.1:4567"),
        ('{"event": "server.ready", "url": "http://127.0.0.1:9"}', "ws://127.0.0.1:9"),
        ('{"event": "server.ready", "url": "https://h:9"}', "wss://h:9"),
        ('{"event": "server.starting"}', None),
        ("ready", None),
        ("[1]", None),
        ("", None),
    ],
)
def test_the_ready_line(line: str, url: str | None) -> None:
    assert ready_url(line) == url


def test_a_server_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert "is not installed" in str(Servers(tmp_path, None).missing(REILETA))
