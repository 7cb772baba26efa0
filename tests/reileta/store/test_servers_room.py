"""The table of other servers: whoever fills it loses its own servers first."""

from __future__ import annotations

import pytest

from reileta.errors import Overloaded
from reileta.federation.discovery import Discovery
from reileta.federation.pinning import pin
from reileta.ids import new_id
from reileta.records import PeerToken, Visit
from reileta.rules.federation.addresses import host_of
from reileta.security.credentials import digest
from reileta.store import Store
from reileta.store import servers as stored
from tests.conftest import ManualClock

LIMIT, SHARE = 12, 8
KEY = "K" * 43


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SERVERS_LIMIT", LIMIT)
    monkeypatch.setattr(stored, "PER_DOMAIN", SHARE)


async def meet(store: Store, clock: ManualClock, address: str) -> None:
    """A server proves its key, as at the end of a challenge, and gets a token."""
    clock.advance(1)
    found = Discovery(address, KEY, (), None, None, None)
    async with store.database.transaction() as transaction:
        servers = stored.Servers(transaction, clock)
        await pin(servers, found, clock, secure=True)
        token = digest(f"{address} {clock.now_ms()}")
        await servers.issue_token(address, token, clock.now_ms() + 10**9)


async def known(store: Store) -> list[str]:
    page = await store.servers.search(limit=1000, offset=0)
    return [one.address for one in page.items]


async def use(store: Store, clock: ManualClock) -> list[str]:
    """Servers that mean something, each for another reason, all of one domain."""
    reasons = ("ours", "guest", "visit", "pending", "named", "below.allowed")
    addresses = [f"{reason}.evil.example:3032" for reason in reasons]
    for address in addresses:
        await meet(store, clock, address)
    ours, guest, visit, pending, named, _ = addresses
    later = clock.now_ms() + 10**9
    await store.servers.keep_peer_token(PeerToken(ours, "t", b"", 1, later))
    await store.guests.admit(
        f"{new_id('u')}@{guest}",
        guest,
        displayname="Ann",
        thumbnail=None,
        follows=(),
        token_hash=digest("ia"),
        token_id="i",
        expires_at=later,
        new_per_hour=None,
    )
    await store.guests.visit(Visit("v", visit, "u_1", "s_1", clock.now_ms(), later))
    await store.servers.offer_key(pending, "O" * 43)
    for pattern, kind in ((host_of(named), "silence"), ("allowed.evil.example", "allow")):
        await store.servers.put_rule(pattern, kind, by="u_1", reason=None, until=None)  # type: ignore[arg-type]
    return sorted(addresses)


async def test_a_domain_that_fills_the_table_loses_its_own_servers_first(
    store: Store, clock: ManualClock
) -> None:
    honest = [f"honest{number}.example{number}.org" for number in range(6)]
    for address in honest:
        await meet(store, clock, address)
    for number in range(100):
        await meet(store, clock, f"x{number}.evil.example")
    assert len(await known(store)) == LIMIT
    assert set(honest) <= set(await known(store))
    await meet(store, clock, "new.example.net")
    found = await known(store)
    assert len(found) == LIMIT
    assert {*honest, "new.example.net", "x99.evil.example"} <= set(found)
    assert "x94.evil.example" not in found


async def test_one_domain_has_its_share_at_most_and_replaces_its_own(
    store: Store, clock: ManualClock
) -> None:
    for number in range(SHARE + 3):
        await meet(store, clock, f"x{number}.evil.example")
    assert sorted(await known(store)) == sorted(f"x{n}.evil.example" for n in range(3, SHARE + 3))


async def test_a_server_that_means_something_is_never_forgotten(
    store: Store, clock: ManualClock
) -> None:
    used = await use(store, clock)
    for number in range(50):
        await meet(store, clock, f"x{number}.evil.example")
        await meet(store, clock, f"x.evil{number}.example")
    assert set(used) <= set(await known(store))
    assert len(await known(store)) == LIMIT


async def test_a_table_of_servers_that_mean_something_takes_no_other(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = await use(store, clock)
    for full in ("SERVERS_LIMIT", "PER_DOMAIN"):
        monkeypatch.setattr(stored, "SERVERS_LIMIT", LIMIT)
        monkeypatch.setattr(stored, full, len(used))
        with pytest.raises(Overloaded):
            await meet(store, clock, "new.evil.example")
        assert await known(store) == used
    await meet(store, clock, used[0])  # those that are known go on


async def test_a_block_of_the_parent_keeps_nothing(store: Store, clock: ManualClock) -> None:
    for number in range(LIMIT):
        await meet(store, clock, f"x{number}.evil{number % 2}.example")
    for domain in ("evil0.example", "evil1.example"):
        await store.servers.put_rule(domain, "block", by="u_1", reason=None, until=None)
    await meet(store, clock, "good.example.org")
    assert "good.example.org" in await known(store)


async def test_new_servers_are_counted_and_known_ones_are_not(
    store: Store, clock: ManualClock
) -> None:
    counted: list[str] = []
    for address in ("b.example", "b.example", "c.example"):
        found = Discovery(address, KEY, (), None, None, None)
        async with store.database.transaction() as transaction:
            servers = stored.Servers(transaction, clock)
            await pin(servers, found, clock, secure=True, admit=counted.append)
    assert counted == ["b.example", "c.example"]


async def test_a_forgotten_server_is_a_stranger(store: Store, clock: ManualClock) -> None:
    address = "b.example"
    await meet(store, clock, address)
    assert await store.servers.forget(address)
    assert not await store.servers.forget(address)
    assert await store.servers.tokens_of([address]) == []
    assert await known(store) == []
