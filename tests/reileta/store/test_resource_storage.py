"""Where resources stand: a host's own types, and those of before."""

from __future__ import annotations

import pytest

from reileta.errors import ResourceTypeUnknown
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import BUILT_IN, Content, ResourceType
from reileta.settings import Settings
from reileta.store import open_store
from tests.conftest import ManualClock
from tests.reileta.store.sessions import FOR_EVER, make_session


class Playlist(ResourceType):
    name = "playlist"


async def test_a_hosts_own_type_is_kept_like_documents(
    database_url: str, clock: ManualClock
) -> None:
    settings = Settings(database=database_url)
    async with open_store(settings, clock, types=BUILT_IN.extended(Playlist())) as store:
        session, who = await make_session(store)
        made = await store.resources.create("playlist", who, Content("Mine", ["a"]))
        name = ResourceKey("playlist", made.number)
        held = await store.leases.acquire(name, who, until=FOR_EVER)
        await store.resources.write(name, who, fence=held.fence, patch={"data": []}, if_version=1)
        assert await store.leases.of_session(session.id) is not None
        documents = await store.resources.search("document", who, query=None, limit=9, offset=0)
        assert documents.total == 0
    async with open_store(settings, clock) as store:  # whose host has dropped the type
        with pytest.raises(ResourceTypeUnknown):
            await store.resources.get(name)
        assert await store.leases.of_session(session.id) is None
        await store.sessions.end(session.id)
