"""Reads one trace from a log, as a tree of messages.

The server's JSON log has, for each message that an actor handled, the trace and the message that
caused it (`actors/runtime/trace.py`). This module rebuilds the tree from such lines. It tolerates
lines of other programs, a truncated last line, and missing events below the log level.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import msgspec

from reileta.observability import log_events

LINE_LIMIT: Final = 1024 * 1024
"""Largest line in bytes; longer ones are skipped."""
EVENTS_LIMIT: Final = 100_000
"""Largest number of events of one trace."""

_TRACE_ID: Final = re.compile(r"[0-9a-f]{16}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SOCKET_EDGE: Final = (
    log_events.SOCKET_RECEIVED,
    log_events.SOCKET_OPENED,
    log_events.SOCKET_CLOSED,
    log_events.SOCKET_SERVED,
)
_EDGE: Final = frozenset({*_SOCKET_EDGE, log_events.REQUEST_SERVED})
"""Events of the place where a trace starts."""


def trace_id(text: str) -> str | None:
    """The id as it is in logs, from user input; None if it is not valid."""
    wanted = text.strip().lower()
    return wanted if _TRACE_ID.fullmatch(wanted) else None


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A line of the log. `at_us` is when it was written, in microseconds since 1970 UTC."""

    at_us: int
    name: str
    keys: dict[str, Any]

    def text(self, key: str) -> str | None:
        value = self.keys.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        value = self.keys.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(slots=True)
class Found:
    """The events of a trace in a log, and statistics of the log.

    Attributes:
        lines: all lines except blank ones.
        foreign: lines that are not a JSON object, or too long.
        cut: whether the last line is truncated, because the log is still being written.
        left_off: events beyond `EVENTS_LIMIT`.
    """

    events: list[LogEvent] = field(default_factory=list)
    lines: int = 0
    foreign: int = 0
    cut: bool = False
    left_off: int = 0


def find(log: BinaryIO, trace: str) -> Found:
    """The events of a trace in a log of any size."""
    found = Found()
    wanted = trace.encode()
    for line, whole in _lines(log):
        if line is None:
            found.lines += 1
            found.foreign += 1
            continue
        text = line.strip()
        if not text:
            continue
        found.lines += 1
        if not text.startswith(b"{") or not text.endswith(b"}"):
            if whole:
                found.foreign += 1
            else:
                found.cut = True
        elif wanted in text:  # only these few are parsed
            event = _event(text, trace, found)
            if event is None:
                continue
            if len(found.events) < EVENTS_LIMIT:
                found.events.append(event)
            else:
                found.left_off += 1
    return found


def _lines(log: BinaryIO) -> Iterator[tuple[bytes | None, bool]]:
    """Each line, or None for one that is too long, and whether it ends with a line feed."""
    while line := log.readline(LINE_LIMIT):
        if len(line) < LINE_LIMIT or line.endswith(b"\n"):
            yield line, line.endswith(b"\n")
            continue
        while line and not line.endswith(b"\n"):
            line = log.readline(LINE_LIMIT)
        yield None, True


