"""A bounded queue that serves networks in turn, however much each of them asks for."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from reileta.errors import Overloaded

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Entries of many networks, each of which has a line of its own; the lines take turns.

    The queue holds at most `limit` entries, and at most `share` of one network. A full queue still
    takes an entry of a network that has fewer than others: the last entry of the longest line goes.
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
        """Adds an entry. Returns the one of another network that had to go for it, if any.

        Raises Overloaded when there is no place for it.
        """
        line = self._lines.get(network, ())
        displaced = None
        if len(line) >= self._share:
            raise Overloaded(retry_after_s=self._retry_after_s)
        if self._length >= self._limit:
            longest = max(self._lines, key=lambda one: len(self._lines[one]), default=network)
            # With only one more than the newcomer has, the two would displace each other for ever.
            if len(self._lines.get(longest, ())) < len(line) + 2:
                raise Overloaded(retry_after_s=self._retry_after_s)
            displaced = self._lines[longest].pop()
            self._length -= 1
        self._lines.setdefault(network, deque()).append(entry)
        self._length += 1
        return displaced

    def pop(self) -> T:
        """The next entry: the oldest of the network whose turn it is.

        Raises KeyError when there is none.
        """
        network, line = self._lines.popitem(last=False)
        entry = line.popleft()
        self._length -= 1
        if line:
            self._lines[network] = line
        return entry

    def remove(self, network: str, entry: T) -> None:
        """Takes an entry out that has not had its turn. Raises ValueError if it is not there."""
        line = self._lines.get(network)
        if line is None:
            raise ValueError(entry)
        line.remove(entry)
        self._length -= 1
        if not line:
            del self._lines[network]
