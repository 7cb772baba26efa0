"""Warnings and errors within their rate."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import structlog

from reileta.observability import log, log_events
from reileta.observability.warning_rate import RATE, WarningRate
from tests import logs


class Lines:
    """A log at level info, and its lines."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._stream = io.StringIO()
        log.configure("json", stream=self._stream, extra=(WarningRate(lambda: self.now_s),))

    def take(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        self._stream.seek(0)
        self._stream.truncate()
        return lines


def test_errors_of_one_kind_are_left_out_over_their_rate_and_counted() -> None:
    with logs.restored():
        lines = Lines()
        logger = structlog.get_logger()
        for _ in range(RATE.burst + 7):
            logger.error(log_events.REQUEST_FAILED, exc_info=ValueError("x"))
        logger.warning(log_events.HUB_FULL)
        written = lines.take()
        assert len(written) == RATE.burst + 1
        assert written[-1]["event"] == log_events.HUB_FULL
        lines.now_s += 1 / RATE.per_s
        logger.error(log_events.REQUEST_FAILED)
        logger.error(log_events.REQUEST_FAILED)
        assert [one["left_out"] for one in lines.take()] == [7]
        lines.now_s += 1 / RATE.per_s
        logger.error(log_events.REQUEST_FAILED)
        assert [one["left_out"] for one in lines.take()] == [1]


def test_what_libraries_log_is_counted_by_library() -> None:
    with logs.restored():
        lines = Lines()
        for _ in range(RATE.burst + 1):
            logging.getLogger("one").warning("again")
        logging.getLogger("two").warning("once")
        assert [one["logger"] for one in lines.take()] == ["one"] * RATE.burst + ["two"]


def test_lines_below_warning_and_counts_of_lines_are_not_limited() -> None:
    with logs.restored():
        lines = Lines()
        logger = structlog.get_logger()
        for _ in range(2 * RATE.burst):
            logger.info(log_events.SERVER_READY)
            logger.warning(log_events.LOG_LIMITED, of="x", lines=1)
        assert len(lines.take()) == 4 * RATE.burst
