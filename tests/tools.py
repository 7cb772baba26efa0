"""Tools that some tests need and a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def missing(what: str) -> None:
    """Skips the test because `what` is not on this machine; under CI=true it fails instead.

    The one way to skip for want of a tool: so CI can't pass by testing less.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI is to test everything")
    pytest.skip(f"{what} is missing")


def need(program: str) -> str:
    """Where the program is; the test is skipped, or fails under CI, where it is not."""
    found = shutil.which(program)
    if found is None:
        missing(program)
        raise AssertionError("missing() returned")
    return found
