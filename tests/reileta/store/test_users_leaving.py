"""What of a user changes under others' eyes: its name, its password, and its going."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio

from reileta.errors import (
    Overloaded,
    UserCannotDelete,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
)
from reileta.records import DeletedUser, Moderation, SessionRecord, User
from reileta.security.credentials import digest
from reileta.store import Store
from reileta.store.follows import Follows
from reileta.store.instances import Instances
from reileta.store.moderation import ModerationLog
from reileta.store.quotas import Quotas
from reileta.store.services import Services
from reileta.store.sessions import Sessions
from reileta.store.users import Revoked, Users
from reileta.store.worlds import Worlds
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user, a_world, held_up
from tests.reileta.store.test_tokens import issue


@pytest.fixture
async def heir(store: Store) -> User:
    """The server's own account."""

    async def hash_password(password: str) -> str:
        await trio.lowlevel.checkpoint()
        return "hash"

    await store.users.ensure_system_accounts(hash_password)
    return await store.users.server_account()


async def logged_in(store: Store, user: User, key: str) -> SessionRecord:
    session = await store.sessions.open(user.id)
    await store.tokens.issue(
        session_id=session.id,
        user_id=user.id,
        access_hash=digest(key),
        refresh_hash=None,
        access_expires=2**52,
        refresh_expires=2**52,
        limit=9,
    )
    return session


async def an_instance(store: Store, owner: str, name: str = "tea") -> str:
    made = await store.instances.create(
        name=name,
        title=None,
        description=None,
        world="w_1",
        owner=owner,
        capacity=8,
        tags=frozenset({"avr:public"}),
    )
    return made.id


async def a_service(store: Store, owner: str, id_: str = "com.example.voice") -> str:
    made = await store.services.create(
        id=id_, title="x", description=None, url=None, owner=owner, tags=frozenset()
    )
    return made.id


async def test_a_user_can_be_renamed_to_what_is_free(store: Store) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    assert (await store.users.update(ada.id, username="Ada")).username == "Ada"
    with pytest.raises(UserInvalid) as caught:
        await store.users.update(bob.id, username="ADA")
    assert caught.value.details[0].field == "username"
    assert (await store.users.by_id(bob.id)) == bob
    await store.users.update(ada.id, username="eve")
    assert await store.users.by_name("ada") is None


def ended(*sessions: str) -> Revoked:
    return Revoked(sessions, ())


async def test_another_password_kills_the_other_tokens_of_the_session_that_is_kept(
    store: Store,
) -> None:
    ada = await a_user(store)
    mine = await logged_in(store, ada, "mine")
    await issue(store, mine, digest("also"))
    killed = await store.users.change_password(
        ada.id, "new", keep=mine.id, keep_token=digest("mine")
    )
    assert killed == Revoked((), (digest("also"),))
    assert [one.id for one in await store.tokens.of_session(mine.id)] == [digest("mine")]


async def test_another_password_ends_the_other_sessions(store: Store) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    mine, other = await logged_in(store, ada, "mine"), await logged_in(store, ada, "other")
    theirs = await logged_in(store, bob, "theirs")
    assert await store.users.change_password(ada.id, "new", keep=mine.id) == ended(other.id)
    assert (await store.users.credentials("ada") or ("", ""))[1] == "new"
    for key, session, alive in [
        ("mine", mine, True),
        ("other", other, False),
        ("theirs", theirs, True),
    ]:
        found = await store.tokens.by_access(digest(key))
        assert found is not None
        assert (found[0].killed_at is None, found[1].ended_at is None) == (alive, alive)
        assert session.id == found[1].id
    assert await store.users.change_password(ada.id, "newer", keep=None) == ended(mine.id)
    with pytest.raises(UserNotFound):
        await store.users.change_password("u_none", "x", keep=None)


