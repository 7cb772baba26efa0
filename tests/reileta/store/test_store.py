from __future__ import annotations

from pathlib import Path

from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import BUILT_IN, Content, Document
from reileta.settings import Settings
from reileta.store import open_store
from tests.conftest import ManualClock


class Playlist(Document):
    name = "playlist"


async def test_a_hosts_own_type_is_kept_like_a_document(
    database_url: str, clock: ManualClock, tmp_path: Path
) -> None:
    settings = Settings(database=database_url, data=tmp_path)
    async with open_store(settings, clock, types=BUILT_IN.extended(Playlist())) as store:
        user = await store.users.create(username="ada", displayname="Ada", password_hash=None)
        session = await store.sessions.open(user.id)
        who = Claimant(session.id, user.id)
        made = await store.resources.create("playlist", who, Content("Songs", ["one"]))
        held = await store.leases.acquire(ResourceKey("playlist", made.number), who, until=2**60)
        assert (held.resource.type, held.resource.data) == ("playlist", ["one"])
