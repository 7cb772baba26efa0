"""The watches of admins: what their sockets look at, sent to them again and again.

Nothing runs while nobody watches. A socket has one watch, which a new one replaces. Overflow
policy: a socket that has not read what it got is passed over until it has, so nothing piles up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from actors.console.console import Console, Topic
from actors.delivery.sink import Sink
from reileta.errors import QuotaReached
from reileta.protocol import events
from reileta.protocol.frames import encode, event
from reileta.protocol.views.console import AdminFiguresView, FiguresView

WATCHES: Final = 32
"""Sockets that watch at a node, at most."""
LOOK_S: Final = 5.0
"""The longest time for one look."""


@dataclass(slots=True, eq=False)
class Watch:
    """What a socket watches. `allowed` tells whether its user still is an admin."""

    sink: Sink
    topics: Sequence[Topic]
    every_s: float
    allowed: Callable[[], bool]
    shown_until_ms: int = -1
    """The time of the last sample of `figures` that was sent."""


class Watches:
    """The watches at this node. `run` serves them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._watches: dict[Sink, Watch] = {}
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._watches)

    def set(self, watch: Watch) -> None:
        """Begins a watch, in place of the one that the socket had.

        Raises QuotaReached: too many sockets watch.
        """
        if watch.sink not in self._watches and len(self._watches) >= WATCHES:
            raise QuotaReached
        self._watches[watch.sink] = watch
        self._changed.set()

    def end(self, sink: Sink) -> None:
        """Ends the socket's watch, if there is one. Never waits."""
        if self._watches.pop(sink, None) is not None:
            self._changed.set()

    async def run(self) -> None:
        """Serves the watches, for ever."""
        async with trio.open_nursery() as nursery:
            served: set[Watch] = set()  # a crash of one ends all; then all begin again
            while True:
                self._changed = trio.Event()
                served.intersection_update(self._watches.values())
                for watch in set(self._watches.values()) - served:
                    nursery.start_soon(self._serve, watch)
                    served.add(watch)
                await self._changed.wait()

    async def _serve(self, watch: Watch) -> None:
        while self._watches.get(watch.sink) is watch:
            if not watch.allowed():
                self.end(watch.sink)
                return
            if not watch.sink.waiting_bytes:
                with trio.move_on_after(LOOK_S):
                    view = await self._console.look(watch.topics, watch.shown_until_ms)
                    self._show(watch, view)
            await trio.sleep(watch.every_s)

    def _show(self, watch: Watch, view: AdminFiguresView) -> None:
        if isinstance(view.figures, FiguresView) and view.figures.at:
            watch.shown_until_ms = view.figures.at[-1]
        watch.sink.send(event(events.ADMIN_FIGURES, None, encode(view)))