async def test_who_is_deleted_leaves_nothing_private(store: Store, heir: User) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    ada = await store.users.update(ada.id, email="ada@example.org")
    session, ended = await logged_in(store, ada, "a"), await logged_in(store, ada, "b")
    await store.sessions.end(ended.id)
    for one, other in [(ada, bob), (bob, ada)]:
        await store.follows.put(one.id, other.id)
    world = await a_world(store, ada.id)
    instance, service = await an_instance(store, ada.id), await a_service(store, ada.id)
    others = await a_world(store, bob.id)

    assert await store.users.delete(ada.id) == DeletedUser(
        user=ada,
        sessions=(session.id,),
        worlds=(world.id,),
        instances=(instance,),
        services=(service,),
        files=frozenset(),
    )
    assert await store.users.by_id(ada.id) is None
    assert await store.users.credentials("ada") is None
    assert await store.sessions.get(session.id) is None
    assert await store.tokens.by_access(digest("a")) is None
    assert await store.follows.of(bob.id) == []
    assert (await store.follows.followers(bob.id, limit=9, offset=0)).total == 0
    for made in (
        await store.worlds.get(world.id),
        await store.instances.get(instance),
        await store.services.get(service),
    ):
        assert made is not None
        assert made.owner == heir.id
    assert (await store.worlds.get(others.id)) == others
    await a_user(store, "ada")


async def test_every_table_forgets_a_deleted_users_address(store: Store, heir: User) -> None:
    ada = await store.users.create(
        username="ada", displayname="Ada", password_hash="secret-hash", email="ada@example.org"
    )
    await logged_in(store, ada, "a")
    await store.users.delete(ada.id)
    tables = await store.database.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    assert len(tables) > 8
    for table in tables:
        for row in await store.database.fetch(f"SELECT it::text FROM {table[0]} AS it"):
            assert "ada@example.org" not in row[0]
            assert "secret-hash" not in row[0]
            assert ada.id not in row[0]


async def test_the_moderation_logs_of_deleted_owners_stay_within_one_limit(
    store: Store, heir: User, clock: ManualClock
) -> None:
    """Else they would stay for ever, and grow with each account that is made and deleted."""
    quotas = Quotas(moderations=3)
    log, users = ModerationLog(store.database, quotas), Users(store.database, clock, quotas)
    for name in ("ada", "bob"):
        owner = await a_user(store, name)
        for at in range(2):
            entry = Moderation(f"i_{name}", owner.id, "kick", "u_x@x", "u_y@x", None, None, at)
            await log.note(entry)
        await users.delete(owner.id)
    kept = [
        (await log.of(f"i_{name}", owner=heir.id, limit=9, offset=0)).total
        for name in ("ada", "bob")
    ]
    assert kept == [1, 2]
    assert await store.database.value("SELECT count(*) FROM moderations") == 3


async def test_the_servers_own_accounts_stay(store: Store, heir: User) -> None:
    admin = await store.users.main_admin()
    for account in (admin, heir):
        with pytest.raises(UserCannotDelete):
            await store.users.delete(account.id)
        assert await store.users.by_id(account.id) == account
    renamed = await store.users.update(admin.id, username="root")
    with pytest.raises(UserCannotDelete):
        await store.users.delete(renamed.id)


async def test_a_user_is_deleted_once(store: Store, heir: User) -> None:
    ada = await a_user(store)
    gone: list[DeletedUser] = []
    missed: list[UserNotFound] = []

    async def delete() -> None:
        try:
            gone.append(await store.users.delete(ada.id))
        except UserNotFound as error:
            missed.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(delete)
    assert (len(gone), len(missed)) == (1, 4)


async def test_friends_can_be_deleted_at_once(store: Store, heir: User) -> None:
    users = [await a_user(store, f"user{number}") for number in range(6)]
    for one in users:
        for other in users:
            if one is not other:
                await store.follows.put(one.id, other.id)
    async with trio.open_nursery() as nursery:
        for user in users:
            nursery.start_soon(store.users.delete, user.id)
    assert await store.database.value("SELECT count(*) FROM follows") == 0


Make = Callable[[Store, User, User], Awaitable[object]]


async def follow(store: Store, ada: User, bob: User) -> object:
    return await store.follows.put(bob.id, ada.id)


MAKING: dict[str, Make] = {
    "world": lambda store, ada, bob: a_world(store, ada.id),
    "instance": lambda store, ada, bob: an_instance(store, ada.id),
    "service": lambda store, ada, bob: a_service(store, ada.id),
    "follow": follow,
    "session": lambda store, ada, bob: store.sessions.open(ada.id),
}


