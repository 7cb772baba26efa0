"""Database work of the commands `reileta clients …`; works with or without a running server.

Each change is in the audit log, in the same transaction. A running server applies it within a
second, since the change feed tells it of rules.
"""

from __future__ import annotations

from reileta.rules.client_rules import ClientRule, ClientRuleKind
from reileta.settings import Settings
from reileta.store import Store
from reileta.store.admin_commands import note, os_account, run
from reileta.store.audit_log import AuditLog
from reileta.store.client_rules import ClientRules
from reileta.store.database_clock import DatabaseClock


def list_rules(settings: Settings) -> list[ClientRule]:
    """All rules whose time is not over."""

    async def work(store: Store, _: DatabaseClock) -> list[ClientRule]:
        return await store.client_rules.all()

    return run(settings, work)


def put_rule(
    settings: Settings,
    kind: ClientRuleKind,
    pattern: str,
    *,
    reason: str | None,
    until: int | None,
) -> None:
    """Sets a rule. Raises Overloaded if there are too many."""

    async def work(store: Store, clock: DatabaseClock) -> None:
        async with store.database.transaction() as transaction:
            rules = ClientRules(transaction, clock)
            await rules.put(kind, pattern, by=os_account(), reason=reason, until=until)
            await note(
                AuditLog(transaction, clock),
                "put_client_rule",
                pattern,
                kind=kind,
                reason=reason,
                until=until,
            )

    run(settings, work)


def delete_rule(settings: Settings, kind: ClientRuleKind, pattern: str) -> bool:
    """Deletes the rule with exactly that kind and pattern; False if there is none."""

    async def work(store: Store, clock: DatabaseClock) -> bool:
        async with store.database.transaction() as transaction:
            if not await ClientRules(transaction, clock).delete(kind, pattern):
                return False
            await note(AuditLog(transaction, clock), "delete_client_rule", pattern, kind=kind)
        return True

    return run(settings, work)
