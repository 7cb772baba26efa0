"""Turns: how many steps an address takes before the others have theirs."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from api.listen.turns import SHARE, Turns
from tests.conftest import PATIENCE_S


@pytest.fixture
async def turns(nursery: trio.Nursery) -> Turns:
    made = Turns()
    nursery.start_soon(made.run)
    await wait_all_tasks_blocked()
    return made


async def test_others_have_their_steps_between_those_of_a_busy_address(
    turns: Turns, nursery: trio.Nursery
) -> None:
    taken: list[str] = []

    async def step(key: str) -> None:
        await turns.take(key)
        taken.append(key)

    for _ in range(100):
        nursery.start_soon(step, "busy")
    nursery.start_soon(step, "quiet")
    await wait_all_tasks_blocked()
    assert len(taken) == 101
    assert taken.index("quiet") <= 2 * SHARE


async def test_an_address_that_is_alone_gets_all_its_steps(turns: Turns) -> None:
    with trio.fail_after(PATIENCE_S):
        for _ in range(1_000):
            await turns.take("a")


class LoopRounds(trio.abc.Instrument):
    """Counts the rounds of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_work_weighs_as_much_as_it_says(turns: Turns, nursery: trio.Nursery) -> None:
    counted = LoopRounds()
    trio.lowlevel.add_instrument(counted)
    rounds: list[int] = []

    async def heavy() -> None:
        await turns.take("a", SHARE)
        rounds.append(counted.count)

    for _ in range(3):
        nursery.start_soon(heavy)
    await wait_all_tasks_blocked()
    assert len(rounds) == len(set(rounds)) == 3


async def test_one_that_is_cancelled_while_it_waits_leaves_the_line(
    turns: Turns, nursery: trio.Nursery
) -> None:
    taken: list[int] = []
    scopes = [trio.CancelScope() for _ in range(5)]

    async def wait(number: int) -> None:
        with scopes[number]:
            await turns.take("a", SHARE)
            taken.append(number)
            if len(taken) == 1:  # all others wait by now, or will in this round
                scopes[(number + 1) % 5].cancel()

    for number in range(5):
        nursery.start_soon(wait, number)
    await wait_all_tasks_blocked()
    assert sorted([*taken, (taken[0] + 1) % 5]) == [0, 1, 2, 3, 4]
