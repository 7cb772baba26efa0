"""A bounded queue that is fair between networks."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from reileta.errors import Overloaded

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Entries in one queue per network; `pop` takes from the networks in turn.

    The queue holds at most `limit` entries, and at most `share` of one network. A full queue still
    accepts an entry of a network that has fewer entries than others: it drops the last entry of the
    network that has most.
    """

    def __init__(self, *, limit: int, share: int, retry_after_s: float) -> None:
        self._limit = limit
        self._share = share
        self._retry_after_s = retry_after_s
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, network: str, entry: T) -> T | None:
        """Adds an entry. Returns the entry of another network that was dropped for it, if any.

        Raises Overloaded if there is no room for it.
        """
        line = self._lines.get(network, ())
        displaced = None
        if len(line) >= self._share:
            raise Overloaded(retry_after_s=self._retry_after_s)
        if self._length >= self._limit:
            longest = max(self._lines, key=lambda one: len(self._lines[one]), default=network)
            # If it had only one entry more than the newcomer, the two would displace each other
            # forever.
            if len(self._lines.get(longest, ())) < len(line) + 2:
                raise Overloaded(retry_after_s=self._retry_after_s)
            displaced = self._lines[longest].pop()
            self._length -= 1
        self._lines.setdefault(network, deque()).append(entry)
        self._length += 1
        return displaced

    def pop(self) -> T:
        """Removes and returns the oldest entry of the network whose turn it is.

        Raises KeyError if the queue is empty.
        """
        network, line = self._lines.popitem(last=False)
        entry = line.popleft()
        self._length -= 1
        if line:
            self._lines[network] = line
        return entry

    def remove(self, network: str, entry: T) -> None:
        """Removes an entry that was not popped yet. Raises ValueError if it is not there."""
        line = self._lines.get(network)
        if line is None:
            raise ValueError(entry)
        line.remove(entry)
        self._length -= 1
        if not line:
            del self._lines[network]
