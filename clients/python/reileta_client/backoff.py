"""The pauses before attempts to connect again."""

from __future__ import annotations

import random
import re
from typing import Final

_COME_BACK: Final = re.compile(r"come back in (\d+(?:\.\d+)?) s")


class Backoff:
    """None at first, then longer ones, each with a random part."""

    def __init__(self, first_s: float = 1.0, limit_s: float = 30.0) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._failures = 0

    def next(self) -> float:
        """The pause before the next attempt, in seconds."""
        failures, self._failures = self._failures, self._failures + 1
        if not failures:
            return random.random() / 4  # noqa: S311
        whole = min(self._limit_s, self._first_s * 2.0 ** min(failures - 1, 16))
        return whole * (0.5 + random.random() / 2)  # noqa: S311

    def reset(self) -> None:
        """The connection held: the next loss begins anew."""
        self._failures = 0


def come_back_in(reason: str) -> float | None:
    """How long the server asks to wait, in seconds, in the reason of a close frame."""
    found = _COME_BACK.search(reason)
    return None if found is None else float(found[1])
