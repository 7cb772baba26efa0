from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from reileta.errors import UserNotFound
from tests.actors.probe import Echo, Note


async def test_an_answer_before_the_wait() -> None:
    request = Echo("a")
    assert request.reply("yes")
    assert request.slot.answered
    assert await request.slot.wait() == "yes"


async def test_an_answer_during_the_wait(nursery: trio.Nursery) -> None:
    request = Echo("a")
    answers: list[str] = []

    async def principal() -> None:
        answers.append(await request.slot.wait())

    nursery.start_soon(principal)
    await wait_all_tasks_blocked()
    assert request.reply("yes")
    assert not request.reply("no")
    await wait_all_tasks_blocked()
    assert answers == ["yes"]


async def test_an_error_is_raised_at_the_asker_itself() -> None:
    request = Echo("a")
    error = UserNotFound()
    assert request.fail(error)
    with pytest.raises(UserNotFound) as raised:
        await request.slot.wait()
    assert raised.value is error


async def test_a_late_answer_is_dropped() -> None:
    request = Echo("a")
    assert request.fail(UserNotFound())
    assert not request.reply("late")
    assert not request.fail(UserNotFound())
    with pytest.raises(UserNotFound):
        await request.slot.wait()


async def test_a_cancelled_wait_leaves_a_slot_that_can_be_answered(nursery: trio.Nursery) -> None:
    request = Echo("a")
    with trio.CancelScope() as scope:

        async def cancel() -> None:
            await wait_all_tasks_blocked()
            scope.cancel()

        nursery.start_soon(cancel)
        await request.slot.wait()
    assert scope.cancelled_caught
    assert request.reply("nobody waits")


async def test_waiting_is_a_checkpoint_when_the_answer_is_there() -> None:
    request = Echo("a")
    request.reply("yes")
    with trio.CancelScope() as scope:
        scope.cancel()
        await request.slot.wait()
    assert scope.cancelled_caught


def test_equal_requests_have_slots_of_their_own() -> None:
    first, second = Echo("a"), Echo("a")
    assert first == second
    assert first.slot is not second.slot
    first.reply("yes")
    assert not second.slot.answered


def test_putting_off_is_a_promise_and_no_answer() -> None:
    request = Echo("a")
    request.defer()
    assert request.slot.deferred
    assert not request.slot.answered


def test_the_slot_does_not_show() -> None:
    assert repr(Echo("a")) == "Echo(word='a')"
    assert repr(Note("a")) == "Note(word='a')"
