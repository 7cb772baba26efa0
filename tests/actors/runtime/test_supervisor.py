from __future__ import annotations

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.actor import Restart, Spec
from actors.runtime.cell import STOP_GRACE_S
from actors.runtime.errors import ActorCrashed, ActorStopped
from actors.runtime.supervisor import Supervisor
from actors.runtime.timers import Timers
from tests.actors.probe import (
    Ask,
    Boom,
    Do,
    Echo,
    Note,
    Outcomes,
    Probe,
    ProbeLog,
    ProbeMessage,
    SupervisorHarness,
    crash,
    hang,
    open_supervisor,
)


async def test_started_means_ready() -> None:
    journal = ProbeLog(on_start=lambda probe: _write_later(probe, "ready"))
    async with open_supervisor() as harness:
        await harness.start(journal)
        assert journal.words == ["ready"]
        assert len(harness.supervisor) == 1


async def test_the_deepest_mailbox_is_that_of_the_child_with_most_messages() -> None:
    go = trio.Event()
    async with open_supervisor() as harness:
        assert harness.supervisor.deepest_mailbox == 0
        idle, busy = await harness.start(), await harness.start(name="probe/2")
        busy.tell(Do(lambda _: go.wait()))
        await wait_all_tasks_blocked()
        for ref in (idle, busy, busy):
            ref.tell(Note("waits"))
        assert harness.supervisor.deepest_mailbox == 2
        go.set()


async def _write_later(probe: Probe, word: str) -> None:
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    probe.journal.words.append(word)


async def test_a_failing_first_start_is_the_starters_exception_and_leaves_nothing() -> None:
    error = Boom()
    refs: list[object] = []
    journal = ProbeLog()

    def fail(probe: Probe) -> None:
        refs.append(probe.context.ref)
        probe.context.run(trio.sleep_forever, lambda _: None)
        raise error

    journal.on_start = fail
    async with open_supervisor() as harness:
        tasks = len(harness.supervisor.nursery.child_tasks)
        with capture_logs() as logs, pytest.raises(Boom) as raised:
            await harness.start(journal)
        assert raised.value is error
        await wait_all_tasks_blocked()
        assert len(harness.supervisor) == 0
        assert len(harness.supervisor.nursery.child_tasks) == tasks
        # The name is free again, and nobody was told that something ended that never began.
        assert journal.gone == []
        assert (journal.starts, journal.stops) == (1, 0)
        journal.on_start = lambda _: None
        await harness.start(journal)
        assert journal.starts == 2
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_a_factory_that_fails_is_the_starters_exception_too() -> None:
    def factory() -> Probe:
        raise Boom

    async with open_supervisor() as harness:
        spec: Spec[ProbeMessage] = Spec("probe/1", factory)
        with pytest.raises(Boom):
            await harness.supervisor.start(spec)
        assert len(harness.supervisor) == 0


async def test_a_factory_that_fails_at_a_restart_hurts_no_sibling(
    autojump_clock: MockClock,
) -> None:
    made: list[Probe] = []
    gone: list[Exception | None] = []

    def factory() -> Probe:
        if made:
            raise Boom
        made.append(Probe(ProbeLog()))
        return made[0]

    async with open_supervisor() as harness:
        sibling = await harness.start(name="probe/2")
        spec: Spec[ProbeMessage] = Spec("probe/1", factory, gone=gone.append)
        ref = await harness.supervisor.start(spec)
        ref.tell(Do(crash))
        await ref.wait_stopped()
        assert await sibling.ask(Echo("safe")) == "safe"
    assert [type(error) for error in gone] == [Boom]


async def test_two_of_a_name_are_a_bug() -> None:
    async with open_supervisor() as harness:
        await harness.start()
        with pytest.raises(ValueError, match="probe/1 runs already"):
            await harness.start()


async def test_a_cancelled_start_leaves_nothing(autojump_clock: MockClock) -> None:
    journal = ProbeLog(on_start=hang)
    async with open_supervisor() as harness:
        with trio.move_on_after(1) as scope:
            await harness.start(journal)
        assert scope.cancelled_caught
        assert len(harness.supervisor) == 0
    assert journal.gone == []
    assert journal.stops == 0


