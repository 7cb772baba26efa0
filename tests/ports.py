"""Ports for servers that must know theirs before they listen."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port of that address that nobody listens on, and that nobody else is given.

    The socket stays bound until the process ends. Otherwise another test could get the port before
    the server listens there, which can be many seconds later, or while it starts again.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a server can listen there
    sock.bind((host, 0))
    port: int = sock.getsockname()[1]
    sock.detach()
    return port
