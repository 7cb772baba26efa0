"""The contract of `actors/runtime/actor.py`, as an actor's author relies on it: drains, answers,
work.
"""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.actor import Restart, Spec
from actors.runtime.errors import ActorCrashed, ActorStopped
from reileta.errors import UserNotFound
from tests.actors.probe import (
    Ask,
    Do,
    Echo,
    Note,
    Outcomes,
    Probe,
    ProbeLog,
    hang,
    open_supervisor,
)


async def test_a_drain_takes_everything_that_waits_and_flushes_once() -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        for number in range(100):
            ref.tell(Note(str(number)))
        await wait_all_tasks_blocked()
        assert journal.words == [str(number) for number in range(100)]
        assert journal.drains == [100]
        ref.tell(Note("alone"))
        await wait_all_tasks_blocked()
        assert journal.drains == [100, 1]


async def test_what_comes_while_a_handler_waits_is_the_next_drain() -> None:
    journal, go = ProbeLog(), trio.Event()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda _: go.wait()))
        await wait_all_tasks_blocked()
        for word in "abc":
            ref.tell(Note(word))
        await wait_all_tasks_blocked()
        assert journal.words == []
        go.set()
        await wait_all_tasks_blocked()
        assert journal.drains == [1, 3]


async def test_handlers_and_flush_never_overlap(autojump_clock: MockClock) -> None:
    inside: list[str] = []

    async def slow(name: str) -> None:
        assert inside == []
        inside.append(name)
        await trio.sleep(1)
        inside.remove(name)

    journal = ProbeLog(on_flush=lambda _: slow("flush"))
    async with open_supervisor(shutdown_s=100) as harness:
        ref = await harness.start(journal)
        for _ in range(10):
            ref.tell(Do(lambda _: slow("receive")))
            await trio.sleep(0.7)
    assert sum(journal.drains) == 10
    assert len(journal.drains) > 1


async def test_an_actor_may_tell_itself() -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda probe: probe.context.ref.tell(Note("myself"))))
        await wait_all_tasks_blocked()
    assert journal.words == ["myself"]
    assert journal.drains == [1, 1]


async def test_an_actor_that_asks_itself_is_told_so() -> None:
    async def ask_itself(probe: Probe, request: Ask) -> None:
        with pytest.raises(RuntimeError, match="probe/1 asks itself"):
            await probe.context.ref.ask(Echo("a"))
        request.reply("told so")

    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        with trio.fail_after(5):
            assert await ref.ask(Ask(ask_itself)) == "told so"
    assert journal.words == []


async def test_an_actor_may_ask_itself_from_its_work() -> None:
    journal = ProbeLog()

    def begin(probe: Probe) -> None:
        probe.context.run(
            lambda: probe.context.ref.ask(Echo("a")),
            lambda result: journal.words.append(f"got {result.unwrap()}"),
        )

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(begin))
        await wait_all_tasks_blocked()
    assert journal.words == ["a", "got a"]


async def test_a_request_can_be_answered_in_flush() -> None:
    def answer(probe: Probe) -> None:
        for request in probe.requests:
            request.reply("flushed")

    journal = ProbeLog(on_flush=answer)
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        assert await ref.ask(Ask(lambda probe, it: probe.requests.append(it))) == "flushed"


async def test_a_request_that_is_put_off_is_answered_later(nursery: trio.Nursery) -> None:
    def put_off(probe: Probe, request: Ask) -> None:
        request.defer()
        probe.requests.append(request)

    outcomes = Outcomes(nursery)
    async with open_supervisor() as harness:
        ref = await harness.start()
        outcomes.ask("a", lambda: ref.ask(Ask(put_off)))
        await wait_all_tasks_blocked()
        assert outcomes.ended == {}
        ref.tell(Do(lambda probe: probe.requests.pop().reply("later")))
        await wait_all_tasks_blocked()
        assert outcomes.ended == {"a": "later"}


async def test_a_reileta_error_is_the_answer_and_no_crash() -> None:
    def refuse(_: Probe, __: Ask) -> None:
        raise UserNotFound

    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        with capture_logs() as logs, pytest.raises(UserNotFound):
            await ref.ask(Ask(refuse))
        assert await ref.ask(Echo("still here")) == "still here"
    assert journal.starts == 1
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_a_reileta_error_after_the_answer_is_a_crash() -> None:
    def refuse(_: Probe, request: Ask) -> None:
        request.reply("yes")
        raise UserNotFound

    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(intensity=1))
        assert await ref.ask(Ask(refuse)) == "yes"
        await ref.wait_stopped()
    assert isinstance(journal.gone[0], UserNotFound)


async def test_a_reileta_error_that_nobody_asked_for_is_a_crash() -> None:
    def refuse(_: Probe) -> None:
        raise UserNotFound

    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(intensity=1))
        ref.tell(Do(refuse))
        await ref.wait_stopped()
    assert isinstance(journal.gone[0], UserNotFound)
    assert journal.crashed_on == ["Do"]


