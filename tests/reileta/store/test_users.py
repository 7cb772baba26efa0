from __future__ import annotations

import pytest
import trio

from reileta.errors import AuthInvalid, DatabaseUnavailable, UserNotFound
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
    now = clock.now_ms()
    assert user.id.startswith("u_")
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
        created_at=now,
        updated_at=now,
    )
    assert await store.users.by_id(user.id) == user
