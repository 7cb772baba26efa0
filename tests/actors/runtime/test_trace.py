from __future__ import annotations

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.actor import Restart
from actors.runtime.mailbox import Ref
from actors.runtime.trace import NO_TRACE, Sampler, Span, Traced, add_trace, current
from tests.actors.probe import Ask, Do, Note, Probe, ProbeLog, ProbeMessage, crash, open_supervisor


def here(seen: list[Span]) -> Do:
    """Has an actor tell which span it handles the message in."""
    return Do(lambda _: seen.append(current.get()))


def test_a_trace_begins_at_the_edge() -> None:
    sampler = Sampler()
    first, second = sampler.begin(), sampler.begin()
    assert first.trace != second.trace
    assert first.id == 0
    assert not first.sampled
    assert len(first.trace_id) == 16
    assert int(first.trace_id, 16) == first.trace


@pytest.mark.parametrize(("share", "sampled"), [(0.0, False), (1.0, True)])
def test_a_share_of_traces_is_sampled(share: float, sampled: bool) -> None:
    sampler = Sampler(share)
    assert {sampler.begin().sampled for _ in range(100)} == {sampled}


def test_binding_ends_with_its_block() -> None:
    with Traced(Span(1)):
        with Traced(Span(2)):
            assert current.get().trace == 2
        assert current.get().trace == 1
    assert current.get() is NO_TRACE


def test_log_events_get_the_trace() -> None:
    assert add_trace(None, "info", {}) == {}
    with Traced(Span(255)):
        assert add_trace(None, "info", {}) == {"trace": "00000000000000ff"}
    with Traced(Span(255, id=4)):
        assert add_trace(None, "info", {"message": "own"}) == {
            "trace": "00000000000000ff",
            "message": "own",
        }


async def test_a_trace_goes_from_actor_to_actor_by_tell() -> None:
    seen: list[Span] = []
    async with open_supervisor() as harness:
        last = await harness.start(name="probe/last")
        first = await harness.start(name="probe/first")

        def forward(_: Probe) -> None:
            seen.append(current.get())
            last.tell(here(seen))

        with Traced(Span(9, sampled=True)):
            first.tell(Do(forward))
        await wait_all_tasks_blocked()
    begun, ended = seen
    assert begun.trace == ended.trace == 9
    assert begun.sampled
    assert ended.sampled
    assert ended.cause == begun.id != ended.id  # type: ignore[attr-defined]


async def test_a_trace_goes_through_ask_and_leaves_the_asker_its_own() -> None:
    seen: list[Span] = []
    async with open_supervisor() as harness:
        ref = await harness.start()

        def answer(_: Probe, request: Ask) -> None:
            seen.append(current.get())
            request.reply("yes")

        with Traced(Span(9)) as span:
            await ref.ask(Ask(answer))
            assert current.get() is span
    assert [span.trace for span in seen] == [9]


async def test_work_and_its_result_keep_the_trace() -> None:
    seen: list[Span] = []
    async with open_supervisor() as harness:
        ref = await harness.start()

        async def work() -> None:
            seen.append(current.get())
            await trio.lowlevel.checkpoint()

        def begin(probe: Probe) -> None:
            seen.append(current.get())
            probe.context.run(work, lambda _: seen.append(current.get()))

        with Traced(Span(9)):
            ref.tell(Do(begin))
        await wait_all_tasks_blocked()
    begun, working, result = seen
    assert [begun.trace, working.trace, result.trace] == [9, 9, 9]
    assert result.cause == begun.id  # type: ignore[attr-defined]


async def test_an_actor_between_messages_is_in_no_trace() -> None:
    seen: list[Span] = []
    journal = ProbeLog(
        on_start=lambda _: seen.append(current.get()), on_stop=lambda _: seen.append(current.get())
    )
    async with open_supervisor() as harness:
        with Traced(Span(9)):
            ref = await harness.start(journal)
            ref.tell(Note("a"))
        await wait_all_tasks_blocked()
    assert [span.trace for span in seen] == [0, 0]


async def test_traces_of_concurrent_actors_do_not_mix(nursery: trio.Nursery) -> None:
    seen: dict[int, list[int]] = {}
    async with open_supervisor() as harness:
        refs = [await harness.start(name=f"probe/{number}") for number in range(4)]

        async def hop(trace: int, left: list[Ref[ProbeMessage]]) -> None:
            for _ in range(3):
                seen.setdefault(trace, []).append(current.get().trace)
                await trio.lowlevel.checkpoint()
            if left:
                left[0].tell(Do(lambda _: hop(trace, left[1:])))

        for trace in range(1, 9):
            order = refs[trace % 4 :] + refs[: trace % 4]
            with Traced(Span(trace)):
                order[0].tell(Do(lambda _, trace=trace, order=order: hop(trace, order[1:])))  # type: ignore[misc]
        await wait_all_tasks_blocked()
    assert seen == {trace: [trace] * 12 for trace in range(1, 9)}


async def test_a_sampled_trace_is_logged_at_info_from_actor_to_actor() -> None:
    async with open_supervisor() as harness:
        last = await harness.start(name="probe/last")
        first = await harness.start(name="probe/first")
        with capture_logs() as logs:
            with Traced(Span(9, sampled=True)):
                first.tell(Do(lambda _: last.tell(Note("secret"))))
            await wait_all_tasks_blocked()
    received = [entry for entry in logs if entry["event"] == "actor.received"]
    assert [(entry["actor"], entry["type"]) for entry in received] == [
        ("probe/first", "Do"),
        ("probe/last", "Note"),
    ]
    assert {entry["log_level"] for entry in received} == {"info"}
    assert {entry["trace"] for entry in received} == {f"{9:016x}"}
    assert received[1]["cause"] == received[0]["message"]
    assert "secret" not in str(logs)


async def test_a_crash_is_logged_in_the_trace_of_the_message_at_fault(
    autojump_clock: MockClock,
) -> None:
    before = structlog.get_config()["processors"]
    seen: list[Span] = []

    def look(_: object, __: str, event: EventDict) -> EventDict:
        if event["event"] == "actor.crashed":
            seen.append(current.get())
        raise structlog.DropEvent

    structlog.configure(processors=[look])
    try:
        async with open_supervisor() as harness:
            ref = await harness.start(restart=Restart(intensity=1))
            with Traced(Span(9)):
                ref.tell(Do(crash))
            await ref.wait_stopped()
    finally:
        structlog.configure(processors=before)
    assert [span.trace for span in seen] == [9]


async def test_the_next_incarnation_is_in_no_trace(autojump_clock: MockClock) -> None:
    seen: list[Span] = []
    async with open_supervisor() as harness:
        ref = await harness.start(ProbeLog(on_start=lambda _: seen.append(current.get())))
        with Traced(Span(9)):
            ref.tell(Do(crash))
        await trio.sleep(1)
    assert [span.trace for span in seen] == [0, 0]
