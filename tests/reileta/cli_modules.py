"""Modules that stand in for those that commands import when they run."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, module: object) -> None:
    """Commands get `module` for the module of that name."""
    package, _, last = name.rpartition(".")
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(import_module(package), last, module, raising=False)
