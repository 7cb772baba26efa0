from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from reileta.errors import AuthInvalid, InvalidInput, UserCannotUpdate, UserNotFound
from reileta.records import ADMIN_TAG, User
from reileta.store import Store
from tests.conftest import ManualClock


async def make(store: Store, username: str, displayname: str | None = None) -> User:
    return await store.users.create(
        username=username, displayname=displayname or username, password_hash="hash"
    )


async def test_a_new_user_has_what_it_was_made_with(store: Store, clock: ManualClock) -> None:
    user = await store.users.create(
        username="Ada",
        displayname="Ada L.",
        password_hash="hash",
        email="ada@example.com",
        tags=frozenset({"b", "a"}),
        autopilot=True,
    )
    assert user == User(
        id=user.id,
        number=user.number,
        username="Ada",
        displayname="Ada L.",
        description=None,
        email="ada@example.com",
        status="online",
        tags=frozenset({"a", "b"}),
        autopilot=True,
        home=None,
        created_at=clock.now_ms(),
        updated_at=clock.now_ms(),
    )
    assert user.id.startswith("u_")
    assert await store.users.by_id(user.id) == user


async def test_a_username_is_taken_whatever_its_case(store: Store) -> None:
    await make(store, "Ada")
    with pytest.raises(AuthInvalid) as caught:
        await make(store, "aDA")
    assert [detail.field for detail in caught.value.details] == ["username"]


async def test_of_those_who_ask_for_a_name_at_once_one_gets_it(store: Store) -> None:
    got: list[User] = []
    refused: list[AuthInvalid] = []

    async def ask(name: str) -> None:
        try:
            got.append(await make(store, name))
        except AuthInvalid as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, "ada")
            nursery.start_soon(ask, "ADA")
    assert len(got) == 1
    assert len(refused) == 19


async def test_users_are_found_by_id_and_by_name(store: Store) -> None:
    ada = await make(store, "Ada")
    assert await store.users.by_name("ADA") == ada
    assert await store.users.find("ada") == ada
    assert await store.users.find(ada.id) == ada
    assert await store.users.by_id("Ada") is None
    assert await store.users.by_name(ada.id) is None
    assert await store.users.find("nobody") is None


async def test_credentials_are_the_user_and_the_hash(store: Store) -> None:
    ada = await make(store, "Ada")
    await store.users.create(username="bot", displayname="Bot", password_hash=None)
    assert await store.users.credentials("ADA") == (ada, "hash")
    assert await store.users.credentials("bot") is None
    assert await store.users.credentials("nobody") is None


async def test_a_search_looks_at_names_and_descriptions(store: Store) -> None:
    ada = await make(store, "ada", "The Countess")
    bob = await make(store, "bob")
    bob = await store.users.update(bob.id, description="Knows ÉMILE")
    find = store.users.search
    assert (await find(query="ADA", limit=9, offset=0)).items == (ada,)
    assert (await find(query="countess", limit=9, offset=0)).items == (ada,)
    assert (await find(query="émile", limit=9, offset=0)).items == (bob,)
    assert (await find(query="zzz", limit=9, offset=0)).items == ()
    assert (await find(query=None, limit=9, offset=0)).items == (ada, bob)
    assert (await find(query="", limit=9, offset=0)).total == 2


async def test_what_is_wild_in_a_pattern_is_a_letter_in_a_search(store: Store) -> None:
    percent = await make(store, "percent", "100% sure")
    under = await make(store, "underscore", "a_b")
    slash = await make(store, "backslash", r"c:\dir")
    await make(store, "plain", "axb")

    async def names(query: str) -> list[User]:
        return list((await store.users.search(query=query, limit=9, offset=0)).items)

    assert await names("%") == [percent]
    assert await names("a_b") == [under]
    assert await names("\\") == [slash]
    assert await names("c:\\d") == [slash]
    assert await names("' OR 1=1 --") == []


async def test_pages_have_the_total_even_past_the_end(store: Store) -> None:
    users = [await make(store, f"user{number}") for number in range(5)]
    page = await store.users.search(query="user", limit=2, offset=2)
    assert (page.items, page.total, page.limit, page.offset) == (tuple(users[2:4]), 5, 2, 2)
    beyond = await store.users.search(query="user", limit=2, offset=10)
    assert (beyond.items, beyond.total) == ((), 5)
    none = await store.users.search(query="user", limit=0, offset=0)
    assert (none.items, none.total) == ((), 5)


async def test_many_answers_with_those_that_exist(store: Store) -> None:
    ada, bob = await make(store, "ada"), await make(store, "bob")
    assert await store.users.many([ada.id, "u_none", bob.id]) == {ada.id: ada, bob.id: bob}
    assert await store.users.many([]) == {}


