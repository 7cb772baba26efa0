"""All parts of the trust between servers, as one node needs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from actors.federation.servers import FederatedServers
from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable
from reileta.federation.challenger import Challenger
from reileta.federation.discovery import base_path_at
from reileta.federation.new_servers import NewServers
from reileta.federation.peers import HttpClient, Peers
from reileta.federation.pinning import PeerNews
from reileta.federation.sealing import Sealing
from reileta.federation.verifier import ChallengeVerifier
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.records import PeerServer
from reileta.rules.federation.addresses import canonical
from reileta.security.server_key import ServerKey
from reileta.settings import Settings
from reileta.store import Store


class Trust:
    """Rules about other servers, requests to them, and challenges both ways.

    Attributes:
        address: this server's own canonical address.
        servers: decides about other servers; a block acts there.
        peers: asks other servers.
        challenger: gets tokens of other servers.
        verifier: gives tokens to other servers.
        news: logs and publishes what changes about them.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        activity: ActivityLog,
        address: str,
        client: HttpClient,
        key: Callable[[], ServerKey],
        publish: Callable[[PeerServer], None],
    ) -> None:
        own = self.address = canonical(address)
        self._store = store
        self._metrics = metrics
        self.news = PeerNews(activity, publish)
        limited = settings.rate_limits == "on"
        new_servers = NewServers(clock, limited=limited)
        self.servers = FederatedServers(store, clock, settings.federation, activity, publish)
        self.peers = Peers(
            address=own,
            client=client,
            clock=clock,
            decide=self.servers.decision,
            base_path=self._base_path,
            counters=metrics,
        )
        self.challenger = Challenger(
            address=own,
            peers=self.peers,
            secure=client.secure,
            store=store,
            clock=clock,
            sealing=lambda: Sealing(key()),
            activity=activity,
            news=self.news,
            new_servers=new_servers,
        )
        self.peers.tokens = self.challenger
        self.verifier = ChallengeVerifier(
            address=own,
            client=client,
            store=store,
            clock=clock,
            decide=self.servers.decision,
            activity=activity,
            news=self.news,
            counters=metrics,
            new_servers=new_servers,
            proved=self.peers.proved,
            limited=limited,
        )

    async def _base_path(self, server: str) -> str | None:
        """Below which path the API of a known server is; None if the server is not known."""
        known = await self._store.servers.get(server)
        return None if known is None else base_path_at(known.gateway_http, server)

    async def renew(self) -> None:
        """Renews tokens that are due, and counts the servers that are known."""
        with suppress(DatabaseUnavailable):  # the next time
            async with self._store.lock.alone("peer tokens") as alone:
                if alone:
                    await self.challenger.renew()
            self._metrics.peer_servers = await self._store.servers.count()

    async def trim(self) -> None:
        """Deletes challenges and tokens that are over, and servers that were not heard of."""
        with suppress(DatabaseUnavailable):
            async with self._store.lock.alone("challenges") as alone:
                if alone:
                    await self._store.challenges.trim()
                    await self._store.servers.trim()

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            **self.peers.debug_counts(),
            **self.challenger.debug_counts(),
            **self.verifier.debug_counts(),
        }
