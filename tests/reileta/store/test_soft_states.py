"""What a server keeps of its instances for its next run."""

from __future__ import annotations

from reileta.store import Store
from reileta.store.soft_states import LiveSession, SoftPart
from tests.conftest import ManualClock
from tests.reileta.store.records import a_user, a_world
from tests.reileta.store.sessions import make_session
from tests.reileta.store.test_guests import GUEST, a_server, admit


async def test_a_part_is_written_over_by_who_knows_its_revision(store: Store) -> None:
    soft = store.soft_states
    first = SoftPart("i_1", 0, 0, b"one")
    other = SoftPart("i_1", 1, 0, b"two")
    assert await soft.write([first, other]) == {("i_1", 0): 1, ("i_1", 1): 1}
    late = SoftPart("i_1", 0, 0, b"late")
    next_ = SoftPart("i_1", 1, 1, b"three")
    assert await soft.write([late, next_]) == {("i_1", 1): 2}
    assert await soft.read("i_1", 0) == SoftPart("i_1", 0, 1, b"one")
    assert await soft.read("i_1", 1) == SoftPart("i_1", 1, 2, b"three")
    assert await soft.read("i_1", 2) is None


async def test_only_instances_that_exist_are_read(store: Store) -> None:
    soft, owner = store.soft_states, (await a_user(store)).id
    made = await store.instances.create(
        name="picnic",
        title=None,
        description=None,
        world=(await a_world(store, owner)).id,
        owner=owner,
        capacity=2,
        tags=frozenset(),
    )
    instance = made.id
    parts = [SoftPart(one, 0, 0, b"") for one in (instance, "i_gone", "i_other")]
    await soft.write(parts)
    assert [one.instance for one in await soft.read_all()] == [instance]
    await soft.forget(["i_other"])
    assert await soft.read("i_other", 0) is None
    await soft.forget_others([instance])
    assert await soft.read("i_gone", 0) is None
    assert await soft.read(instance, 0) is not None
    await soft.forget_others([])
    assert await soft.read(instance, 0) is None


async def test_each_run_has_a_number_and_knows_for_how_long_none_had_run(store: Store) -> None:
    soft = store.soft_states
    first = await soft.begin_run()
    assert first.away_ms > 1_000_000_000_000, "none had run before"
    await soft.note_alive()
    second = await soft.begin_run()
    assert second.number == first.number + 1
    assert second.away_ms < 60_000
    await store.database.execute("UPDATE server_runs SET alive_at = alive_at - 90000")
    assert 90_000 <= (await soft.begin_run()).away_ms < 150_000
    await store.database.execute("UPDATE server_runs SET alive_at = alive_at + 3600000")
    assert (await soft.begin_run()).away_ms == 0


async def test_sessions_that_have_ended_and_guests_without_a_token_are_not_live(
    store: Store, clock: ManualClock
) -> None:
    session, _ = await make_session(store, "ada")
    ended, _ = await make_session(store, "bob")
    await store.database.execute("UPDATE sessions SET ended_at = 1 WHERE id = $1", ended.id)
    await a_server(store)
    guest = (await admit(store, clock)).guest
    ids = [session.id, ended.id, guest.session_id, "s_none"]
    live = await store.soft_states.live_sessions(ids, clock.now_ms())
    assert sorted(live, key=lambda one: one.user) == sorted(
        [LiveSession(session.id, session.user_id), LiveSession(guest.session_id, GUEST)],
        key=lambda one: one.user,
    )
    later = clock.now_ms() + 3_600_001
    assert await store.soft_states.live_sessions([guest.session_id], later) == []
