"""Numbered messages between two nodes, over a bus that may lose any of them.

The sender numbers its messages from 1, and keeps the newest ones (`Outgoing`). A receiver hands
them on in order, each once, and notices what is missing (`Incoming`): by the number of the next
message or, when none follows, by the last number, which the sender repeats while it is silent. It
asks for what is missing; what the sender no longer has is lost, and the receiver begins anew
behind it.

`Reached` remembers when a stream had come to which number. So one side can say up to which message
something holds, and the other one knows when that was, by its own clock: no time goes over the bus.

All are values that change; they know no bus and no clock.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

KEPT_BYTES: Final = 4 * 1024 * 1024
"""How much a sender keeps."""
KEPT_S: Final = 3.0
"""For how long it keeps a message."""
HELD_BYTES: Final = 16 * 1024 * 1024
"""How much a receiver holds that came before its turn. It asks for the rest again."""

MARK_S: Final = 0.5
"""Two marks of `Reached` are as far apart, at least on average."""
MARKS: Final = 128


class Reached:
    """When a stream had come to which number, by a clock that does not jump.

    Overflow policy: the newest number is exact; of older ones, one each `MARK_S` is kept, and of
    those the newest `MARKS`. Answers are too low rather than too high.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)

    def note(self, number: int, now: float) -> None:
        """The stream has come to that number."""
        marks = self._marks
        if len(marks) > 1 and now - marks[-2][0] < MARK_S:
            marks[-1] = (now, number)
        else:
            marks.append((now, number))

    def number_at(self, at: float) -> int:
        """A number that it had reached then; -1: that is not known."""
        return next((number for when, number in reversed(self._marks) if when <= at), -1)

    def time_of(self, number: int) -> float:
        """A time at which it had not gone beyond that number; minus infinity: that is not known."""
        known = (when for when, reached in reversed(self._marks) if reached <= number)
        return next(known, -math.inf)


class Outgoing:
    """The sender's side. Times are seconds of any clock that does not jump.

    Overflow policy: the oldest messages are forgotten.
    """

    def __init__(self, *, kept_bytes: int = KEPT_BYTES, kept_s: float = KEPT_S) -> None:
        self.last = 0
        """The number of the newest message; 0 before the first."""
        self.size = 0
        """The bytes that are kept."""
        self._kept_bytes = kept_bytes
        self._kept_s = kept_s
        self._kept: deque[tuple[float, bytes]] = deque()

    def __len__(self) -> int:
        """How many messages are kept."""
        return len(self._kept)

    def add(self, data: bytes, now: float) -> int:
        """Keeps the message; returns its number."""
        self.last += 1
        self._kept.append((now, data))
        self.size += len(data)
        self.forget_old(now)
        return self.last

    def forget_old(self, now: float) -> None:
        """Forgets what is too old, or too much. The newest message is kept whatever its size."""
        kept = self._kept
        while kept and (
            kept[0][0] <= now - self._kept_s or (self.size > self._kept_bytes and len(kept) > 1)
        ):
            self.size -= len(kept.popleft()[1])

    def taken(self, last: int) -> None:
        """The only receiver has all up to that number."""
        while self._kept and self.last - len(self._kept) < last:
            self.size -= len(self._kept.popleft()[1])

    def since(self, first: int) -> list[bytes] | None:
        """The messages from that number on; None if some of them are forgotten."""
        count = self.last - first + 1
        if count > len(self._kept):
            return None
        first_kept = len(self._kept) - max(count, 0)
        return [data for _, data in list(self._kept)[first_kept:]]


class Incoming:
    """The receiver's side.

    Before `begin`, everything is held, since its turn is not known.
    """

    def __init__(self, first: int | None = None, *, held_bytes: int = HELD_BYTES) -> None:
        self.next = first
        """The number whose turn it is; None before `begin`."""
        self._known = 0 if first is None else first - 1
        self._doubtful = False
        self._held: dict[int, bytes] = {}
        self._held_size = 0
        self._held_bytes = held_bytes

    @property
    def last(self) -> int:
        """The last number that was handed on."""
        return 0 if self.next is None else self.next - 1

    @property
    def missing(self) -> int | None:
        """The first number that is missing; None while nothing is known to be."""
        if self.next is None or not (self._doubtful or self.next <= self._known):
            return None
        return self.next

    def begin(self, number: int) -> list[bytes]:
        """It is the turn of that number, and what was before it is of no interest; returns what is
        held from there on."""
        self.next = number
        for early in [one for one in self._held if one < number]:
            self._held_size -= len(self._held.pop(early))
        return self._ready()

    def take(self, number: int, data: bytes) -> list[bytes]:
        """A message has come; returns all whose turn it is now."""
        self._known = max(self._known, number)
        if number == self.next and not self._held:  # nearly always
            self.next = number + 1
            return [data]
        if number in self._held or (self.next is not None and number < self.next):
            return []
        if number != self.next and self._held_size + len(data) > self._held_bytes:
            return []  # it is missing then
        self._held[number] = data
        self._held_size += len(data)
        return self._ready()

    def heard(self, last: int) -> None:
        """The sender says that it has sent so many."""
        self._known = max(self._known, last)

    def doubt(self) -> None:
        """Messages may be missing that no later one shows, such as after a lost connection."""
        self._doubtful = True

    def replayed(self, messages: list[bytes]) -> list[bytes]:
        """The sender's answer to a question for all from `next` on; returns as `take` does."""
        assert self.next is not None
        self._doubtful = False
        ready: list[bytes] = []
        for number, data in enumerate(messages, self.next):
            ready += self.take(number, data)
        return ready

    def _ready(self) -> list[bytes]:
        ready: list[bytes] = []
        while self.next is not None and (data := self._held.pop(self.next, None)) is not None:
            self._held_size -= len(data)
            ready.append(data)
            self.next += 1
        return ready
