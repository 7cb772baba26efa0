"""Retained values: the newest of each (player, key), for players who join later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from reileta.errors import MessageInvalid

KEY_LIMIT: Final = 64
"""Largest number of characters in a key."""
NOTHING: Final = b"null"
"""The value that deletes its key, and gives its place and its bytes back."""


RetainedValue: TypeAlias = tuple[float | None, bytes, int]
"""`at`, `data` and series of a value; see `Instance.speak`. A tuple, because creating a dataclass
per message costs more than all the rest."""


@dataclass(frozen=True, slots=True)
class Retained:
    """A value as it was sent: `data` is the sender's JSON, byte for byte."""

    player: str
    key: str
    at: float | None
    data: bytes


class RetainedValues:
    """Retained values of the players inside.

    Bounded per player in number and bytes, and in bytes for all together, since each player who
    joins gets all of them.
    """

    def __init__(
        self, *, keys_limit: int, bytes_limit: int, total_limit: int = 8 * 1024 * 1024
    ) -> None:
        self._keys_limit = keys_limit
        self._bytes_limit = bytes_limit
        self._total_limit = total_limit
        self._total = 0
        self._values: dict[str, dict[str, RetainedValue]] = {}  # by player, then by key
        self._bytes: dict[str, int] = {}  # by player: keys in characters, and data

    def __iter__(self) -> Iterator[Retained]:
        for player, values in self._values.items():
            for key, (at, data, _) in values.items():
                yield Retained(player, key, at, data)

    @property
    def total_bytes(self) -> int:
        """The size of all values: keys in characters, and data in bytes."""
        return self._total

    def by_player(self) -> Iterable[tuple[str, Mapping[str, RetainedValue]]]:
        """The values of each player by key."""
        return self._values.items()

    def rolls_back(self, player: str, key: str, at: float | None, series: int = 0) -> bool:
        """Whether a value is older than the retained one, by the sender's `at`.

        A value without `at` is never older, and a retained one without `at` is never newer. `at`s
        of two series can't be compared: a client that starts anew counts from its own zero.
        """
        if at is None or player not in self._values:
            return False
        before = self._values[player].get(key)
        return (
            before is not None and before[2] == series and before[0] is not None and at < before[0]
        )

    def keep(self, player: str, key: str, at: float | None, data: bytes, series: int = 0) -> None:
        """Stores a value and replaces the previous one. `null` deletes the key, with its `at`.

        Raises:
            MessageInvalid: the player would have too many keys or bytes, or all players
                together too many bytes.
        """
        if data == NOTHING:
            self._delete(player, key)
            return
        values = self._values.get(player)
        before = None if values is None else values.get(key)
        if before is not None:
            size = self._bytes[player] + len(data) - len(before[1])
        else:
            size = self._bytes.get(player, 0) + len(key) + len(data)
            if values is not None and len(values) >= self._keys_limit:
                raise MessageInvalid.field(
                    "key", f"exceeds the limit of {self._keys_limit} keys per player"
                )
        if size > self._bytes_limit:
            raise MessageInvalid.field(
                "data", f"exceeds the limit of {self._bytes_limit} retained bytes per player"
            )
        total = self._total + size - self._bytes.get(player, 0)
        if total > self._total_limit and total > self._total:
            raise MessageInvalid.field(
                "data", f"exceeds the limit of {self._total_limit} retained bytes per instance"
            )
        self._total = total
        if values is None:
            values = self._values[player] = {}
        values[key] = (at, data, series)
        self._bytes[player] = size

    def _delete(self, player: str, key: str) -> None:
        values = self._values.get(player)
        before = None if values is None else values.pop(key, None)
        if values is None or before is None:
            return
        size = len(key) + len(before[1])
        self._bytes[player] -= size
        self._total -= size
        if not values:
            del self._values[player], self._bytes[player]

    def forget(self, player: str) -> None:
        """Deletes the values of a player who left."""
        self._values.pop(player, None)
        self._total -= self._bytes.pop(player, 0)
