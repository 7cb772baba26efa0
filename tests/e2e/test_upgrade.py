"""From the first byte of a connection to an open WebSocket, or to a refusal."""

from __future__ import annotations

import pytest
import trio

from api.listen.timeouts import Timeouts
from api.rate_limits import ADDRESS
from reileta.store.database_clock import DatabaseClock
from tests.e2e.clients import (
    PING,
    PONG,
    Answer,
    Frame,
    RawClient,
    connected,
    frame,
    text,
    until,
    upgrade_head,
)
from tests.e2e.servers import Account, ServerHarness, running


async def asked(harness: ServerHarness, head: bytes) -> Answer:
    """What a connection of its own is answered."""
    async with RawClient.connected(harness) as client:
        await client.send(head)
        return await client.answer()


async def works(client: RawClient) -> None:
    """An open socket, over which a ping is answered."""
    await client.send(text({"command": "ping", "state": "?"}))
    assert (await client.message("ping"))["state"] == "?"


async def test_credentials_in_every_place(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        own = f"Origin: http://localhost:{harness.port}"
        host = f"localhost:{harness.port}"
        cookie = f"Cookie: _suid={ada.token}"
        # Each: the head, whether it is authenticated, whether it says that it is deprecated.
        for head, known, deprecated in (
            (upgrade_head(ada), True, False),
            (upgrade_head(None, f"Authorization: {ada.token}"), True, False),
            (upgrade_head(ada, "User-Agent: AVR(User)"), True, False),
            (upgrade_head(path=f"/api/ws?authuser={ada.token}"), True, True),
            (upgrade_head(None, cookie, own, host=host), True, False),
            (upgrade_head(None, cookie, "Origin: https://evil.example", host=host), False, False),
            (upgrade_head(None, cookie), False, False),
            (upgrade_head(None, "Cookie: _suid=ua_dead-and-gone-for-long"), False, False),
            (upgrade_head(), False, False),
        ):
            async with RawClient.connected(harness) as client:
                await client.send(head)
                answer = await client.answer()
                assert answer.status == 101, head
                assert ("deprecation" in answer.headers) == deprecated, head
                if known:
                    told = await client.message("authenticated")
                    assert told["data"]["session"] == ada.session
                else:
                    await client.send(text({"command": "instance-leave", "state": 1}))
                    refused = await client.message("instance-leave")
                    assert refused["error"]["code"] == 3


async def test_refused_credentials_get_the_envelope(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        dead = Account("", "", "", "ua_" + "x" * 43)
        for head, status, code in (
            (upgrade_head(None, "Authorization: Basic dXNlcjpwYXNz"), 400, 100),
            (upgrade_head(None, "Authorization: Bearer"), 400, 100),
            (upgrade_head(ada, f"Authorization: {ada.token}"), 400, 100),
            (upgrade_head(path="/api/ws?authuser=%00"), 400, 100),
            (upgrade_head(dead), 401, 101),
            (upgrade_head(path=f"/api/ws?authuser={dead.token}"), 401, 101),
            (upgrade_head(path=f"/api/ws?authserver={ada.token}"), 401, 101),
            (upgrade_head(ada, "User-Agent: AVR(Server)"), 401, 101),
        ):
            answer = await asked(harness, head)
            assert (answer.status, answer.code) == (status, code), head
            assert answer.envelope["request"].startswith("/api/ws")
            assert b"ua_" not in answer.body
            assert answer.headers["connection"] == "close"
        assert not harness.metrics.connections


async def test_an_upgrade_of_another_path(database_url: str) -> None:
    async with running(database_url) as harness:
        for path in ("/api/nothing", "/", "/api/ws/", "/api/time", "*"):
            answer = await asked(harness, upgrade_head(path=path))
            assert (answer.status, answer.code) in ((404, 2), (400, 119)), path


async def test_handshakes_that_are_none(database_url: str) -> None:
    async with running(database_url) as harness:
        for head, status, field in (
            (upgrade_head(without="Sec-WebSocket-Key"), 400, "Sec-WebSocket-Key"),
            (upgrade_head(without="Sec-WebSocket-Version"), 400, "Sec-WebSocket-Version"),
            (upgrade_head(without="Connection"), 426, "Connection"),
            (
                upgrade_head(None, "Sec-WebSocket-Key: c2hvcnQ=", without="Sec-WebSocket-Key: "),
                400,
                "Sec-WebSocket-Key",
            ),
            (upgrade_head(None, "Sec-WebSocket-Version: 8"), 400, "Sec-WebSocket-Version"),
        ):
            answer = await asked(harness, head)
            assert (answer.status, answer.code) == (status, 119), head
            assert answer.envelope["error"]["details"][0]["field"] == field
            assert answer.headers["sec-websocket-version"] == "13"


async def test_heads_that_are_no_http_are_refused_quietly(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(database_url) as harness:
        for head, statuses in (
            (upgrade_head(None, "no colon here"), (400,)),
            (upgrade_head(None, "Bad Name: x"), (400,)),
            (upgrade_head(path="/api/ws?x=\udcff"), (400,)),
            (upgrade_head(path="/api/ws?x=" + "a" * 9_000), (414, 431)),
            (upgrade_head(None, "X: " + "a" * 9_000), (431,)),
            (upgrade_head(None, *[f"X-{n}: 1" for n in range(200)]), (431,)),
            (upgrade_head(None, "X: " + "a" * 40_000)[:-4], (431,)),
            (b"\x00\x01\x02\r\n\r\n", (400,)),
            (b"GET\r\n\r\n", (400,)),
        ):
            answer = await asked(harness, head)
            assert answer.status in statuses, head[:60]
        async with RawClient.connected(harness) as client:  # bytes that are no text are no matter
            answer = await client.upgrade(None, "X-Name: \udcc3\udca9")
            assert answer.status == 101
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert "connection.failed" not in said.out


async def test_asking_for_the_socket_without_an_upgrade(database_url: str) -> None:
    async with running(database_url) as harness:
        answer = await asked(harness, b"GET /api/ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (answer.status, answer.code) == (400, 119)
        assert answer.envelope["error"]["details"][0]["field"] == "Upgrade"


async def test_frames_in_the_same_packet_as_the_upgrade(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as client:
            ping = text({"command": "ping", "state": 7, "data": {"time": 5}})
            answer = await client.upgrade(ada, after=ping + frame(PING, b"there?"))
            assert answer.status == 101
            frames: list[Frame] = []
            while not frames or b'"state":7' not in frames[-1].payload:
                frames.append(await client.frame())
            assert [one.payload for one in frames if one.opcode == PONG] == [b"there?"]


async def test_a_head_in_many_packets(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as client:
            client.stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)  # type: ignore[attr-defined]
            for byte in upgrade_head(ada) + text({"command": "ping", "state": 1}):
                await client.send(bytes([byte]))
            assert (await client.answer()).status == 101
            await client.message("ping")


async def test_a_head_that_never_ends_is_cut(database_url: str) -> None:
    timeouts = Timeouts(head_s=0.1, tick_s=0.02)
    async with running(database_url, timeouts=timeouts) as harness:
        for beginning in (upgrade_head()[:-3], b""):
            async with RawClient.connected(harness) as client:
                await client.send(beginning)
                assert await client.ended() == b""


async def test_an_upgrade_on_a_connection_that_spoke_http_before(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, bob) as other, RawClient.connected(harness) as client:
            await other.join(place.id)
            await client.send(b"GET /api/time HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.answer()).status == 200
            await client.enter(ada, place.id)
            await other.event("instance-joined")
            await other.say(place.id, {"hello": "é"})
            assert (await client.message("instance-data"))["data"]["data"] == {"hello": "é"}
            await client.send(
                text({"command": "instance-data", "subgroup": place.id, "data": ["ü", 1.50]})
            )
            assert (await other.hear())["data"] == ["ü", 1.5]
            await client.send(frame(2, b"binary"))
            assert (await client.frame()).payload.find(b'"code":119') > 0
            await client.send(frame(8, b"\x03\xe8bye"))
            assert (await client.close_frame()).close_code == 1000
            await client.ended()
            await until(lambda: len(harness.gateway) == 1)


async def test_a_socket_on_a_later_request_is_closed_with_our_codes(database_url: str) -> None:
    async with running(database_url, messages_burst=3, messages_per_s=0.001) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as client:
            await client.send(b"GET /api/time HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.answer()).status == 200
            await client.enter(ada)
            for _ in range(5):
                await client.send(text({"command": "ping"}))
            assert (await client.close_frame()).close_code == 1008
        async with RawClient.connected(harness) as client:
            await client.send(b"GET /api/time HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.answer()).status == 200
            answer = await client.upgrade(Account("", "", "", "ua_" + "x" * 43))
            assert (answer.status, answer.code) == (401, 101)
        await until(lambda: len(harness.gateway) == 0)


async def test_too_many_upgrades_of_one_address(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(database_url) as harness:
        steady_ms = harness.server.node.clock.steady_ms()
        monkeypatch.setattr(
            DatabaseClock, "steady_ms", lambda _: steady_ms
        )  # nothing is given back
        head = upgrade_head(None, "Authorization: Basic x")
        answers = [await asked(harness, head) for _ in range(ADDRESS.burst + 1)]
        assert {answer.status for answer in answers} == {400, 429}
        assert answers[-1].code == 102
        assert int(answers[-1].headers["retry-after"]) >= 1
