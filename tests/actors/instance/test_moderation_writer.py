"""Deeds on their way into the database, one transaction at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from actors.instance.moderation_writer import LIMIT, RETRY_S, ModerationWriter
from actors.instance.recovery import RecoveryState
from actors.runtime.jobs import SerialJobs
from reileta.errors import DatabaseUnavailable, InstanceNotFound, Overloaded, ReiletaError
from reileta.records import Deed, ModeratorRemoval
from reileta.records import Instance as Record
from reileta.store import Store
from tests.actors.helpers import HeldWork


class Writer:
    """A ledger whose writes are done when the test says so."""

    def __init__(self) -> None:
        record = Record("i_1", "room", None, None, "w_1", "u_o", 4, frozenset(), 0, 0)
        self.recovery = RecoveryState(record)
        self.context = HeldWork()
        self.jobs = SerialJobs(self.context)
        self.written: list[list[Deed]] = []
        self.refused: dict[int, ReiletaError] = {}
        self.away = False
        self.retries: list[float] = []
        self.answers: list[tuple[str, ReiletaError | None]] = []
        self.moderation_writer = self.fresh()

    @property
    def deeds(self) -> Writer:
        return self

    async def write(self, deeds: Sequence[Deed]) -> dict[int, ReiletaError]:
        if self.away:
            raise DatabaseUnavailable
        self.written.append(list(deeds))
        return self.refused

    def fresh(self) -> ModerationWriter:
        """Those of the next incarnation."""
        return ModerationWriter(self.recovery, cast(Store, self), self.jobs, self.retries.append)

    def settled(self, name: str) -> None:
        self.moderation_writer.settled(lambda error: self.answers.append((name, error)))

    async def finish(self) -> None:
        """The write that was begun ends."""
        await self.context.finish()


def deed(number: int) -> Deed:
    return ModeratorRemoval("i_1", f"u_{number}")


async def test_what_gathers_goes_together_and_each_is_answered() -> None:
    writer = Writer()
    for number in range(3):
        writer.moderation_writer.do(deed(number))
        writer.settled(f"{number}")
    assert len(writer.context) == 1
    await writer.finish()
    assert writer.written == [[deed(0), deed(1), deed(2)]]
    assert writer.answers == [("0", None), ("1", None), ("2", None)]
    assert (len(writer.context), writer.recovery.deeds) == (0, [])
    writer.settled("nothing to wait for")
    assert writer.answers[-1] == ("nothing to wait for", None)


async def test_what_the_database_missed_is_written_later_in_order() -> None:
    writer = Writer()
    writer.away = True
    writer.moderation_writer.do(deed(0))
    writer.settled("0")
    await writer.finish()
    assert [type(error) for _, error in writer.answers] == [DatabaseUnavailable]
    assert writer.retries == [RETRY_S]
    writer.away = False
    writer.moderation_writer.do(deed(1))  # there is something new: it waits no longer
    writer.settled("1")
    await writer.finish()
    assert writer.written == [[deed(0), deed(1)]]
    assert writer.answers[1:] == [("1", None)]
    writer.moderation_writer.begin()  # the retry that was ordered finds nothing
    assert len(writer.context) == 0


async def test_one_that_is_refused_is_dropped_and_its_asker_told() -> None:
    writer = Writer()
    writer.refused = {0: InstanceNotFound()}
    for number in range(2):
        writer.moderation_writer.do(deed(number))
        writer.settled(f"{number}")
    await writer.finish()
    assert [(name, type(error)) for name, error in writer.answers] == [
        ("0", InstanceNotFound),
        ("1", type(None)),
    ]
    assert writer.recovery.deeds == []


async def test_the_next_incarnation_writes_them_and_answers_nobody() -> None:
    writer = Writer()
    writer.moderation_writer.do(deed(0))
    writer.settled("0")
    writer.context = HeldWork()  # it crashed
    writer.jobs = SerialJobs(writer.context)
    writer.moderation_writer = writer.fresh()
    writer.moderation_writer.resume()
    await writer.finish()
    assert (writer.written, writer.answers) == ([[deed(0)]], [])


def test_they_are_bounded() -> None:
    writer = Writer()
    for number in range(LIMIT):
        writer.moderation_writer.ensure_room()
        writer.moderation_writer.do(deed(number))
    with pytest.raises(Overloaded):
        writer.moderation_writer.ensure_room()
