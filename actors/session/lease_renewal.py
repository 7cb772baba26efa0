"""What a node does for all sessions at once: keeps the resources of those that are here.

It says every `TEND_S` to the database which sessions have a WebSocket here; what of any server's
is overdue by then is taken, and sessions without a token that is good are ended (PROTOCOL §8).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog
import trio

from actors.runtime.ref import Ref
from actors.session.messages import LeaseRevoked, SessionMessage
from actors.session.resource_jobs import TEND_S
from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable
from reileta.observability import log_events
from reileta.rules.session.session import SessionLimits
from reileta.store import Store
from reileta.store.leases import LostLease

_log = structlog.get_logger()


class LeaseRenewer:
    """`run` is a task of the node.

    Args:
        present: the sessions that have a WebSocket here.
        find: a session's actor, if it runs.
        ended: the store has ended a session.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        limits: SessionLimits,
        present: Callable[[], Collection[str]],
        find: Callable[[str], Ref[SessionMessage] | None],
        ended: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._present = present
        self._find = find
        self._ended = ended

    async def run(self) -> None:
        """Tends until cancelled; while the database is away, it tries again the next time."""
        while True:
            await trio.sleep(min(TEND_S, self._limits.away_ms / 2000))
            try:
                await self._tend()
            except DatabaseUnavailable:
                _log.debug(log_events.LEASES_POSTPONED)

    async def _tend(self) -> None:
        until = self._clock.now_ms() + self._limits.away_ms + int(TEND_S * 1000)
        present = self._present()
        for lost in await self._store.leases.tend(present, until=until):
            self.tell(lost)
        await self._store.sessions.seen(present)
        for session_id in await self._store.sessions.expire_all():
            self._ended(session_id)

    def tell(self, lost: LostLease) -> None:
        """A session has lost its resource, which its actor does not know yet."""
        ref = self._find(lost.session_id)
        if ref is not None:
            ref.signal(LeaseRevoked(lost.name.number, lost.fence))
