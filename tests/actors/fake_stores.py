"""What a node asks the database, where nobody has a profile, a state or a resource."""

from __future__ import annotations

from collections.abc import Collection

from reileta.records import NO_PROFILE, Asset, HeldResource, Image, Profile, Token, World
from reileta.rules.visibility import Audience, of_world
from reileta.store.leases import LostLease


class FakeSessions:
    """`store.states`, `.leases` and `.sessions`."""

    async def load(self, session_id: str) -> tuple[dict[str, object], int]:
        return {}, 0

    async def of_session(self, session_id: str) -> HeldResource | None:
        return None

    async def renew_all(
        self, present: Collection[str], *, as_of: int, until: int
    ) -> list[LostLease]:
        return []

    async def seen(self, ids: Collection[str]) -> None:
        pass

    async def expire_all(self) -> list[str]:
        return []


class FakeTokens:
    """`store.tokens`: sessions learn of them from their sockets."""

    async def of_session(self, session_id: str) -> list[Token]:
        return []


class FakeProfiles:
    """`store.profiles`: nobody has any."""

    async def of(self, user: str) -> Profile:
        return NO_PROFILE


class FakeGuests:
    """`store.guests`: nobody came, and nobody went elsewhere."""

    async def any_visit(self) -> bool:
        return False

    async def servers_to_ask(self, *, limit: int, without: Collection[str] = ()) -> list[str]:
        return []

    async def servers(self) -> list[str]:
        return []

    async def revoke_all(self, servers: Collection[str]) -> list[bytes]:
        return []

    async def tidy(self) -> int:
        return 0


class FakeWorlds:
    """`store.worlds`, of which none is shared."""

    def __init__(self) -> None:
        self.records: dict[str, World] = {}

    async def get(self, id_: str) -> World | None:
        return self.records.get(id_)

    async def audience(self, world: World) -> Audience:
        return of_world(world.owner, world.tags, ())


class FakeFiles:
    """`store.assets` and `store.images`, in which there is nothing."""

    async def of(self, world_id: str) -> list[Asset]:
        return []

    async def get(self, of: str, kind: str) -> Image | None:
        return None
