from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import tools


def test_a_program_that_is_there_is_found() -> None:
    assert Path(tools.need(sys.executable)).exists()


def test_a_missing_program_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is missing"):
        tools.need("no-such-program")


def test_a_missing_program_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is missing"):
        tools.need("no-such-program")