async def test_an_update_changes_what_it_names_alone(store: Store, clock: ManualClock) -> None:
    ada = await make(store, "ada")
    clock.advance(5)
    changed = await store.users.update(
        ada.id, displayname="Ada!", tags=frozenset({"x"}), email="a@b.c", status="busy", home="w_1"
    )
    assert (changed.displayname, changed.email) == ("Ada!", "a@b.c")
    assert changed.tags == {"x"}
    assert (changed.status, changed.home, changed.username) == ("busy", "w_1", "ada")
    assert (changed.created_at, changed.updated_at) == (ada.created_at, ada.created_at + 5)
    assert (await store.users.update(ada.id, email=None)).email is None
    assert (await store.users.update(ada.id)).displayname == "Ada!"
    with pytest.raises(UserNotFound):
        await store.users.update("u_none", displayname="x")


async def test_an_update_takes_no_other_column(store: Store) -> None:
    ada = await make(store, "ada")
    with pytest.raises(ValueError, match="not to be changed"):
        await store.users.update(ada.id, system="admin")  # type: ignore[call-arg]


async def test_a_tag_is_granted_once_by_id_or_name(store: Store) -> None:
    ada = await make(store, "Ada")
    assert not ada.admin
    assert (await store.users.grant("ada", ADMIN_TAG)).admin
    assert (await store.users.grant(ada.id, ADMIN_TAG)).tags == {ADMIN_TAG}
    count = await store.database.value("SELECT cardinality(tags) FROM users WHERE id = $1", ada.id)
    assert count == 1
    with pytest.raises(UserNotFound):
        await store.users.grant("nobody", ADMIN_TAG)


def hashing(hashed: list[str]) -> Callable[[str], Awaitable[str]]:
    async def hash_password(password: str) -> str:
        await trio.lowlevel.checkpoint()
        hashed.append(password)
        return f"hash of {password}"

    return hash_password


async def test_system_accounts_are_made_once(store: Store) -> None:
    hashed: list[str] = []
    password = await store.users.ensure_system_accounts(hashing(hashed))
    assert password is not None
    assert len(password) >= 20
    assert hashed == [password]
    assert await store.users.ensure_system_accounts(hashing(hashed)) is None
    assert hashed == [password]

    admin, server = await store.users.main_admin(), await store.users.server_account()
    assert (admin.username, admin.admin) == ("admin", True)
    assert (server.username, server.admin) == ("server", False)
    assert await store.users.credentials("admin") == (admin, f"hash of {password}")
    assert await store.users.credentials("server") is None


async def test_of_servers_that_start_at_once_one_makes_the_accounts(store: Store) -> None:
    passwords: list[str | None] = []

    async def start() -> None:
        passwords.append(await store.users.ensure_system_accounts(hashing([])))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)
    assert len([password for password in passwords if password is not None]) == 1


async def test_a_taken_name_of_the_system_is_said(store: Store) -> None:
    await make(store, "Admin")
    with pytest.raises(AuthInvalid, match="admin belongs to"):
        await store.users.ensure_system_accounts(hashing([]))
    with pytest.raises(UserNotFound):
        await store.users.server_account()


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "ok\udfff"])
async def test_text_that_can_not_be_kept_is_invalid_everywhere(store: Store, text: str) -> None:
    ada = await make(store, "ada")
    users = store.users
    with pytest.raises(InvalidInput):
        await make(store, text)
    with pytest.raises(InvalidInput):
        await users.find(text)
    with pytest.raises(InvalidInput):
        await users.many([ada.id, text])
    with pytest.raises(InvalidInput):
        await users.search(query=text, limit=1, offset=0)
    with pytest.raises(InvalidInput):
        await users.update(ada.id, tags=frozenset({text}))
    assert await users.by_id(ada.id) == ada


async def test_an_offset_beyond_64_bits_is_invalid(store: Store) -> None:
    with pytest.raises(InvalidInput):
        await store.users.search(query=None, limit=1, offset=2**63)


async def test_text_of_any_script_is_kept_as_it_is(store: Store) -> None:
    ada = await make(store, "ada")
    text = "Zoë 💃🏽 \u202e مرحبا \ufffd"
    assert (await store.users.update(ada.id, description=text)).description == text


async def test_a_tag_is_revoked_but_the_main_admins(store: Store) -> None:
    async def hash_password(password: str) -> str:
        return "hash"

    await store.users.ensure_system_accounts(hash_password)
    ada = await make(store, "ada")
    await store.users.grant(ada.id, ADMIN_TAG)
    for ref in ("ADA", ada.id, "ada"):
        assert not (await store.users.revoke(ref, ADMIN_TAG)).admin
    main = await store.users.main_admin()
    for ref in ("admin", "Admin", main.id):
        with pytest.raises(UserCannotUpdate):
            await store.users.revoke(ref, ADMIN_TAG)
    assert (await store.users.main_admin()).admin
    with pytest.raises(UserNotFound):
        await store.users.revoke("nobody", ADMIN_TAG)
