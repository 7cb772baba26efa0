from __future__ import annotations

from collections.abc import Collection

import pytest
import trio

from reileta.errors import IntegrityNotFound, ServerNotKnown, TooManyRequests
from reileta.ids import new_id
from reileta.records import SessionRecord, Token, Visit
from reileta.security.credentials import digest, new_token
from reileta.store import Store
from reileta.store.guests import GUEST_KEPT_MS, HOUR_MS, TOKEN_KEPT_MS, TOKENS_PER_GUEST, Admitted
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user

SERVER = "other.example:3032"
GUEST = f"u_00000000-0000-4000-8000-0000000000af@{SERVER}"


async def hashed(password: str) -> str:
    return password


async def a_server(store: Store, address: str = SERVER) -> None:
    await store.database.execute(
        "INSERT INTO servers (address, host, secure, state, first_seen) "
        "VALUES ($1, $2, true, 'known', 0)",
        address,
        address.partition(":")[0],
    )


async def admit(
    store: Store,
    clock: ManualClock,
    user: str = GUEST,
    *,
    server: str = SERVER,
    displayname: str = "Ann",
    follows: Collection[str] = (),
    new_per_hour: int | None = 1000,
) -> Admitted:
    return await store.guests.admit(
        user,
        server,
        displayname=displayname,
        thumbnail=None,
        follows=follows,
        token_hash=digest(new_token("ia")),
        token_id=new_id("s"),
        expires_at=clock.now_ms() + HOUR_MS,
        new_per_hour=new_per_hour,
    )


async def test_a_guest_keeps_its_session_across_tokens(store: Store, clock: ManualClock) -> None:
    await a_server(store)
    first = await admit(store, clock)
    clock.advance(5)
    second = await admit(store, clock, displayname="Anne")
    assert first.before is None
    assert second.before == first.guest
    assert second.guest.session_id == first.guest.session_id
    assert (second.guest.displayname, second.guest.updated_at) == ("Anne", clock.now_ms())
    used = await store.guests.use(second.token.hash)
    assert used == (second.token, second.guest)
    assert used[0].valid(clock.now_ms())
    assert not used[0].valid(second.token.expires_at)


async def test_a_token_of_an_unknown_server_is_not_issued(store: Store, clock: ManualClock) -> None:
    with pytest.raises(ServerNotKnown):
        await admit(store, clock)


async def test_a_further_token_of_a_guest_revokes_its_oldest(
    store: Store, clock: ManualClock
) -> None:
    await a_server(store)
    tokens = [(await admit(store, clock)).token.hash for _ in range(TOKENS_PER_GUEST)]
    last = await admit(store, clock)
    assert last.evicted == (tokens[0],)
    assert await store.guests.live_tokens(GUEST) == {*tokens[1:], last.token.hash}


async def test_new_guests_of_a_server_are_limited_by_the_hour(
    store: Store, clock: ManualClock
) -> None:
    await a_server(store)
    await a_server(store, "calm.example")

    async def come(number: int, server: str = SERVER, limit: int | None = 2) -> None:
        user = f"u_00000000-0000-4000-8000-{number:012x}@{server}"
        await admit(store, clock, user, server=server, new_per_hour=limit)

    await come(1)
    clock.advance(1000)
    await come(2)
    with pytest.raises(TooManyRequests) as refused:
        await come(3)
    assert refused.value.retry_after_s == (HOUR_MS - 1000) / 1000
    await come(1)  # known already
    await come(3, "calm.example")
    await come(4, limit=None)
    clock.advance(HOUR_MS + 1000)
    await come(5)


async def test_new_guests_that_come_at_once_do_not_exceed_the_limit(
    store: Store, clock: ManualClock
) -> None:
    await a_server(store)
    refused = []

    async def come(number: int) -> None:
        user = f"u_00000000-0000-4000-8000-{number:012x}@{SERVER}"
        try:
            await admit(store, clock, user, new_per_hour=3)
        except TooManyRequests as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(come, number)
    assert len(refused) == 5


