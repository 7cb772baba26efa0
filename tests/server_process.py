"""A server process for tests without Trio, such as those of examples and generated clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reileta.observability import log_events


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL and the process of a server with that folder and a port of its own."""
    environment = {key: text for key, text in os.environ.items() if "REILETA" not in key}
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "reileta", "serve", "--port", "0", "--data", str(data)),
            *("--log-format", "json", *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            events = (json.loads(line) for line in process.stdout)
            ready = next(one["url"] for one in events if one["event"] == log_events.SERVER_READY)
            rest = threading.Thread(target=process.stdout.read)
            rest.start()
            yield ready, process
        finally:
            process.terminate()
            rest.join()
