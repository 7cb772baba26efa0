"""One timer that is moved whenever the thing it waits for is due at another time."""

from __future__ import annotations

from collections.abc import Callable

from actors.runtime.timers import Timer


class DeadlineTimer:
    """Set to a time in ms, or to none. `after` makes a timer that fires in so many seconds."""

    def __init__(self, after: Callable[[float], Timer], now_ms: Callable[[], int]) -> None:
        self._after = after
        self._now_ms = now_ms
        self._timer: Timer | None = None
        self._due: int | None = None

    def set(self, due: int | None) -> None:
        """Rings at that time, or at once if it has passed; None: not at all."""
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due is not None:
            self._timer = self._after(max(0, due - self._now_ms()) / 1000)

    def rang(self) -> None:
        """It has: the next time is set anew, even if it is the same."""
        self._timer = self._due = None
