"""A replay as text: the effect of each message, and the final state.

The text depends only on the recording, so two replays of one file are equal byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from reileta.diagnostics.recording import Reason
from reileta.diagnostics.recording_instance import OPENING
from reileta.diagnostics.replay import Played, Replay, ReplayStep, state
from reileta.diagnostics.stable_repr import stable_repr
from reileta.rules.instance.events import InstanceEvent
from reileta.rules.instance.instance import DROPPED, TO_ALL, Instance, Spoken

_REASONS: dict[Reason, str] = {
    "stopped": "the instance stopped normally",
    "crashed": "the instance crashed",
    "overflow": "the recording stopped, because the disk was too slow; the instance continued",
    "limit": "the recording stopped, because the folder was full; the instance continued",
    "unrecordable": "the recording stopped at a call that could not be recorded",
}


def report(replay: Replay, *, steps: bool = False) -> Iterator[str]:
    """The lines of the report; replays the recording meanwhile. `steps` adds each message."""
    opened = replay.opened
    yield f"{opened.instance}, from {_time(opened.at)}, recorded by reileta {opened.reileta}"
    for step in replay.steps():
        if steps:
            yield ""
            yield from _step(step, opened.at)
    yield ""
    yield (
        f"{_count(replay.messages, 'message')}, {_count(replay.calls, 'call')} of rules,"
        f" {replay.refused} of them refused"
    )
    yield from _end(replay)
    yield ""
    if replay.rules is None:
        yield "the recording ends before the instance was created"
    else:
        yield from _state(replay.rules)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(at_ms: int) -> str:
    seconds, ms = divmod(at_ms, 1000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"


def _since(at_ms: int, begin_ms: int) -> str:
    return f"{(at_ms - begin_ms) / 1000:+.3f} s"


def _step(step: ReplayStep, begin_ms: int) -> Iterator[str]:
    message = step.message
    if message is None:
        yield "at the start"
    else:
        line = f"#{step.number} {_since(message.at, begin_ms)} {stable_repr(message.kind)[1:-1]}"
        line += f", message {message.id}"
        if message.cause:
            line += f" caused by {message.cause}"
        if message.socket is not None:
            line += f", socket {message.socket}"
        if message.trace:
            line += f", trace {message.trace:016x}"
        yield line
    for played in step.calls:
        yield from _played(played)
    if not step.calls:
        yield "    calls no rule"


def _played(played: Played) -> Iterator[str]:
    rule = "Instance" if played.rule == OPENING else stable_repr(played.rule)[1:-1]
    arguments = ", ".join(
        f"{name}={stable_repr(value)}" for name, value in played.arguments.items()
    )
    yield f"    {rule}({arguments})"
    if played.error is not None:
        yield f"        raises {_error(played.error)}"
    else:
        for line in _answer(played.answer):
            yield f"        {line}"
    if played.differs is not None:
        yield f"        differs from the recording: {played.differs}"


def _error(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {stable_repr(text)[1:-1]}" if text else type(error).__name__


def _answer(answer: Any) -> Iterator[str]:
    if isinstance(answer, Spoken):
        yield _spoken(answer)
    elif isinstance(answer, list):
        yield from (stable_repr(event) for event in answer)
    elif isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], list):
        domain_events: list[InstanceEvent] = answer[1]
        yield f"answers {stable_repr(answer[0])}"
        yield from (stable_repr(event) for event in domain_events)
    elif answer is not None:
        yield f"answers {stable_repr(answer)}"


def _spoken(spoken: Spoken) -> str:
    if spoken == TO_ALL:
        return "goes to everyone else"
    if spoken == DROPPED:
        return "is dropped: the retained value is newer"
    return f"goes to {stable_repr(spoken.to)}"


def _end(replay: Replay) -> Iterator[str]:
    ended, damage = replay.ended, replay.damage
    if ended is not None:
        line = _REASONS[ended.reason]
        if ended.error is not None:
            line += f" ({stable_repr(ended.error)[1:-1]})"
        yield f"{_since(ended.at, replay.opened.at)}: {line}"
    elif damage is None:
        yield "the recording has no end: the server is still running, or was killed"
    if damage is not None:
        yield f"the rest of the file can't be read: {damage}"
    match replay.as_recorded:
        case True:
            yield "the replay matches the recording"
        case None:
            yield "every call matches the recording; the final state was not recorded"
        case False if replay.differing:
            yield f"{_count(replay.differing, 'call')} did not match the recording: see --steps"
        case False:
            yield "every call matches the recording, but the final state does not"


def _state(rules: Instance) -> Iterator[str]:
    yield "final state of the instance"
    for name, value in state(rules).items():
        if isinstance(value, list):
            yield f"    {name}: {len(value)}"
            yield from (f"        {stable_repr(one)}" for one in value)
        else:
            yield f"    {name}: {stable_repr(value)}"
