"""Builds the pages into a wheel: setuptools loads this file, as `pyproject.toml` says."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_pages


class BuildPages(build_py):
    """Builds the pages first; not for an editable install, where `make` does it."""

    def run(self) -> None:
        if not self.editable_mode:
            try:
                build_pages.build()
            except build_pages.BuildError as error:
                print(f"warning: the wheel has no pages: {error}", file=sys.stderr)  # noqa: T201
        super().run()