async def test_a_sibling_survives(autojump_clock: MockClock) -> None:
    journal, sibling = ProbeLog(), ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(intensity=1))
        other = await harness.start(sibling, name="probe/2")
        with pytest.raises(ActorCrashed):
            await ref.ask(Ask(crash))
        await ref.wait_stopped()
        assert await other.ask(Echo("safe")) == "safe"
    assert sibling.starts == sibling.stops == 1


async def test_a_crash_in_a_handlers_own_nursery_is_contained(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        raise Boom

    async def handler(_: Probe) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(handler))
        await trio.sleep(1)
        assert await ref.ask(Echo("anew")) == "anew"
    assert journal.starts == 2


async def test_back_off_doubles_and_intensity_ends_it(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    at: list[float] = []
    journal.on_start = lambda _: at.append(trio.current_time())
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(intensity=4, period_s=60, backoff_s=1))
        with capture_logs() as logs:
            for _ in range(4):
                ref.signal(Do(crash))
                await trio.sleep(10)
        assert ref.stopped
        assert len(harness.supervisor) == 0
        assert not ref.signal(Note("gone"))
    begun = at[0]
    assert [round(one - begun, 2) for one in at] == [0, 1, 12, 24]
    assert journal.starts == 4
    assert [type(error) for error in journal.gone] == [Boom]
    abandoned = [entry for entry in logs if entry["event"] == "actor.abandoned"]
    assert [(entry["crashes"], entry["actor"]) for entry in abandoned] == [(4, "probe/1")]


async def test_crashes_far_apart_do_not_add_up(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(intensity=2, period_s=10))
        for _ in range(5):
            ref.tell(Do(crash))
            await trio.sleep(11)
        assert await ref.ask(Echo("alive")) == "alive"
    assert journal.starts == 6
    assert journal.gone == [None]


async def test_gone_is_told_once_and_of_what_ended_it(autojump_clock: MockClock) -> None:
    drained, given_up, cancelled = ProbeLog(), ProbeLog(), ProbeLog()
    async with open_supervisor(shutdown_s=1) as harness:
        ref = await harness.start(drained, name="probe/1")
        ref.drain()
        await ref.wait_stopped()
        ref = await harness.start(given_up, name="probe/2", restart=Restart(intensity=1))
        ref.tell(Do(crash))
        await ref.wait_stopped()
        # This one crashed once, long ago; that is not what ended it.
        ref = await harness.start(cancelled, name="probe/3")
        ref.tell(Do(crash))
        await trio.sleep(1)
        ref.tell(Do(hang))
        await wait_all_tasks_blocked()
    assert drained.gone == [None]
    assert [type(error) for error in given_up.gone] == [Boom]
    assert cancelled.gone == [None]
    assert cancelled.starts == 2


async def test_a_drain_in_the_back_off_finishes_the_backlog(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal, restart=Restart(backoff_s=1))
        ref.tell(Do(crash))
        await wait_all_tasks_blocked()
        ref.tell(Note("backlog"))
        ref.drain()
        await ref.wait_stopped()
    assert journal.words == ["backlog"]
    assert journal.gone == [None]


async def test_the_end_of_the_block_drains_all_children(autojump_clock: MockClock) -> None:
    journals = [ProbeLog() for _ in range(5)]
    async with open_supervisor() as harness:
        for number, journal in enumerate(journals):
            ref = await harness.start(journal, name=f"probe/{number}")
            ref.tell(Do(lambda _: trio.sleep(1)))
            await wait_all_tasks_blocked()
            ref.tell(Note("backlog"))
        begun = trio.current_time()
    # All at the same time, and not one after the other.
    assert trio.current_time() - begun == pytest.approx(1)
    assert [journal.words for journal in journals] == [["backlog"]] * 5
    assert [journal.stops for journal in journals] == [1] * 5


HANGING = ["receive", "flush", "on_stop", "work", "everything"]


