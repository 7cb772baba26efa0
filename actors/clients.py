"""The rules about clients that are in force (`reileta/rules/client_rules.py`)."""

from __future__ import annotations

from collections.abc import Callable

import trio

from reileta.clock import Clock
from reileta.errors import ClientBlocked
from reileta.ids import at
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.rules.client_rules import ClientRule, ClientRuleBook, ClientRuleKind
from reileta.store.client_rules import ClientRules


class ModeratedClients:
    """Refuses clients, by the rules in memory. `apply` must be called first.

    A change acts at once in the process where an admin made it, and within a second in others: new
    requests are refused, and `listeners` close the sockets of those that are refused now.
    """

    def __init__(
        self,
        stored: ClientRules,
        clock: Clock,
        activity: ActivityLog,
        metrics: Metrics,
        address: str,
    ) -> None:
        self._stored = stored
        self._clock = clock
        self._activity = activity
        self._metrics = metrics
        self._address = address
        self._rules = ClientRuleBook()
        self._one_at_a_time = trio.Lock()
        """So that the rules in memory are those of the last commit."""
        self.listeners: list[Callable[[], None]] = []
        """Each is called when the rules have changed."""

    @property
    def active(self) -> bool:
        """Whether there is any rule."""
        return len(self._rules) > 0

    @property
    def about_accounts(self) -> bool:
        """Whether there is a rule about an account."""
        return self._rules.about_accounts

    def rule_for(self, address: str, agent: str, user: str | None = None) -> ClientRule | None:
        """A rule that refuses a client; `user` is None without one."""
        now = self._clock.now_ms()
        rule = self._rules.of_client(address, agent, now)
        if rule is None and user is not None:
            rule = self._rules.of_account(user, now)
        return rule

    def accounts(self) -> frozenset[str]:
        """The users whom a rule refuses."""
        return self._rules.accounts(self._clock.now_ms())

    def ensure_allowed(self, address: str, agent: str) -> None:
        """Raises ClientBlocked if a rule refuses that address or `User-Agent`."""
        if len(self._rules) and self.rule_for(address, agent) is not None:
            raise self._blocked()

    def ensure_account(self, user: str) -> None:
        """Raises ClientBlocked if a rule refuses the account."""
        if self.about_accounts and self._rules.of_account(user, self._clock.now_ms()) is not None:
            raise self._blocked()

    def _blocked(self) -> ClientBlocked:
        self._metrics.clients_refused += 1
        return ClientBlocked()

    async def put(
        self,
        kind: ClientRuleKind,
        pattern: str,
        *,
        by: str,
        reason: str | None = None,
        until: int | None = None,
    ) -> ClientRule:
        """Stores a rule, and applies it at once. Raises Overloaded if there are too many."""
        async with self._one_at_a_time:
            rule = await self._stored.put(kind, pattern, by=by, reason=reason, until=until)
            self._activity.note(log_events.CLIENT_RULE_CHANGED, None, kind=kind, by=by, until=until)
            await self._load()
        return rule

    async def delete(self, kind: ClientRuleKind, pattern: str, *, by: str) -> bool:
        """Deletes a rule; whether there was one."""
        async with self._one_at_a_time:
            found = await self._stored.delete(kind, pattern)
            if kind == "account":  # a command that does not know the address stores it like this
                found |= await self._stored.delete(kind, at(pattern, self._address))
            if not found:
                return False
            self._activity.note(log_events.CLIENT_RULE_CHANGED, None, kind=kind, by=by)
            await self._load()
        return True

    async def apply(self) -> None:
        """Reads the rules again. For rules that another process has changed."""
        async with self._one_at_a_time:
            await self._load()

    async def _load(self) -> None:
        self._rules = ClientRuleBook(await self._stored.all(), self._address)
        for listener in self.listeners:
            listener()
