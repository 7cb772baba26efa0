"""A block acts in one place, also if a part of it fails at first."""

from __future__ import annotations

import pytest

from actors.federation.servers import Blocked, FederatedServers
from reileta.errors import DatabaseUnavailable, ServerBlocked
from reileta.observability.activity_log import ActivityLog
from reileta.records import PeerServer
from reileta.rules.federation.server_rules import Mode
from reileta.security.credentials import digest
from reileta.store import Store
from tests.conftest import ManualClock

B, C = "b.example:3032", "c.example"


class Listener:
    """Remembers what was blocked; `fails` so many times first."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.told: list[list[bool]] = []

    async def server_blocked(self, blocked: Blocked, /) -> None:
        if self.fails:
            self.fails -= 1
            raise DatabaseUnavailable
        self.told.append([blocked(B), blocked(C)])


async def know(store: Store, clock: ManualClock, *addresses: str) -> None:
    for address in addresses:
        await store.servers.learn(
            address,
            host=address.partition(":")[0],
            secure=True,
            public_key="K" * 43,
            key_since=1,
            gateway_http=None,
            gateway_ws=None,
            version=None,
        )
        await store.servers.issue_token(address, digest(address), clock.now_ms() + 10**9)


def servers(store: Store, clock: ManualClock, mode: Mode = "open") -> FederatedServers:
    return FederatedServers(store, clock, mode, ActivityLog(clock), published.append)


published: list[PeerServer] = []


async def test_a_rule_acts_on_everything_that_listens(store: Store, clock: ManualClock) -> None:
    await know(store, clock, B, C)
    made = servers(store, clock)
    listener = Listener()
    made.listeners.append(listener)
    principal = await made.authenticate(digest(B))
    assert principal is not None
    assert principal.address == B
    published.clear()
    await made.block("example", by="u_1", until=clock.now_ms() + 10)
    assert listener.told == [[True, True]]
    assert [one.address for one in published] == [B, C]
    assert await made.authenticate(digest(B)) is None
    with pytest.raises(ServerBlocked):
        made.ensure_allowed(B)
    assert await made.delete_rule("example", by="u_1")
    assert not await made.delete_rule("example", by="u_1")
    assert listener.told == [[True, True], [False, False]]


async def test_a_token_does_not_outlive_a_permission(store: Store, clock: ManualClock) -> None:
    """A rule that ends by time ends what it allowed; requests don't wait for it."""
    await know(store, clock, B)
    made = servers(store, clock, "allowlist")
    listener = Listener()
    made.listeners.append(listener)
    await made.put_rule("b.example", "allow", by="u_1", until=clock.now_ms() + 10)
    assert await made.authenticate(digest(B)) is not None
    clock.advance(10)
    with pytest.raises(ServerBlocked):
        await made.authenticate(digest(B))
    await made.follow_time()
    assert await made.authenticate(digest(B)) is None
    assert listener.told[-1] == [True, True]
    count = len(listener.told)
    await made.follow_time()
    assert len(listener.told) == count


async def test_a_part_that_fails_is_tried_again_and_holds_up_no_other(
    store: Store, clock: ManualClock
) -> None:
    await know(store, clock, B)
    made = servers(store, clock)
    failing, other = Listener(fails=1), Listener()
    made.listeners += [failing, other]
    await made.block("b.example", by="u_1")
    assert (failing.told, other.told) == ([], [[True, False]])
    await made.follow_time()
    assert failing.told == [[True, False]]


async def test_rules_of_another_process_are_applied(store: Store, clock: ManualClock) -> None:
    await know(store, clock, B)
    made, elsewhere = servers(store, clock), servers(store, clock)
    listener = Listener()
    made.listeners.append(listener)
    await elsewhere.block("b.example", by="root")
    assert not made.is_blocked(B)
    await made.apply()
    assert made.is_blocked(B)
    assert listener.told == [[True, False]]
