"""A timer with one message that is set again and again."""

from __future__ import annotations

from typing import Any, Final

from actors.runtime.timers import Target, Timer, Timers
from reileta.clock import Clock

LONGEST_S: Final = 3600.0
"""No timer runs longer. A deadline further ahead fires early, and its owner sets it again; so it
may lie further ahead than the event loop's clock can count."""


class Deadline:
    """Sends one message at the time that was set last. Made by `Context.deadline`.

    The owner calls `set` as often as it likes, for example in each `flush`: setting the same time
    again does nothing. The owner calls `fired` when it handles the message.
    """

    __slots__ = ("_clock", "_due_ms", "_message", "_target", "_timer", "_timers")

    def __init__(self, timers: Timers, target: Target, message: Any, clock: Clock) -> None:
        self._timers = timers
        self._target = target
        self._message = message
        self._clock = clock
        self._timer: Timer | None = None
        self._due_ms: int | None = None

    def set(self, due_ms: int | None) -> None:
        """Sends the message at that time of the clock, at once if it has passed; None: never."""
        if due_ms == self._due_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_ms = due_ms
        if due_ms is not None:
            delay_s = min(LONGEST_S, max(0, due_ms - self._clock.now_ms()) / 1000)
            self._timer = self._timers.after(delay_s, self._target, self._message, wall=True)

    def fired(self) -> None:
        """The message has arrived: the next `set` starts a timer, even for the same time."""
        self._timer = self._due_ms = None
