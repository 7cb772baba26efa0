"""How sockets end: each close code that does not answer a broken frame, and no code at all."""

from __future__ import annotations

import re
import struct

import pytest
import trio

from api.ws.transport import base
from reileta.security.credentials import digest
from tests.conftest import PATIENCE_S
from tests.e2e.clients import CLOSE, PING, PONG, RawClient, connected, frame, text, until
from tests.e2e.servers import running


async def test_4001_without_a_credential(database_url: str, quick_watch: None) -> None:
    async with running(database_url, credential_deadline_s=0.1) as harness:
        async with connected(harness) as player:
            assert await player.closed() == (4001, "no credential")
        ada = await harness.account("ada")
        async with connected(harness, ada) as player:
            late = harness.server.node.clock.now_ms() + 250
            while harness.server.node.clock.now_ms() < late:
                await player.ask("ping")
                await trio.sleep(0.01)


async def test_4001_also_for_one_that_never_said_a_word(
    database_url: str, quick_watch: None
) -> None:
    async with running(database_url, credential_deadline_s=0.1) as harness:
        async with RawClient.connected(harness) as client:
            await client.upgrade()
            assert (await client.close_frame()).close_code == 4001
        await until(lambda: not len(harness.gateway))


async def test_4000_when_the_token_is_killed(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        other = await harness.login(ada.id)
        place = await harness.instance(ada)
        async with connected(harness, ada) as gone, connected(harness, other) as stays:
            await stays.join(place.id)
            await gone.join(place.id)
            node = harness.server.node
            killed = digest(ada.token)
            assert await harness.store.tokens.kill(killed, node.clock.now_ms())
            node.sessions.end_token(killed)
            code, reason = await gone.closed()
            assert code == 4000
            assert reason
            assert [one for one in gone.skipped if one["command"] == "unauthenticated"]
            await stays.ask("ping")


async def test_4000_when_the_session_ends(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, bob) as other:
            await other.join(place.id)
            async with connected(harness, ada) as one, connected(harness, ada) as two:
                await one.join(place.id)
                await other.event("instance-joined")
                await harness.store.sessions.end(ada.session)
                harness.server.node.sessions.end(ada.session)
                assert (await one.closed())[0] == 4000
                assert (await two.closed())[0] == 4000
                left = await other.event("instance-left")
                assert left["data"]["player"] == one.id


async def test_4000_when_the_token_expires(database_url: str, quick_watch: None) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        await harness.store.database.execute(
            "UPDATE tokens SET access_expires = $1", harness.server.node.clock.now_ms() + 400
        )
        async with connected(harness, ada) as player:
            assert (await player.closed())[0] == 4000


async def test_1013_over_the_limit_of_connections(database_url: str) -> None:
    async with running(database_url, connections=2) as harness:
        ada = await harness.account("ada")
        async with connected(harness, ada), connected(harness, ada) as second:
            async with RawClient.connected(harness) as third:
                assert (await third.upgrade(ada)).status == 101
                closed = await third.close_frame()
                assert (closed.close_code, closed.payload[2:]) == (1013, b"too many connections")
            assert (await second.ask("ping"))["command"] == "ping"
        await until(lambda: not len(harness.gateway))
        async with connected(harness, ada) as again:
            await again.ask("ping")


async def test_1001_when_the_server_stops(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        place = await harness.instance(ada)
        async with connected(harness, ada) as one, connected(harness) as two:
            await one.join(place.id)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(harness.server.stop)
                for player in (one, two):
                    code, reason = await player.closed()
                    assert code == 1001
                    assert re.fullmatch(r"come back in \d+ s", reason)


async def test_the_server_stops_in_time_whatever_clients_do(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some answer no close frame, some read nothing at all."""
    monkeypatch.setattr(base, "CLOSE_TIMEOUT_S", 4 * PATIENCE_S)
    async with running(database_url, shutdown_s=1, rate_limits="off") as harness:
        ada, eve = await harness.account("ada"), await harness.account("eve")
        place = (await harness.instance(ada)).id
        async with (
            RawClient.connected(harness) as rude,
            RawClient.connected(harness, receive_buffer=8192) as deaf,
            RawClient.connected(harness) as http,
        ):
            await rude.enter(ada, place)
            await deaf.enter(eve, place)
            await http.send(b"GET /api/time HTTP/1.1\r\nHost: localhost\r\n\r\n")
            say = {"command": "instance-data", "subgroup": place, "data": "x" * 60_000}
            for _ in range(15):
                await rude.send(text(say))
            await until(lambda: harness.metrics.backlog_bytes > 100_000)
            with trio.fail_after(PATIENCE_S):
                await harness.server.stop()
                await harness.ended.wait()
            assert (await rude.close_frame()).close_code == 1001


async def test_the_server_closes_and_waits_for_the_answer(
    database_url: str, quick_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CLOSE_TIMEOUT_S", 0.1)
    async with running(database_url, credential_deadline_s=0.05) as harness:
        async with RawClient.connected(harness) as client:
            await client.upgrade()
            while (closed := await client.frame()).opcode != CLOSE:
                pass
            assert closed.close_code == 4001
            assert await client.ended() == b"", "it does not wait for ever"
        await until(lambda: not len(harness.gateway))


async def test_when_both_said_goodbye_the_server_waits_no_longer(
    database_url: str, quick_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some clients leave it to the server to close the connection, or never do."""
    monkeypatch.setattr(base, "CLOSE_TIMEOUT_S", 4 * PATIENCE_S)
    async with (
        running(database_url, credential_deadline_s=0.05) as harness,
        RawClient.connected(harness) as client,
    ):
        await client.upgrade()
        assert (await client.close_frame()).close_code == 4001
        await until(lambda: not len(harness.gateway))


async def test_pings_are_answered_whatever_they_carry(database_url: str) -> None:
    async with running(database_url) as harness, RawClient.connected(harness) as client:
        await client.upgrade()
        for payload in (b"", b"x" * 125, b"\xff\x00"):
            await client.send(frame(PING, payload))
            pong = await client.frame()
            assert (pong.opcode, pong.payload) == (PONG, payload)
        await client.send(frame(PONG, b"nobody asked"))
        await client.send(text({"command": "ping"}))
        await client.message("ping")


async def test_a_client_that_answers_no_ping_is_cut(database_url: str, quick_watch: None) -> None:
    async with running(
        database_url, keepalive_interval_s=0.1, keepalive_timeout_s=1, seat_grace_s=0.2
    ) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, bob) as other, RawClient.connected(harness) as mute:
            await other.join(place.id)
            player = await mute.enter(ada, place.id)
            left = await other.event("instance-left")
            assert left["data"] | {"player": player, "reason": "disconnected"} == left["data"]
            await mute.ended()
            # The other one, which answers, was asked many times meanwhile.
            await other.ask("ping")
            await until(lambda: len(harness.gateway) == 1)


async def test_whatever_comes_in_is_an_answer_to_a_ping(
    database_url: str, quick_watch: None
) -> None:
    # It is asked again only when it has answered.
    async with running(
        database_url, keepalive_interval_s=0.1, keepalive_timeout_s=2 * PATIENCE_S
    ) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as client:
            await client.enter(ada)
            pings = 0
            while pings < 8:
                if (await client.frame()).opcode == PING:
                    pings += 1
                    await client.send(text({"command": "ping"}))


async def test_a_client_that_vanishes_keeps_its_seat_for_the_grace(database_url: str) -> None:
    async with running(database_url, seat_grace_s=2 * PATIENCE_S) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada, capacity=3)
        async with connected(harness, bob) as other:
            await other.join(place.id)
            async with RawClient.connected(harness) as client:
                first = await client.enter(ada, place.id)
                await other.event("instance-joined")
                # Not a goodbye, not even an end: the connection is reset.
                client.stream.setsockopt(  # type: ignore[attr-defined]
                    trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            await until(lambda: len(harness.gateway) == 1)
            await until(lambda: harness.server.node.directory.occupancy(place.id).connected == 2)
            async with connected(harness, ada) as back:
                assert (await back.join(place.id))["player"] == first
            left = await other.event("instance-left")
            assert left["data"]["player"] == first
            assert not [one for one in other.skipped if one["command"] == "instance-left"]


async def test_a_half_closed_connection_ends(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as client:
            await client.enter(ada)
            await client.stream.send_eof()  # type: ignore[attr-defined]
            await client.ended()
        await until(lambda: not len(harness.gateway))
        assert not harness.metrics.connections
