"""The documentation's site: all pages are in it, and no link leads nowhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def build_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs/site/build_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path)
    return module


def test_the_menu_has_every_page_of_the_documentation() -> None:
    menu = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": (docs/[\w-]+\.md)$", menu, re.MULTILINE))
    assert named == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.slow
def test_the_site_is_built_without_a_broken_link(
    build_site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "mermaid.js"
    script.write_text("")
    monkeypatch.setattr(build_site, "mermaid", lambda: script)
    build_site.main()
    page = (tmp_path / "site" / "docs" / "protocol.html").read_text(encoding="utf-8")
    assert 'id="messages"' in page
    loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(https?:[^"' >]+)""", page)
    assert loaded == []
