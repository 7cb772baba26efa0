"""Who is notified when a session connects and disconnects, on either API."""

from __future__ import annotations

from actors.session.messages import Attach, Detach
from reileta.store import Store
from tests.actors.session_clients import log_in, open_node, until
from tests.actors.sinks import FakeSink
from tests.conftest import ManualClock


async def test_one_session_has_sockets_of_both_apis(store: Store, clock: ManualClock) -> None:
    async with open_node(store, clock) as node:
        ada = await log_in(node)
        ref = await node.sessions.live(ada.principal)
        player = FakeSink("player")
        await ref.ask(Attach(player, ada.principal.token_hash))
        line = await ada.open()
        assert [one["kind"] for one in line.payloads()] == ["hello"]  # no event of the registry API
        ref.signal(Detach(player))
        await until(lambda: ref.depth == 0)
        assert node.directory.status(ada.principal.user) == "online"
        ref.signal(Detach(line))
        await until(lambda: node.directory.status(ada.principal.user) == "offline")


async def test_a_player_keeps_the_sessions_resource(store: Store, clock: ManualClock) -> None:
    async with open_node(store, clock) as node:
        ada = await log_in(node)
        ref = await node.sessions.live(ada.principal)
        player = FakeSink("player")
        name = await ada.document()
        await ada.acquire(name)
        await ref.ask(Attach(player, ada.principal.token_hash))
        assert ada.principal.session_id in node.sessions.connected()
        node.sessions.end_token(ada.principal.token_hash)
        await until(lambda: player.closed is not None)
        assert node.sessions.connected() == []
