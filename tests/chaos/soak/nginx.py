"""nginx in front of the server: TLS, HTTP/2 and WebSockets, as docs/operating.md recommends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CONFIG: Final = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream reileta {{ server 127.0.0.1:{upstream}; keepalive 16; keepalive_timeout 3s; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        client_max_body_size 0;
        location / {{
            proxy_pass https://reileta;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 120s;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
        }}
    }}
}}
"""


def found() -> bool:
    """Whether nginx is on this machine. Under CI=true it must be."""
    program = shutil.which("nginx")
    if program is None and os.environ.get("CI") == "true":
        raise SystemExit("nginx is missing, and CI is to test everything")
    return program is not None


@contextmanager
def serving(folder: Path, upstream: int, certificate: tuple[Path, Path]) -> Iterator[int]:
    """Runs nginx in front of that port; its own port. It inherits its listening socket."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listening.getsockname()[1]
    cert, key = certificate
    user = pwd.getpwuid(os.getuid()).pw_name
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            folder=folder, user=user, upstream=upstream, port=port, certificate=cert, key=key
        )
    )
    program = shutil.which("nginx")
    assert program is not None
    with subprocess.Popen(
        [program, "-p", str(folder), "-c", str(config), "-e", f"{folder}/error.log"],
        stdin=subprocess.DEVNULL,
        pass_fds=[listening.fileno()],
        env={**os.environ, "NGINX": f"{listening.fileno()};"},
    ) as process:
        listening.close()
        try:
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
