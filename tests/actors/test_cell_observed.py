"""What a trace that is looked at shows of an actor besides its messages: frames, and refusals."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from actors.runtime.actor import Restart, Spec
from actors.runtime.trace import Span, Traced
from reileta.errors import NotQueued
from tests.actors.probe import (
    Ask,
    Do,
    Note,
    Probe,
    ProbeLog,
    crash,
    open_supervisor,
)


def sent(logs: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Who sent frames: trace, message, frames, sockets, drain, level."""
    keys = ("trace", "message", "frames", "sockets", "drain", "log_level")
    return [tuple(one[key] for key in keys) for one in logs if one["event"] == "frames.sent"]


def messages(logs: list[dict[str, object]]) -> list[object]:
    return [one["message"] for one in logs if one["event"] == "actor.received"]


async def test_what_a_message_sends_is_its_own() -> None:
    with capture_logs() as logs:
        async with open_supervisor() as harness:
            ref = await harness.start()
            with Traced(Span(0xABC)):
                ref.tell(Note("a"))
                ref.tell(Do(lambda probe: probe.context.sent(3, 2)))
    _, second = messages(logs)  # type: ignore[arg-type]
    trace = f"{0xABC:016x}"
    assert sent(logs) == [(trace, second, 3, 2, 1, "debug")]  # type: ignore[arg-type]


async def test_what_a_flush_sends_is_the_whole_drain_s() -> None:
    journal = ProbeLog(on_flush=lambda probe: probe.context.sent(9, 4))
    with capture_logs() as logs:
        async with open_supervisor() as harness:
            ref = await harness.start(journal)
            for trace in (1, 2):
                with Traced(Span(trace, sampled=trace == 2)):
                    ref.tell(Note("a"))
    first, second = messages(logs)  # type: ignore[arg-type]
    assert sent(logs) == [  # type: ignore[arg-type]
        (f"{1:016x}", first, 9, 4, 2, "debug"),
        (f"{2:016x}", second, 9, 4, 2, "info"),
    ]


async def test_nothing_sent_is_nothing_said_and_a_start_has_no_message() -> None:
    journal = ProbeLog(
        on_start=lambda probe: probe.context.sent(1, 1),
        on_flush=lambda probe: probe.context.sent(0, 0),
    )
    with capture_logs() as logs:
        async with open_supervisor() as harness:
            (await harness.start(journal)).tell(Note("a"))
    assert sent(logs) == []  # type: ignore[arg-type]


async def test_a_refusal_stands_with_its_message() -> None:
    def refuse(_probe: Probe, _ask: Ask) -> None:
        raise NotQueued

    with capture_logs() as logs:
        async with open_supervisor() as harness:
            ref = await harness.start()
            with pytest.raises(NotQueued):
                await ref.ask(Ask(refuse))
    [received] = [one for one in logs if one["event"] == "actor.received"]
    assert received["error"] == NotQueued.code


class PostMortemProbe(Probe):
    """A probe with something to say about its crash."""

    def post_mortem(self, error: Exception) -> Mapping[str, object]:
        return {"evidence": type(error).__name__, "crashes": len(self.journal.crashed_on)}


async def test_a_crash_s_log_event_says_what_the_actor_adds_after_its_last_word() -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.supervisor.start(
            Spec("probe/1", lambda: PostMortemProbe(journal), restart=Restart(intensity=1))
        )
        with capture_logs() as logs:
            ref.tell(Do(crash))
            await ref.wait_stopped()
    [crashed] = [one for one in logs if one["event"] == "actor.crashed"]
    assert (crashed["evidence"], crashed["crashes"]) == ("Boom", 1)


class FailingPostMortemProbe(Probe):
    def post_mortem(self, error: Exception) -> Mapping[str, object]:
        raise LookupError


async def test_a_post_mortem_that_fails_changes_nothing(autojump_clock: object) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.supervisor.start(
            Spec("probe/1", lambda: FailingPostMortemProbe(journal), restart=Restart())
        )
        with capture_logs() as logs:
            ref.tell(Do(crash))
            ref.signal(Note("after"))
            ref.drain()
            await ref.wait_stopped()
    events = [one["event"] for one in logs]
    assert "actor.crashed" in events
    assert [one["hook"] for one in logs if one["event"] == "hook.failed"] == ["post_mortem"]
    assert journal.words == ["after"]
