"""The composition root: starting, stopping, and what it says. Whole servers are in tests/e2e."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, cast

import pytest
import structlog.testing
import trio
from trio.testing import wait_all_tasks_blocked

from reileta import main
from reileta.main import Server, Stopping, serve
from reileta.observability.output_files import OutputFiles
from reileta.security.server_key import KEY_FILE, key_path, load_or_create, prepare
from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import admin_commands
from tests import logs
from tests.conftest import PATIENCE_S


def settings(database_url: str, folder: Path, **changes: Any) -> Settings:
    return Settings(port=0, data=folder / "data", database=database_url, **changes)


async def test_started_means_ready(database_url: str, tmp_path: Path) -> None:
    chosen = settings(database_url, tmp_path)
    with structlog.testing.capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve, chosen)
            port = int(server.url.rpartition(":")[2])
            assert server.url == f"http://127.0.0.1:{port}"
            assert server.node.address == f"127.0.0.1:{port}"
            assert server.node.server.ready_at is not None
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                with trio.fail_after(PATIENCE_S):
                    assert (await client.receive_some(15)).startswith(b"HTTP/1.1 200")
            await server.stop()
    ready = [one for one in logged if one["event"] == "server.ready"]
    assert [one["url"] for one in ready] == [server.url]
    key = chosen.data / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600


async def test_its_time_is_that_of_the_database(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_ns, day_ns = time.time_ns, 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + day_ns)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, settings(database_url, tmp_path))
        assert abs(server.node.clock.now_ms() - real_ns() // 10**6) < PATIENCE_S * 1000
        nursery.cancel_scope.cancel()


async def started_with(chosen: Settings) -> str:
    """The public key of a server that has started with these settings, and stopped."""
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, chosen)
        public = server.node.key.public_base64url
        assert await server.node.store.identity.public_key() == public
        nursery.cancel_scope.cancel()
    return public


async def test_the_key_is_the_one_that_the_database_knows(
    database_url: str, tmp_path: Path
) -> None:
    here = settings(database_url, tmp_path)
    public = await started_with(here)
    elsewhere = settings(database_url, tmp_path / "elsewhere")
    with pytest.raises(StartupError, match="does not exist: restore it from a backup"):
        await serve(elsewhere)
    assert not key_path(elsewhere).exists()
    shared = settings(database_url, tmp_path / "elsewhere", key=key_path(here))
    assert await started_with(shared) == public
    other = load_or_create(key_path(elsewhere)).public_base64url
    with pytest.raises(StartupError, match="is not the one that the database knows"):
        await serve(elsewhere)
    with logs.restored():
        accepted = await trio.to_thread.run_sync(admin_commands.accept_key, elsewhere)
    assert accepted == other
    assert await started_with(elsewhere) == other
    with pytest.raises(StartupError, match="is not the one that the database knows"):
        await serve(here)


async def test_the_database_learns_a_new_key(database_url: str, tmp_path: Path) -> None:
    chosen = settings(database_url, tmp_path, address="play.example.org")
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, chosen)
        store = server.node.store
        first = server.node.key.public_base64url
        second = prepare(key_path(chosen))
        await server.reload()
        assert await store.identity.public_key() == second
        # Of the next one it learns nothing, since it is killed.
        await store.identity.replace_public_key(first, known=second)
        nursery.cancel_scope.cancel()
    assert await started_with(chosen) == second
    third = prepare(key_path(chosen))
    assert await started_with(chosen) == third


async def test_it_calls_itself_what_it_is_told_to(database_url: str, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        chosen = settings(database_url, tmp_path, address="play.example.org")
        server: Server = await nursery.start(serve, chosen)
        assert server.node.address == "play.example.org"
        nursery.cancel_scope.cancel()


async def test_the_first_password_is_shown_once_and_never_logged(
    database_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for times in (1, 0):
        with structlog.testing.capture_logs() as logged:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, settings(database_url, tmp_path))
                nursery.cancel_scope.cancel()
        shown = capfd.readouterr().err  # it is written below Python's stream
        assert shown.count("password:") == times
        if times:
            password = shown.split("password:")[1].split()[0]
            assert len(password) >= 16
            assert password not in str(logged)


async def test_stopping_takes_nothing_new_and_ends(database_url: str, tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve, settings(database_url, tmp_path))
            await server.stop()
            assert server.node.draining
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", int(server.url.rpartition(":")[2]))


async def test_a_start_that_fails_is_the_starters(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="database"):
        await serve(settings("postgresql://127.0.0.1:1/none", tmp_path))


async def test_a_port_in_use_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await serve(Settings(port=port, data=tmp_path / "data"))
    assert not (tmp_path / "data").exists()


class FakeServer:
    def __init__(self) -> None:
        self.stops = 0
        self.reloads = 0

    async def stop(self) -> None:
        self.stops += 1
        await trio.sleep_forever()

    async def reload(self) -> None:
        self.reloads += 1


async def heeded(*steps: str) -> bool:
    """Whether all is cancelled once the signals came; `ready` among them: the server started."""
    server = FakeServer()
    send, signals = trio.open_memory_channel[int](10)
    async with send, signals:
        with trio.CancelScope() as scope:
            stopping = Stopping(scope, OutputFiles(()))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stopping.handle, signals)
                for step in steps:
                    if step == "ready":
                        stopping.server = cast(Server, server)
                    else:
                        await send.send(signal.Signals[f"SIG{step}"])
                        await wait_all_tasks_blocked()
                if "ready" in steps and "HUP" in steps:  # a thread has to end first
                    with trio.fail_after(PATIENCE_S):
                        while not server.reloads:
                            await trio.sleep(0.005)
                nursery.cancel_scope.cancel()
    assert server.stops == ("ready" in steps and not {"TERM", "QUIT"}.isdisjoint(steps))
    assert server.reloads == ("ready" in steps and "HUP" in steps)
    return scope.cancel_called


@pytest.mark.parametrize(
    ("steps", "at_once"),
    [
        (("ready",), False),
        (("ready", "TERM"), False),
        (("ready", "TERM", "TERM"), True),
        (("ready", "QUIT"), False),
        (("TERM",), True),
        (("HUP",), False),
        (("ready", "HUP"), False),
        (("ready", "TERM", "HUP"), False),
    ],
)
async def test_signals(steps: tuple[str, ...], at_once: bool) -> None:
    assert await heeded(*steps) is at_once


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [("127.0.0.1", 80, "127.0.0.1:80"), ("::1", 3032, "[::1]:3032"), ("a.b", 1, "a.b:1")],
)
def test_addresses(host: str, port: int, expected: str) -> None:
    assert main.address_of(host, port) == expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
async def test_all_addresses_are_no_name_of_a_server(
    database_url: str, tmp_path: Path, host: str
) -> None:
    with pytest.raises(StartupError, match="--address is needed") as caught:
        await serve(settings(database_url, tmp_path, host=host))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


async def test_a_server_on_all_addresses_takes_ipv4_too(database_url: str, tmp_path: Path) -> None:
    chosen = settings(database_url, tmp_path, host="::", address="play.example.org")
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, chosen)
        port = int(server.url.rpartition(":")[2])
        for host in ("127.0.0.1", "::1"):
            async with await trio.open_tcp_stream(host, port) as client:
                await client.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                with trio.fail_after(PATIENCE_S):
                    assert (await client.receive_some(15)).startswith(b"HTTP/1.1 200")
        await server.stop()
