"""What a node asks the database, where nobody has a profile, a state or a resource."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import trio

from reileta.errors import DatabaseUnavailable
from reileta.records import NO_PROFILE, Asset, HeldResource, Image, Profile, Token, World
from reileta.rules.visibility import Audience, of_world
from reileta.store.leases import LostLease
from reileta.store.soft_states import LiveSession, Run, SoftPart


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


class FakeSoftStates:
    """`store.soft_states`. All sessions that a test has named in `ended` have ended."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, int], SoftPart] = {}
        self.run = 0
        self.away_ms = 0
        self.ended: set[str] = set()
        self.away = False
        """Whether the database does not answer."""
        self.gate: trio.Event | None = None
        """Writes wait for this event; None: they don't wait."""
        self.writes: list[int] = []
        """The number of parts of each write."""

    async def reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise DatabaseUnavailable

    async def begin_run(self) -> Run:
        await self.reach()
        self.run += 1
        return Run(self.run, self.away_ms)

    async def note_alive(self) -> None:
        await self.reach()

    async def read_all(self) -> list[SoftPart]:
        await self.reach()
        return list(self.parts.values())

    async def read(self, instance: str, part: int) -> SoftPart | None:
        await self.reach()
        return self.parts.get((instance, part))

    async def write(self, parts: Sequence[SoftPart]) -> dict[tuple[str, int], int]:
        await self.reach()
        if self.gate is not None:
            await self.gate.wait()
            await self.reach()
        self.writes.append(len(parts))
        out = {}
        for one in parts:
            key = (one.instance, one.part)
            known = self.parts.get(key)
            if known is None or known.revision == one.revision:
                self.parts[key] = replace(one, revision=one.revision + 1)
                out[key] = one.revision + 1
        return out

    async def forget(self, instances: Collection[str]) -> None:
        await self.reach()
        for key in [one for one in self.parts if one[0] in instances]:
            del self.parts[key]

    async def forget_others(self, instances: Collection[str]) -> None:
        await self.forget({instance for instance, _ in self.parts} - set(instances))

    async def live_sessions(self, ids: Collection[str], now_ms: int) -> list[LiveSession]:
        await self.reach()
        return [LiveSession(id_, _user_of(id_)) for id_ in ids if id_ not in self.ended]


def _user_of(session: str) -> str:
    """The user of a session of `node_harness.principal`."""
    number = int(session.removeprefix("s_").partition(".")[0])
    return f"u_00000000-0000-4000-8000-{number:012x}"
