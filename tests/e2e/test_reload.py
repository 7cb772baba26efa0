"""SIGHUP: new certificates and log files, without an interruption."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.conftest import PATIENCE_S, new_certificate
from tests.e2e.processes import START_S, ServerProcess, eventually, serving

pytestmark = pytest.mark.slow
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def connected(
    served: ServerProcess, certificate: Path
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A connection that trusts only that certificate."""
    context = ssl.create_default_context(cafile=str(certificate))
    stream = await trio.open_ssl_over_tcp_stream(
        served.host, served.port, ssl_context=context, https_compatible=True
    )
    async with stream:
        await stream.do_handshake()
        yield stream


async def answers(stream: trio.SSLStream[trio.SocketStream]) -> bool:
    await stream.send_all(REQUEST)
    with trio.fail_after(PATIENCE_S):
        return (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_new_connections_get_the_new_certificate(database_url: str, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second", "used")]
    for folder in folders:
        folder.mkdir()
    first, second = new_certificate(folders[0]), new_certificate(folders[1])
    used = folders[2] / "cert.pem", folders[2] / "key.pem"

    def use(files: tuple[Path, Path]) -> None:
        for source, target in zip(files, used, strict=True):
            shutil.copy(source, target)

    use(first)
    options = ("--tls-cert", str(used[0]), "--tls-key", str(used[1]))
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    async with serving(*where, *options) as served, connected(served, first[0]) as old:
        assert await answers(old)
        use(second)
        served.process.send_signal(signal.SIGHUP)
        await served.until_logged("tls.reloaded")
        async with connected(served, second[0]) as new:
            assert await answers(new)
        assert await answers(old)
        used[1].write_text("no key")
        served.process.send_signal(signal.SIGHUP)
        refused = await served.until_logged("tls.refused")
        assert str(used[1]) in refused["reason"]
        async with connected(served, second[0]) as new:
            assert await answers(new)
        assert await answers(old)


async def test_a_pipe_in_place_of_the_log_file_stops_nothing(
    database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "errors.log"
    options = ["--port", "0", "--database", database_url, "--data", str(tmp_path / "data")]
    with log.open("wb") as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "reileta", "serve", "--log-format", "json", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        text = b""
        with trio.fail_after(START_S):
            while b"server.ready" not in text:
                text += await process.stdout.receive_some()
            log.unlink()
            os.mkfifo(log)
            process.send_signal(signal.SIGHUP)
            while b"log.reopened" not in text:
                text += await process.stdout.receive_some()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_a_log_file_that_was_moved_away_is_made_anew(
    database_url: str, tmp_path: Path
) -> None:
    log, moved = tmp_path / "server.log", tmp_path / "server.log.1"
    options = ["--port", "0", "--database", database_url, "--data", str(tmp_path / "data")]
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "reileta", "serve", "--log-format", "json", *options],
            stdout=output,
            stderr=subprocess.DEVNULL,
        )

    async def logged(text: str) -> bool:
        return log.exists() and text in log.read_text()

    try:
        await eventually(lambda: logged("server.ready"), START_S)
        os.replace(log, moved)
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: logged("log.reopened"))
        process.send_signal(signal.SIGQUIT)
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 0
        assert "server.stopped" in log.read_text()
        assert "server.stopped" not in moved.read_text()
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