async def test_a_token_is_revoked_by_those_it_concerns_alone(
    store: Store, clock: ManualClock
) -> None:
    await a_server(store)
    token = (await admit(store, clock)).token
    for user, server in ((f"{GUEST}0", None), (None, "calm.example")):
        with pytest.raises(IntegrityNotFound):
            await store.guests.revoke(token.id, user=user, server=server)
    revoked = await store.guests.revoke(token.id, user=GUEST, server=SERVER)
    assert revoked.hash == token.hash
    with pytest.raises(IntegrityNotFound):
        await store.guests.revoke(token.id)
    used = await store.guests.use(token.hash)
    assert used is not None
    assert not used[0].valid(clock.now_ms())


async def test_all_tokens_of_a_server_are_revoked_at_once(store: Store, clock: ManualClock) -> None:
    await a_server(store)
    await a_server(store, "calm.example")
    tokens = {(await admit(store, clock)).token.hash for _ in range(2)}
    calm = await admit(store, clock, GUEST.replace(SERVER, "calm.example"), server="calm.example")
    assert sorted(await store.guests.servers()) == ["calm.example", SERVER]
    assert await store.guests.count(SERVER) == 1
    assert set(await store.guests.revoke_all([SERVER])) == tokens
    assert await store.guests.revoke_all([SERVER]) == []
    assert await store.guests.servers() == ["calm.example"]
    page = await store.guests.tokens(limit=9, offset=0)
    assert page.items == (calm.token,)


async def test_friends_across_servers_follow_each_other_while_the_guest_has_a_token(
    store: Store, clock: ManualClock
) -> None:
    await a_server(store)
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    await store.follows.put(ada.id, GUEST)
    nobody = "u_00000000-0000-4000-8000-0000000000ff"
    first = await admit(store, clock, follows=[ada.id, bob.id, nobody])
    assert first.befriended == {ada.id, bob.id}
    assert await store.follows.friends(ada.id) == {GUEST}
    assert await store.follows.friends(GUEST) == {ada.id}
    assert await store.follows.friends(bob.id) == set()
    assert (await store.profiles.of(ada.id)).friends == {GUEST: clock.now_ms()}
    assert (await store.profiles.of(GUEST)).friends == {ada.id: clock.now_ms()}
    clock.advance(HOUR_MS)
    assert await store.follows.friends(ada.id) == set()
    assert await store.follows.friends(GUEST) == set()
    assert (await store.profiles.of(ada.id)).friends == {}
    # The guest comes back, and does not follow her any more.
    second = await admit(store, clock, follows=[bob.id])
    assert second.befriended == {bob.id}
    assert await store.follows.friends(ada.id) == set()
    third = await admit(store, clock, follows=[bob.id, ada.id])
    assert third.befriended == {ada.id}
    await store.guests.revoke_all([SERVER])
    assert await store.follows.friends(ada.id) == set()
    assert [one.followed for one in await store.follows.of(ada.id)] == [GUEST]


async def test_a_user_that_is_deleted_is_no_longer_followed(
    store: Store, clock: ManualClock
) -> None:
    await a_server(store)
    await store.users.ensure_system_accounts(hashed)
    ada = await a_user(store)
    await admit(store, clock, follows=[ada.id])
    await store.users.delete(ada.id)
    assert await store.database.value("SELECT count(*) FROM vouched_follows") == 0


async def a_token(store: Store, clock: ManualClock, session: SessionRecord) -> Token:
    return await store.tokens.issue(
        session_id=session.id,
        user_id=session.user_id,
        access_hash=digest(new_token("ua")),
        refresh_hash=None,
        access_expires=clock.now_ms() + HOUR_MS,
        refresh_expires=clock.now_ms() + HOUR_MS,
        limit=32,
    )


