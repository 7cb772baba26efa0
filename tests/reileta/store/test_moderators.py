from __future__ import annotations

import pytest

from reileta.errors import InstanceNotFound
from reileta.store import Store
from tests.reileta.store.test_instances import make


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
