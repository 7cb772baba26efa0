"""Visits: tokens that other servers issue to users of this one, on this server's word.

A visit ends with the session that asked for it. Then the other server is asked to revoke the token.
What is to be revoked is in the database (a trigger marks it), so neither a restart nor an outage
forgets it. A server that can't be reached is asked again for an hour; then the token has expired by
itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Final

import structlog
import trio
from msgspec import Meta, Struct

from reileta.clock import Clock
from reileta.errors import (
    BadData,
    ChallengeRefused,
    DatabaseUnavailable,
    GuestNotAllowed,
    IntegrityInvalid,
    MalformedData,
    NoData,
    Overloaded,
    ReiletaError,
    ServerBlocked,
    ServerNotKnown,
    TooManyRequests,
)
from reileta.federation.client import path_of
from reileta.federation.peers import PeerError, Peers
from reileta.ids import At, at
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.protocol.views.registry import user_thumbnail
from reileta.records import User, Visit
from reileta.rules.federation.addresses import canonical, same_server
from reileta.site import Site
from reileta.store import Store

FOLLOWS_LIMIT: Final = 1000
"""Followed users that are named to another server; the earliest, if there are more."""
VISIT_LIMIT_MS: Final = 24 * 3_600_000
"""How long a token of another server may be valid: what it says beyond that is cut."""
REVOKE_S: Final = 1.0
"""Seconds between two looks at what is to be revoked."""
AWAY_S: Final = 10.0
"""Seconds between two looks whether any user has a token of another server. While none has, there
is nothing to revoke. A look costs a large room two or three milliseconds."""
AT_ONCE: Final = 50
"""Visits at a server that one look takes."""
SERVERS: Final = 1000
"""Servers that one look takes."""
UNDER_WAY: Final = 4096
"""Servers that are asked, or wait for their turn. Further ones wait in the database."""
PROMPT_TURNS: Final = 32
"""Servers that are asked at the same time, of those that are not known to be slow."""
PROMPT_S: Final = 2.0
"""Seconds for each of them. A server that takes longer is slow from then on."""
SLOW_TURNS: Final = 8
"""Slow servers that are asked at the same time: they keep only each other waiting."""
SLOW_S: Final = 10.0
"""Seconds for each of them."""
SLOW_SERVERS: Final = 4096
"""Servers that are known to be slow; beyond, the earliest is forgotten."""
NOT_FOUND: Final = 35
"""The code of the error of a server that does not know the token: it has ended."""
_REFUSALS: Final[Mapping[int, type[ReiletaError]]] = {
    error.code: error
    for error in (
        IntegrityInvalid,
        GuestNotAllowed,
        ServerBlocked,
        TooManyRequests,
        Overloaded,
        ServerNotKnown,
        ChallengeRefused,
    )
}
"""What another server can refuse an introduction with, and the user is told."""

_log = structlog.get_logger()


class IssuedToken(Struct):
    """The other server's answer to `PUT /api/integrity`, as far as it is used."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    user: Annotated[str, Meta(max_length=512)]
    token: Annotated[str, Meta(pattern=r"^ia_[A-Za-z0-9._~+/=-]{16,512}$")]
    expires_at: Annotated[int, Meta(ge=0, le=2**53)]


@dataclass(frozen=True, slots=True)
class BegunVisit:
    """A visit, and the token for it."""

    visit: Visit
    token: str = field(repr=False)


