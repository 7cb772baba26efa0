"""Renews the resource leases of the sessions that are connected to this node.

Every `RENEW_S` it tells the database which sessions have a WebSocket here. The database then
expires the overdue leases of all servers, and ends the sessions without a valid token.
"""

from __future__ import annotations

import structlog

from actors.session.config import RENEW_S, SessionDeps
from actors.session.manager import SessionManager
from reileta.errors import DatabaseFault, DatabaseUnavailable
from reileta.observability import log_events

_log = structlog.get_logger()


class LeaseRenewer:
    """Renews leases for `sessions`. The node calls `renew` every `every_s` seconds."""

    def __init__(self, sessions: SessionManager, deps: SessionDeps) -> None:
        self._sessions = sessions
        self._store = deps.store
        self._clock = deps.clock
        self._limits = deps.limits
        self.every_s = min(RENEW_S, self._limits.away_ms / 2000)

    async def renew(self) -> None:
        """Renews the leases. If the database is down, it does nothing until the next time."""
        try:
            await self._renew()
        except DatabaseFault:
            raise  # the supervisor shows it
        except DatabaseUnavailable:
            _log.debug(log_events.LEASES_POSTPONED)

    async def _renew(self) -> None:
        now = self._clock.now_ms()
        until = now + self._limits.away_ms + int(RENEW_S * 1000)
        connected = self._sessions.connected()
        for lost in await self._store.leases.renew_all(connected, as_of=now, until=until):
            self._sessions.lease_lost(lost)
        await self._store.sessions.seen(connected)
        for session_id in await self._store.sessions.expire_all():
            self._sessions.end(session_id)