async def test_a_request_without_an_answer_is_a_crash(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        with capture_logs() as logs, pytest.raises(ActorCrashed):
            await ref.ask(Ask(lambda _, __: None))
        assert await ref.ask(Echo("anew")) == "anew"
    assert journal.starts == 2
    crashed = next(entry for entry in logs if entry["event"] == "actor.crashed")
    assert type(crashed["exc_info"]).__name__ == "NoReply"


async def test_draining_finishes_the_backlog_and_work(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(
            Do(
                lambda probe: probe.context.run(
                    lambda: trio.sleep(2), lambda _: journal.words.append("worked")
                )
            )
        )
        ref.tell(Note("waits"))
        ref.drain()
        assert ref.stopped
        with pytest.raises(ActorStopped):
            ref.tell(Note("late"))
        with pytest.raises(ActorStopped):
            await ref.ask(Echo("late"))
        await trio.sleep(1)
        assert ref.signal(Note("signal"))
        await ref.wait_stopped()
        assert not ref.signal(Note("too late"))
    assert journal.words == ["waits", "signal", "worked"]
    assert (journal.starts, journal.stops) == (1, 1)
    assert journal.gone == [None]


async def test_a_drain_fails_what_was_put_off_and_nobody_will_answer(
    nursery: trio.Nursery,
) -> None:
    outcomes = Outcomes(nursery)
    async with open_supervisor() as harness:
        ref = await harness.start()
        outcomes.ask("a", lambda: ref.ask(Ask(lambda _, request: request.defer())))
        await wait_all_tasks_blocked()
        ref.drain()
        await wait_all_tasks_blocked()
        assert outcomes.ended == {"a": ActorStopped}


async def test_on_stop_may_answer_what_was_put_off(nursery: trio.Nursery) -> None:
    def put_off(probe: Probe, request: Ask) -> None:
        request.defer()
        probe.requests.append(request)

    journal = ProbeLog(on_stop=lambda probe: probe.requests.pop().reply("goodbye"))
    outcomes = Outcomes(nursery)
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        outcomes.ask("a", lambda: ref.ask(Ask(put_off)))
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert outcomes.ended == {"a": "goodbye"}


async def test_an_idle_actor_retires() -> None:
    journal, retired = ProbeLog(), list[bool]()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda probe: retired.append(probe.context.retire())))
        await ref.wait_stopped()
        assert len(harness.supervisor) == 0
    assert retired == [True]
    assert journal.stops == 1
    assert journal.gone == [None]


async def test_no_retiring_while_messages_wait_wherever_they_wait() -> None:
    journal, retired = ProbeLog(), list[bool]()

    def retire(probe: Probe) -> None:
        retired.append(probe.context.retire())

    def tell_then_retire(probe: Probe) -> None:
        probe.context.ref.tell(Note("in the mailbox"))
        retire(probe)

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(retire))
        ref.tell(Note("in the same drain"))
        await wait_all_tasks_blocked()
        assert retired == [False]
        ref.tell(Do(tell_then_retire))
        await wait_all_tasks_blocked()
        assert retired == [False, False]
        assert not ref.stopped
        assert await ref.ask(Echo("alive")) == "alive"
    assert journal.words == ["in the same drain", "in the mailbox", "alive"]


async def test_retiring_in_flush_and_in_on_start() -> None:
    in_flush, in_start = ProbeLog(), ProbeLog()
    in_flush.on_flush = in_start.on_start = lambda probe: probe.context.retire()
    async with open_supervisor() as harness:
        ref = await harness.start(in_flush, name="probe/flush")
        ref.tell(Note("a"))
        await ref.wait_stopped()
        ref = await harness.start(in_start, name="probe/start")
        await ref.wait_stopped()
    assert in_flush.words == ["a"]
    assert in_flush.stops == in_start.stops == 1


async def test_a_signal_after_retiring_is_still_handled() -> None:
    journal = ProbeLog()

    def retire(probe: Probe) -> None:
        assert probe.context.retire()
        probe.context.ref.signal(Note("signal"))

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(retire))
        await ref.wait_stopped()
    assert journal.words == ["signal"]


async def test_hanging_is_cancelled_at_the_end(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    begun = trio.current_time()
    async with open_supervisor(shutdown_s=5) as harness:
        ref = await harness.start(journal)
        ref.tell(Do(hang))
    assert trio.current_time() - begun == pytest.approx(5)
    assert ref.stopped
    assert journal.stops == 1


def test_a_spec_has_a_kind_and_a_policy() -> None:
    spec = Spec("instance/i_1", lambda: Probe(ProbeLog()))
    assert spec.kind == "instance"
    assert Spec("hub", lambda: Probe(ProbeLog())).kind == "hub"
    assert spec.restart == Restart(intensity=3, period_s=10.0, backoff_s=0.05)
    assert spec.mailbox_limit == 1024
