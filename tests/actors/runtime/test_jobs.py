"""Writes, one at a time and in order."""

from __future__ import annotations

import outcome
import pytest

from actors.runtime.jobs import LIMIT, Ledger, Work
from reileta.errors import Overloaded


async def work() -> str:
    return "done"


def test_the_next_write_begins_when_the_one_before_has_its_outcome() -> None:
    begun: list[Work] = []
    told: list[str] = []
    ledger = Ledger(begun.append)

    async def first() -> None: ...
    async def second() -> None: ...

    ledger.write(first, lambda _: told.append("first"))
    ledger.write(second, lambda _: told.append("second"))
    assert (begun, told, len(ledger)) == ([first], [], 2)
    ledger.written(outcome.Error(Overloaded()))
    assert (begun, told) == ([first, second], ["first"])
    ledger.written(outcome.Value(None))
    assert (begun, told, len(ledger)) == ([first, second], ["first", "second"], 0)


def test_what_follows_may_write_again() -> None:
    begun: list[Work] = []
    ledger = Ledger(begun.append)
    ledger.write(work, lambda _: ledger.write(work, lambda _: None))
    ledger.written(outcome.Value(None))
    assert (len(begun), len(ledger)) == (2, 1)


def test_too_much_is_refused() -> None:
    ledger = Ledger(lambda _: None)
    for _ in range(LIMIT):
        ledger.ensure_room()
        ledger.write(work, lambda _: None)
    with pytest.raises(Overloaded):
        ledger.ensure_room()
    ledger.written(outcome.Value(None))
    ledger.ensure_room()
