"""Other servers, rules about them, tokens both ways, and challenges."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from reileta.errors import Overloaded
from reileta.federation.discovery import Discovery
from reileta.federation.pinning import pin
from reileta.records import PeerServer, PeerToken
from reileta.security.credentials import digest
from reileta.store import Store, challenges
from reileta.store import servers as stored
from tests.conftest import ManualClock

B, C = "b.example:3032", "c.example"
KEY, OTHER = "K" * 43, "O" * 43
MONTH_MS = 30 * 24 * 3600 * 1000
DAY_MS = 24 * 3600 * 1000


async def learn(store: Store, address: str = B, key: str = KEY, **changes: Any) -> PeerServer:
    fields: dict[str, Any] = {
        "host": address.partition(":")[0],
        "secure": True,
        "public_key": key,
        "key_since": 5,
        "gateway_http": None,
        "gateway_ws": None,
        "version": "1",
        **changes,
    }
    return await store.servers.learn(address, **fields)


async def test_what_a_server_says_is_stored_and_replaced(store: Store, clock: ManualClock) -> None:
    first = await learn(store)
    assert first == await store.servers.get(B)
    assert (first.state, first.first_seen, first.last_seen) == (
        "known",
        clock.now_ms(),
        clock.now_ms(),
    )
    clock.advance(10)
    again = await learn(store, version="2", gateway_http="https://b.example")
    assert (again.first_seen, again.last_seen) == (first.first_seen, clock.now_ms())
    assert (again.version, again.gateway_http) == ("2", "https://b.example")
    assert await store.servers.get(C) is None


async def test_of_two_keys_at_once_only_the_first_is_pinned(
    store: Store, clock: ManualClock
) -> None:
    """Two challenges of one unknown server wait for each other."""
    found = [Discovery(B, key, (), None, None, None) for key in (KEY, OTHER)]
    verdicts: list[str] = []

    async def one(discovery: Discovery) -> None:
        async with store.database.transaction() as transaction:
            servers = stored.Servers(transaction, clock)
            verdicts.append((await pin(servers, discovery, clock, secure=True)).verdict)

    async with trio.open_nursery() as nursery:
        for discovery in found:
            nursery.start_soon(one, discovery)
    assert sorted(verdicts) == ["offered", "pinned"]


async def test_an_offered_key_changes_nothing_else(store: Store, clock: ManualClock) -> None:
    await learn(store)
    assert await store.servers.offer_key(B, OTHER)
    assert not await store.servers.offer_key(B, OTHER)
    pending = await store.servers.get(B)
    assert pending is not None
    assert (pending.state, pending.public_key, pending.offered_key) == ("pending", KEY, OTHER)
    assert not await store.servers.accept_key(B, KEY)
    assert not await store.servers.accept_key(C, OTHER)
    clock.advance(5)
    assert await store.servers.accept_key(B, OTHER)
    assert not await store.servers.accept_key(B, OTHER)
    found = await store.servers.get(B)
    assert found is not None
    assert (found.state, found.public_key, found.offered_key) == ("known", OTHER, None)
    assert found.key_since == clock.now_ms()


async def test_the_fifth_token_ends_the_oldest(store: Store, clock: ManualClock) -> None:
    await learn(store)
    await learn(store, C)
    until = clock.now_ms() + MONTH_MS
    for number in range(6):
        clock.advance(1)
        await store.servers.issue_token(B, digest(f"sa_{number}"), until)
    await store.servers.issue_token(C, digest("sa_c"), until)
    valid = [await store.servers.token(digest(f"sa_{number}")) for number in range(6)]
    assert [one is not None for one in valid] == [False, False, True, True, True, True]
    assert [one.id for one in await store.servers.tokens_of([B])] == [
        one.id for one in reversed(valid) if one is not None
    ]
    assert await store.servers.token(digest("sa_c")) is not None


async def test_of_tokens_of_one_moment_the_new_one_stays(store: Store, clock: ManualClock) -> None:
    await learn(store)
    for number in range(8):
        token = digest(f"sa_{number}")
        await store.servers.issue_token(B, token, clock.now_ms() + MONTH_MS)
        assert await store.servers.token(token) is not None
    assert len(await store.servers.tokens_of([B])) == 4


async def test_a_token_ends_at_its_time_or_when_it_is_revoked(
    store: Store, clock: ManualClock
) -> None:
    await learn(store)
    one = await store.servers.issue_token(B, digest("sa_1"), clock.now_ms() + 10)
    two = await store.servers.issue_token(B, digest("sa_2"), clock.now_ms() + MONTH_MS)
    clock.advance(9)
    assert await store.servers.token(digest("sa_1")) == one
    clock.advance(1)
    assert await store.servers.token(digest("sa_1")) is None
    assert await store.servers.revoke_token(one.id) is None
    assert await store.servers.revoke_token(two.id, server=C) is None
    assert await store.servers.revoke_token(two.id, server=B) == two
    assert await store.servers.token(digest("sa_2")) is None


async def test_a_block_ends_the_tokens_of_both_directions(store: Store, clock: ManualClock) -> None:
    until = clock.now_ms() + MONTH_MS
    for address in (B, C):
        await learn(store, address)
        await store.servers.issue_token(address, digest(address), until)
        await store.servers.keep_peer_token(PeerToken(address, "t", b"sealed", 1, until))
    assert sorted(await store.servers.with_tokens()) == [B, C]
    assert await store.servers.revoke_all([B]) == 1
    assert await store.servers.with_tokens() == [C]
    assert await store.servers.peer_token(B) is None
    assert await store.servers.token(digest(B)) is None
    assert await store.servers.token(digest(C)) is not None


async def test_our_token_there_is_one_and_its_last(store: Store, clock: ManualClock) -> None:
    await learn(store)
    until = clock.now_ms() + 10
    first = PeerToken(B, "1", b"first", 1, until)
    second = PeerToken(B, "2", b"second", 2, until)
    await store.servers.keep_peer_token(first)
    await store.servers.keep_peer_token(second)
    assert await store.servers.peer_token(B) == second
    assert await store.servers.drop_peer_token(B, "1") is None
    assert await store.servers.peer_tokens([B, C]) == [second]
    assert await store.servers.peer_tokens([C]) == []
    clock.advance(10)
    assert await store.servers.peer_token(B) is None
    assert await store.servers.drop_peer_token(B, "2") == second
    assert await store.servers.peer_tokens() == []


async def test_rules_are_bounded_and_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "RULES_LIMIT", 2)

    async def put(pattern: str, kind: Any) -> None:
        await store.servers.put_rule(pattern, kind, by="u_1", reason=None, until=None)

    await put("b.example", "block")
    await put("a.example", "silence")
    with pytest.raises(Overloaded):
        await put("c.example", "block")
    await put("b.example", "allow")
    found = [(one.pattern, one.kind) for one in await store.servers.rules()]
    assert found == [("a.example", "silence"), ("b.example", "allow")]
    assert await store.servers.delete_rule("a.example")
    assert not await store.servers.delete_rule("a.example")
    await put("c.example", "block")


async def test_known_servers_are_bounded_but_still_updated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "SERVERS_LIMIT", 1)
    await learn(store)
    await store.servers.keep_peer_token(PeerToken(B, "t", b"", 1, 10**15))
    with pytest.raises(Overloaded):
        await learn(store, C)
    assert (await learn(store, version="3")).version == "3"


async def test_a_token_of_a_server_that_was_forgotten_meanwhile_is_not_kept(store: Store) -> None:
    await learn(store)
    await store.servers.forget(B)
    await store.servers.keep_peer_token(PeerToken(B, "t", b"", 1, 10**15))
    assert await store.servers.peer_tokens() == []


async def test_servers_that_were_not_heard_of_are_forgotten(
    store: Store, clock: ManualClock
) -> None:
    addresses = [f"{name}.example" for name in ("idle", "token", "ours", "pending")]
    for address in addresses:
        await learn(store, address)
    clock.advance(stored.KEPT_MS - 1)
    until = clock.now_ms() + 2 * stored.KEPT_MS
    await store.servers.issue_token("token.example", digest("sa_"), until)
    await store.servers.keep_peer_token(PeerToken("ours.example", "t", b"", 1, until))
    await store.servers.offer_key("pending.example", OTHER)
    assert await store.servers.trim() == 0
    clock.advance(1)
    assert await store.servers.trim() == 1
    assert [one is None for one in [await store.servers.get(one) for one in addresses]] == [
        True,
        False,
        False,
        False,
    ]


async def test_servers_with_a_token_are_read_again_once_their_time_has_come(
    store: Store, clock: ManualClock
) -> None:
    await learn(store)
    await learn(store, C)
    await store.servers.issue_token(B, digest("sa_"), clock.now_ms() + MONTH_MS)
    assert await store.servers.stale(clock.now_ms() - DAY_MS) == []
    clock.advance(DAY_MS)
    assert await store.servers.stale(clock.now_ms() - DAY_MS) == [B]
    assert await store.servers.count() == {"known": 2}


ID, NONCE = "i" * 43, "n" * 43


async def test_a_challenge_is_fetched_once_and_within_its_time(
    store: Store, clock: ManualClock
) -> None:
    begun = await store.challenges.begin(ID, B, NONCE)
    assert begun.hint == ID[: challenges.HINT_LENGTH]
    assert await store.challenges.fetch("x" * 43) is None
    fetched = await store.challenges.fetch(ID)
    assert fetched is not None
    assert (fetched.server, fetched.nonce) == (B, NONCE)
    assert fetched.fetched_at == clock.now_ms()
    assert await store.challenges.fetch(ID) is None

    await store.challenges.begin("l" * 43, B, NONCE)
    clock.advance(challenges.LIFETIME_MS)
    assert await store.challenges.fetch("l" * 43) is None

    await store.challenges.begin("e" * 43, B, NONCE)
    await store.challenges.end("e" * 43)
    assert await store.challenges.fetch("e" * 43) is None


async def test_the_database_does_not_hold_the_id_and_forgets_a_challenge(
    store: Store, clock: ManualClock
) -> None:
    await store.challenges.begin(ID, B, NONCE)
    (row,) = await store.database.fetch("SELECT row_to_json(challenges)::text FROM challenges")
    assert ID not in row[0]
    assert ID not in repr(await store.challenges.search(limit=1, offset=0))
    clock.advance(challenges.KEPT_MS - 1)
    await store.challenges.trim()
    assert (await store.challenges.search(limit=1, offset=0)).total == 1
    clock.advance(1)
    await store.challenges.trim()
    assert (await store.challenges.search(limit=1, offset=0)).total == 0