def _event(text: bytes, trace: str, found: Found) -> LogEvent | None:
    try:
        keys = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found.foreign += 1
        return None
    name, time = keys.pop("event", None), keys.pop("time", None)
    if keys.get("trace") != trace or not isinstance(name, str) or not isinstance(time, str):
        return None
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return LogEvent(
        (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds, name, keys
    )


# The tree -----------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class TraceStep:
    """A step of a trace, and the steps it caused, ordered by start.

    Attributes:
        place: where: `socket 3`, `HTTP`, an actor's name.
        what: the message's type, or the event.
        message: the message's id; None if it is not a message.
        begins_us: microseconds since 1970 UTC: when an actor started on the message.
        took_us: how long handling it took; None if it has no duration.
        waited_us: how long a message waited before that; None for others.
        sent: for frames: how many, to how many sockets, and of how many messages in one write.
        error: the code of a refusal.
    """

    place: str
    what: str
    begins_us: int
    message: int | None = None
    took_us: int | None = None
    waited_us: int | None = None
    sent: tuple[int, int, int] | None = None
    error: int | None = None
    caused: list[TraceStep] = field(default_factory=list)

    @property
    def sent_us(self) -> int:
        """When a message was sent, as far as the log shows."""
        return self.begins_us - (self.waited_us or 0)

    @property
    def ends_us(self) -> int:
        return self.begins_us + (self.took_us or 0)


def tree(events: Iterable[LogEvent]) -> TraceStep:
    """The root of the trace, with all steps below it. Needs at least one event."""
    edge: list[LogEvent] = []
    messages: dict[int, tuple[TraceStep, int]] = {}
    others: list[LogEvent] = []
    for event in events:
        id_ = event.number("message")
        if event.name == log_events.ACTOR_RECEIVED and id_ is not None and id_ not in messages:
            messages[id_] = (_message(event, id_), event.number("cause") or 0)
        elif event.name in _EDGE and not id_:
            edge.append(event)
        else:
            others.append(event)
    for event in others:
        id_ = event.number("message")
        if id_ and id_ not in messages:  # it crashed its actor, or was logged elsewhere
            messages[id_] = (TraceStep(_actor(event), f"message {id_}", event.at_us, id_), 0)
    root = _root(edge, [step for step, _ in messages.values()], others)
    for id_, (step, cause) in messages.items():
        # Ids grow, so a cause with a greater id is from another process. This also excludes cycles.
        parent = messages[cause][0] if cause < id_ and cause in messages else root
        parent.caused.append(step)
    for event in others:
        of = event.number("message")
        parent = messages[of][0] if of else root
        parent.caused.append(_other(event))
    for step in (root, *(step for step, _ in messages.values())):
        step.caused.sort(key=lambda one: one.begins_us)
    return root


def _message(event: LogEvent, id_: int) -> TraceStep:
    took = event.number("handled_us") or 0
    return TraceStep(
        _actor(event),
        event.text("type") or "message",
        event.at_us - took,
        id_,
        took,
        event.number("waited_us") or 0,
        error=event.number("error"),
    )


def _actor(event: LogEvent) -> str:
    return event.text("actor") or "actor"


def _other(event: LogEvent) -> TraceStep:
    place = event.text("actor") or _socket(event) or "server"
    if event.name != log_events.FRAMES_SENT:
        return TraceStep(place, event.name, event.at_us, error=event.number("error"))
    sent = (
        event.number("frames") or 0,
        event.number("sockets") or 0,
        event.number("drain") or 1,
    )
    return TraceStep(place, "frames", event.at_us, sent=sent)


def _socket(event: LogEvent) -> str | None:
    number = event.number("socket")
    return None if number is None else f"socket {number}"


def _root(edge: list[LogEvent], messages: list[TraceStep], others: list[LogEvent]) -> TraceStep:
    """The start of the trace: a frame, a request or, if it was not logged, the earliest time."""
    begins = min(
        [event.at_us - (event.number("us") or 0) for event in edge]
        + [step.sent_us for step in messages]
        + [event.at_us for event in others]
    )
    by_name = {event.name: event for event in edge}
    request = by_name.get(log_events.REQUEST_SERVED)
    if request is not None:
        status = request.number("status")
        words = [request.text("method") or "request", request.text("route") or ""]
        words += [] if status is None else [f"answered with {status}"]
        return TraceStep(
            "HTTP", " ".join(filter(None, words)), begins, took_us=request.number("us")
        )
    first = next((by_name[name] for name in _SOCKET_EDGE if name in by_name), None)
    if first is None:
        return TraceStep("server", "unlogged start", begins)
    served = by_name.get(log_events.SOCKET_SERVED)
    what = first.text("command") or first.name
    size = first.number("bytes")
    return TraceStep(
        _socket(first) or "socket",
        what if size is None else f"{what}, {size} bytes",
        begins,
        took_us=None if served is None else served.number("us"),
        error=None if served is None else served.number("error"),
    )
