"""The keys of other servers: pinned at first use, and changed only by their own chain or an admin.

The key of a server that is not known yet is pinned. It may change by itself only through an
unbroken chain of signatures from the pinned key. Any other key waits for an admin, and changes
nothing else: the tokens that the server has stay valid, since it proved the pinned key for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reileta.clock import Clock
from reileta.federation.discovery import Discovery
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.records import PeerServer
from reileta.rules.federation.addresses import host_of
from reileta.store.servers import Servers

Verdict: TypeAlias = Literal["pinned", "same", "rotated", "accepted", "offered", "waiting"]
"""`pinned`: first use. `rotated`: the new key follows from the pinned one. `accepted`: the server
uses its pinned key again, or the key that an admin accepted. `offered`, `waiting`: an admin must
accept the key, which is new, or was offered before."""
REFUSED = ("offered", "waiting")


@dataclass(frozen=True, slots=True)
class Pinned:
    """What became of a server's key."""

    verdict: Verdict
    server: PeerServer | None

    @property
    def refused(self) -> bool:
        return self.verdict in REFUSED


async def pin(
    servers: Servers,
    found: Discovery,
    clock: Clock,
    *,
    secure: bool,
    admit: Callable[[str], None] | None = None,
) -> Pinned:
    """Compares a server's key with the pinned one, and stores what the server says of itself if the
    key may be used. Call it in a transaction, and commit it in any case.

    `admit` is called with the address of a server that is new, and may raise Overloaded.

    Raises Overloaded if too many servers are known already.
    """
    known = await servers.lock(
        found.address, host=host_of(found.address), secure=secure, admit=admit
    )
    if not found.follows(known.public_key):
        fresh = await servers.offer_key(found.address, found.public_key)
        return Pinned("offered" if fresh else "waiting", await servers.get(found.address))
    verdict: Verdict = "same"
    since = known.key_since
    if known.public_key != found.public_key or since is None:
        verdict, since = "pinned" if known.public_key is None else "rotated", clock.now_ms()
    elif known.state == "pending":
        verdict = "accepted"
    stored = await servers.learn(
        found.address,
        host=known.host,
        secure=secure,
        public_key=found.public_key,
        key_since=since,
        gateway_http=found.gateway_http,
        gateway_ws=found.gateway_ws,
        version=found.version,
    )
    return Pinned(verdict, stored)


class PeerNews:
    """Logs and publishes changes of what is known of other servers.

    `publish` gets each server that has changed.
    """

    def __init__(self, activity: ActivityLog, publish: Callable[[PeerServer], None]) -> None:
        self._activity = activity
        self._publish = publish

    def told(self, pinned: Pinned) -> None:
        """A server's key was compared."""
        server = pinned.server
        if server is None or pinned.verdict in ("same", "waiting"):
            return
        if pinned.verdict == "pinned":
            self._activity.note(log_events.PEER_KNOWN, server.host, server=server.address)
        elif pinned.verdict == "offered":
            self._activity.note(
                log_events.PEER_KEY_OFFERED,
                server.host,
                server=server.address,
                key=server.offered_key,
            )
        else:
            self._activity.note(
                log_events.PEER_KEY_CHANGED,
                server.host,
                server=server.address,
                key=server.public_key,
            )
        self._publish(server)

    def accepted(self, server: PeerServer, by: str) -> None:
        """An admin accepted a key."""
        self._activity.note(
            log_events.PEER_KEY_CHANGED,
            None,
            server=server.address,
            key=server.public_key,
            by=by,
        )
        self._publish(server)