class Visits:
    """The visits of a node's users. `address` is its `ServerAt`."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        peers: Peers,
        address: str,
        activity: ActivityLog,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._clock = clock
        self._peers = peers
        self._address = address
        self._activity = activity
        self._metrics = metrics
        self._look = trio.Event()
        self._away_until = 0.0
        """Until then, users may have tokens of other servers."""
        self._under_way: set[str] = set()
        self._slow: OrderedDict[str, None] = OrderedDict()
        self._prompt_turns = trio.CapacityLimiter(PROMPT_TURNS)
        self._slow_turns = trio.CapacityLimiter(SLOW_TURNS)

    async def begin(self, user: User, session_id: str, server: str, site: Site) -> BegunVisit:
        """Introduces a user to another server (a canonical address), which issues a token.

        The visit ends with the session. `site` is where the server finds the user's picture.

        Raises:
            ServerBlocked, ChallengeRefused, NoResponse, Overloaded: the server can't be asked.
            NoData, BadData, BadRedirect, MalformedData: it gives no valid answer.
            IntegrityInvalid, GuestNotAllowed, TooManyRequests: it refuses the user.
        """
        profile = await self._store.profiles.of(user.id)
        home = canonical(self._address)
        name = at(user.id, home)
        body: dict[str, object] = {
            "user": name,
            "displayname": user.displayname,
            "follows": [
                str(At(followed.id, server))
                for followed in map(At.parse, profile.following)
                if followed.server is not None and same_server(followed.server, server)
            ][:FOLLOWS_LIMIT],
        }
        thumbnail = user_thumbnail(user.id, profile, site)
        if thumbnail is not None:
            body["thumbnail"] = thumbnail
        async with self._peers.asking(user.id):
            answer = await self._peers.ask(
                "PUT",
                server,
                "/api/integrity",
                body=body,
                token="required",  # noqa: S106 - a way to use one
            )
        if answer.unknown_path:
            raise NoData.field("server", "takes no guests: its version is too old")
        if answer.error is not None:
            raise _refusal(answer.error)
        issued: IssuedToken = answer.into(IssuedToken)
        now = self._clock.now_ms()
        if issued.user != name or issued.expires_at <= now:
            raise MalformedData(cause="the token is for another user, or has expired")
        expires_at = min(issued.expires_at, now + VISIT_LIMIT_MS)
        visit = Visit(issued.id, server, user.id, session_id, now, expires_at)
        await self._store.guests.visit(visit)
        self.look()
        self._metrics.visits_begun += 1
        self._activity.note(log_events.VISIT_BEGUN, user.id, user=user.id, server=server)
        return BegunVisit(visit, issued.token)

    async def end(self, token_id: str, *, user_id: str | None = None) -> bool:
        """Has a visit's token revoked, if it is that user's; whether there was one."""
        ended = await self._store.guests.end_visit(token_id, user_id=user_id)
        if ended:
            self.look()
        return bool(ended)

    def look(self) -> None:
        """Something may have to be revoked: looks at once."""
        self._look.set()

    async def run(self) -> None:
        """Has tokens revoked whose visits have ended, until cancelled."""
        async with trio.open_nursery() as asking:
            while True:
                pause_s = REVOKE_S
                with suppress(DatabaseUnavailable):  # the next time
                    await self._ask_servers(asking)
                    if not await self._somebody_away():
                        pause_s = AWAY_S
                with trio.move_on_after(pause_s):
                    await self._look.wait()
                self._look = trio.Event()

    async def _somebody_away(self) -> bool:
        """Whether a user may have a token of another server."""
        now = trio.current_time()
        if now >= self._away_until and await self._store.guests.any_visit():
            self._away_until = now + AWAY_S
        return now < self._away_until or bool(self._under_way)

    async def revoke(self) -> None:
        """Asks each server once to revoke the tokens whose visits have ended. Raises
        DatabaseUnavailable."""
        async with trio.open_nursery() as asking:
            await self._ask_servers(asking)

    async def _ask_servers(self, asking: trio.Nursery) -> None:
        """Begins to ask those servers that are not being asked already. None waits for a slow one,
        or for the end of an earlier look."""
        limit = min(SERVERS, UNDER_WAY - len(self._under_way))
        if limit <= 0:
            return
        servers = await self._store.guests.servers_to_ask(limit=limit, without=self._under_way)
        for server in servers:
            self._under_way.add(server)
            asking.start_soon(self._revoke_at, server)

    async def _revoke_at(self, server: str) -> None:
        slow = server in self._slow
        try:
            async with self._slow_turns if slow else self._prompt_turns:
                began_s = trio.current_time()
                try:
                    with trio.move_on_after(SLOW_S if slow else PROMPT_S):
                        await self._revoke_all_at(server)
                except ReiletaError as error:
                    _log.debug(log_events.VISITS_POSTPONED, server=server, error=error.code)
                self._note_time(server, trio.current_time() - began_s)
        finally:
            self._under_way.discard(server)

    def _note_time(self, server: str, seconds: float) -> None:
        self._slow.pop(server, None)
        if seconds >= PROMPT_S:
            self._slow[server] = None
            if len(self._slow) > SLOW_SERVERS:
                self._slow.popitem(last=False)

    async def _revoke_all_at(self, server: str) -> None:
        """Raises ReiletaError: the server, or the database, does not do it now."""
        for visit in await self._store.guests.to_revoke(server, limit=AT_ONCE):
            answer = await self._peers.ask(
                "DELETE",
                server,
                path_of("api", "integrity", visit.id),
                token="required",  # noqa: S106 - a way to use one
                revocation=True,
            )
            if answer.error is not None and answer.error.code != NOT_FOUND:
                raise _refusal(answer.error)
            await self._store.guests.revoked([visit])
            self._metrics.visits_revoked += 1
            self._activity.note(log_events.VISIT_REVOKED, server, user=visit.user_id, server=server)


def _refusal(error: PeerError) -> ReiletaError:
    """The error that the user gets for one of another server."""
    refusal = _REFUSALS.get(error.code)
    return BadData(cause=f"error {error.code}") if refusal is None else refusal()
