"""Work beside an actor, and its timers. The contract is in `actors/runtime/actor.py`."""

from __future__ import annotations

import outcome
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.errors import ActorStopped
from reileta.errors import UserNotFound
from tests.actors.probe import (
    Boom,
    Do,
    Echo,
    Note,
    Outcomes,
    Probe,
    ProbeLog,
    crash,
    open_supervisor,
)


def never(_: object) -> None:
    """What is not to be called."""
    raise AssertionError


async def test_work_brings_its_value_or_its_reileta_error() -> None:
    results: list[outcome.Outcome[str]] = []

    async def value() -> str:
        await trio.lowlevel.checkpoint()
        return "value"

    async def error() -> str:
        raise UserNotFound

    def begin(probe: Probe) -> None:
        for work in (value, error):
            probe.context.run(work, results.append)

    async with open_supervisor() as harness:
        ref = await harness.start()
        ref.tell(Do(begin))
        await wait_all_tasks_blocked()
    assert {type(result) for result in results} == {outcome.Value, outcome.Error}
    for result in results:
        match result:
            case outcome.Value(answer):
                assert answer == "value"
            case outcome.Error(raised):
                assert isinstance(raised, UserNotFound)


async def test_messages_are_handled_while_work_is_under_way(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(
            Do(
                lambda probe: probe.context.run(
                    lambda: trio.sleep(1), lambda _: journal.words.append("worked")
                )
            )
        )
        await wait_all_tasks_blocked()
        assert await ref.ask(Echo("meanwhile")) == "meanwhile"
        await trio.sleep(2)
    assert journal.words == ["meanwhile", "worked"]


async def test_after_signals_in_time_and_can_be_taken_back(autojump_clock: MockClock) -> None:
    journal = ProbeLog()

    def arm(probe: Probe) -> None:
        probe.context.after(1, Note("tick"))
        probe.context.after(2, Note("never")).cancel()

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(arm))
        await trio.sleep(0.9)
        assert journal.words == []
        await trio.sleep(5)
    assert journal.words == ["tick"]


async def test_a_timer_ends_with_the_incarnation_that_set_it(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    journal.on_start = lambda probe: probe.context.after(1, Note(f"tick of {journal.starts}"))
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        await trio.sleep(0.5)
        ref.tell(Do(crash))
        await trio.sleep(5)
    # Otherwise an actor that keeps ticking would tick twice as often after each crash.
    assert journal.words == ["tick of 2"]


async def test_a_tick_that_waits_at_a_crash_ends_with_it(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    journal.on_start = lambda probe: probe.context.after(1, Note(f"tick of {journal.starts}"))

    async def fail_late(_: Probe) -> None:
        await trio.sleep(2)
        raise Boom

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(fail_late))
        await trio.sleep(10)
    assert journal.words == ["tick of 2"]


async def test_work_ends_with_the_incarnation_that_began_it(autojump_clock: MockClock) -> None:
    journal, cancelled = ProbeLog(), list[bool]()

    async def stubborn() -> str:
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            cancelled.append(True)
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
        return "stale"

    def begin(probe: Probe) -> None:
        probe.context.run(stubborn, lambda result: journal.words.append(result.unwrap()))

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(begin))
        await wait_all_tasks_blocked()
        ref.tell(Do(crash))
        await trio.sleep(5)
        assert await ref.ask(Echo("anew")) == "anew"
    assert cancelled == [True]
    assert journal.words == ["anew"]


@pytest.mark.parametrize("busy", [False, True])
async def test_work_that_fails_crashes_its_actor_at_once(
    autojump_clock: MockClock, busy: bool
) -> None:
    journal = ProbeLog()

    async def fail() -> None:
        await trio.sleep(1)
        raise Boom

    async def begin(probe: Probe) -> None:
        probe.context.run(fail, never)
        if busy:
            # It fails while the actor does not look.
            await trio.sleep(2)

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(begin))
        await trio.sleep(3)
        assert journal.starts == 2
        assert await ref.ask(Echo("anew")) == "anew"
    assert journal.words == ["anew"]


async def test_work_whose_result_cannot_be_handled_crashes_its_actor_alone(
    autojump_clock: MockClock,
) -> None:
    journal, sibling = ProbeLog(), ProbeLog()

    def then(_: object) -> None:
        raise Boom

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        other = await harness.start(sibling, name="probe/2")
        ref.tell(Do(lambda probe: probe.context.run(trio.lowlevel.checkpoint, then)))
        await trio.sleep(1)
        assert await ref.ask(Echo("anew")) == "anew"
        assert await other.ask(Echo("safe")) == "safe"
    assert (journal.starts, sibling.starts) == (2, 1)


