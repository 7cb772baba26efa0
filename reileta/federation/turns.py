"""Turns: how many requests to other servers are under way, for whom and to whom.

| bound | | beyond it |
|---|---|---|
| requests to one server at a time | `PER_PEER` | they wait in line |
| requests to all servers at a time | `ALL_PEERS` | they wait in line |
| of these, to servers that have not answered lately | `UNPROVEN` | they wait in line |
| requests to revoke tokens at a time, not counted above | `REVOCATIONS` | they wait in line |
| what one user asks for at a time | `PER_ASKER` | it waits in line |
| requests that wait in line for one server, or of one user | `WAITING` | Overloaded at once |
| time in line | `WAIT_S` | Overloaded |

So a user who names slow servers waits for its own requests only, and several such users leave half
of all turns to servers that answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from reileta.errors import Overloaded

PER_PEER: Final = 4
ALL_PEERS: Final = 32
UNPROVEN: Final = 16
REVOCATIONS: Final = 40
PER_ASKER: Final = 4
WAITING: Final = 64
WAIT_S: Final = 5.0


@dataclass(slots=True)
class Line:
    """Those who have a turn, and those who wait for one. `used` are both."""

    turns: trio.Semaphore
    waiting: int = 0
    used: int = 0

    @asynccontextmanager
    async def turn(self, *further: trio.Semaphore) -> AsyncIterator[None]:
        """A block with a turn of this line, and of the further semaphores in their order.

        Raises Overloaded.
        """
        if self.waiting >= WAITING:
            raise Overloaded
        self.waiting += 1
        self.used += 1
        gates = (self.turns, *further)
        acquired = 0
        try:
            try:
                with trio.move_on_after(WAIT_S):
                    for gate in gates:
                        await gate.acquire()
                        acquired += 1
            finally:
                self.waiting -= 1
            if acquired < len(gates):
                raise Overloaded
            yield
        finally:
            self.used -= 1
            for gate in gates[:acquired]:
                gate.release()


def peer_line() -> Line:
    """The line of one server."""
    return Line(trio.Semaphore(PER_PEER))


@dataclass(slots=True)
class Turns:
    """The turns of all servers together, and those of each user."""

    all: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(ALL_PEERS))
    unproven: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(UNPROVEN))
    revocations: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(REVOCATIONS))
    askers: dict[str, Line] = field(default_factory=dict)

    @asynccontextmanager
    async def of(self, asker: str) -> AsyncIterator[None]:
        """A block in which a user asks other servers for something. Raises Overloaded."""
        line = self.askers.get(asker)
        if line is None:
            line = self.askers[asker] = Line(trio.Semaphore(PER_ASKER))
        try:
            async with line.turn():
                yield
        finally:
            if not line.used:
                self.askers.pop(asker, None)
