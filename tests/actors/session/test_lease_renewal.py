"""What a node does for all sessions: it keeps the resources of those that are here, for others."""

from __future__ import annotations

from typing import Any

import trio

from actors.session.messages import Detach
from reileta.store import Store
from tests.actors.session_clients import log_in, open_node
from tests.conftest import ManualClock

AWAY_S = 0.1
"""So that the node tends every twentieth of a second; the clock of the times stands still."""


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
        with trio.fail_after(8):
            while await store.leases.of_session(bob.principal.session_id) is not None:
                clock.advance(50)
                await trio.sleep(0.01)
        assert await store.leases.of_session(ada.principal.session_id) is not None
        assert line.closed is None


async def test_a_session_whose_tokens_are_all_gone_ends(store: Store, clock: ManualClock) -> None:
    async with open_node(store, clock, away_s=AWAY_S) as node:
        ada = await log_in(node)
        line = await ada.open()
        clock.advance(3_600_001)
        session: Any = None
        with trio.fail_after(8):
            while session is None or session.ended_at is None or line.closed is None:
                session = await store.sessions.get(ada.principal.session_id)
                await trio.sleep(0.01)
        assert line.closed == (4000, "the credential is no longer valid")
