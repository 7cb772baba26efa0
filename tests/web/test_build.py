"""The build of the pages: it is done when it must be, and says in one line why it can't be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clients.web import build_pages


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources and folders of the test's own."""
    source = tmp_path / "main.tsx"
    source.write_text("one")
    monkeypatch.setattr(build_pages, "ROOT", tmp_path)
    monkeypatch.setattr(build_pages, "WEB", tmp_path)
    monkeypatch.setattr(build_pages, "SOURCES", (source,))
    monkeypatch.setattr(build_pages, "DIST", tmp_path / "dist")
    monkeypatch.setattr(build_pages, "BUILD", tmp_path / "build")
    (tmp_path / "package-lock.json").write_text("{}")
    return tmp_path


@pytest.fixture
def npm(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Node and npm, which fail. What counts their starts."""
    starts: list[int] = []

    def node() -> Path:
        starts.append(1)
        raise build_pages.BuildError("npm has no network")

    monkeypatch.setattr(build_pages, "node", node)
    return starts


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["build_pages.py", *options])
    return build_pages.main()


def test_a_failure_is_one_line_and_is_not_tried_again_until_sources_change(
    checkout: Path,
    npm: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        assert run(monkeypatch, "--optional") == 0
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "npm has no network" in line
        assert "make web" in line
    assert len(npm) == 1
    (checkout / "main.tsx").write_text("two")
    assert run(monkeypatch, "--optional") == 0
    assert len(npm) == 2


def test_asked_for_the_pages_it_tries_again_and_fails(
    npm: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for many in (1, 2):
        assert run(monkeypatch) == 1
        assert len(npm) == many


def test_pages_that_are_up_to_date_are_left_alone(
    checkout: Path, npm: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = checkout / "dist" / build_pages.STAMP
    stamp.parent.mkdir()
    stamp.write_text(build_pages.sources_hash())
    assert run(monkeypatch, "--optional") == 0
    assert npm == []
    (checkout / "main.tsx").write_text("two")
    assert not build_pages.built()
