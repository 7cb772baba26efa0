"""Short pauses: with the thread where all is quiet, with the event loop where it is not."""

from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from api.ws.transport import pauses as module
from api.ws.transport.pauses import ACTIVE_S, LOOK_S, QUIET_S, Pauses
from tests.conftest import PATIENCE_S


class Thread:
    """The thread's time: it sleeps, and other tasks use it when the event loop takes a turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []
        self.turns = 0
        self.work: list[float] = []
        """For how long others work in the next turns."""
        monkeypatch.setattr(module, "perf_counter", lambda: self.now_s)
        monkeypatch.setattr(module, "sleep", self.sleep)
        monkeypatch.setattr(module, "checkpoint", self.turn)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    async def turn(self) -> None:
        self.turns += 1
        self.now_s += self.work.pop(0) if self.work else 0.0


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    return Thread(monkeypatch)


async def test_where_all_is_quiet_a_pause_sleeps_and_others_get_a_turn_now_and_then(
    thread: Thread,
) -> None:
    pauses = Pauses()
    for _ in range(10):
        await pauses.take(LOOK_S / 2)
    assert thread.slept == pytest.approx([LOOK_S / 2] * 10)
    assert 8 <= thread.turns <= 12


async def test_while_others_have_something_to_do_they_get_the_pause(thread: Thread) -> None:
    pauses = Pauses()
    thread.work = [0.0, 0.000_2, 0.000_1]  # a turn may wake others, and end before they run
    await pauses.take(0.000_5)
    assert thread.turns == 6
    assert thread.slept == pytest.approx([0.000_2])
    await pauses.take(0.000_5)  # something may come soon
    assert thread.turns == 8
    thread.now_s += ACTIVE_S
    for _ in range(3):
        await pauses.take(LOOK_S / 4)
    assert thread.turns == 10


async def test_a_pause_in_which_others_always_work_ends_when_it_is_over(thread: Thread) -> None:
    thread.work = [QUIET_S * 0.6] * 100
    await Pauses().take(10.5 * QUIET_S)
    assert (thread.turns, thread.slept) == (18, [])


async def test_without_time_to_wait_others_get_their_turns_all_the_same(thread: Thread) -> None:
    pauses = Pauses()
    for _ in range(100):
        thread.now_s += LOOK_S / 10
        await pauses.take(-1.0)
    assert thread.slept == []
    assert 18 <= thread.turns <= 22


async def test_a_task_that_can_run_does_so_before_the_thread_sleeps(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    read: list[bytes] = []
    read_before: list[int] = []
    monkeypatch.setattr(module, "sleep", lambda _: read_before.append(len(read)))
    monkeypatch.setattr(module, "LOOK_S", 0.0)

    async def reads() -> None:
        while True:
            await trio.lowlevel.wait_readable(ours)
            read.append(ours.recv(1))

    with ours, theirs:
        nursery.start_soon(reads)
        await wait_all_tasks_blocked()
        pauses = Pauses()
        for number in range(100):
            theirs.send(b"x")
            await pauses.take(PATIENCE_S)
            assert read_before[-1] == number + 1
        nursery.cancel_scope.cancel()
