"""A short contest, and how a contestant counts its holds; `make chaos` runs long contests."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from benchmarks.killable import Server
from tests.chaos.contest import WRITES_MOST, Contestant, contest
from tests.chaos.history import History


@pytest.mark.slow
# A server that is killed leaves sockets behind that the clients' library does not close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_no_rule_is_broken_while_the_server_is_killed(data_folder: Path) -> None:
    history = await contest(data_folder / "data", sessions=12, resources=4, seconds=6, kills=2)
    assert history.violations == []
    assert history.holds
    assert history.written
    assert history.offers_taken
    assert history.waits
    assert history.shown
    assert sum(history.patches.values()) > 12


@pytest.mark.parametrize(("status", "last_s"), [(200, WRITES_MOST - 1), (503, 0)])
async def test_a_hold_lasts_until_the_last_write_that_was_granted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, status: int, last_s: int
) -> None:
    """A write without an answer, from a server that was killed, does not prolong it."""

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            await trio.sleep(1)
            return httpx.Response(status, json={"resource": {"version": trio.current_time()}})
        return httpx.Response(200)

    monkeypatch.setattr(random, "random", lambda: 1.0)  # it does not go away
    monkeypatch.setattr(random, "randint", lambda least, most: most)
    server, history = Server(Path()), History()
    server.url = "http://server"
    server.up.set()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        one = Contestant(1, "token", server, history, client, itertools.count(1))
        began = trio.current_time()
        await one.hold(55, 1, began)
    (hold,) = history.holds
    assert (hold.since, hold.until) == (began, began + last_s)
