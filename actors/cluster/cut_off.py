"""Sends the clients of a node away that reaches neither NATS nor PostgreSQL.

It is silent by then, and others host its instances; but nothing that it reads tells it so. Its
clients would wait at a node that can do nothing for them, with sockets that look alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import trio

LOOK_S: Final = 0.25
LOOKS: Final = 8
"""So many looks in a row, 2 s, without a valid lease. A process that was paused looks once; then it
hears that it fell, and its sockets stay."""


class Member(Protocol):
    """This process's part in the cluster."""

    def valid(self) -> bool: ...

    @property
    def valid_for_s(self) -> float: ...

    async def wait_valid(self) -> None: ...


class CutOff:
    """Notices that this node is of no use to its clients."""

    def __init__(self, member: Member, send_away: Callable[[], None]) -> None:
        self._member = member
        self._send_away = send_away

    async def run(self) -> None:
        """Sends clients away once in each outage; for ever."""
        while True:
            await self._member.wait_valid()  # before the first time, there are no clients
            await self._until_silent()
            self._send_away()

    async def _until_silent(self) -> None:
        looks = 0
        while looks < LOOKS:
            await trio.sleep(max(LOOK_S, self._member.valid_for_s))
            looks = 0 if self._member.valid() else looks + 1