@pytest.mark.parametrize("what", MAKING)
async def test_a_deletion_waits_for_what_is_being_made(
    store: Store, heir: User, clock: ManualClock, what: str
) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")

    async def delete() -> None:
        await store.users.delete(ada.id)

    async with AsyncExitStack() as waiting, store.database.transaction() as transaction:
        within = replace(
            store,
            worlds=Worlds(transaction, clock),
            instances=Instances(transaction, clock),
            services=Services(transaction, clock),
            follows=Follows(transaction, clock, limit=9),
            sessions=Sessions(transaction, clock),
        )
        await MAKING[what](within, ada, bob)
        await waiting.enter_async_context(held_up(store, delete))
    await nothing_is_left_of(store, ada)


@pytest.mark.parametrize("what", MAKING)
async def test_what_would_be_made_waits_for_a_deletion_and_is_not(
    store: Store, heir: User, clock: ManualClock, what: str
) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")

    async def make() -> None:
        with pytest.raises(UserNotFound):
            await MAKING[what](store, ada, bob)

    async with AsyncExitStack() as waiting, store.database.transaction() as transaction:
        await Users(transaction, clock).delete(ada.id)
        await waiting.enter_async_context(held_up(store, make))
    await nothing_is_left_of(store, ada)


async def nothing_is_left_of(store: Store, user: User) -> None:
    for table, column in [
        ("users", "id"), ("sessions", "user_id"), ("worlds", "owner"), ("instances", "owner"),
        ("services", "owner"), ("follows", "follower"), ("follows", "followed"),
    ]:  # fmt: skip
        count = await store.database.value(
            f"SELECT count(*) FROM {table} WHERE {column} = $1", user.id
        )
        assert (table, count) == (table, 0)


# Temporary accounts --------------------------------------------------------------------------


async def test_parallel_requests_can_not_exceed_the_number_of_temporary_accounts(
    store: Store, heir: User
) -> None:
    made: list[User] = []
    refused: list[float | None] = []

    async def make() -> None:
        try:
            made.append(await store.users.create_temporary(None, limit=3))
        except Overloaded as error:
            refused.append(error.retry_after_s)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(make)
    assert (len(made), len({user.username for user in made}), refused) == (3, 3, [60.0] * 3)


async def test_a_temporary_account_is_kept_once(store: Store, heir: User) -> None:
    ada = await a_user(store)
    guest = await store.users.create_temporary("Eve", limit=1)
    with pytest.raises(UserInvalid):
        await store.users.keep(guest.id, "ADA", "hash")
    kept = await store.users.keep(guest.id, "eve", "hash")
    assert (kept.id, kept.username, kept.displayname, kept.temporary) == (
        guest.id, "eve", "Eve", False,
    )  # fmt: skip
    for user in (kept, ada):
        with pytest.raises(UserCannotUpdate):
            await store.users.keep(user.id, "other", "another hash")
    assert await store.users.credentials("eve") == (kept, "hash")


async def test_no_tag_is_granted_to_a_temporary_account(store: Store, heir: User) -> None:
    guest = await store.users.create_temporary(None, limit=1)
    with pytest.raises(UserCannotUpdate):
        await store.users.grant(guest.username, "avr:admin")


async def test_only_a_temporary_account_that_was_left_is_swept(
    store: Store, clock: ManualClock, heir: User
) -> None:
    """A sweep chose them; what happened meanwhile counts."""
    back, kept, left = [await store.users.create_temporary(None, limit=3) for _ in range(3)]
    clock.advance(1000)
    before = clock.now_ms()
    assert set(await store.users.left(before)) == {back.id, kept.id, left.id}
    assert len(await store.users.left(before, limit=2)) == 2
    assert await store.users.left(before - 1001) == []
    await store.sessions.open(back.id)
    await store.users.keep(kept.id, "kept", "hash")
    for user in (back, kept, await a_user(store)):
        with pytest.raises(UserCannotDelete):
            await store.users.delete(user.id, left_ms=before)
    assert (await store.users.delete(left.id, left_ms=before)).user == left
