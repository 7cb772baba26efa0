"""Runs the servers of the end-to-end tests as several processes would be: Reil → Eta + Ins.

    REILETA_TEST_ROLES=split python -m pytest tests/e2e

Without it, each server has all roles. With it, `running` (servers.py) starts three servers in the
test's process, which share NATS and the database, and tests talk to the gateway.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.nats_server import nats_server_program
from tests.ports import free_port

SPLIT: Final = os.environ.get("REILETA_TEST_ROLES", "") == "split"
SECRET: Final = "a secret that gateway and registry share"
_OF_THE_PORT: Final = frozenset(
    {
        "port",
        "host",
        "tls_cert",
        "tls_key",
        "trusted_proxies",
        "http2",
        "data",
        "connections",
        "gateway_address",
    }
)
"""Settings that only concern the process that clients reach."""


@cache
def nats_url() -> str:
    """The NATS server of this run, which is started when it is first needed."""
    folder = Path(tempfile.mkdtemp(prefix="reileta-nats-"))
    config = folder / "nats.conf"
    config.write_text(
        "listen: 127.0.0.1:-1\nmax_payload: 1048576\n"
        f'jetstream {{ store_dir: "{folder / "store"}", max_file_store: 64GB }}\n'
    )
    process = subprocess.Popen(
        [nats_server_program(), "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    log = ""
    for line in process.stderr:
        log += line
        if "Server is ready" in line:
            break

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    port = re.search(r"Listening for client connections on 127\.0\.0\.1:(\d+)", log)
    assert port is not None, log
    return f"nats://127.0.0.1:{port[1]}"


def shared_settings(database_url: str, settings: dict[str, Any], secret: Path) -> dict[str, Any]:
    """What all processes of one server have in common."""
    secret.write_text(SECRET)
    port = settings.get("port") or free_port()
    return {
        **settings,
        "nats": nats_url(),
        "cluster": urlsplit(database_url).path[1:],
        "address": settings.get("address") or f"127.0.0.1:{port}",
        "port": port,
        "read_cache": "auto",
        "files": settings.get("files") or settings["key"].with_suffix(".files"),
    }


def behind(settings: dict[str, Any], role: str, data: Path) -> dict[str, Any]:
    """The settings of a process behind the gateway."""
    kept = {name: value for name, value in settings.items() if name not in _OF_THE_PORT}
    return {**kept, "role": role, "port": 0, "data": data, "node_name": role}
