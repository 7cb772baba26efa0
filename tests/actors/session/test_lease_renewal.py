"""Renewal of leases: a node keeps the resources of the sessions that are connected to it."""

from __future__ import annotations

from typing import Any

import trio

from actors.session.config import RENEW_S
from actors.session.messages import Detach
from reileta.store import Store
from tests.actors.session_clients import SessionClient, log_in, open_node
from tests.conftest import PATIENCE_S, ManualClock

AWAY_S = 0.1
"""The node renews every twentieth of a second; the clock of the leases moves only in steps."""
STEP_MS = 5_000
"""Less than a renewal is worth, so that a session with a socket never loses its resource."""


async def renewed(store: Store, client: SessionClient, until: float) -> None:
    """Waits until the node has extended the client's lease to that time (ms)."""
    while (held := await store.leases.of_session(client.principal.session_id)) is not None:
        if held.until >= until:
            return
        await trio.sleep(0.005)
    raise AssertionError("a session with a socket lost its resource")


async def test_a_session_without_a_socket_loses_its_resource_after_its_time(
    store: Store, clock: ManualClock
) -> None:
    async with open_node(store, clock, away_s=AWAY_S) as node:
        ada, bob = await log_in(node), await log_in(node)
        there, gone = await ada.document(), await bob.document()
        line = await ada.open()
        await ada.acquire(there)
        other = await bob.open()
        await bob.acquire(gone)
        (await node.sessions.live(bob.principal)).signal(Detach(other))
        with trio.fail_after(PATIENCE_S):
            while await store.leases.of_session(bob.principal.session_id) is not None:
                clock.advance(STEP_MS)
                await renewed(store, ada, clock.now_ms() + RENEW_S * 1000)
        assert await store.leases.of_session(ada.principal.session_id) is not None
        assert line.closed is None


async def test_a_session_whose_tokens_are_all_gone_ends(store: Store, clock: ManualClock) -> None:
    async with open_node(store, clock, away_s=AWAY_S) as node:
        ada = await log_in(node)
        line = await ada.open()
        clock.advance(3_600_001)
        session: Any = None
        with trio.fail_after(PATIENCE_S):
            while session is None or session.ended_at is None or line.closed is None:
                session = await store.sessions.get(ada.principal.session_id)
                await trio.sleep(0.01)
        assert line.closed == (4000, "the credential is no longer valid")
