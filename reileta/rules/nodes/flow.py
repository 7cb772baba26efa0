"""Flow on a link: what one side may send of one instance, and at which rate. Pure.

Each side numbers its items of an instance from 1, and keeps them until the other side has handled
them (`Outbox`). At most `WINDOW_BYTES` of data wait so. Over it, data with a key is kept by its
key, the newest value only, and data without a key is refused. So one instance that is slow never
makes another one wait, and what was lost with a link is sent again over the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

WINDOW_BYTES: Final = 256 * 1024
CONTROL_BYTES: Final = 2 * 1024 * 1024
"""Items that can't be refused may exceed the window up to this; then the link is given up."""
HELD_KEYS: Final = 4096
"""Values that wait behind a full window; a further key is refused."""


@dataclass(slots=True)
class _Sent(Generic[T]):
    number: int
    size: int
    item: T


class Outbox(Generic[T]):
    """The items of one instance, in one direction. `ready` are those to be sent now."""

    def __init__(self) -> None:
        self.last = 0
        """The last number that was given."""
        self._sent: deque[_Sent[T]] = deque()
        self._ready: deque[T] = deque()
        self._bytes = 0
        self._held: dict[Hashable, tuple[T, int]] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        """How many items the other side has not handled, or not got."""
        return len(self._sent) + len(self._held)

    @property
    def waiting_bytes(self) -> int:
        """What the other side has not handled."""
        return self._bytes + self._held_bytes

    @property
    def stuck(self) -> bool:
        """Whether the other side does not handle what can't be refused."""
        return self._bytes > CONTROL_BYTES

    def next_number(self) -> int:
        return self.last + 1

    def offers(self, size: int, key: Hashable | None) -> bool:
        """Whether data of that size is taken, now or by its key."""
        if not self._held and self._bytes + size <= WINDOW_BYTES:
            return True
        if key is None:
            return False
        known = self._held.get(key)
        if known is None and len(self._held) >= HELD_KEYS:
            return False
        return self._held_bytes + size - (0 if known is None else known[1]) <= WINDOW_BYTES

    @property
    def open(self) -> bool:
        """Whether nothing waits behind a full window."""
        return not self._held

    def put(self, item: T, size: int) -> None:
        """Sends an item, with the number `next_number`."""
        self.last += 1
        self._sent.append(_Sent(self.last, size, item))
        self._ready.append(item)
        self._bytes += size

    def hold(self, key: Hashable, item: T, size: int) -> T | None:
        """Keeps an item without a number in place of an earlier one of that key, which is
        returned."""
        before = self._held.pop(key, None)
        self._held[key] = (item, size)
        self._held_bytes += size - (0 if before is None else before[1])
        return None if before is None else before[0]

    def fits(self, size: int) -> bool:
        return self._bytes + size <= WINDOW_BYTES

    def released(self) -> Iterable[tuple[T, int]]:
        """The held items for which there is room now; the caller puts each."""
        while self._held:
            key, (item, size) = next(iter(self._held.items()))
            if not self.fits(size):
                return
            del self._held[key]
            self._held_bytes -= size
            yield item, size

    def drop_held(self) -> list[T]:
        """Forgets what waits behind a full window, and returns it."""
        held, self._held, self._held_bytes = self._held, {}, 0
        return [item for item, _ in held.values()]

    def acknowledge(self, number: int) -> bool:
        """The other side has handled all up to that number; False if it was never sent."""
        if number > self.last:
            return False
        while self._sent and self._sent[0].number <= number:
            self._bytes -= self._sent.popleft().size
        return True

    def take(self) -> list[T]:
        """The items to be sent now."""
        ready, self._ready = list(self._ready), deque()
        return ready

    @property
    def ready(self) -> bool:
        return bool(self._ready)

    def resume(self, heard: int) -> bool:
        """A new link: what the other side has not heard is to be sent again. False if it can't be:
        it is not kept any more, or was never sent."""
        if not self.acknowledge(heard):
            return False
        first = self._sent[0].number if self._sent else self.last + 1
        if first > heard + 1:
            return False
        self._ready = deque(one.item for one in self._sent)
        return True


class Allowance:
    """How many items and bytes an instance may get out in a second; both gather for one second."""

    def __init__(self, items_per_s: float, bytes_per_s: float, now: float) -> None:
        self._rates = (items_per_s, bytes_per_s)
        self._left = [items_per_s, bytes_per_s]
        self._at = now

    def take(self, size: int, now: float, items: int = 1) -> float:
        """Counts items of that size together, and returns 0; or returns the seconds to wait."""
        passed, self._at = max(0.0, now - self._at), now
        wait = 0.0
        for place, rate in enumerate(self._rates):
            self._left[place] = min(rate, self._left[place] + passed * rate)
            wanted = (items, size)[place]
            if self._left[place] < wanted:
                wait = max(wait, (wanted - self._left[place]) / rate)
        if wait > 0:
            return wait
        self._left[0] -= items
        self._left[1] -= size
        return 0.0


class Breaches:
    """Counts how often a node broke the form."""

    LIMIT: Final = 3
    WITHIN_S: Final = 60.0

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=self.LIMIT)

    def note(self, now: float) -> bool:
        """Counts one more; whether there were too many lately."""
        self._times.append(now)
        return len(self._times) == self.LIMIT and now - self._times[0] <= self.WITHIN_S
