"""What a client spends at one node counts at the others."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from api.rate_limits import ADDRESS, READ, HttpRateLimits
from api.shared_limits import TOLD_EVERY_S, SharedLimits
from reileta.errors import TooManyRequests
from tests.actors.cluster.fake_member import FakeMember
from tests.api.test_exact_limits import FakeAttempts
from tests.reileta.cluster.memory_bus import MemoryNats

HERE, THERE = "192.0.2.1", "198.51.100.1"


class TrioClock:
    def now_ms(self) -> int:
        return self.steady_ms()

    def steady_ms(self) -> int:
        return 1_000_000 + round(trio.current_time() * 1000)


class Nodes:
    """Three nodes; a client spreads its requests over them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nats = MemoryNats()
        self.limits = [HttpRateLimits(TrioClock()) for _ in range(3)]
        names = {f"c_{number}": None for number in range(3)}
        for name, limits in zip(names, self.limits, strict=True):
            limits.share(FakeAttempts())
            member = FakeMember(name, self.nats.bus(name), dict(names))
            nursery.start_soon(SharedLimits(member, limits).run)

    def passed(self, ip: str, each: int) -> int:
        """Of so many requests at each node, how many pass."""
        passed = 0
        for limits in self.limits:
            for _ in range(each):
                try:
                    limits.address(ip)
                except TooManyRequests:
                    break
                passed += 1
        return passed


@pytest.fixture
async def nodes(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Nodes:
    return Nodes(nursery)


async def test_a_client_at_three_nodes_gets_its_limit_after_a_second(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    nodes.passed(HERE, 10_000)  # a burst at each
    await trio.sleep(TOLD_EVERY_S * 1.5)
    passed = 0
    seconds = 40
    for _ in range(seconds * 10):
        passed += nodes.passed(HERE, 10_000)
        await trio.sleep(0.1)
    assert passed <= 1.5 * ADDRESS.per_s * seconds
    assert passed >= 0.5 * ADDRESS.per_s * seconds
    assert nodes.passed(THERE, 1) == 3


async def test_what_a_client_may_do_at_one_node_it_may_do_at_three(
    nodes: Nodes, autojump_clock: MockClock
) -> None:
    """A client within its limit is never refused, although others hear of it."""
    for _ in range(400):
        assert nodes.passed(HERE, 3) == 9  # 90 of 100 a second
        await trio.sleep(0.1)


async def test_a_burst_is_told_once(nodes: Nodes, autojump_clock: MockClock) -> None:
    assert sum(nodes.passed(HERE, 10_000) for _ in range(1)) == 3 * ADDRESS.burst
    await trio.sleep(ADDRESS.burst / ADDRESS.per_s + TOLD_EVERY_S * 2)
    nodes.nats.published.clear()
    await trio.sleep(TOLD_EVERY_S * 5)
    assert nodes.nats.published == []
    assert nodes.passed(HERE, 1) == 3


async def test_routes_are_shared_too(nodes: Nodes, autojump_clock: MockClock) -> None:
    for limits in nodes.limits:
        limits.route("GET /api/worlds", READ, HERE)
    for _ in range(READ.burst - 1):
        nodes.limits[0].route("GET /api/worlds", READ, HERE)
    await trio.sleep(TOLD_EVERY_S * 1.1)
    passed = 0
    try:
        for _ in range(READ.burst):
            nodes.limits[1].route("GET /api/worlds", READ, HERE)
            passed += 1
    except TooManyRequests:
        pass
    assert passed < READ.burst / 2
