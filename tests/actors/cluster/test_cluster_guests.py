"""Users of other servers, at several nodes: they come back, and leave everywhere when excluded."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from actors.session.messages import Detach
from reileta.errors import CredentialInvalid
from reileta.protocol.close_codes import CloseCode
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import ROOM, Client
from tests.actors.test_guests import block, connect, guest, joined, left


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[Cluster]:
    """Three nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b", "c") as opened:
        opened.prefer = "a"
        yield opened


async def block_everywhere(cluster: Cluster, first: str, pattern: str) -> None:
    """A node blocks a server; the change feed of the others says so half a second later."""
    await block(cluster[first].harness, pattern)
    await trio.sleep(0.5)
    for name in cluster.live:
        if name != first:
            await block(cluster[name].harness, pattern)


def expire(client: Client) -> None:
    """The token has ended, and the gateway has closed its socket."""
    client.session.signal(Detach(client.sink))


@pytest.mark.parametrize("back", ["b", "c"])
@pytest.mark.parametrize("host_dies", [False, True])
async def test_a_guest_with_a_renewed_token_is_the_same_player_through_any_gateway(
    cluster: Cluster, back: str, host_dies: bool, autojump_clock: MockClock
) -> None:
    host = await cluster["c"].harness.joined(1)
    ann = await connect(cluster["b"].harness, guest(7))
    player = await ann.join()
    await trio.sleep(1)
    expire(ann)
    if host_dies:
        await trio.sleep(1)
        cluster.prefer = "b"
        cluster.kill("a")
    await trio.sleep(4)
    again = await connect(cluster[back].harness, guest(7, token=1))
    assert await again.join() == player
    await trio.sleep(15)
    assert left(host) == []


@pytest.mark.parametrize("first", ["a", "b", "c"])
@pytest.mark.parametrize("in_grace", [False, True])
async def test_guests_of_a_blocked_server_are_out_at_all_nodes_within_a_second(
    cluster: Cluster, first: str, in_grace: bool, autojump_clock: MockClock
) -> None:
    """Those of other servers stay; one whose token has just ended does not come back."""
    host = await cluster["b"].harness.joined(1)
    guests = [
        await joined(cluster[node].harness, guest(number))
        for number, node in ((7, "a"), (8, "b"), (9, "c"))
    ]
    near = await joined(cluster["c"].harness, guest(10, "near.example"))
    if in_grace:
        expire(guests[0])
        await trio.sleep(1)
    host.sink.take(), near.sink.take()
    began = trio.current_time()
    await block_everywhere(cluster, first, "far.example")
    await trio.sleep(0.3)
    assert trio.current_time() - began <= 1
    gone = sorted(one.principal.user.id for one in guests)
    for other in (host, near):
        told = left(other)
        assert sorted(user for user, _ in told) == gone
        assert {reason for _, reason in told} == {"server-blocked"}
    for one in guests[in_grace:]:
        assert (one.principal.user.id, "server-blocked") in left(one)
        assert one.sink.closed is not None
        assert one.sink.closed[0] == CloseCode.CREDENTIAL_GONE
        assert ROOM not in one.sink.seats
    assert near.sink.closed is None
    with pytest.raises(CredentialInvalid):
        await connect(cluster["b"].harness, guest(7, token=1))
