"""The change feed: applies what other processes changed in the database.

`reileta admin grant`, other servers on the same database and its operator write to the database
only. Every `POLL_S` a node asks it for their changes, and does what it does for changes of its own:
it forgets cached credentials, notifies sessions of changed users, closes the sockets of sessions
and tokens that ended, and applies rules about other servers and clients. It also logs what commands
did. If the database is down, it asks again later and gets the changes then.

It polls the database instead of listening to it, because a listener misses notifications while its
connection is down, and connection poolers do not pass them on.
"""

from __future__ import annotations

from typing import Final, Protocol

import structlog

from actors.node import Node
from reileta.errors import DatabaseFault, DatabaseUnavailable
from reileta.observability import log_events
from reileta.records import AuditEntry
from reileta.store import Store
from reileta.store.change_feed import Changed

POLL_S: Final = 0.5

_log = structlog.get_logger()


class CredentialCache(Protocol):
    """Authenticated users, sessions and tokens that are remembered (`api.credentials.Auth`)."""

    def forget_user(self, user_id: str, /) -> None: ...
    def forget_session(self, session_id: str, /) -> None: ...
    def forget_token(self, token: bytes, /) -> None: ...


class ChangeApplier:
    """The server calls `step` every `POLL_S`, after `store.changes` has begun."""

    def __init__(self, store: Store, node: Node, credentials: CredentialCache) -> None:
        self._store = store
        self._node = node
        self._credentials = credentials
        self._pending = Changed()

    async def step(self) -> None:
        """Polls. If the database is down, the next step applies the changes."""
        try:
            await self.poll()
        except DatabaseFault:
            raise  # the supervisor shows it
        except DatabaseUnavailable:
            _log.debug(log_events.CHANGES_POSTPONED)

    async def poll(self) -> None:
        """Applies what others have changed since the last poll.

        Raises:
            DatabaseUnavailable: the next poll applies the changes that this one has read.
        """
        self._pending |= await self._store.changes.next()
        await self._apply(self._pending)
        self._pending = Changed()

    async def _apply(self, changed: Changed) -> None:
        """Applies changes; applying one twice does no harm."""
        for user_id in changed.users:
            self._credentials.forget_user(user_id)
        recoveries = self._node.sessions.recoveries
        owners = [recoveries[one].user for one in changed.sessions if one in recoveries]
        for session_id in changed.sessions:
            self._credentials.forget_session(session_id)
            self._node.sessions.ended_elsewhere(session_id)
        for token in changed.tokens:
            self._credentials.forget_token(token)
            self._node.sessions.token_ended_elsewhere(token)
        if changed.gap:
            changed |= await self._check_all()
        if changed.server_rules or changed.gap:
            await self._node.servers.apply()
        if changed.client_rules or changed.gap:
            await self._node.clients.apply()
        users = await self._store.users.many(changed.users | {one.id for one in owners})
        for user_id in changed.users & users.keys():
            self._node.updates.changed_unless_told(users[user_id])
        for owner in owners:
            if owner.id not in users:
                self._node.user_deleted_elsewhere(owner.id)
        if changed.audits:
            for entry in await self._store.audit.many(sorted(changed.audits)):
                if entry.via == "command":  # another node logs what it does itself
                    self._note(entry)
        for instance_id in changed.instances:
            record = await self._store.instances.get(instance_id)
            if record is not None:
                self._node.owner_changed_elsewhere(record)

    def _note(self, entry: AuditEntry) -> None:
        """Logs what a command did. If the feed repeats it after an outage, so does the log."""
        self._node.activity.note(
            log_events.COMMAND_RUN,
            None,
            action=entry.action,
            by=entry.by_name,
            target=entry.target,
            username=entry.target_name,
        )

    async def _check_all(self) -> Changed:
        """Closes the sockets of sessions and tokens that have ended; returns all users here.

        Used if the feed has lost changes: any user may have changed.
        """
        recoveries = dict(self._node.sessions.recoveries)
        for session_id, recovery in recoveries.items():
            if recovery.user.guest:  # its session is not one of the database's
                valid = set(await self._store.guests.live_tokens(recovery.user.id))
            else:
                session = await self._store.sessions.get(session_id)
                if session is None or session.ended_at is not None:
                    self._node.sessions.ended_elsewhere(session_id)
                    continue
                valid = {token.id for token in await self._store.tokens.of_session(session_id)}
            for token in set(recovery.sockets.values()) - valid:
                self._node.sessions.token_ended_elsewhere(token)
        return Changed(users=frozenset(recovery.user.id for recovery in recoveries.values()))
