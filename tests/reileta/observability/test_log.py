from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.typing import EventDict

from reileta.observability import log, log_events
from reileta.security.credentials import new_token
from tests import logs


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    with logs.restored():
        yield


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def json_log(level: log.Level = "info") -> io.StringIO:
    stream = io.StringIO()
    log.configure("json", level, stream=stream)
    return stream


def test_an_event_is_one_line_of_json_in_a_set_order() -> None:
    stream = json_log()
    structlog.get_logger(instance="i_1").info(log_events.SERVER_READY, url="http://x", trace="t1")
    (event,) = lines(stream)
    assert list(event) == ["time", "level", "event", "trace", "instance", "url"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])
    assert (event["level"], event["event"]) == ("info", "server.ready")


def test_a_level_below_the_least_is_not_logged() -> None:
    stream = json_log("warning")
    logger = structlog.get_logger()
    logger.info("actor.started")
    logger.warning("actor.crashed")
    assert [event["event"] for event in lines(stream)] == ["actor.crashed"]


def test_context_that_is_bound_to_a_task_comes_along() -> None:
    stream = json_log()
    with structlog.contextvars.bound_contextvars(trace="t7"):
        structlog.get_logger().info("actor.started")
    assert lines(stream)[0]["trace"] == "t7"


def test_what_extra_processors_add_is_logged_and_masked_too() -> None:
    def add(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, "trace": "t9", "token": "hunter2"}

    stream = io.StringIO()
    log.configure("json", stream=stream, extra=(add,))
    structlog.get_logger().info("actor.started")
    (event,) = lines(stream)
    assert (event["trace"], event["token"]) == ("t9", "***")


def test_secrets_are_masked_in_keys_values_and_exceptions() -> None:
    stream = json_log()
    token = new_token("ua")

    def refuse(credential: str) -> None:
        raise ValueError(f"no such token: {credential}")

    try:
        refuse(token)
    except ValueError:
        structlog.get_logger().exception("request.failed", password="hunter2", said=[token])
    assert token[3:] not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    (event,) = lines(stream)
    (raised,) = event["exception"]
    assert raised["exc_type"] == "ValueError"
    assert raised["exc_value"] == "no such token: ua_***"
    assert [frame["name"] for frame in raised["frames"]][-1] == "refuse"
    assert all("locals" not in frame for frame in raised["frames"])


def test_groups_of_exceptions_keep_their_structure() -> None:
    stream = json_log()
    try:
        raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])
    except ExceptionGroup:
        structlog.get_logger().exception("actor.crashed")
    (event,) = lines(stream)
    inner = [group[0]["exc_type"] for group in event["exception"][0]["exceptions"]]
    assert inner == ["ValueError", "KeyError"]


@pytest.mark.parametrize("awkward", [2**70, "\ud800", float("nan"), object(), b"\xff", {1: {2}}])
def test_anything_can_be_logged(awkward: object) -> None:
    for style in ("json", "console"):
        stream = io.StringIO()
        log.configure(style, stream=stream)
        structlog.get_logger().info("actor.started", awkward=awkward)
        assert "actor.started" in stream.getvalue()


def test_the_standard_librarys_logging_comes_the_same_way() -> None:
    stream = json_log()
    token = new_token("sa")
    logging.getLogger("hypercorn.error").warning("refused %s", token)
    (event,) = lines(stream)
    assert event["event"] == log_events.LIBRARY_SAID
    assert event["logger"] == "hypercorn.error"
    assert event["level"] == "warning"
    assert event["message"] == "refused sa_***"


def test_a_librarys_exception_and_odd_level_and_odd_arguments_are_taken() -> None:
    # pytest's own handlers would raise for what is odd here.
    logging.getLogger().handlers.clear()
    stream = json_log()
    logger = logging.getLogger("a.library")
    try:
        raise OSError("gone")
    except OSError:
        logger.log(35, "failed", exc_info=True)
    logger.error("%d of %d", "one")
    failed, odd = lines(stream)
    assert failed["level"] == "warning"
    assert failed["exception"][0]["exc_type"] == "OSError"
    assert odd["message"] == "%d of %d"


def test_libraries_are_not_heard_below_info_since_they_quote_what_passes() -> None:
    stream = json_log("debug")
    logging.getLogger("websockets.server").debug("< TEXT 'secret'")
    logging.getLogger("httpx").info("HTTP Request: GET http://x/?authuser=abc")
    assert stream.getvalue() == ""


def test_warnings_of_python_are_logged() -> None:
    stream = json_log()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings restores the hook, so it is set within it.
        log.configure("json", stream=stream)
        warnings.warn("old way", UserWarning, stacklevel=1)
    assert "old way" in lines(stream)[0]["message"]


def test_configuring_twice_says_things_once() -> None:
    first, second = json_log(), json_log()
    logging.getLogger("x").warning("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_the_console_is_readable_and_plain_where_it_is_no_terminal() -> None:
    stream = io.StringIO()
    log.configure("console", stream=stream)
    structlog.get_logger(instance="i_1").info("server.ready", url="http://127.0.0.1:3032")
    line = stream.getvalue()
    assert "server.ready" in line
    assert "url=http://127.0.0.1:3032" in line
    assert "\x1b" not in line


def test_the_console_has_colours_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    log.configure("console", stream=stream)
    structlog.get_logger().info("server.ready")
    assert "\x1b[" in stream.getvalue()


def test_input_can_not_forge_a_line_or_move_the_cursor() -> None:
    stream = io.StringIO()
    log.configure("console", stream=stream)
    structlog.get_logger().info("socket.opened", name="a\n2026 [info] admin.granted\x1b[2J\u2028\r")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_an_exception_on_the_console_is_a_traceback_without_secrets() -> None:
    stream = io.StringIO()
    log.configure("console", stream=stream)
    try:
        raise ValueError(f"bad {new_token('ua')} \x1b[2J")
    except ValueError:
        structlog.get_logger().exception("request.failed")
    assert "Traceback" in stream.getvalue()
    assert "ValueError: bad ua_*** \\x1b[2J" in stream.getvalue()


def test_a_log_that_nobody_reads_does_not_stop_the_server() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise BrokenPipeError

    log.configure("json", stream=Gone())
    structlog.get_logger().info("server.ready")


def test_a_stream_of_a_narrow_encoding_gets_escapes() -> None:
    raw = io.BytesIO()
    log.configure("console", stream=io.TextIOWrapper(raw, encoding="ascii"))
    structlog.get_logger().info("server.ready", title="Reiléta")
    assert b"Reil\\xe9ta" in raw.getvalue()
