"""A trace as text: a tree for terminals, or a Mermaid sequence diagram.

The output is ASCII, so that it survives any encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from reileta.diagnostics.stable_repr import quoted
from reileta.diagnostics.trace_reader import Found, TraceStep

SOCKETS: Final = "sockets"

_UUID: Final = re.compile(r"([a-z]_[0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STRANGE: Final = re.compile(r"[^A-Za-z0-9 _./:,()@+*-]")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def draw(root: TraceStep, trace: str) -> Iterator[str]:
    """The tree: when each step started, relative to the trace's start, and how long it took."""
    steps = list(_walk(root))
    ends = max(step.ends_us for step, _ in steps)
    begins = f"{_EPOCH + timedelta(microseconds=root.begins_us):%Y-%m-%dT%H:%M:%S.%fZ}"
    yield f"trace {trace}, {begins}, {_ms(ends - root.begins_us)}"
    yield ""
    yield f"{'at':>13}  {'took':>12}"
    for step, branch in steps:
        took = "" if step.took_us is None else _ms(step.took_us)
        at = f"+{_ms(step.begins_us - root.begins_us)}"
        yield f"{at:>13}  {took:>12}  {branch}{_text_of(step)}"


def _walk(root: TraceStep) -> Iterator[tuple[TraceStep, str]]:
    """Each step with its branch prefix, causes before effects; of any depth."""
    waiting: list[tuple[TraceStep, str, str]] = [(root, "", "")]
    while waiting:
        step, branch, below = waiting.pop()
        yield step, branch
        last = len(step.caused) - 1
        for place, one in reversed(list(enumerate(step.caused))):
            end = place == last
            waiting.append(
                (one, below + ("`- " if end else "|- "), below + ("   " if end else "|  "))
            )


def _ms(us: int) -> str:
    return f"{us / 1000:.3f} ms"


def _text_of(step: TraceStep) -> str:
    if step.sent is not None:
        return _frames(step.sent)
    text = f"{_ascii(step.place)}: {_ascii(step.what)}"
    if step.message is not None:
        text += f" #{step.message}"
    if step.waited_us is not None:
        text += f", waited {_ms(step.waited_us)}"
    if step.error is not None:
        text += f", refused with {step.error}"
    return text


def _frames(sent: tuple[int, int, int]) -> str:
    frames, sockets, drain = sent
    text = f"{frames} frame{'' if frames == 1 else 's'}"
    text += f" to {sockets} socket{'' if sockets == 1 else 's'}"
    return text if drain == 1 else f"{text}, with those of {drain - 1} other messages in one write"


def _ascii(text: str) -> str:
    return quoted(text)[1:-1].encode("ascii", "backslashreplace").decode()


def mermaid(root: TraceStep) -> Iterator[str]:
    """A Mermaid sequence diagram; ids are shortened."""
    names: dict[str, str] = {}
    arrows: list[tuple[int, str]] = []
    waiting = [(root, one) for one in root.caused]
    names[root.place] = "p0"
    for cause, step in waiting:  # the list grows meanwhile
        waiting.extend((step, one) for one in step.caused)
        arrows.append((step.sent_us, _arrow(cause, step, names)))
    arrows.sort(key=lambda each: each[0])
    yield "sequenceDiagram"
    for place, name in names.items():
        yield f"    participant {name} as {_short(place)}"
    first = _clean(root.what)
    yield f"    Note over p0: {first}"
    for _, arrow in arrows:
        yield f"    {arrow}"
    if root.took_us is not None:
        refused = "" if root.error is None else f", refused with {root.error}"
        yield f"    Note over p0: done after {_ms(root.took_us)}{refused}"


def _arrow(cause: TraceStep, step: TraceStep, names: dict[str, str]) -> str:
    if step.sent is not None:
        to = _name(SOCKETS, names)
        return f"{_name(step.place, names)}->>{to}: {_clean(_frames(step.sent))}"
    at = _name(step.place, names)
    if step.message is None:
        return f"Note over {at}: {_clean(step.what)}"
    text = _clean(step.what)
    if step.took_us is not None:
        text += f" ({_ms(step.took_us)})"
    if step.error is not None:
        text += f", refused with {step.error}"
    return f"{_name(cause.place, names)}->>{at}: {text}"


def remarks(found: Found) -> Iterator[str]:
    """Remarks on a log that could not be read completely."""
    if found.foreign:
        yield f"{found.foreign} of {found.lines} lines are not JSON; skipped"
    if found.cut:
        yield "the last line is truncated; skipped"
    if found.left_off:
        yield f"{found.left_off} events are not shown: there are too many"


def nothing(found: Found, trace: str) -> str:
    """Why there is nothing to draw, and what to do."""
    if not found.lines:
        return "the log is empty"
    if found.foreign == found.lines:
        return "this is not a JSON log: run the server with --log-format json"
    return (
        f"no event of trace {trace} in {found.lines} lines: traces are only logged at --log-level"
        " debug, or if --trace-sample selects them"
    )


def _name(place: str, names: dict[str, str]) -> str:
    return names.setdefault(place, f"p{len(names)}")


def _short(place: str) -> str:
    return _clean(_UUID.sub(r"\1", place))


def _clean(text: str) -> str:
    """Without characters that are special in Mermaid: `;` ends a statement, `#` starts an
    entity."""
    return _STRANGE.sub("?", text)
