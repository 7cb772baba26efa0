"""Tests that set up logging, and leave it as they found it."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def restored() -> Iterator[None]:
    """Undoes within itself what `reileta.log.configure` did to both logging systems."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    before = structlog.get_config()
    try:
        yield
    finally:
        structlog.configure(**before)
        _forget_cached_loggers()
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)


def _forget_cached_loggers() -> None:
    """A module's logger that was used meanwhile keeps its set-up by an attribute `bind` of its own;
    without it, the next use takes the present set-up, and `capture_logs` sees it."""
    kind = type(structlog.get_logger())
    # Those of modules are no longer among the collector's objects (conftest.py).
    of_modules = (value for module in [*sys.modules.values()] for value in [*vars(module).values()])
    for logger in itertools.chain(gc.get_objects(), of_modules):
        if type(logger) is kind:
            vars(logger).pop("bind", None)
