"""What searches find, on a database of any locale."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.migrate import known_migrations, migrate
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user, a_world

FOUND = [
    ("Café", "CAFE\u0301"),
    ("Cafe\u0301", "café"),
    ("Привет, мир", "ПРИВЕТ"),
    ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
    ("Οδυσσεύς", "ΟΔΥΣ"),
    ("Straße", "STRASSE"),
    ("STRASSE", "straße"),
    ("İstanbul", "istanbul"),
    ("istanbul", "İSTANBUL"),
    ("İZMİR", "i\u0307zmi\u0307r"),
    ("ԵՐԵՎԱՆ", "երեվ"),
    ("ᏣᎳᎩ", "ꮳꮃꭹ"),
    ("𐐔𐐯𐑅", "𐐼𐐇𐐝"),
    ("ﬁn", "FIN"),
    ("ＦＵＬＬ", "ｆｕｌｌ"),
    ("\u212bngström", "ÅNGSTRÖM"),
    ("50% off_", "0% OFF_"),
]
APART = [("Cafe", "café"), ("Café", "cafe"), ("a%b", "a_b"), ("港", "東")]


async def finds(store: Store, title: str, query: str) -> bool:
    world = await a_world(store, title=title)
    found = await store.worlds.search(
        query=query, owner=None, tag=None, viewer=None, admin=True, limit=100, offset=0
    )
    await store.worlds.delete(world.id)
    assert found.total == len(found.items)
    return world.id in [item.id for item in found.items]


@pytest.fixture(params=["database_url", "c_locale_database_url"])
def any_database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


async def test_case_and_form_do_not_matter_in_any_alphabet(
    any_database_url: str, clock: ManualClock
) -> None:
    async with open_store(Settings(database=any_database_url), clock) as store:
        for title, query in FOUND:
            assert await finds(store, title, query), (title, query)
        for title, query in APART:
            assert not await finds(store, title, query), (title, query)


async def test_every_list_that_is_searched_does_so(
    c_locale_database_url: str, clock: ManualClock
) -> None:
    async with open_store(Settings(database=c_locale_database_url), clock) as store:
        user = await store.users.create(username="ada", displayname="ÁDA", password_hash=None)
        service = await store.services.create(
            id="com.example.voice", title="ÁDA", description=None, url=None, owner=user.id,
            tags=frozenset(),
        )  # fmt: skip
        instance = await store.instances.create(
            name="room", title="ÁDA", description=None, world="w_1", owner=user.id, capacity=2,
            tags=frozenset({"avr:public"}),
        )  # fmt: skip
        for table, key in (
            ("users", user.id),
            ("services", service.id),
            ("instances", instance.id),
        ):
            rows = await store.database.fetch(
                f"SELECT id FROM {table} WHERE haystack LIKE search_text('%a\u0301D%')"
            )
            assert [row["id"] for row in rows] == [key]


async def test_letters_are_folded_as_unicode_says(store: Store) -> None:
    letters = [
        char for char in map(chr, range(0xA0, sys.maxunicode + 1)) if char.casefold() != char
    ]
    assert len(letters) > 1400
    for start in range(0, len(letters), 200):
        part = letters[start : start + 200]
        rows = await store.database.fetch(
            "SELECT letter, search_text(letter) AS folded FROM unnest($1::text[]) AS letter", part
        )
        for row in rows:
            letter = unicodedata.normalize("NFC", row["letter"])
            folded = unicodedata.normalize("NFC", letter.casefold())
            assert row["folded"] == folded.replace("i\u0307", "i"), letter


async def test_what_an_older_version_stored_is_found(
    c_locale_database_url: str, clock: ManualClock
) -> None:
    settings = Settings(database=c_locale_database_url)
    async with open_store(settings, clock) as store:
        await store.database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await migrate(store.database, clock, known_migrations()[:5])
        await store.database.execute(
            "INSERT INTO users (id, username, displayname, created_at, updated_at) "
            "VALUES ('u_1', 'ada', 'ЁЖИК', 1, 1)"
        )
    async with open_store(settings, clock) as store:
        found = await store.users.search(query="Е\u0308жик", limit=9, offset=0)
        assert [user.id for user in found.items] == ["u_1"]
        await a_user(store, "bob")
