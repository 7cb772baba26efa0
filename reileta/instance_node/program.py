"""`reileta ins`: runs an instance node until it is stopped."""

from __future__ import annotations

import signal
from typing import Final

import structlog
import trio

from reileta.instance_node.link import NodeLink, Refused
from reileta.instance_node.rooms import Rooms
from reileta.observability import log_events
from reileta.startup import StartupError

STOPS: Final = (signal.SIGINT, signal.SIGTERM)

_log = structlog.get_logger()


def run(gateway: str, token: str, capacity: int) -> None:
    """Runs the node until a signal. Raises StartupError if the server does not take the token."""
    trio.run(_until_stopped, gateway, token, capacity)


async def _until_stopped(gateway: str, token: str, capacity: int) -> None:
    link = NodeLink(gateway, token, Rooms(), capacity=capacity)
    refused: list[Refused] = []
    with trio.open_signal_receiver(*STOPS) as signals:
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                try:
                    await link.run(linked=lambda: _log.info(log_events.NODE_READY, gateway=gateway))
                except Refused as why:
                    refused.append(why)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(keep)
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()
    if refused:
        raise StartupError(str(refused[0]))
