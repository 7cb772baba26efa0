"""The rules about other servers that are in force, and the one place where a block acts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeAlias

import trio

from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable, ServerBlocked
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.records import PeerServer
from reileta.rules.federation.server_rules import Decision, Mode, Rule, RuleBook, RuleKind
from reileta.rules.identity import ServerPrincipal
from reileta.store import Store
from reileta.store.servers import Servers

Blocked: TypeAlias = Callable[[str], bool]
"""Whether a server is blocked, by its canonical address."""


class BlockListener(Protocol):
    """A part of this process that holds something of other servers."""

    async def server_blocked(self, blocked: Blocked, /) -> None:
        """Lets go of everything that came from a blocked server. Called after each change of the
        rules; calling it twice does no harm."""
        ...


class FederatedServers:
    """Decides about other servers, by the rules in memory. `load` must be called first.

    A block acts at once in the process where an admin made it, and within a second in others:
    the tokens between the server and this one are revoked, and all `listeners` are called.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        mode: Mode,
        activity: ActivityLog,
        publish: Callable[[PeerServer], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._mode = mode
        self._activity = activity
        self._publish = publish
        self._rules = RuleBook((), mode)
        self._applied_at = 0
        self._unfinished = False
        self._one_at_a_time = trio.Lock()
        """So that the rules in memory are those of the last commit."""
        self.listeners: list[BlockListener] = []
        """Each is called when the rules change."""
        self.connected_guests: Callable[[], Mapping[str, int]] = dict
        """The guests who are connected now, by their server."""

    async def load(self) -> None:
        """Reads the rules."""
        self._rules = RuleBook(await self._store.servers.rules(), self._mode)
        self._applied_at = self._clock.now_ms()

    def decision(self, address: str) -> Decision:
        """What the rules and the settings say about a server, by its canonical address."""
        return self._rules.decide(address, self._clock.now_ms())

    def is_blocked(self, address: str) -> bool:
        """Whether this server has nothing to do with that one."""
        return self.decision(address) == "block"

    def ensure_allowed(self, address: str) -> None:
        """Raises ServerBlocked if the server is blocked."""
        if self.is_blocked(address):
            raise ServerBlocked

    async def authenticate(self, token_hash: bytes) -> ServerPrincipal | None:
        """The server that has the token with that hash; None if it is not valid. Raises
        ServerBlocked."""
        token = await self._store.servers.token(token_hash)
        if token is None:
            return None
        self.ensure_allowed(token.server)
        return ServerPrincipal(token.server, token.id, token.expires_at)

    async def put_rule(
        self,
        pattern: str,
        kind: RuleKind,
        *,
        by: str,
        reason: str | None = None,
        until: int | None = None,
    ) -> Rule:
        """Stores a rule, and applies it at once."""
        async with self._one_at_a_time:
            async with self._store.database.transaction() as transaction:
                servers = Servers(transaction, self._clock)
                rule = await servers.put_rule(pattern, kind, by=by, reason=reason, until=until)
                rules, revoked = await self._revoke(servers)
            self._activity.note(
                log_events.SERVER_RULE_CHANGED, None, pattern=pattern, kind=kind, by=by, until=until
            )
            await self._in_force(rules, revoked)
        return rule

    async def delete_rule(self, pattern: str, *, by: str) -> bool:
        """Deletes a rule, and applies what holds without it; whether there was one."""
        async with self._one_at_a_time:
            async with self._store.database.transaction() as transaction:
                servers = Servers(transaction, self._clock)
                if not await servers.delete_rule(pattern):
                    return False
                rules, revoked = await self._revoke(servers)
            self._activity.note(log_events.SERVER_RULE_CHANGED, None, pattern=pattern, by=by)
            await self._in_force(rules, revoked)
        return True

    async def block(
        self, pattern: str, *, by: str, reason: str | None = None, until: int | None = None
    ) -> Rule:
        """Blocks a host and all hosts below it, at once."""
        return await self.put_rule(pattern, "block", by=by, reason=reason, until=until)

    async def apply(self) -> None:
        """Reads the rules, and ends everything that came from servers which are blocked now. For
        rules that another process has changed."""
        self._unfinished = True  # until it has worked
        async with self._one_at_a_time:
            async with self._store.database.transaction() as transaction:
                rules, revoked = await self._revoke(Servers(transaction, self._clock))
            await self._in_force(rules, revoked)

    async def follow_time(self) -> None:
        """Applies the rules again if one of them has ended since the last time, or if the database
        was down then."""
        now = self._clock.now_ms()
        if self._unfinished or self._rules.ended_between(self._applied_at, now):
            with suppress(DatabaseUnavailable):  # the next time
                await self.apply()

    async def _revoke(self, servers: Servers) -> tuple[RuleBook, list[PeerServer]]:
        """The stored rules, and the servers whose tokens they have ended now."""
        rules, now = RuleBook(await servers.rules(), self._mode), self._clock.now_ms()
        with_tokens = await servers.with_tokens()
        blocked = [one for one in with_tokens if rules.decide(one, now) == "block"]
        if blocked:
            await servers.revoke_all(blocked)
        return rules, await servers.many(blocked)

    async def _in_force(self, rules: RuleBook, revoked: list[PeerServer]) -> None:
        self._rules = rules
        self._applied_at = self._clock.now_ms()
        for server in revoked:
            self._activity.note(log_events.SERVER_BLOCKED, None, server=server.address)
            self._publish(server)
        self._unfinished = False
        for listener in self.listeners:
            try:
                await listener.server_blocked(self.is_blocked)
            except DatabaseUnavailable:  # the others must not wait for it
                self._unfinished = True
