from __future__ import annotations

from dataclasses import replace

from reileta.records import Moderation
from reileta.store import Store
from tests.reileta.store.test_instances import make

KICK = Moderation("i_1", "u_o", "kick", "u_x@x.org", "u_o@x.org", None, None, 5)


async def test_the_newest_stand_first_and_are_paged(store: Store) -> None:
    ban = replace(KICK, type="ban", reason="spam", until=99)
    for one in (KICK, ban, replace(KICK, instance_id="i_2")):
        await store.moderations.note(one)
    page = await store.moderations.of("i_1", owner=None, limit=10, offset=0)
    assert (page.items, page.total) == ((ban, KICK), 2)
    page = await store.moderations.of("i_1", owner=None, limit=1, offset=1)
    assert (page.items, page.total) == ((KICK,), 2)


async def test_they_outlive_the_instance(store: Store) -> None:
    lobby = await make(store, "lobby")
    done = replace(KICK, instance_id=lobby.id)
    await store.moderations.note(done)
    await store.instances.delete(lobby.id)
    page = await store.moderations.of(lobby.id, owner=None, limit=10, offset=0)
    assert page.items == (done,)


async def test_an_owner_reads_what_was_done_in_its_own_time(store: Store) -> None:
    await store.moderations.note(KICK)
    await store.moderations.note(replace(KICK, owner="u_p"))
    page = await store.moderations.of("i_1", owner="u_o", limit=10, offset=0)
    assert (page.items, page.total) == ((KICK,), 1)
