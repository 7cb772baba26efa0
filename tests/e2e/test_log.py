"""The log of a server in a process of its own, whose reader is not well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio

from tests.conftest import PATIENCE_S
from tests.e2e.processes import START_S, eventually
from tests.ports import free_port

pytestmark = pytest.mark.slow


async def test_a_log_that_nobody_reads_stops_nothing(database_url: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    options = ["--port", "0", "--database", database_url, "--data", str(tmp_path / "data")]
    options += ["--log-format", "json", "--log-level", "debug", "--rate-limits", "off"]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "reileta", "serve", *options],
        stdout=writing,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with trio.fail_after(START_S):
            text = b""
            while b"server.ready" not in text:
                text += await trio.to_thread.run_sync(os.read, reading, 65_536)
        url = text.partition(b'"url":"')[2].partition(b'"')[0].decode()
        port = int(url.rpartition(":")[2])
        async with (
            httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client,
            await trio.open_tcp_stream("127.0.0.1", port) as stream,
        ):
            dropped = 0.0
            with trio.fail_after(3 * PATIENCE_S):
                while not dropped:
                    await stream.send_all(b"GET /api/time HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
                    answers = b""
                    while answers.count(b"HTTP/1.1 200 ") < 200:
                        chunk = await stream.receive_some()
                        assert chunk
                        answers += chunk
                    metrics = (await client.get("/metrics")).text
                    dropped = float(metrics.partition("\nreileta_log_dropped_total ")[2].split()[0])
            assert (await client.get("/readyz")).status_code == 200
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(reading)


async def test_a_start_does_not_wait_for_a_reader_of_standard_error(
    database_url: str, tmp_path: Path
) -> None:
    """The first start shows a password there. Both outputs are one pipe, as in a container."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    port = free_port()
    options = ["--port", str(port), "--database", database_url, "--data", str(tmp_path / "data")]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "reileta", "serve", *options], stdout=writing, stderr=writing
    )
    os.close(writing)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S
        ) as client:

            async def ready() -> bool:
                with suppress(httpx.TransportError):
                    return (await client.get("/readyz")).is_success
                return False

            await eventually(ready, START_S)
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(reading)
