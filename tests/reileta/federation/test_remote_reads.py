"""The reads of other servers' objects, and their cache."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import replace
from typing import Any

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from reileta.errors import (
    BadData,
    ChallengeRefused,
    MalformedData,
    NoData,
    NoResponse,
    ReiletaError,
    ServerBlocked,
    TooManyRequests,
    WorldInvalid,
    WorldNotFound,
)
from reileta.federation import remote_reads
from reileta.federation.peers import PeerAnswer
from reileta.federation.remote_reads import FOUND_S, MISSING_S, PEER, Read, RemoteReads
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.protocol.views.registry import ListView, WorldView
from reileta.rules.federation.remote_objects import Question
from tests.conftest import ManualClock
from tests.reileta.federation.fake_peers import FakePeers, found, refused
from tests.reileta.rules.federation import remote_examples as examples
from tests.reileta.rules.federation.remote_examples import OWN, UUID, WORLD, page

ADA = "u_ada"
B, PATH = examples.PEER, f"/api/worlds/w_{UUID}"
ERRORS: dict[int, type[ReiletaError]] = {25: WorldNotFound, 24: WorldInvalid}
WANTED = Read(B, PATH, Question(WorldView, f"w_{UUID}"), errors=ERRORS)


class Town:
    """The reads of one server, whose peers are fake."""

    def __init__(self, *, limited: bool = False) -> None:
        self.peers, self.clock, self.metrics = FakePeers(), ManualClock(), Metrics()
        self.here: set[str] = set()
        self.reads = RemoteReads(
            self.peers,
            address=OWN,
            source=self.peers.source,
            existing=self.existing,
            clock=self.clock,
            metrics=self.metrics,
            activity=ActivityLog(self.clock),
            limited=limited,
        )

    async def existing(self, ids: Set[str]) -> Set[str]:
        return self.here & ids

    async def read(self, wanted: Read = WANTED) -> Any:
        return json.loads(bytes((await self.reads.read(wanted, ADA)).raw))


@pytest.fixture
def town() -> Town:
    return Town()


async def test_an_answer_is_kept_for_a_minute(town: Town) -> None:
    town.peers.answers[PATH] = found(WORLD)
    first = await town.reads.read(WANTED, ADA)
    assert await town.read() == WORLD
    town.clock.advance(int(FOUND_S * 1000) - 1)
    assert await town.reads.read(WANTED, ADA) == first
    assert len(town.peers.asked) == 1
    town.clock.advance(1)
    town.peers.answers[PATH] = found({**WORLD, "title": "Quay"})
    assert (await town.reads.read(WANTED, ADA)).tag != first.tag
    assert len(town.peers.asked) == 2
    assert town.metrics.remote_reads == {"fetched": 2, "cached": 2}


async def test_that_there_is_nothing_is_kept_for_ten_seconds(town: Town) -> None:
    town.peers.answers[PATH] = refused(404, 25)
    for after_ms in (0, int(MISSING_S * 1000) - 1):
        town.clock.advance(after_ms)
        with pytest.raises(WorldNotFound):
            await town.read()
    assert len(town.peers.asked) == 1
    town.clock.advance(1)
    town.peers.answers[PATH] = found(WORLD)
    assert await town.read() == WORLD


async def test_an_object_that_became_private_is_gone_after_a_minute(town: Town) -> None:
    town.peers.answers[PATH] = found(WORLD)
    assert await town.read() == WORLD
    town.peers.answers[PATH] = refused(404, 25)
    town.clock.advance(int(FOUND_S * 1000))
    with pytest.raises(WorldNotFound):
        await town.read()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NoResponse(), NoResponse),
        (BadData(), BadData),
        (ChallengeRefused(), NoData),
        (MalformedData(), MalformedData),
        (found({**WORLD, "owner": "u_x"}), MalformedData),
        (found({**WORLD, "tags": ["avr:private"]}), MalformedData),
        (found(None), MalformedData),
        (refused(500, 16), NoResponse),
        (refused(503, 122), NoResponse),
        (refused(429, 102), NoResponse),
        (refused(404, 2), NoData),
        (refused(404, 17), NoData),
        (refused(401, 3), NoData),
        (refused(401, 101), NoData),
        (refused(403, 4), NoData),
        (refused(403, 135), NoData),
        (refused(400, 24), WorldInvalid),
        (refused(400, 14), NoData),
        (refused(400, 10**100), NoData),
        (refused(400, -1), NoData),
    ],
)
async def test_no_other_error_is_kept(
    town: Town, answer: PeerAnswer | ReiletaError, error: type[ReiletaError]
) -> None:
    town.peers.answers[PATH] = answer
    for _ in range(2):
        with pytest.raises(error) as raised:
            await town.read()
        assert type(raised.value) is error
    assert len(town.peers.asked) == 2
    assert town.reads.held_bytes == 0
    town.peers.answers[PATH] = found(WORLD)
    assert await town.read() == WORLD


async def test_a_time_to_retry_comes_through(town: Town) -> None:
    town.peers.answers[PATH] = NoResponse(retry_after_s=7.0)
    with pytest.raises(NoResponse) as raised:
        await town.read()
    assert raised.value.retry_after_s == 7.0


async def test_the_log_names_fields_but_not_values(town: Town) -> None:
    town.peers.answers[PATH] = found({**WORLD, "owner": "secret"})
    with structlog.testing.capture_logs() as logs, pytest.raises(MalformedData):
        await town.read()
    (entry,) = logs
    assert (entry["server"], entry["code"], entry["fields"]) == (B, 11, ["owner"])
    assert "secret" not in str(entry)


async def test_a_large_answer_is_checked_like_a_small_one(town: Town) -> None:
    description = "Boats.\n" * 500
    right = page(*[{**WORLD, "description": description.strip()}] * 50)
    question = Question(ListView[WorldView], limit=50)
    town.peers.answers["/api/worlds"] = found(right)
    assert await town.read(Read(B, "/api/worlds", question)) == right
    town.clock.advance(int(FOUND_S * 1000))
    wrong = page(*[*right["items"][1:], {**WORLD, "capacity": 0, "description": description}])
    town.peers.answers["/api/worlds"] = found(wrong)
    with pytest.raises(MalformedData):
        await town.read(Read(B, "/api/worlds", question))


async def test_the_order_of_a_query_does_not_matter(town: Town) -> None:
    town.peers.answers["/api/worlds"] = found(page(WORLD))
    question = Question(ListView[WorldView], limit=50)
    for query in ((("a", "1"), ("b", "2")), (("b", "2"), ("a", "1"))):
        await town.read(Read(B, "/api/worlds", question, query))
    assert len(town.peers.asked) == 1
    await town.read(Read(B, "/api/worlds", question, (("a", "2"), ("b", "1"))))
    await town.read(Read("other.example", "/api/worlds", question, (("a", "1"), ("b", "2"))))
    assert len(town.peers.asked) == 3


async def test_requests_that_come_together_share_one_answer(
    town: Town, nursery: trio.Nursery
) -> None:
    town.peers.answers[PATH], town.peers.gate = found(WORLD), trio.Event()
    got: list[Any] = []

    async def read() -> None:
        got.append(await town.read())

    for _ in range(10):
        nursery.start_soon(read)
    await wait_all_tasks_blocked()
    town.peers.gate.set()
    await wait_all_tasks_blocked()
    assert got == [WORLD] * 10
    assert len(town.peers.asked) == 1


async def test_they_share_an_error_too(town: Town, nursery: trio.Nursery) -> None:
    town.peers.answers[PATH], town.peers.gate = NoResponse(), trio.Event()
    failed: list[str] = []

    async def read() -> None:
        with pytest.raises(NoResponse):
            await town.read()
        failed.append("x")

    for _ in range(10):
        nursery.start_soon(read)
    await wait_all_tasks_blocked()
    town.peers.gate.set()
    await wait_all_tasks_blocked()
    assert len(failed) == 10
    assert len(town.peers.asked) == 1


async def test_one_that_goes_away_leaves_the_others_an_answer(
    town: Town, nursery: trio.Nursery
) -> None:
    town.peers.answers[PATH], town.peers.gate = found(WORLD), trio.Event()
    got: list[Any] = []

    async def read(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await town.read())

    scopes = [trio.CancelScope() for _ in range(3)]
    for scope in scopes:
        nursery.start_soon(read, scope)
        await wait_all_tasks_blocked()
    scopes[0].cancel()
    await wait_all_tasks_blocked()
    assert len(town.peers.asked) == 2
    town.peers.gate.set()
    await wait_all_tasks_blocked()
    assert got == [WORLD] * 2


async def test_a_blocked_servers_objects_go_at_once(town: Town) -> None:
    town.peers.answers[PATH] = found(WORLD)
    other = replace(WANTED, server="other.example", question=Question(WorldView))
    await town.read()
    with pytest.raises(MalformedData):  # of another server
        await town.read(replace(other, question=Question(ListView[WorldView], limit=5)))
    town.peers.answers["/api/worlds"] = found(page())
    rest = Read("other.example", "/api/worlds", Question(ListView[WorldView], limit=5))
    await town.read(rest)
    held = town.reads.held_bytes
    town.peers.blocked.add(B)
    with pytest.raises(ServerBlocked):
        await town.read()
    await town.reads.server_blocked(lambda server: server == B)
    assert 0 < town.reads.held_bytes < held
    town.peers.blocked.clear()
    asked = len(town.peers.asked)
    await town.read()
    await town.read(rest)
    assert len(town.peers.asked) == asked + 1


async def test_an_answer_of_a_server_that_is_blocked_meanwhile_is_refused(
    town: Town, nursery: trio.Nursery
) -> None:
    town.peers.answers[PATH], town.peers.gate = found(WORLD), trio.Event()
    refusals: list[str] = []

    async def read() -> None:
        with pytest.raises(ServerBlocked):
            await town.read()
        refusals.append("x")

    for _ in range(2):
        nursery.start_soon(read)
    await wait_all_tasks_blocked()
    town.peers.blocked.add(B)
    await town.reads.server_blocked(lambda server: server == B)
    town.peers.gate.set()
    await wait_all_tasks_blocked()
    assert len(refusals) == 2
    assert town.reads.held_bytes == 0


async def test_an_answer_from_before_a_block_is_not_kept_after_it(
    town: Town, nursery: trio.Nursery
) -> None:
    town.peers.answers[PATH], town.peers.gate = found(WORLD), trio.Event()
    nursery.start_soon(town.read)
    await wait_all_tasks_blocked()
    await town.reads.server_blocked(lambda server: server == B)  # and lifted at once
    town.peers.gate.set()
    await wait_all_tasks_blocked()
    assert town.reads.held_bytes == 0


async def test_objects_of_this_server_must_exist(town: Town) -> None:
    mine = {**WORLD, "owner": f"u_{UUID}@{OWN}"}
    town.peers.answers[PATH] = found(mine)
    with pytest.raises(MalformedData):
        await town.read()
    town.here.add(f"u_{UUID}")
    assert await town.read() == mine
    other = {**WORLD, "id": WORLD["id"][:-1] + "1", "owner": f"u_{UUID[:-1]}1@{OWN}"}
    town.peers.answers["/api/worlds"] = found(page(mine, other))
    wanted = Read(B, "/api/worlds", Question(ListView[WorldView], limit=5))
    assert (await town.read(wanted))["items"] == [mine]


async def test_requests_to_one_server_are_limited() -> None:
    town = Town(limited=True)
    town.peers.answers["/api/worlds"] = found(page())
    question = Question(ListView[WorldView], limit=5)
    wanted = [
        Read(B, "/api/worlds", question, (("offset", str(number)),))
        for number in range(PEER.burst + 2)
    ]
    for one in wanted[: PEER.burst]:
        await town.read(one)
    with pytest.raises(TooManyRequests):
        await town.read(wanted[-1])
    await town.read(wanted[0])  # this server has it
    await town.read(replace(wanted[-1], server="other.example"))
    town.clock.advance(int(1000 / PEER.per_s) + 1)
    await town.read(wanted[-1])


async def test_the_cache_is_bounded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_reads, "LIMIT_BYTES", 100_000)
    town = Town()
    town.peers.answers["/api/worlds"] = found(page(WORLD))
    question = Question(ListView[WorldView], limit=5)
    for number in range(1000):
        await town.read(Read(B, "/api/worlds", question, (("query", "x" * 200 + str(number)),)))
        assert town.reads.held_bytes <= 100_000
    assert town.reads.held_bytes > 90_000
