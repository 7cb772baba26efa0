"""What becomes of those who wait when an incarnation ends, and what is written down about it."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.actor import Restart
from actors.runtime.cell import STOP_GRACE_S
from actors.runtime.errors import ActorCrashed, ActorStopped
from tests.actors.probe import (
    Ask,
    Boom,
    Do,
    Echo,
    Note,
    Outcomes,
    Probe,
    ProbeLog,
    crash,
    hang,
    open_supervisor,
)


def crashes(logs: list[EventDict]) -> list[EventDict]:
    return [entry for entry in logs if entry["event"] == "actor.crashed"]


async def test_a_crash_fails_all_who_wait_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    outcomes, go = Outcomes(nursery), trio.Event()

    def put_off(_: Probe, request: Ask) -> None:
        request.defer()

    async def fail(_: Probe, __: Ask) -> None:
        await go.wait()
        raise Boom

    async with open_supervisor() as harness:
        ref = await harness.start(restart=Restart(backoff_s=3600))
        outcomes.ask("put off", lambda: ref.ask(Ask(put_off)))
        await wait_all_tasks_blocked()
        outcomes.ask("current", lambda: ref.ask(Ask(fail)))
        await wait_all_tasks_blocked()
        outcomes.ask("queued", lambda: ref.ask(Echo("a")))
        await wait_all_tasks_blocked()
        assert outcomes.ended == {}
        crashed_at = trio.current_time()
        go.set()
        await wait_all_tasks_blocked()
        assert trio.current_time() == crashed_at
        assert outcomes.ended == {
            "put off": ActorStopped,
            "current": ActorCrashed,
            "queued": ActorStopped,
        }
        harness.supervisor.nursery.cancel_scope.cancel()


async def test_a_crash_in_the_middle_of_a_drain(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    outcomes, journal, go = Outcomes(nursery), ProbeLog(), trio.Event()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda _: go.wait()))
        await wait_all_tasks_blocked()

        async def ask(name: str, request: Ask | Echo) -> None:
            outcomes.ask(name, lambda: ref.ask(request))
            await wait_all_tasks_blocked()

        await ask("answered", Echo("answered"))
        await ask("for flush", Ask(lambda _, __: None))
        await ask("put off", Ask(lambda _, request: request.defer()))
        ref.tell(Do(crash))
        await ask("behind", Echo("behind"))
        ref.tell(Note("behind"))
        ref.tell(Note("behind"))
        ref.signal(Note("signal"))
        with capture_logs() as logs:
            go.set()
            await trio.sleep(1)
        assert outcomes.ended == {
            "answered": "answered",
            "for flush": ActorCrashed,
            "put off": ActorCrashed,
            "behind": ActorStopped,
        }
    assert journal.words == ["answered", "signal"]
    assert journal.crashed_on == ["Do"]
    [crashed] = crashes(logs)
    assert crashed["dropped"] == 2
    assert crashed["actor"] == "probe/1"
    assert isinstance(crashed["exc_info"], Boom)


async def test_a_crash_in_flush_fails_what_the_drain_left_unanswered(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes, go = ProbeLog(), Outcomes(nursery), trio.Event()
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(intensity=1))
        ref.tell(Do(lambda _: go.wait()))
        await wait_all_tasks_blocked()
        outcomes.ask("answered", lambda: ref.ask(Echo("a")))
        outcomes.ask("unanswered", lambda: ref.ask(Ask(lambda _, __: None)))
        outcomes.ask("put off", lambda: ref.ask(Ask(lambda _, request: request.defer())))
        ref.signal(Note("handled once"))
        await wait_all_tasks_blocked()

        # The first drain is the one that waited; all that is asked is in the second.
        journal.on_flush = lambda probe: crash(probe) if len(journal.drains) == 2 else None
        go.set()
        await ref.wait_stopped()
        await wait_all_tasks_blocked()
    assert outcomes.ended == {
        "answered": "a",
        "unanswered": ActorCrashed,
        "put off": ActorCrashed,
    }
    assert journal.words.count("handled once") == 1
    assert journal.crashed_on == []


async def test_a_restart_that_fails_fails_those_who_came_meanwhile(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes = ProbeLog(), Outcomes(nursery)

    async def fail_later(_: Probe) -> None:
        if journal.starts > 1:
            await trio.sleep(1)
            raise Boom

    journal.on_start = fail_later
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(intensity=2, backoff_s=1))
        ref.tell(Do(crash))
        await wait_all_tasks_blocked()
        outcomes.ask("in the back-off", lambda: ref.ask(Echo("a")))
        await trio.sleep(1.5)
        outcomes.ask("in on_start", lambda: ref.ask(Echo("b")))
        await ref.wait_stopped()
        await wait_all_tasks_blocked()
    assert outcomes.ended == {"in the back-off": ActorStopped, "in on_start": ActorStopped}
    assert [type(error) for error in journal.gone] == [Boom]


async def test_signals_survive_a_crash_in_order(autojump_clock: MockClock) -> None:
    journal, go = ProbeLog(), trio.Event()

    async def fail(_: Probe) -> None:
        await go.wait()
        raise Boom

    async with open_supervisor() as harness:
        ref = await harness.start(journal, mailbox_limit=4)
        ref.tell(Do(lambda _: go.wait()))
        await wait_all_tasks_blocked()
        ref.tell(Do(fail))
        ref.signal(Note("1"))
        ref.signal(Note("2"))
        await wait_all_tasks_blocked()
        go.set()
        ref.signal(Note("3"))
        await trio.sleep(0.01)
        ref.signal(Note("4"))
        await trio.sleep(1)
    assert journal.words == ["1", "2", "3", "4"]
    assert journal.starts == 2


async def test_a_signal_at_fault_is_not_tried_again(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.signal(Do(crash))
        await trio.sleep(5)
        assert await ref.ask(Echo("a")) == "a"
    assert journal.starts == 2
    assert journal.crashed_on == ["Do"]


async def test_a_cancelled_asker_does_not_hurt_the_actor(autojump_clock: MockClock) -> None:
    journal = ProbeLog()

    async def slow(_: Probe, request: Ask) -> None:
        await trio.sleep(2)
        journal.words.append("handled")
        assert request.reply("nobody waits")

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        with trio.move_on_after(1) as scope:
            await ref.ask(Ask(slow))
        assert scope.cancelled_caught
        assert await ref.ask(Echo("next")) == "next"
    assert journal.words == ["handled", "next"]
    assert journal.starts == 1


async def test_an_asker_whose_deadline_passes_in_the_queue(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda _: trio.sleep(2)))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await ref.ask(Echo("a"))
        await trio.sleep(5)
    assert journal.words == ["a"]


@pytest.mark.parametrize("where", ["receive", "nursery", "flush"])
async def test_a_handler_cut_short_leaves_nobody_waiting(
    autojump_clock: MockClock, nursery: trio.Nursery, where: str
) -> None:
    outcomes = Outcomes(nursery)

    async def hang_in_nursery(_: Probe) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)

    journal = ProbeLog(on_flush=hang if where == "flush" else lambda _: None)
    async with open_supervisor(shutdown_s=3) as harness:
        ref = await harness.start(journal)
        outcomes.ask("before", lambda: ref.ask(Ask(lambda _, request: request.defer())))
        await wait_all_tasks_blocked()
        if where != "flush":
            ref.tell(Do(hang if where == "receive" else hang_in_nursery))
        outcomes.ask("same drain", lambda: ref.ask(Ask(hang)))
        await wait_all_tasks_blocked()
        outcomes.ask("queued", lambda: ref.ask(Echo("b")))
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert outcomes.ended == dict.fromkeys(("before", "same drain", "queued"), ActorStopped)
    assert journal.stops == 1


async def test_goodbye_is_said_once_and_never_after_a_crash() -> None:
    orderly, crashed = ProbeLog(), ProbeLog()
    async with open_supervisor() as harness:
        await harness.start(orderly, name="probe/1")
        ref = await harness.start(crashed, name="probe/2", restart=Restart(intensity=1))
        ref.tell(Do(crash))
        await ref.wait_stopped()
    assert orderly.stops == 1
    assert crashed.stops == 0


async def test_a_goodbye_that_hangs_is_cut_short(autojump_clock: MockClock) -> None:
    journal = ProbeLog(on_stop=hang)
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        begun = trio.current_time()
        ref.drain()
        await ref.wait_stopped()
        assert trio.current_time() - begun == pytest.approx(STOP_GRACE_S)
    assert journal.gone == [None]


async def test_a_goodbye_that_fails_is_no_reason_to_start_again(
    autojump_clock: MockClock,
) -> None:
    journal = ProbeLog(on_stop=crash)
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        with capture_logs() as logs:
            ref.drain()
            await ref.wait_stopped()
    assert journal.starts == journal.stops == 1
    assert [type(error) for error in journal.gone] == [Boom]
    assert len(crashes(logs)) == 1


async def test_during_the_goodbye_nothing_is_taken(autojump_clock: MockClock) -> None:
    taken: list[bool] = []

    async def say(probe: Probe) -> None:
        taken.append(probe.context.ref.signal(Note("a")))
        await trio.sleep(1)

    journal = ProbeLog(on_stop=say)
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.drain()
        await wait_all_tasks_blocked()
        assert not ref.signal(Note("b"))
        with pytest.raises(ActorStopped):
            await ref.ask(Echo("c"))
    assert taken == [False]
    assert journal.words == []


@pytest.mark.parametrize("hook", ["on_crash", "gone"])
async def test_a_hook_that_fails_is_contained(autojump_clock: MockClock, hook: str) -> None:
    journal, sibling = ProbeLog(), ProbeLog()
    if hook == "on_crash":
        journal.on_crash = crash
    else:
        journal.gone = None  # type: ignore[assignment]  # so that nothing can be appended
    async with open_supervisor() as harness:
        other = await harness.start(sibling, name="probe/2")
        if hook == "on_crash":
            ref = await harness.start(journal)
        else:
            spec = harness.spec(ProbeLog(), restart=Restart(intensity=1))
            object.__setattr__(spec, "gone", crash)
            ref = await harness.supervisor.start(spec)
        with capture_logs() as logs:
            ref.tell(Do(crash))
            await trio.sleep(1)
        assert await other.ask(Echo("safe")) == "safe"
        journal.gone = []
    assert [entry["hook"] for entry in logs if entry["event"] == "hook.failed"] == [hook]


async def test_an_idle_actor_holds_on_to_nothing_it_was_sent() -> None:
    class Payload:
        """Something that a weak reference can point at."""

    payload = Payload()
    seen = weakref.ref(payload)
    async with open_supervisor() as harness:
        ref = await harness.start()
        ref.tell(Note(payload))  # type: ignore[arg-type]
        ref.tell(Do(lambda probe: probe.journal.words.clear()))
        del payload
        await wait_all_tasks_blocked()
        gc.collect()
        assert seen() is None
