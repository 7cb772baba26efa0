"""What is written down about an actor, and that none of what it was sent is in it."""

from __future__ import annotations

import logging

import structlog
from structlog.testing import capture_logs

from actors.runtime.actor import Restart
from actors.runtime.cell import RECORDED
from tests.actors.probe import (
    Do,
    Echo,
    Note,
    crash,
    open_supervisor,
)


async def test_the_flight_recorder_says_what_came_and_nothing_that_was_in_it() -> None:
    secret = "hunter2-not-for-logs"
    async with open_supervisor() as harness:
        ref = await harness.start(restart=Restart(intensity=1))
        with capture_logs() as logs:
            for number in range(100):
                ref.tell(Note(f"{secret} {number}"))
            assert await ref.ask(Echo(secret)) == secret
            ref.tell(Do(crash))
            ref.tell(Note(secret))
            await ref.wait_stopped()
    [crashed] = [entry for entry in logs if entry["event"] == "actor.crashed"]
    recorded = crashed["last_messages"]
    assert len(recorded) == RECORDED == 64
    assert recorded[-1].startswith("Do id=")
    assert recorded[-2].startswith("Echo id=")
    assert recorded[0].startswith("Note id=")
    ids = [int(line.split("id=")[1].split()[0]) for line in recorded]
    assert ids == sorted(ids)
    rendered = "".join(
        f"{entry} {structlog.processors.format_exc_info(None, '', dict(entry))}" for entry in logs
    )
    assert "Boom" in rendered
    assert secret not in rendered


async def test_messages_are_logged_at_debug_when_debug_is_on() -> None:
    with capture_logs() as logs:
        async with open_supervisor() as harness:
            ref = await harness.start()
            await ref.ask(Echo("secret"))
    [received] = [entry for entry in logs if entry["event"] == "actor.received"]
    assert received["log_level"] == "debug"
    assert received["type"] == "Echo"
    assert received["depth"] == 0
    assert received["waited_us"] >= 0
    assert received["handled_us"] >= 0
    assert "secret" not in str(logs)
    assert [entry["event"] for entry in logs if entry["event"] != "actor.received"] == [
        "actor.started",
        "actor.stopped",
    ]


async def test_messages_are_not_logged_when_debug_is_off() -> None:
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        with capture_logs() as logs:
            async with open_supervisor() as harness:
                ref = await harness.start()
                await ref.ask(Echo("a"))
    finally:
        structlog.configure(wrapper_class=before)
    assert logs == []
