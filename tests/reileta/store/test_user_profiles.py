"""What of a user stands beside its row."""

from __future__ import annotations

from reileta.records import NO_PROFILE, Profile
from reileta.store import Store
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user


async def test_nobody_has_none(store: Store) -> None:
    assert await store.profiles.of("u_none") == NO_PROFILE
    assert await store.profiles.many([]) == {}
    assert await store.profiles.many(["u_none"], whole=True) == {"u_none": NO_PROFILE}


async def test_whom_one_follows_and_who_follows_back(store: Store, clock: ManualClock) -> None:
    one, two, three = [(await a_user(store, name)).id for name in ("one", "two", "three")]
    other = "u_00000000-0000-4000-8000-000000000000@other.example"
    await store.follows.put(one, three)
    clock.advance(1)
    since = clock.now_ms()
    await store.follows.put(one, two)
    clock.advance(1)
    await store.follows.put(one, other)
    await store.follows.put(two, one)
    assert await store.profiles.of(one) == Profile(
        following=(three, two, other), friends={two: since}
    )
    assert await store.profiles.many([one, two]) == {one: NO_PROFILE, two: NO_PROFILE}
    assert (await store.profiles.many([one, two], whole=True)) == {
        one: Profile(following=(three, two, other)),
        two: Profile(following=(one,)),
    }


async def test_which_pictures_there_are(store: Store) -> None:
    one = (await a_user(store)).id
    for kind in ("thumbnail", "banner"):
        await store.database.execute(
            "INSERT INTO blobs VALUES ($1, 1, 1, 1) ON CONFLICT DO NOTHING", "ab" * 32
        )
        await store.database.execute(
            "INSERT INTO images (user_id, kind, hash, width, height, updated_at) "
            "VALUES ($1, $2, $3, 1, 1, 1)",
            one,
            kind,
            "ab" * 32,
        )
    pictures = frozenset({"thumbnail", "banner"})
    assert (await store.profiles.of(one)).pictures == pictures
    assert (await store.profiles.many([one]))[one].pictures == pictures
