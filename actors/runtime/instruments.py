"""The counters that the runtime reports to."""

from __future__ import annotations

from typing import Protocol


class Instruments(Protocol):
    """Counters of the actor runtime; `kind` is an actor's name up to its slash."""

    def drained(self, kind: str, messages: int, waited_s: float) -> None:
        """A drain of so many messages ended; the oldest had waited `waited_s`."""
        ...

    def crashed(self, kind: str, *, restarted: bool) -> None: ...

    def refused(self, kind: str) -> None:
        """A message found a mailbox full."""
        ...


class NoInstruments:
    """Counts nothing."""

    def drained(self, kind: str, messages: int, waited_s: float) -> None: ...

    def crashed(self, kind: str, *, restarted: bool) -> None: ...

    def refused(self, kind: str) -> None: ...
