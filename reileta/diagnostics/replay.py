"""Replays a recording: makes each recorded call of a rule again.

There are no actors, no sockets and no clock: each call is made again in order, with the recorded
times and player ids. So a replay shows the state of an instance at any moment, and a call that
crashed the rules crashes them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Final

import msgspec

from reileta.diagnostics.recording import (
    Called,
    Ended,
    NotARecording,
    Opened,
    Received,
    RecordingReader,
)
from reileta.diagnostics.recording_instance import CALLS, OPENING
from reileta.diagnostics.stable_repr import stable_repr
from reileta.rules.instance.instance import Instance
from reileta.rules.instance.sanctions import Mute

RENAMED_RULES: Final = {
    "dismiss_moderator": "remove_moderator",
    "hand_over": "transfer_master",
    "inherit": "reassign_owner",
    "lost": "disconnect",
    "name_moderator": "add_moderator",
}
"""Rules by the name that recordings of earlier versions have, with the present name."""


@dataclass(frozen=True, slots=True)
class Played:
    """One replayed call of a rule.

    Either `answer` or `error` is its result. `differs` describes a difference from the recording,
    which happens if the rules have changed since.
    """

    rule: str
    arguments: dict[str, Any]
    answer: Any = None
    error: Exception | None = None
    differs: str | None = None


@dataclass(slots=True)
class ReplayStep:
    """One message (None: before the first), and the calls of rules that it caused."""

    number: int
    message: Received | None
    calls: list[Played] = field(default_factory=list)


class Replay:
    """The replay of a recording: iterate `steps` once, then read the attributes.

    Attributes:
        opened: the first record.
        rules: the current instance; None if the recording ends before it was created.
        ended: the last record; None if it is missing.
        messages, calls, refused: how many there were; `refused` are calls that raised.
        differing: calls whose result differs from the recording.

    The constructor raises NotARecording.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._reader = RecordingReader(file)
        self._records = iter(self._reader)
        first = next(self._records, None)
        if not isinstance(first, Opened):
            raise NotARecording("its first record is missing")
        self.opened = first
        self.rules: Instance | None = None
        self.ended: Ended | None = None
        self.messages = self.calls = self.refused = self.differing = 0
        self._ids: list[str] = []

    @property
    def damage(self) -> str | None:
        """Why the file was not read to its end, or None."""
        return self._reader.damage

    @property
    def as_recorded(self) -> bool | None:
        """Whether the replay matches the recording; None: so far, but the final state was not
        recorded."""
        if self.differing:
            return False
        if self.ended is None or self.ended.state is None or self.rules is None:
            return None
        return self.ended.state == digest(self.rules)

    def steps(self) -> Iterator[ReplayStep]:
        """Each message with its calls, one at a time."""
        step = ReplayStep(0, None)
        for record in self._records:
            if isinstance(record, Called):
                step.calls.append(self._play(record))
            elif isinstance(record, Received):
                if step.message is not None or step.calls:
                    yield step
                self.messages += 1
                step = ReplayStep(self.messages, record)
            elif isinstance(record, Ended):
                self.ended = record
        if step.message is not None or step.calls:
            yield step

    def run(self) -> None:
        """Replays the whole recording."""
        for _ in self.steps():
            pass

    def _play(self, called: Called) -> Played:
        self.calls += 1
        played = self._call(called)
        if played.error is not None:
            self.refused += 1
        if played.differs is not None:
            self.differing += 1
        return played

    def _call(self, called: Called) -> Played:
        call = CALLS.get(called.rule) or CALLS.get(RENAMED_RULES.get(called.rule, ""))
        if call is None:
            return _lost(called, "this version has no such rule")
        try:
            arguments = call.unpacked(called.args, called.kwargs)
        except (TypeError, msgspec.ValidationError) as error:
            return _lost(called, f"its arguments do not match this version: {error}")
        if (called.rule == OPENING) != (self.rules is None):
            return _lost(called, "it is out of order")
        self._ids = list(called.ids)
        answer: Any = None
        with _Kept() as kept:
            if self.rules is None:
                self.rules = Instance(**arguments, new_player_id=self._new_player_id)
            else:
                answer = call.function(self.rules, **arguments)
        raised = None if kept.error is None else type(kept.error).__name__
        differs: list[str] = []
        if raised != called.raised:
            differs.append(
                f"it {_ended(called.raised)} in the recording and {_ended(raised)} in the replay"
            )
        if self._ids:
            differs.append("it made fewer players than in the recording")
        return Played(called.rule, arguments, answer, kept.error, "; ".join(differs) or None)

    def _new_player_id(self) -> str:
        if not self._ids:
            raise LookupError("the replay made a player that the recording does not have")
        return self._ids.pop(0)


def _lost(called: Called, why: str) -> Played:
    arguments = {f"#{place}": value for place, value in enumerate(called.args)}
    return Played(called.rule, {**arguments, **called.kwargs}, differs=why)


def _ended(raised: str | None) -> str:
    return "succeeded" if raised is None else f"raised {raised}"


class _Kept:
    """A block that keeps its exception: a crash of the rules is part of the replay."""

    error: Exception | None = None

    def __enter__(self) -> _Kept:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
            return True
        return False


# The state of an instance
# --------------------------------------------------------------------------


def state(rules: Instance) -> dict[str, Any]:
    """The complete state of an instance, as plain values in a fixed order."""
    return {
        "record": rules.record,
        "owner": rules.owner,
        "master": rules.master,
        "closed": rules.closed,
        "empty_since": rules.empty_since,
        "next_deadline": rules.next_deadline(),
        "seats": {"taken": rules.taken, "capacity": rules.record.capacity},
        "players": [
            {
                "player": one,
                "role": rules.role_of(one.user),
                "audible": one.id in rules.audible,
                "in_grace": rules.in_grace(one.session),
            }
            for one in rules.players.values()
        ],
        "moderators": list(rules.roles.moderators),
        "candidates": list(rules.entries()),
        "invited": dict(rules.invited),
        "bans": list(rules.bans.values()),
        # Without the reason and the like, which recordings of earlier versions don't have.
        "mutes": [Mute(one.user, one.until, one.clock_set_ms) for one in rules.mutes.values()],
        "retained": list(rules.retained()),
    }


def digest(rules: Instance) -> bytes:
    """The SHA-256 of the state, for comparison."""
    return hashlib.sha256(stable_repr(state(rules), whole=True).encode()).digest()
