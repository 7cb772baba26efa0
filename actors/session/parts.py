"""The parts that the helpers of one session's actor share."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.runtime.clock_steps import StepWatch
from actors.session.config import SessionDeps
from actors.session.recovery import SessionRecovery
from reileta import records
from reileta.rules.session.session import Session


@dataclass(slots=True)
class SessionParts:
    """One incarnation's shared parts.

    `rules` are None until a message needs them: a session that only plays reads nothing from the
    database.
    """

    id: str
    recovery: SessionRecovery
    deps: SessionDeps
    rules: Session | None = None
    _steps: StepWatch = field(init=False)

    @property
    def user(self) -> records.User:
        """The session's user, as it was when it last changed."""
        return self.recovery.user

    @property
    def loaded(self) -> Session:
        """The rules, where they have been loaded."""
        assert self.rules is not None
        return self.rules

    def __post_init__(self) -> None:
        self._steps = StepWatch(self.deps.clock)

    def now(self) -> int:
        """The time, ms. If the clock was set, the rules know from here on."""
        now = self.deps.clock.now_ms()
        step_ms = self._steps.look(now)
        if step_ms and self.rules is not None:
            self.rules.clock_was_set(step_ms)
        return now
