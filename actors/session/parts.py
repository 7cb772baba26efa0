"""The parts that the helpers of one session's actor share."""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def user(self) -> records.User:
        """The session's user, as it was when it last changed."""
        return self.recovery.user

    @property
    def loaded(self) -> Session:
        """The rules, where they have been loaded."""
        assert self.rules is not None
        return self.rules

    def now(self) -> int:
        """The time, ms."""
        return self.deps.clock.now_ms()
