"""`reileta ins`: runs an instance node until it is stopped."""

from __future__ import annotations

import signal
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from reileta.instance_node.direct import DirectServer
from reileta.instance_node.link import NodeLink, Refused
from reileta.instance_node.rooms import Rooms
from reileta.observability import log_events
from reileta.security.credentials import digest
from reileta.startup import StartupError

STOPS: Final = (signal.SIGINT, signal.SIGTERM)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Listening:
    """Where clients can connect directly. Without a certificate: without TLS."""

    host: str
    port: int
    cert: Path | None = None
    key: Path | None = None


def run(gateway: str, token: str, capacity: int, direct: Listening | None = None) -> None:
    """Runs the node until a signal. Raises StartupError if the server does not take the token, or
    it can't listen."""
    trio.run(_until_stopped, gateway, token, capacity, direct)


async def _listen(server: DirectServer, direct: Listening, nursery: trio.Nursery) -> None:
    """Raises StartupError."""
    try:
        listeners = await trio.open_tcp_listeners(direct.port, host=direct.host)
        if direct.cert is None:
            nursery.start_soon(partial(trio.serve_listeners, server.serve, listeners))
            return
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(direct.cert, direct.key)
    except (OSError, ssl.SSLError) as error:
        raise StartupError(f"can't listen on {direct.host}:{direct.port}: {error}") from None
    secure = [trio.SSLListener(one, context) for one in listeners]
    nursery.start_soon(partial(trio.serve_listeners, server.serve, secure))


async def _until_stopped(gateway: str, token: str, capacity: int, direct: Listening | None) -> None:
    link = NodeLink(gateway, token, Rooms(), capacity=capacity)
    refused: list[Refused | StartupError] = []
    with trio.open_signal_receiver(*STOPS) as signals:
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                try:
                    await link.run(linked=lambda: _log.info(log_events.NODE_READY, gateway=gateway))
                except Refused as why:
                    refused.append(why)
                    nursery.cancel_scope.cancel()

            if direct is not None:
                try:
                    await _listen(DirectServer(link, digest(token)), direct, nursery)
                except StartupError as why:
                    refused.append(why)
                    nursery.cancel_scope.cancel()
            nursery.start_soon(keep)
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()
    if refused:
        raise StartupError(str(refused[0]))
