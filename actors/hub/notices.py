"""The server's notice: what an admin tells everyone who is connected.

It is stored, so that it outlives a restart. Each node sends it to its own sockets. The bus may lose
the message about it: a node that missed something reads it from the database.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from actors.hub.messages import Announce, HubMessage
from actors.runtime.mailbox import Recipient
from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable
from reileta.protocol.views.server import NoticeView, notice_view
from reileta.records import Notice
from reileta.store.server_info import ServerInfos


class Notices:
    """The notice of one node. `tell` tells the other nodes."""

    def __init__(
        self,
        store: ServerInfos,
        hub: Recipient[HubMessage],
        clock: Clock,
        tell: Callable[[NoticeView], None] | None,
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._tell = tell
        self._known: NoticeView | None = None

    async def current(self) -> Notice | None:
        """The notice that those who connect now get. Raises DatabaseUnavailable."""
        notice = await self._store.notice()
        if notice is None or notice.until is None or notice.until <= self._clock.now_ms():
            return None
        return notice

    async def load(self) -> None:
        """Reads the notice of before; sockets that open get it."""
        with suppress(DatabaseUnavailable):
            notice = await self.current()
            if notice is None:
                return
            view = notice_view(notice)
            if view != self._known:
                self.announced_elsewhere(view)

    async def announce(self, notice: Notice) -> None:
        """Stores the notice, and sends it to all sockets of all nodes.

        Raises DatabaseUnavailable; then nobody gets it.
        """
        await self._store.set_notice(notice)
        self._announced(notice_view(notice))

    async def withdraw(self) -> None:
        """Takes the notice back. Raises DatabaseUnavailable."""
        await self._store.set_notice(None)
        self._announced(NoticeView(text=None, level="info", created_at=self._clock.now_ms()))

    def announced_elsewhere(self, notice: NoticeView) -> None:
        """Another node, or an earlier run of this server, has the notice."""
        self._known = notice
        self._hub.signal(Announce(notice))

    def _announced(self, notice: NoticeView) -> None:
        self.announced_elsewhere(notice)
        if self._tell is not None:
            self._tell(notice)
