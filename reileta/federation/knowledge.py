"""What the database knows of other servers, and of this server's objects that they name."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from reileta.federation.peers import Peers
from reileta.rules.federation.remote_objects import Source
from reileta.store import Store


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Answers from the store."""

    store: Store
    peers: Peers

    async def source(self, server: str) -> Source:
        """Where the URLs of a server may point: to its address, and to the gateways that it named
        when it became known."""
        known = await self.store.servers.get(server)
        secure = self.peers.secure(server)
        if known is None:
            return Source(server, secure)
        return Source(server, secure, http=known.gateway_http, ws=known.gateway_ws)

    async def existing(self, ids: Set[str]) -> Set[str]:
        """Those of these ids that users and worlds of this server have."""
        worlds = {id_ for id_ in ids if id_.startswith("w_")}
        found: set[str] = set()
        if worlds:
            found |= await self.store.worlds.existing(worlds)
        if ids - worlds:
            found |= (await self.store.users.many(ids - worlds)).keys()
        return found
