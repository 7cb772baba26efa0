"""Database work of the commands `reileta servers …`; works with or without a running server.

Each change is in the audit log, in the same transaction. A running server applies it within a
second, since the change feed tells it of rules.
"""

from __future__ import annotations

from dataclasses import dataclass

from reileta.records import PeerServer
from reileta.rules.federation.server_rules import Rule, RuleBook, RuleKind
from reileta.settings import Settings
from reileta.store import Store
from reileta.store.admin_commands import note, os_account, run
from reileta.store.audit_log import AuditLog
from reileta.store.database_clock import DatabaseClock
from reileta.store.servers import Servers

LISTED = 10_000


@dataclass(frozen=True, slots=True)
class KnownServers:
    """Other servers and the rules about them, at a time (ms)."""

    now_ms: int
    servers: tuple[PeerServer, ...]
    rules: list[Rule]


def list_servers(settings: Settings) -> KnownServers:
    """All servers that are known, and all rules."""

    async def work(store: Store, clock: DatabaseClock) -> KnownServers:
        page = await store.servers.search(limit=LISTED, offset=0)
        return KnownServers(clock.now_ms(), page.items, await store.servers.rules())

    return run(settings, work)


def put_rule(
    settings: Settings, pattern: str, kind: RuleKind, *, reason: str | None, until: int | None
) -> None:
    """Sets a rule. Servers that it blocks lose their tokens here, and this one its tokens there."""

    async def work(store: Store, clock: DatabaseClock) -> None:
        async with store.database.transaction() as transaction:
            servers = Servers(transaction, clock)
            await servers.put_rule(pattern, kind, by=os_account(), reason=reason, until=until)
            rules = RuleBook(await servers.rules())
            blocked = [
                one
                for one in await servers.with_tokens()
                if rules.decide(one, clock.now_ms()) == "block"
            ]
            if blocked:
                await servers.revoke_all(blocked)
            await note(
                AuditLog(transaction, clock),
                "put_server_rule",
                pattern,
                kind=kind,
                reason=reason,
                until=until,
            )

    run(settings, work)


def delete_rule(settings: Settings, pattern: str) -> bool:
    """Deletes the rule with exactly that pattern; False if there is none."""

    async def work(store: Store, clock: DatabaseClock) -> bool:
        async with store.database.transaction() as transaction:
            if not await Servers(transaction, clock).delete_rule(pattern):
                return False
            await note(AuditLog(transaction, clock), "delete_server_rule", pattern)
        return True

    return run(settings, work)


def accept_key(settings: Settings, address: str, key: str) -> PeerServer | None:
    """Pins the key that a server offers, if it is this one; else the server as it is. None: no such
    server is known."""

    async def work(store: Store, clock: DatabaseClock) -> PeerServer | None:
        async with store.database.transaction() as transaction:
            servers = Servers(transaction, clock)
            if await servers.accept_key(address, key):
                await note(AuditLog(transaction, clock), "accept_server_key", address, key=key)
            return await servers.get(address)

    return run(settings, work)
