"""A bounded cache of computed values, valid until their sources change."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class BoundedCache(Generic[V]):
    """Values by key, each with a generation: a number that grows with every change of its sources.

    `get` returns a value only while its generation is the current one. Take the generation before
    you read the sources: if they change while you read, the value is stored with an old generation,
    and `get` never returns it.

    The cache holds at most `limit_bytes`, counted with the sizes passed to `put`; beyond that it
    evicts the least recently used value. Values expire `ttl_s` seconds after `put`, which can name
    another time; each `put` drops expired values that were not used lately, so that memory follows
    the traffic of the last moments.
    """

    def __init__(
        self, limit_bytes: int, ttl_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_bytes = limit_bytes
        self._ttl_s = ttl_s
        self._monotonic = monotonic
        self._values: OrderedDict[Hashable, tuple[int, float, int, V]] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        """How many values are kept."""
        return len(self._values)

    def get(self, key: Hashable, generation: int | None) -> V | None:
        """The value of that generation; None if there is none, or if `generation` is None
        (unknown)."""
        kept = self._values.get(key)
        if kept is None or kept[0] != generation or kept[1] <= self._monotonic():
            return None
        self._values.move_to_end(key)
        return kept[3]

    def put(
        self,
        key: Hashable,
        generation: int | None,
        value: V,
        size_bytes: int,
        *,
        ttl_s: float | None = None,
    ) -> None:
        """Stores a value, unless its generation is unknown or it is larger than an eighth of the
        cache."""
        before = self._values.pop(key, None)
        if before is not None:
            self.held_bytes -= before[2]
        if generation is None or size_bytes > self._limit_bytes // 8:
            return
        until_s = self._monotonic() + (self._ttl_s if ttl_s is None else ttl_s)
        self._values[key] = (generation, until_s, size_bytes, value)
        self.held_bytes += size_bytes
        now_s = self._monotonic()
        while self._values:
            _, expires_s, gone_bytes, _ = next(iter(self._values.values()))
            if self.held_bytes <= self._limit_bytes and expires_s > now_s:
                break
            self._values.popitem(last=False)
            self.held_bytes -= gone_bytes

    def drop(self, matches: Callable[[Any], bool]) -> None:
        """Drops the values whose keys match."""
        for key in [key for key in self._values if matches(key)]:
            self.held_bytes -= self._values.pop(key)[2]
