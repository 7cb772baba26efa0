"""The session API over real sockets: two of one session, and what survives a restart."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from benchmarks.killable import ack, event
from reileta.clock import SystemClock
from reileta.observability import log_events
from reileta.security.credentials import digest, new_token
from reileta.settings import Settings
from reileta.store import open_store
from tests.conftest import PATIENCE_S
from tests.e2e.clients import RawClient, upgrade_head
from tests.e2e.processes import ServerProcess, serving
from tests.e2e.servers import Account, ServerHarness, running

Json = dict[str, Any]


@asynccontextmanager
async def line(
    harness: ServerHarness | ServerProcess, token: str
) -> AsyncIterator[WebSocketConnection]:
    headers = [(b"Authorization", f"Bearer {token}".encode())]
    where = f"{harness.host}:{harness.port}"
    async with (
        await trio.open_tcp_stream(harness.host, harness.port) as stream,
        trio.open_nursery() as nursery,
    ):
        yield await wrap_client_stream(nursery, stream, where, "/ws/user", extra_headers=headers)
        nursery.cancel_scope.cancel()


async def get(socket: WebSocketConnection) -> Json:
    """The next message, acknowledged if it is an event."""
    with trio.fail_after(PATIENCE_S):
        message: Json = json.loads(await socket.get_message())
    if message["type"] == "event" and message["payload"]["kind"] != "closing":
        await socket.send_message(json.dumps(ack(message["id"])))
    return message


async def another_token(harness: ServerHarness, account: Account) -> str:
    """A further token of the account's session."""
    token = new_token("ua")
    expires = harness.server.node.clock.now_ms() + 3_600_000
    await harness.store.tokens.issue(
        session_id=account.session,
        user_id=account.id,
        access_hash=digest(token),
        refresh_hash=None,
        access_expires=expires,
        refresh_expires=expires,
        limit=32,
    )
    return token


async def test_states_are_automatically_synced_together(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account()
        twin = await another_token(harness, ada)
        async with line(harness, ada.token) as one, line(harness, twin) as two:
            assert (await get(one))["payload"]["kind"] == "hello"
            assert (await get(two))["payload"]["kind"] == "hello"
            sent = event({"door": {"width": 91.5}})
            await one.send_message(json.dumps(sent))
            assert (await get(one))["id"] == sent["id"]
            told = (await get(two))["payload"]
            assert told == {"kind": "state", "version": 1, "patch": {"door": {"width": 91.5}}}


async def test_the_state_is_there_on_another_server_with_the_same_database(
    database_url: str,
) -> None:
    async with running(database_url) as first:
        ada = await first.account()
        async with line(first, ada.token) as socket:
            await get(socket)
            await socket.send_message(json.dumps(event({"x": 1})))
            await get(socket)
    async with running(database_url) as second, line(second, ada.token) as other:
        hello = (await get(other))["payload"]
        assert (hello["version"], hello["session"]["state"]) == (1, {"x": 1})


async def test_a_client_that_goes_at_its_upgrade_keeps_nobody_out(database_url: str) -> None:
    """A token has one socket: one that was lost at any moment of its upgrade is none."""
    async with running(database_url) as harness:
        ada = await harness.account()
        for number in range(20):
            async with RawClient.connected(harness) as client:
                await client.send(upgrade_head(ada, path="/ws/user"))
                if number % 2:
                    await trio.sleep(0.0003 * number)
                reset = struct.pack("ii", 1, 0)
                client.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, reset)  # type: ignore[attr-defined]
        status = 0
        with trio.fail_after(PATIENCE_S):
            while status != 101:
                async with RawClient.connected(harness) as client:
                    await client.send(upgrade_head(ada, path="/ws/user"))
                    status = (await client.answer()).status
                    assert status in (101, 409)


async def test_the_end_of_the_session_closes_with_4000(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account()
        async with line(harness, ada.token) as socket:
            await get(socket)
            await harness.store.sessions.end(ada.session)
            harness.server.node.sessions.end(ada.session)
            assert (await get(socket))["payload"] == {"kind": "closing", "code": 4000}
            with pytest.raises(ConnectionClosed) as closed:
                await get(socket)
            assert closed.value.reason is not None
            assert closed.value.reason.code == 4000


async def test_a_client_that_owes_an_ack_is_closed(database_url: str, quick_watch: None) -> None:
    async with running(database_url, ack_timeout_ms=100) as harness:
        ada = await harness.account()
        async with line(harness, ada.token) as socket:
            with trio.fail_after(PATIENCE_S):
                hello = json.loads(await socket.get_message())
                closing = json.loads(await socket.get_message())
            assert hello["payload"]["ack_timeout_ms"] == 100
            assert closing["payload"] == {"kind": "closing", "code": 1008}


async def test_a_stolen_refresh_key_ends_the_token_and_is_logged_without_a_secret(
    data_folder: Path,
) -> None:
    account = {"username": "ada", "password": "my-very-secret-passphrase"}
    data = data_folder / "data"
    options = ("--data", str(data), "--log-level", "debug", "--trace-sample", "1")
    async with serving(*options) as served, served.ask() as client:

        async def ask(path: str, body: Json, status: int = 200) -> Json:
            answer = await client.post(path, json=body)
            assert answer.status_code == status, answer.text
            return dict(answer.json())

        await ask("/api/auth/register", account)
        first = (await ask("/auth/login", account))["token"]
        second = (await ask("/auth/refresh", {"refresh": first["refresh"]}))["token"]
        async with line(served, second["access"]) as socket:
            assert (await get(socket))["payload"]["kind"] == "hello"
            # The owner's own tabs may still use it for 10 s, which are over now.
            async with open_store(Settings(data=data), SystemClock(), shared=True) as store:
                await store.database.execute("UPDATE spent_refreshes SET rotated_at = 0")
            await ask("/auth/refresh", {"refresh": first["refresh"]}, 401)
            assert (await get(socket))["payload"] == {"kind": "closing", "code": 4000}
        logged = await served.until_logged(log_events.TOKEN_REUSED)
        assert (logged["level"], logged["session"]) == ("warning", first["session"]["id"])
        await ask("/auth/refresh", {"refresh": second["refresh"]}, 401)
        served.process.terminate()
        assert await served.ended() == 0
        assert len(served.events(log_events.TOKEN_REUSED)) == 1
        everything = "\n".join(served.log) + served.errors
        for key in (first["access"], first["refresh"], second["access"], second["refresh"]):
            for piece in (key, key[5:25], digest(key).hex()):
                assert piece not in everything
        assert account["password"] not in everything
