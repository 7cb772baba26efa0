from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from reileta.errors import InstanceNotFound, InvalidInput, ReiletaError
from reileta.records import (
    Ban,
    LiftBan,
    LiftMute,
    Moderation,
    ModerationWrite,
    ModeratorAddition,
    ModeratorRemoval,
    MuteRecord,
)
from reileta.store import Store
from tests.reileta.store.test_instances import make


async def test_bans_are_kept_until_they_are_lifted(store: Store) -> None:
    lobby, other = await make(store, "lobby"), await make(store, "other")
    first = Ban(lobby.id, "u_x", None, None, "u_a", 1)
    second = Ban(lobby.id, "u_y@x.org", 99, "spam", "u_a", 2)
    elsewhere = Ban(other.id, "u_x", None, None, "u_a", 3)
    for ban in (second, first, elsewhere):
        await store.bans.put(ban)
    assert await store.bans.of(lobby.id) == [first, second]
    assert await store.bans.remove(lobby.id, "u_x")
    assert not await store.bans.remove(lobby.id, "u_x")
    assert await store.bans.of(lobby.id) == [second]
    assert await store.bans.of(other.id) == [elsewhere]


async def test_a_new_ban_takes_the_place_of_the_earlier_one(store: Store) -> None:
    lobby = await make(store, "lobby")
    await store.bans.put(Ban(lobby.id, "u_x", None, "first", "u_a", 1))
    later = Ban(lobby.id, "u_x", 50, "second", "u_b", 2)
    await store.bans.put(later)
    assert await store.bans.of(lobby.id) == [later]


async def test_mutes_are_kept_until_they_are_lifted(store: Store) -> None:
    lobby, other = await make(store, "lobby"), await make(store, "other")
    first = MuteRecord(lobby.id, "u_x", None, None, "u_a", 1)
    second = MuteRecord(lobby.id, "u_y@x.org", 99, "loud", "u_a@x.org", 2)
    elsewhere = MuteRecord(other.id, "u_x", None, None, "u_a", 3)
    for mute in (second, replace(first, until=5), first, elsewhere):
        await store.mutes.put(mute)
    assert await store.mutes.of(lobby.id) == [first, second]
    assert await store.mutes.remove(lobby.id, "u_x")
    assert not await store.mutes.remove(lobby.id, "u_x")
    assert await store.mutes.of(lobby.id) == [second]
    assert await store.mutes.of(other.id) == [elsewhere]
    await store.instances.delete(other.id)
    assert await store.mutes.of(other.id) == []
    with pytest.raises(InstanceNotFound):
        await store.mutes.put(elsewhere)


async def test_an_instance_that_is_not_there_bans_nobody(store: Store) -> None:
    with pytest.raises(InstanceNotFound):
        await store.bans.put(Ban("i_none", "u_x", None, None, "u_a", 1))
    assert await store.bans.of("i_none") == []


async def test_a_reason_that_can_not_be_kept_is_invalid(store: Store) -> None:
    lobby = await make(store, "lobby")
    with pytest.raises(InvalidInput):
        await store.bans.put(Ban(lobby.id, "u_x", None, "\x00", "u_a", 1))


async def test_moderators_stand_in_the_order_of_their_naming(store: Store) -> None:
    lobby, other = await make(store, "lobby"), await make(store, "other")
    for user in ("u_z@x.org", "u_a@x.org", "u_z@x.org"):
        await store.moderators.put(lobby.id, user, by="u_o@x.org", now_ms=1)
    assert await store.moderators.of(lobby.id) == ["u_z@x.org", "u_a@x.org"]
    assert await store.moderators.of(other.id) == []
    assert await store.moderators.remove(lobby.id, "u_z@x.org")
    assert not await store.moderators.remove(lobby.id, "u_z@x.org")
    assert await store.moderators.of(lobby.id) == ["u_a@x.org"]


