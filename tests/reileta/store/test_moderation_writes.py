from __future__ import annotations

from reileta.errors import InstanceNotFound
from reileta.records import (
    Ban,
    LiftBan,
    Moderation,
    ModerationWrite,
    ModeratorAddition,
    ModeratorRemoval,
)
from reileta.store import Store
from tests.reileta.store.test_instances import make


async def test_deeds_are_done_in_order_and_can_be_repeated(store: Store) -> None:
    lobby = await make(store, "lobby")
    ban = Ban(lobby.id, "u_x@x.org", None, "spam", "u_o@x.org", 1)
    moderation_writes: list[ModerationWrite] = [
        ban,
        LiftBan(lobby.id, ban.user),
        ban,
        ModeratorAddition(lobby.id, "u_m@x.org", ban.by, 2),
        ModeratorAddition(lobby.id, "u_n@x.org", ban.by, 2),
        ModeratorRemoval(lobby.id, "u_m@x.org"),
        Moderation(lobby.id, "u_o", "ban", ban.user, ban.by, "spam", None, 1),
    ]
    for _ in range(2):
        assert await store.moderation_writes.write(moderation_writes) == {}
        assert await store.bans.of(lobby.id) == [ban]
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