async def a_visit(store: Store, clock: ManualClock, user: str, session: str, id_: str) -> None:
    now = clock.now_ms()
    await store.guests.visit(Visit(id_, SERVER, user, session, now, now + HOUR_MS))


async def test_a_visit_is_to_be_revoked_when_its_session_ends(
    store: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    sessions = [(await store.sessions.open(ada.id)).id for _ in range(2)]
    assert not await store.guests.any_visit()
    for session in sessions:
        await a_visit(store, clock, ada.id, session, f"v-{session}")
    assert await store.guests.any_visit()
    assert len((await store.guests.visits(ada.id, limit=9, offset=0)).items) == 2
    await store.sessions.end(sessions[0])
    assert [one.session_id for one in await store.guests.to_revoke(SERVER, limit=9)] == sessions[:1]
    assert len((await store.guests.visits(ada.id, limit=9, offset=0)).items) == 1
    await store.users.suspend(ada.id, until=None, reason=None)
    due = await store.guests.to_revoke(SERVER, limit=9)
    assert {one.session_id for one in due} == set(sessions)
    assert await store.guests.servers_to_ask(limit=9) == [SERVER]
    await store.guests.revoked(due[:1])
    assert await store.guests.to_revoke(SERVER, limit=9) == due[1:]


async def test_a_visit_is_to_be_revoked_when_its_user_is_deleted(
    store: Store, clock: ManualClock
) -> None:
    await store.users.ensure_system_accounts(hashed)
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    await a_visit(store, clock, ada.id, session.id, "v")
    await store.users.delete(ada.id)
    # Since when, the database says, whose clock is not that of the test.
    await store.database.execute("UPDATE visits SET revoke_since = $1", clock.now_ms())
    assert [one.id for one in await store.guests.to_revoke(SERVER, limit=9)] == ["v"]


async def test_a_visit_outlives_a_token_of_its_session_but_not_the_last(
    store: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    tokens = [await a_token(store, clock, session) for _ in range(2)]
    await a_visit(store, clock, ada.id, session.id, "v")
    await store.tokens.kill(tokens[0].id, clock.now_ms())
    assert await store.guests.to_revoke(SERVER, limit=9) == []
    await store.tokens.kill(tokens[1].id, clock.now_ms())
    assert [one.id for one in await store.guests.to_revoke(SERVER, limit=9)] == ["v"]


async def test_a_visit_of_a_session_that_has_ended_is_to_be_revoked_at_once(
    store: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    await store.sessions.end(session.id)
    await a_visit(store, clock, ada.id, session.id, "v")
    assert [one.id for one in await store.guests.to_revoke(SERVER, limit=9)] == ["v"]


async def test_a_visit_is_revoked_for_an_hour_and_no_longer(
    store: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    await a_visit(store, clock, ada.id, session.id, "v")
    assert await store.guests.end_visit("v", user_id="u_other") == []
    assert [one.id for one in await store.guests.end_visit("v", user_id=ada.id)] == ["v"]
    assert await store.guests.end_visit("v", user_id=ada.id) == []
    clock.advance(HOUR_MS - 1)
    assert len(await store.guests.to_revoke(SERVER, limit=9)) == 1
    clock.advance(1)
    assert await store.guests.to_revoke(SERVER, limit=9) == []


async def test_what_has_ended_long_ago_is_deleted(store: Store, clock: ManualClock) -> None:
    await a_server(store)
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    await admit(store, clock)
    await a_visit(store, clock, ada.id, session.id, "v")
    assert await store.guests.tidy() == 0
    clock.advance(HOUR_MS + TOKEN_KEPT_MS + 1)
    assert await store.guests.tidy() == 2
    assert await store.guests.get(GUEST) is not None
    clock.advance(GUEST_KEPT_MS)
    assert await store.guests.tidy() == 1
    assert await store.guests.get(GUEST) is None
