"""How many rows one user may own, also when it asks for many of them at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from reileta.errors import AssetExists, QuotaReached
from reileta.ids import new_id
from reileta.records import ADMIN_TAG, Moderation, User
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import DOCUMENT, WORLD, Content
from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.quotas import DEFAULT, Quotas
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user, a_world, an_asset
from tests.reileta.store.sessions import FOR_EVER, claimant, make_document, make_session

LIMIT = 3


@pytest.fixture
async def store(database_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """A store in which a user may own three of everything, and 1000 bytes of documents."""
    settings = Settings(
        database=database_url,
        worlds_per_user=LIMIT,
        assets_per_world=LIMIT,
        services_per_user=LIMIT,
        instances_per_user=LIMIT,
        documents_per_user=LIMIT,
        user_documents_bytes=1000,
        shares_per_resource=LIMIT,
        moderations_per_user=LIMIT,
        sessions_per_user=LIMIT,
    )
    async with open_store(settings, clock) as store:
        yield store


Make = Callable[[Store, User, int], Awaitable[object]]


async def world(store: Store, user: User, number: int) -> object:
    return (await a_world(store, user.id)).id


async def service(store: Store, user: User, number: int) -> object:
    made = await store.services.create(
        id=f"com.example.{user.username}{number}",
        title="Voice",
        description=None,
        url=None,
        owner=user.id,
        tags=frozenset(),
    )
    return made.id


async def instance(store: Store, user: User, number: int) -> object:
    made = await store.instances.create(
        name=f"{user.username}-{number}",
        title=None,
        description=None,
        world="w_1",
        owner=user.id,
        capacity=8,
        tags=frozenset({"avr:public"}),
    )
    return made.id


async def document(store: Store, user: User, number: int) -> object:
    session = await store.sessions.open(user.id)
    made, _ = await make_document(store, claimant(session, user))
    return made.number


async def world_as_resource(store: Store, user: User, number: int) -> object:
    session = await store.sessions.open(user.id)
    made = await store.resources.create(WORLD, claimant(session, user), Content("Sea"))
    return made.number


MAKING: dict[str, tuple[Make, str]] = {
    "world": (world, "worlds"),
    "world as a resource": (world_as_resource, "worlds"),
    "service": (service, "services"),
    "instance": (instance, "instances"),
    "document": (document, "documents"),
}
KEYS = {"worlds": "id", "services": "id", "instances": "id", "documents": "number"}


def test_the_settings_defaults_are_the_quotas_defaults() -> None:
    assert Quotas.of(Settings()) == DEFAULT


@pytest.mark.parametrize("what", MAKING)
async def test_many_at_once_do_not_pass_a_quota_and_the_error_names_it(
    store: Store, what: str
) -> None:
    make, field = MAKING[what]
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    refused: list[QuotaReached] = []

    async def one(number: int) -> None:
        try:
            await make(store, ada, number)
        except QuotaReached as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(LIMIT + 4):
            nursery.start_soon(one, number)
    assert len(refused) == 4
    (detail,) = refused[0].details
    assert detail.field == field
    assert f"limit of {LIMIT} " in detail.message
    await make(store, bob, 9)  # whose quota is its own


@pytest.mark.parametrize("what", MAKING)
async def test_what_is_deleted_counts_no_more(store: Store, what: str) -> None:
    make, field = MAKING[what]
    ada = await a_user(store)
    for number in range(LIMIT):
        await make(store, ada, number)
    with pytest.raises(QuotaReached):
        await make(store, ada, LIMIT)
    table = "resources" if field == "documents" else field
    await store.database.execute(
        f"DELETE FROM {table} WHERE {KEYS[field]} = "
        f"(SELECT {KEYS[field]} FROM {table} WHERE owner = $1 LIMIT 1)",
        ada.id,
    )
    await make(store, ada, LIMIT)


@pytest.mark.parametrize("what", MAKING)
async def test_admins_have_no_quota(store: Store, what: str) -> None:
    ada = await store.users.grant((await a_user(store)).id, ADMIN_TAG)
    for number in range(LIMIT + 1):
        await MAKING[what][0](store, ada, number)


async def test_a_user_of_another_server_has_one_too(store: Store) -> None:
    afar = f"{new_id('u')}@other.example"
    for _ in range(LIMIT):
        await a_world(store, afar)
    with pytest.raises(QuotaReached):
        await a_world(store, afar)


async def test_what_deleted_users_leave_is_handed_over_without_a_quota(store: Store) -> None:
    async def unhashed(password: str) -> str:
        return "hash"

    await store.users.ensure_system_accounts(unhashed)
    heir = (await store.users.server_account()).id
    for name in ("ada", "bob"):
        user = await a_user(store, name)
        for number in range(LIMIT):
            await world(store, user, number)
            await service(store, user, number)
            await instance(store, user, number)
        await store.users.delete(user.id)
    for table in ("worlds", "services", "instances"):
        count = await store.database.value(f"SELECT count(*) FROM {table} WHERE owner = $1", heir)
        assert count == 2 * LIMIT


# Assets, shares, the log of moderation -----------------------------------------------------------


async def test_a_world_has_so_many_assets(store: Store) -> None:
    sea, other = await a_world(store), await a_world(store)
    refused = 0

    async def one(number: int) -> None:
        nonlocal refused
        try:
            await an_asset(store, sea, f"1.{number}")
        except QuotaReached:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(LIMIT + 4):
            nursery.start_soon(one, number)
    assert refused == 4
    (first, *_) = await store.assets.of(sea.id)
    with pytest.raises(AssetExists):
        await an_asset(store, sea, first.version)
    await an_asset(store, other)
    await store.assets.delete(first.id)
    await an_asset(store, sea, "2.0")


async def test_a_resource_is_shared_with_so_many_users(store: Store) -> None:
    _, who = await make_session(store)
    _, name = await make_document(store, who)
    others = [await a_user(store, f"user{number}") for number in range(LIMIT + 4)]
    refused: list[str] = []

    async def share(user: User) -> None:
        try:
            await store.resources.share(name, who, user.id)
        except QuotaReached:
            refused.append(user.id)

    async with trio.open_nursery() as nursery:
        for other in others:
            nursery.start_soon(share, other)
    assert len(refused) == 4
    shared = (await store.resources.get(name)).record.shares
    again = next(iter(shared))
    await store.resources.share(name, who, again)  # which changes nothing
    await store.resources.unshare(name, who, again)
    await store.resources.share(name, who, refused[0])


async def test_the_log_of_moderation_keeps_the_newest_of_each_owner(store: Store) -> None:
    ada = await a_user(store, "ada")
    first, second = str(await instance(store, ada, 1)), str(await instance(store, ada, 2))
    kick = Moderation(first, "u_o", "kick", "u_x@x.org", "u_o@x.org", None, None, 0)
    other = replace(kick, instance_id=second, owner="u_p")
    done = [replace(kick, created_at=number) for number in range(LIMIT + 2)]
    assert await store.moderation_writes.write([other]) == {}
    assert await store.moderation_writes.write(done[:-1]) == {}
    assert await store.moderation_writes.write(done[-1:]) == {}
    page = await store.moderations.of(first, owner=None, limit=10, offset=0)
    assert page.items == tuple(reversed(done[-LIMIT:]))
    assert (await store.moderations.of(second, owner=None, limit=10, offset=0)).items == (other,)


# Documents' bytes --------------------------------------------------------------------------------


async def test_documents_come_to_so_many_bytes(store: Store) -> None:
    _, who = await make_session(store)
    await make_document(store, who, "x" * 600)
    with pytest.raises(QuotaReached) as caught:
        await make_document(store, who, "x" * 600)
    (detail,) = caught.value.details
    assert detail.field == "documents"
    assert "1000 bytes" in detail.message
    await make_document(store, who, "x" * 300)
    _, bob = await make_session(store, "bob")
    await make_document(store, bob, "x" * 600)


async def test_a_document_grows_within_its_owners_quota_whoever_writes_it(store: Store) -> None:
    _, who = await make_session(store)
    _, bob = await make_session(store, "bob")
    await make_document(store, who, "x" * 500)
    _, name = await make_document(store, who, {"a": "x" * 300})
    await store.resources.share(name, who, bob.user)
    held = await store.leases.acquire(name, bob, until=FOR_EVER)

    async def write(length: int) -> None:
        await store.resources.write(
            name, bob, fence=held.fence, patch={"data": {"a": "x" * length}}, if_version=None
        )

    await write(400)
    with pytest.raises(QuotaReached):
        await write(500)
    assert (await store.resources.get(name)).record.data == {"a": "x" * 400}
    # Who is over the quota already, for it was lowered, can still make documents smaller.
    await store.database.execute(
        "UPDATE resources SET data = to_json(repeat('x', 2000)) WHERE number <> $1", name.number
    )
    await write(399)
    with pytest.raises(QuotaReached):
        await write(400)


async def test_documents_that_grow_at_once_do_not_pass_the_quota_together(store: Store) -> None:
    held: list[tuple[ResourceKey, int]] = []
    claimants = []
    for _ in range(LIMIT):
        _, who = await make_session(store)
        _, name = await make_document(store, who, {"a": ""})
        claimants.append(who)
        held.append((name, (await store.leases.acquire(name, who, until=FOR_EVER)).fence))
    refused = 0

    async def write(number: int) -> None:
        nonlocal refused
        name, fence = held[number]
        try:
            await store.resources.write(
                name,
                claimants[number],
                fence=fence,
                patch={"data": {"a": "x" * 450}},
                if_version=None,
            )
        except QuotaReached:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(LIMIT):
            nursery.start_soon(write, number)
    assert refused == 1


async def test_what_a_document_weighs_is_its_title_and_data(store: Store) -> None:
    _, who = await make_session(store)
    made = await store.resources.create(DOCUMENT, who, Content("Sée", {"a": "ü"}))
    weight = await store.database.value(
        "SELECT bytes FROM resources WHERE number = $1", made.number
    )
    assert weight == len("Sée".encode()) + len('{"a":"ü"}'.encode())


# Sessions ----------------------------------------------------------------------------------------


async def test_over_the_quota_the_session_that_was_idle_longest_ends(
    store: Store, clock: ManualClock
) -> None:
    ada = await a_user(store)
    sessions = []
    for _ in range(LIMIT):
        sessions.append(await store.sessions.open(ada.id))
        clock.advance(1)
    clock.advance(3_600_000)
    await store.sessions.seen([sessions[0].id])
    opened = await store.sessions.make_room_and_open(ada.id, busy=[sessions[1].id])
    assert opened.ended == (sessions[2].id,)
    ended = await store.sessions.get(sessions[2].id)
    assert ended is not None
    assert ended.ended_at == clock.now_ms()
    # Those with a WebSocket end last, but nobody is locked out by them.
    all_ = [sessions[0].id, sessions[1].id, opened.session.id]
    assert (await store.sessions.make_room_and_open(ada.id, busy=all_)).ended == (sessions[1].id,)


async def test_many_logins_at_once_leave_as_many_sessions_as_there_may_be(store: Store) -> None:
    ada = await a_user(store)

    async def open_one() -> None:
        await store.sessions.open(ada.id)

    async with trio.open_nursery() as nursery:
        for _ in range(LIMIT + 4):
            nursery.start_soon(open_one)
    assert (await store.sessions.of_user(ada.id, limit=10, offset=0)).total == LIMIT
