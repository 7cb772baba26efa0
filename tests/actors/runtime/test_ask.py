from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.runtime.ask import ASK_TIMEOUT_S, NESTED_ASK_TIMEOUT_S, ask, ask_timeout
from actors.runtime.errors import ActorStopped, AskTimedOut
from tests.actors.probe import Do, Echo, ProbeLog, open_supervisor


async def test_an_answer_that_does_not_come_in_time_is_an_error_and_the_request_is_handled(
    autojump_clock: MockClock,
) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(lambda _: trio.sleep(ASK_TIMEOUT_S + 1)))
        began = trio.current_time()
        with pytest.raises(AskTimedOut):
            await ask(ref, Echo("late"))
        assert trio.current_time() - began == pytest.approx(ASK_TIMEOUT_S)
        assert await ask(ref, Echo("next")) == "next"
    assert journal.words == ["late", "next"]


async def test_an_actor_that_has_stopped_is_not_one_that_is_late(autojump_clock: MockClock) -> None:
    async with open_supervisor() as harness:
        ref = await harness.start()
        ref.drain()
        await ref.wait_stopped()
        with pytest.raises(ActorStopped):
            await ask(ref, Echo("hello"))


async def test_a_nested_ask_fails_before_the_ask_around_it(autojump_clock: MockClock) -> None:
    async with open_supervisor() as harness:
        ref = await harness.start()
        ref.tell(Do(lambda _: trio.sleep(ASK_TIMEOUT_S + 1)))
        began = trio.current_time()
        with ask_timeout(), pytest.raises(AskTimedOut), ask_timeout(NESTED_ASK_TIMEOUT_S):
            await ref.ask(Echo("late"))
        assert trio.current_time() - began < ASK_TIMEOUT_S
