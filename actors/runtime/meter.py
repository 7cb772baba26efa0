"""Counts what one actor handles, while somebody watches.

A cell's drains go through its meter only then; the rest of the time they cost nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.runtime.instruments import Instruments


class Meter:
    """The instruments of one cell, which also count for that cell alone."""

    __slots__ = ("_inner", "drains", "messages", "waited_s")

    def __init__(self, inner: Instruments) -> None:
        self._inner = inner
        self.messages = 0
        self.drains = 0
        self.waited_s = 0.0

    def drained(self, kind: str, messages: int, waited_s: float) -> None:
        self.messages += messages
        self.drains += 1
        self.waited_s += waited_s
        self._inner.drained(kind, messages, waited_s)

    def crashed(self, kind: str, *, restarted: bool) -> None:
        self._inner.crashed(kind, restarted=restarted)

    def refused(self, kind: str) -> None:
        self._inner.refused(kind)


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash of an actor. `at_s`: seconds of Trio's clock. The texts hold no secrets.

    `last_messages`: types, ids and ages of the last messages, as in the log.
    """

    actor: str
    at_s: float
    error: str
    message: str
    traceback: str
    last_messages: tuple[str, ...]
    restarted: bool


@dataclass(frozen=True, slots=True)
class ActorFigures:
    """An actor as it is now. `meter` is None unless somebody watches."""

    name: str
    mailbox: int
    limit: int
    restarts: int
    meter: Meter | None = field(default=None, compare=False)
