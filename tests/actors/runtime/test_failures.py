from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs

from actors.runtime.failures import CapturedFailure, capture_failure
from tests.actors.probe import Boom


async def test_a_failure_is_returned() -> None:
    error = Boom()

    async def fail() -> None:
        raise error

    async def succeed() -> None:
        pass

    assert await capture_failure(fail) is error
    assert await capture_failure(succeed) is None


def test_a_block_can_be_contained() -> None:
    with CapturedFailure() as block:
        raise Boom
    assert isinstance(block.error, Boom)


async def test_cancellation_passes() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await capture_failure(trio.lowlevel.checkpoint)
    assert scope.cancelled_caught


def test_the_end_of_the_process_passes() -> None:
    with pytest.raises(KeyboardInterrupt), CapturedFailure():
        raise KeyboardInterrupt


async def test_a_group_of_failures_is_one() -> None:
    async def fail() -> None:
        raise Boom

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    error = await capture_failure(work)
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error.exceptions[0], Boom)


async def test_a_failure_on_the_way_out_stays_while_the_cancellation_passes() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    with capture_logs() as logs, trio.CancelScope() as scope:
        scope.cancel()
        await capture_failure(work)
    assert scope.cancelled_caught
    assert [entry["event"] for entry in logs] == ["hook.failed"]