async def test_they_go_with_their_instance(store: Store) -> None:
    lobby = await make(store, "lobby")
    await store.moderators.put(lobby.id, "u_a@x.org", by="u_o@x.org", now_ms=1)
    await store.instances.delete(lobby.id)
    assert await store.moderators.of(lobby.id) == []
    with pytest.raises(InstanceNotFound):
        await store.moderators.put(lobby.id, "u_a@x.org", by="u_o@x.org", now_ms=1)


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


async def test_deeds_are_done_in_order_and_can_be_repeated(store: Store) -> None:
    lobby = await make(store, "lobby")
    ban = Ban(lobby.id, "u_x@x.org", None, "spam", "u_o@x.org", 1)
    mute = MuteRecord(lobby.id, "u_x@x.org", 9, None, "u_o@x.org", 1)
    moderation_writes: list[ModerationWrite] = [
        ban,
        LiftBan(lobby.id, ban.user),
        ban,
        ModeratorAddition(lobby.id, "u_m@x.org", ban.by, 2),
        ModeratorAddition(lobby.id, "u_n@x.org", ban.by, 2),
        ModeratorRemoval(lobby.id, "u_m@x.org"),
        mute,
        LiftMute(lobby.id, mute.user),
        mute,
        Moderation(lobby.id, "u_o", "ban", ban.user, ban.by, "spam", None, 1),
    ]
    for _ in range(2):
        assert await store.moderation_writes.write(moderation_writes) == {}
        assert await store.bans.of(lobby.id) == [ban]
        assert await store.mutes.of(lobby.id) == [mute]
        assert await store.moderators.of(lobby.id) == ["u_n@x.org"]
        assert (await store.moderations.of(lobby.id, owner=None, limit=9, offset=0)).total == 1


async def test_one_that_can_not_be_written_takes_none_along(store: Store) -> None:
    lobby = await make(store, "lobby")
    ban = Ban(lobby.id, "u_x@x.org", None, None, "u_o@x.org", 1)
    lost = Ban("i_none", "u_x@x.org", None, None, "u_o@x.org", 1)
    refused = await store.moderation_writes.write(
        [lost, ban, ModeratorAddition("i_none", "u_x@x.org", "u_o", 1)]
    )
    assert {place: type(why) for place, why in refused.items()} == {
        0: InstanceNotFound,
        2: InstanceNotFound,
    }
    assert await store.bans.of(lobby.id) == [ban]
    assert await store.bans.of("i_none") == []


async def test_nothing_of_an_instance_that_is_gone_succeeds_and_the_log_has_it(
    store: Store,
) -> None:
    lobby = await make(store, "lobby")
    log = Moderation(lobby.id, "u_o", "ban", "u_x@x.org", "u_o@x.org", "spam", None, 1)
    gone: list[ModerationWrite] = [
        Ban(lobby.id, "u_x@x.org", None, "spam", "u_o@x.org", 1),
        LiftBan(lobby.id, "u_x@x.org"),
        ModeratorAddition(lobby.id, "u_x@x.org", "u_o", 1),
        ModeratorRemoval(lobby.id, "u_x@x.org"),
        log,
    ]
    await store.instances.delete(lobby.id)
    refused = await store.moderation_writes.write(gone)
    assert [type(refused[place]) for place in range(5)] == [InstanceNotFound] * 5
    page = await store.moderations.of(lobby.id, owner=None, limit=9, offset=0)
    assert page.items == (log,)


async def test_an_instance_is_not_deleted_before_what_was_written_is_durable(
    store: Store,
) -> None:
    """The deletion waits for the transaction, or comes first: no ban is acknowledged and lost."""
    lobby = await make(store, "lobby")
    ban = Ban(lobby.id, "u_x@x.org", None, None, "u_o@x.org", 1)
    refused: dict[int, ReiletaError] = {}

    async def write() -> None:
        refused.update(await store.moderation_writes.write([ban]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(store.instances.delete, lobby.id)
    assert not refused or isinstance(refused[0], InstanceNotFound)
    assert await store.bans.of(lobby.id) == []
