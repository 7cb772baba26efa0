from __future__ import annotations

import pytest
import trio

from reileta.concurrency import plain_nursery, undone_on_failure


async def test_the_bodys_error_comes_out_as_it_is() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:  # noqa: PT012
        async with plain_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error


async def test_a_tasks_error_ends_the_body_and_comes_out_as_it_is() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):  # noqa: PT012
        async with plain_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()


async def test_several_errors_stay_a_group() -> None:
    async def fail() -> None:
        raise KeyError("theirs")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with plain_nursery() as nursery:
            nursery.start_soon(fail)
            raise ValueError("mine")
    assert {type(error) for error in caught.value.exceptions} == {KeyError, ValueError}


async def test_a_group_of_the_body_stays_the_group_it_is() -> None:
    group = ExceptionGroup("mine", [KeyError("one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with plain_nursery():
            raise group
    assert caught.value.message == "mine"  # Trio derives a new group, but wraps it in no other


async def test_cancellation_passes_through() -> None:
    with trio.CancelScope() as scope:
        async with plain_nursery():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_body_is_undone_if_it_raises_or_is_cancelled() -> None:
    undone: list[str] = []
    with undone_on_failure(lambda: undone.append("whole")):
        pass
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, undone_on_failure(lambda: undone.append("raises")):
        raise error
    assert caught.value is error
    with trio.CancelScope() as scope, undone_on_failure(lambda: undone.append("is cancelled")):
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert undone == ["raises", "is cancelled"]
