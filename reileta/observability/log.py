"""The log: one event per line on standard output, console or JSON.

`configure` is called once, before anything logs. Other code takes a logger from structlog, binds
its ids once and names events by the constants of `log_events`:

    log = structlog.get_logger().bind(instance=instance_id)
    log.info(log_events.ACTOR_STARTED, trace=trace)

In JSON, `time` (ISO 8601, UTC), `level`, `event` and, if there is one, `trace` come first; an
exception is a structure under `exception`, without the values of local variables. Records of the
standard library's `logging` are logged as `library.said`, from level info on: below that, some
libraries log data that passes through them. Secrets are masked (`redact.py`).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final, Literal, Protocol, cast

import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from reileta.observability import log_events, redact


class Stream(Protocol):
    """What the log needs of a stream."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

_FIRST: Final = ("time", "level", "event", "trace")
_CHATTY: Final = ("httpx", "httpcore", "hypercorn.access")
"""Libraries that log every request, and a query can hold a credential: warnings only."""

# Escapes control characters and line separators, so that input can't forge log lines.
_CONTROL: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_CONTROL_IN_TRACEBACK: Final = {
    code: escape for code, escape in _CONTROL.items() if code != ord("\n")
}


def configure(
    format: Format = "console",  # noqa: A002 - the option's name
    level: Level = "info",
    *,
    stream: Stream | None = None,
    colors: bool | None = None,
    extra: Sequence[Processor] = (),
) -> None:
    """Sets up structlog and the standard library's logging for this process.

    `stream` defaults to standard output, `colors` to whether the stream is a terminal. `extra`
    processors can add keys to events; redaction runs after them. A second call replaces the set-up
    for loggers that have not logged yet.
    """
    out = sys.stdout if stream is None else stream
    colored = out.isatty() if colors is None else colors
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *extra,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *(_json_processors() if format == "json" else _console_processors(colored)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=_LinesFactory(out),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if isinstance(handler, _ToStructlog):
            root.removeHandler(handler)
    root.addHandler(_ToStructlog())
    root.setLevel(max(least, logging.INFO))
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _json_processors() -> list[Processor]:
    tracebacks = ExceptionDictTransformer(show_locals=False, use_rich=False, max_frames=30)
    return [
        structlog.processors.ExceptionRenderer(tracebacks),
        _redacted,
        _ordered,
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]


def _console_processors(colored: bool) -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        _redacted,
        _one_line,
        structlog.dev.ConsoleRenderer(colors=colored, timestamp_key="time", pad_event_to=22),
    ]


def _redacted(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return cast(EventDict, redact.value(event))


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> Mapping[str, Any]:
    first = {key: event[key] for key in _FIRST if key in event}
    return {**first, **event}


def _one_line(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> EventDict:
    for key, value in event.items():
        if not isinstance(value, bool | int | float | None):
            escapes = _CONTROL_IN_TRACEBACK if key == "exception" else _CONTROL
            event[key] = str(value).translate(escapes)
    return event


def _to_json(event: Mapping[str, object], **_unused: object) -> str:
    try:
        return msgspec.json.encode(event).decode()
    except (OverflowError, UnicodeEncodeError):
        # msgspec can't encode integers over 64 bits or lone surrogates; `json` escapes them.
        return json.dumps(event)


class _Lines:
    """Writes each event in one call; a log that nobody reads any more must not stop the server."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        try:
            self._stream.write(message + "\n")
            self._stream.flush()
        except UnicodeEncodeError:
            self._stream.write(message.encode("ascii", "backslashreplace").decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The pipe or file was closed, so the error can't be logged either.
            return

    debug = info = warning = warn = error = err = critical = fatal = exception = log = msg


class _LinesFactory:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __call__(self, *_args: object) -> _Lines:
        return _Lines(self._stream)


class _ToStructlog(logging.Handler):
    """Passes records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(record.levelno // 10 * 10, logging.CRITICAL)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        keys: dict[str, object] = {"logger": record.name, "message": message}
        if record.exc_info and record.exc_info[0] is not None:
            keys["exc_info"] = record.exc_info
        structlog.get_logger().log(level, log_events.LIBRARY_SAID, **keys)
