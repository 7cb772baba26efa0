"""The change feed of a node: what other processes changed, brought to those whom it concerns.

`reileta admin grant` and `revoke`, another server on the same database, or its operator by hand:
all write to the database alone. A node asks it every `POLL_S` for what others changed, and does
what it does for changes of its own: whoever is remembered as authenticated is looked up again,
sessions hear what their users are now, and sockets of what has ended are closed. While the
database is away it asks on; what changed meanwhile comes afterwards.

The database is polled, and not listened to, for a listener can miss what is said while its
connection is down, and connection poolers don't pass it on.
"""

from __future__ import annotations

from typing import Final, Protocol

import structlog
import trio

from actors.node import Node
from reileta.errors import DatabaseUnavailable
from reileta.observability import log_events
from reileta.store import Store
from reileta.store.change_feed import Changed

POLL_S: Final = 0.5

_log = structlog.get_logger()


class Known(Protocol):
    """What is remembered of those who were authenticated (`api.auth.Auth`)."""

    def forget_user(self, user_id: str, /) -> None: ...
    def forget_session(self, session_id: str, /) -> None: ...
    def forget_token(self, token: bytes, /) -> None: ...


class ChangeFeed:
    """`run` is a task of the server; `store.changes` has begun before anyone is let in."""

    def __init__(self, store: Store, node: Node, known: Known) -> None:
        self._store = store
        self._node = node
        self._known = known
        self._pending = Changed()

    async def run(self) -> None:
        """Heeds what others change, until cancelled."""
        while True:
            await trio.sleep(POLL_S)
            try:
                await self.look()
            except DatabaseUnavailable:
                _log.debug(log_events.CHANGES_POSTPONED)

    async def look(self) -> None:
        """Heeds what others have changed since the last time.

        Raises DatabaseUnavailable; what it knew of by then is heeded the next time.
        """
        self._pending |= await self._store.changes.next()
        await self._heed(self._pending)
        self._pending = Changed()

    async def _heed(self, changed: Changed) -> None:
        """Does what follows. May be done again, if the database went away in the middle."""
        for user_id in changed.users:
            self._known.forget_user(user_id)
        for session_id in changed.sessions:
            self._known.forget_session(session_id)
            self._node.sessions.end(session_id)
        for token in changed.tokens:
            self._known.forget_token(token)
            self._node.sessions.end_token(token)
        if changed.gap:
            changed |= await self._missed()
        for user in (await self._store.users.many(changed.users)).values():
            self._node.changed("user", user)
        for instance_id in changed.instances:
            record = await self._store.instances.get(instance_id)
            if record is not None:
                await self._node.owner_changed(instance_id, record.owner)

    async def _missed(self) -> Changed:
        """Everything that is known here could be another by now: looks at all of it."""
        recoveries = dict(self._node.sessions.recoveries)
        for session_id, recovery in recoveries.items():
            session = await self._store.sessions.get(session_id)
            if session is None or session.ended_at is not None:
                self._node.sessions.end(session_id)
                continue
            alive = {one.id for one in await self._store.tokens.of_session(session_id)}
            for token in set(recovery.sockets.values()) - alive:
                self._node.sessions.end_token(token)
        return Changed(users=frozenset(one.user.id for one in recoveries.values()))