async def test_work_that_fails_while_being_cancelled_hurts_nobody(
    autojump_clock: MockClock,
) -> None:
    journal, sibling = ProbeLog(), ProbeLog()

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom

    async def in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    def begin(probe: Probe) -> None:
        probe.context.run(fail_when_cancelled, never)
        probe.context.run(in_a_nursery, never)

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        other = await harness.start(sibling, name="probe/2")
        ref.tell(Do(begin))
        await wait_all_tasks_blocked()
        ref.tell(Do(crash))
        await trio.sleep(1)
        assert await ref.ask(Echo("anew")) == "anew"
        assert await other.ask(Echo("safe")) == "safe"
    assert (journal.starts, sibling.starts) == (2, 1)


async def test_failing_work_keeps_the_signals_that_wait(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes = ProbeLog(), Outcomes(nursery)
    async with open_supervisor() as harness:
        ref = await harness.start(journal)

        async def fail() -> None:
            await trio.sleep(1)
            ref.signal(Note("signal"))
            ref.tell(Note("dropped"))
            outcomes.ask("a", lambda: ref.ask(Echo("a")))
            raise Boom

        ref.tell(Do(lambda probe: probe.context.run(fail, never)))
        with capture_logs() as logs:
            await trio.sleep(3)
    assert journal.words[:1] == ["signal"]
    assert "dropped" not in journal.words
    assert journal.starts == 2
    # Asked before the crash was seen, or after it: both are an outcome.
    assert outcomes.ended["a"] in (ActorStopped, "a")
    assert next(entry for entry in logs if entry["event"] == "actor.crashed")["dropped"] == 1


async def test_hanging_work_does_not_hold_up_a_crash(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda probe: probe.context.run(trio.sleep_forever, never)))
        ref.tell(Do(crash))
        await trio.sleep(1)
        ref.drain()
        with trio.fail_after(1):
            await ref.wait_stopped()
    assert journal.starts == 2


async def test_results_are_handled_in_the_mailbox_s_order_and_never_beside_a_message(
    autojump_clock: MockClock,
) -> None:
    journal = ProbeLog()

    async def busy(probe: Probe) -> None:
        probe.context.run(trio.lowlevel.checkpoint, lambda _: journal.words.append("work"))
        probe.context.ref.tell(Note("told before it was done"))
        await trio.sleep(1)
        probe.context.ref.tell(Note("told after it was done"))
        journal.words.append("busy")

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(busy))
        await trio.sleep(2)
    assert journal.words == ["busy", "told before it was done", "work", "told after it was done"]
    assert journal.drains == [1, 2], "the work's result is part of a drain, and of its flush"


async def test_a_result_that_crashes_its_actor_is_no_message_at_fault(
    autojump_clock: MockClock,
) -> None:
    journal = ProbeLog()

    def fail(_: object) -> None:
        raise Boom

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda probe: probe.context.run(trio.lowlevel.checkpoint, fail)))
        with capture_logs() as logs:
            await trio.sleep(1)
        assert await ref.ask(Echo("anew")) == "anew"
    assert journal.crashed_on == []
    [crashed] = [entry for entry in logs if entry["event"] == "actor.crashed"]
    assert [line.split()[0] for line in crashed["last_messages"]] == ["Do", "WorkDone"]


async def test_a_result_that_waits_at_a_crash_ends_with_it(autojump_clock: MockClock) -> None:
    journal = ProbeLog()

    async def fail_late(probe: Probe) -> None:
        probe.context.run(trio.lowlevel.checkpoint, never)
        await trio.sleep(1)
        raise Boom

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(fail_late))
        await trio.sleep(5)
        assert await ref.ask(Echo("anew")) == "anew"
    assert journal.starts == 2


async def test_an_actor_does_not_retire_or_stop_before_its_work_is_done(
    autojump_clock: MockClock,
) -> None:
    journal, retired = ProbeLog(), list[bool]()

    def begin(probe: Probe) -> None:
        probe.context.run(lambda: trio.sleep(1), lambda _: journal.words.append("worked"))
        retired.append(probe.context.retire())

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(begin))
        await wait_all_tasks_blocked()
        assert not ref.stopped
        ref.drain()
        await ref.wait_stopped()
    assert (retired, journal.words) == ([False], ["worked"])