@pytest.mark.parametrize("where", HANGING)
async def test_shutdown_ends_in_time_whatever_hangs(autojump_clock: MockClock, where: str) -> None:
    journal, sibling = ProbeLog(), ProbeLog()
    if where in ("on_stop", "everything"):
        journal.on_stop = hang
    if where in ("flush", "everything"):
        journal.on_flush = hang
    with capture_logs() as logs:
        async with open_supervisor(shutdown_s=3) as harness:
            other = await harness.start(sibling, name="probe/2")
            ref = await harness.start(journal)
            if where in ("work", "everything"):
                ref.tell(Do(lambda probe: probe.context.run(trio.sleep_forever, lambda _: None)))
            ref.tell(Do(hang) if where in ("receive", "everything") else Note("a"))
            await wait_all_tasks_blocked()
            other.tell(Note("backlog"))
            begun = trio.current_time()
        took = trio.current_time() - begun
    assert took <= 3 + STOP_GRACE_S + 0.01
    assert sibling.words == ["backlog"]
    assert sibling.stops == journal.stops == 1
    assert journal.gone == [None]
    overdue = [entry["actors"] for entry in logs if entry["event"] == "supervisor.overdue"]
    assert overdue == ([] if where == "on_stop" else [["probe/1"]])


async def test_shutdown_ends_in_time_though_a_start_hangs_elsewhere(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    outcomes = Outcomes(nursery)

    async def start(harness: SupervisorHarness) -> str:
        await harness.start(ProbeLog(on_start=hang))
        return "started"

    begun = trio.current_time()
    async with open_supervisor(shutdown_s=3) as harness:
        outcomes.ask("start", lambda: start(harness))
        await wait_all_tasks_blocked()
    assert trio.current_time() - begun == pytest.approx(3)
    await wait_all_tasks_blocked()
    assert outcomes.ended == {"start": ActorStopped}


async def test_stop_cancels_what_is_not_done_in_time_and_spares_its_caller(
    autojump_clock: MockClock,
) -> None:
    journal = ProbeLog()
    async with open_supervisor(shutdown_s=50) as harness:
        ref = await harness.start(journal)
        ref.tell(Do(hang))
        begun = trio.current_time()
        await harness.supervisor.stop(2)
        assert ref.stopped
        assert len(harness.supervisor) == 0
        assert harness.supervisor.stopping
        with pytest.raises(ActorStopped):
            await harness.start(ProbeLog(), name="probe/2")
    # The end of the block has nothing left to wait for.
    assert trio.current_time() - begun == pytest.approx(2)
    assert journal.stops == 1


async def test_no_restart_while_stopping(autojump_clock: MockClock) -> None:
    journal = ProbeLog()

    async def fail_late(_: Probe) -> None:
        await trio.sleep(1)
        raise Boom

    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(fail_late))
    assert journal.starts == 1
    assert [type(error) for error in journal.gone] == [Boom]


async def test_what_the_block_raises_comes_out_alone_and_ends_the_children(
    autojump_clock: MockClock,
) -> None:
    journal, error, cause = ProbeLog(), Boom(), KeyError("why")
    timers = Timers()

    async def block() -> None:
        async with Supervisor.open("probes", timers) as supervisor:
            ref = await SupervisorHarness(supervisor, timers).start(journal)
            ref.tell(Do(hang))
            await wait_all_tasks_blocked()
            raise error from cause

    with pytest.raises(Boom) as raised:
        await block()
    assert raised.value is error
    assert raised.value.__cause__ is cause
    assert journal.stops == 1
    assert journal.gone == [None]


async def test_the_cancellation_of_the_block_ends_the_children(autojump_clock: MockClock) -> None:
    journal = ProbeLog(on_stop=lambda _: trio.sleep(1))
    with trio.move_on_after(1) as scope:
        async with open_supervisor(shutdown_s=60) as harness:
            ref = await harness.start(journal)
            ref.tell(Do(hang))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ref.stopped
    assert journal.stops == 1


async def test_nested_supervisors_stop_from_the_inside(autojump_clock: MockClock) -> None:
    order: list[str] = []

    def journal(name: str) -> ProbeLog:
        return ProbeLog(on_stop=lambda _: order.append(name))

    async with open_supervisor() as outer:
        await outer.start(journal("outer"))
        async with Supervisor.open("inner", outer.timers) as inner:
            await SupervisorHarness(inner, outer.timers).start(journal("inner"))
    assert order == ["inner", "outer"]


async def test_what_the_starters_log_binds_is_not_the_actors() -> None:
    bound: list[dict[str, object]] = []
    journal = ProbeLog(on_start=lambda _: bound.append(structlog.contextvars.get_contextvars()))
    async with open_supervisor() as harness:
        with structlog.contextvars.bound_contextvars(request="someone's"):
            await harness.start(journal)
            assert structlog.contextvars.get_contextvars() == {"request": "someone's"}
    assert bound == [{}]
