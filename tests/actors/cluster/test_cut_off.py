"""Clients of a node without any witness are sent away, once."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
from trio.testing import MockClock

from actors.cluster.cut_off import LOOK_S, LOOKS, CutOff


@dataclass
class FakeMember:
    """A node whose lease a test decides."""

    confirmed: trio.Event = field(default_factory=trio.Event)

    def valid(self) -> bool:
        return self.confirmed.is_set()

    @property
    def valid_for_s(self) -> float:
        return LOOK_S if self.valid() else -1.0

    async def wait_valid(self) -> None:
        await self.confirmed.wait()


async def test_clients_are_sent_away_once_in_each_outage(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    member, sent = FakeMember(), []
    cut_off = CutOff(member, lambda: sent.append(trio.current_time()))
    nursery.start_soon(cut_off.run)
    await trio.sleep(60)
    assert not sent  # it has just started
    for times in (1, 2):
        member.confirmed.set()
        await trio.sleep(60)
        member.confirmed = trio.Event()
        began = trio.current_time()
        await trio.sleep(60)
        assert len(sent) == times
        assert sent[-1] - began <= LOOK_S * (LOOKS + 1)


async def test_a_lease_that_is_soon_confirmed_sends_nobody_away(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    member, sent = FakeMember(), []
    cut_off = CutOff(member, lambda: sent.append(1))
    nursery.start_soon(cut_off.run)
    for _ in range(10):
        member.confirmed.set()
        await trio.sleep(2 * LOOK_S)
        member.confirmed = trio.Event()
        await trio.sleep(LOOK_S * (LOOKS - 2))
    assert not sent
