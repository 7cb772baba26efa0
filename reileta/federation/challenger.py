"""Our tokens at other servers: got by challenges, kept encrypted, and renewed in time.

One challenge at a time is under way for a server, whoever asks. A token is renewed after two thirds
of its life; the old one stays valid there until its own end.
"""

from __future__ import annotations

import copy
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from reileta.clock import Clock
from reileta.errors import (
    ChallengeRefused,
    DatabaseUnavailable,
    MalformedData,
    NoData,
    NoResponse,
    Overloaded,
    ReiletaError,
)
from reileta.federation.discovery import PATH, Discovery, discovered
from reileta.federation.new_servers import NewServers
from reileta.federation.peers import PeerAnswer, Peers
from reileta.federation.pinning import PeerNews, pin
from reileta.federation.sealing import Sealing
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.records import PeerToken
from reileta.store import Store
from reileta.store.servers import Servers

CHALLENGES_PATH: Final = "/api/challenges"
RENEW_S: Final = 60.0
"""Seconds between looks for tokens that must be renewed."""
RENEWED_AT_ONCE: Final = 4
REFRESH_MS: Final = 24 * 3600 * 1000
"""Time after which what a server says of itself is read again."""
SECRET_BYTES: Final = 32
"""256 random bits, for the id and the nonce of a challenge."""
LIFETIME_LIMIT_MS: Final = 400 * 24 * 3600 * 1000
"""Longest life that this server believes of a token."""
FLIGHTS: Final = 256
"""Servers to which a challenge is under way at most. Further ones get Overloaded."""
_TOKEN: Final = re.compile(r"sa_[A-Za-z0-9._~+/-]{16,256}=*")
_TOKEN_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._~-]{0,127}")
_REFUSED: Final = frozenset({110, 135})


class _Issued(msgspec.Struct):
    id: str
    token: str
    expires_at: int


@dataclass(slots=True)
class _Flight:
    """A challenge that is under way. If its task was cancelled, it ends with neither."""

    done: trio.Event = field(default_factory=trio.Event)
    token: str | None = None
    error: ReiletaError | None = None


class Challenger:
    """Gets and keeps tokens of other servers, for `Peers`. `address` is this server's own."""

    def __init__(
        self,
        *,
        address: str,
        peers: Peers,
        secure: Callable[[str], bool],
        store: Store,
        clock: Clock,
        sealing: Callable[[], Sealing],
        activity: ActivityLog,
        news: PeerNews,
        new_servers: NewServers,
    ) -> None:
        self._address = address
        self._peers = peers
        self._secure = secure
        self._store = store
        self._clock = clock
        self._sealing = sealing
        self._activity = activity
        self._news = news
        self._new_servers = new_servers
        self._flights: dict[str, _Flight] = {}

    async def known(self, server: str) -> str | None:
        """Our token at that server, if we have one that is valid."""
        kept = await self._store.servers.peer_token(server)
        return None if kept is None else self._opened(kept)

    async def obtain(self, server: str) -> str:
        """Our token at that server, by a challenge if we have none.

        Raises ChallengeRefused, RemoteError, ServerBlocked, and Overloaded.
        """
        token = await self.known(server)
        return await self._share(server, fresh=False) if token is None else token

    async def rejected(self, server: str, token: str) -> None:
        """The server does not accept that token, so it is forgotten."""
        kept = await self._store.servers.peer_token(server)
        if kept is not None and self._opened(kept) == token:
            await self._store.servers.drop_peer_token(server, kept.id)
            self._activity.note(log_events.PEER_TOKEN_REJECTED, server, server=server)

    async def challenge(self, server: str) -> str:
        """A new token, by a challenge, also if there is one. Raises as `obtain`."""
        return await self._share(server, fresh=True)

    async def _share(self, server: str, *, fresh: bool) -> str:
        """The token of the challenge that is under way, or of one of its own."""
        while True:
            flight = self._flights.get(server)
            if flight is None:
                return await self._lead(server, fresh=fresh)
            await flight.done.wait()
            if flight.error is not None:
                raise copy.copy(flight.error)
            if flight.token is not None:
                return flight.token

    async def refresh(self, server: str) -> None:
        """Reads again what a server says of itself. Raises ChallengeRefused if its key changed, and
        RemoteError."""
        await self._discover(server)

    async def renew(self) -> None:
        """Renews the tokens that are due, and reads again what their servers say of themselves once
        a day. To be called every `RENEW_S`."""
        now = self._clock.now_ms()
        jobs: list[tuple[Callable[[str], Awaitable[object]], str]] = []
        for kept in await self._store.servers.peer_tokens():
            if kept.expires_at <= now:
                await self._store.servers.drop_peer_token(kept.server, kept.id)
            elif now >= renewal_at(kept):
                jobs.append((self.challenge, kept.server))
        renewed = {server for _, server in jobs}
        stale = await self._store.servers.stale(now - REFRESH_MS)
        jobs += [(self.refresh, server) for server in stale if server not in renewed]
        limiter = trio.CapacityLimiter(RENEWED_AT_ONCE)

        async def work(job: Callable[[str], Awaitable[object]], server: str) -> None:
            async with limiter:
                try:
                    await job(server)
                except DatabaseUnavailable:
                    return  # the next time
                except ReiletaError:
                    return  # `_lead` has logged it; `Peers` leaves the server alone for a while

        async with trio.open_nursery() as nursery:
            for job, server in jobs:
                nursery.start_soon(work, job, server)

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"challenges_out": len(self._flights)}

    async def _lead(self, server: str, *, fresh: bool) -> str:
        if len(self._flights) >= FLIGHTS:
            raise Overloaded
        flight = self._flights[server] = _Flight()
        try:
            # A challenge may have ended since the caller looked.
            flight.token = None if fresh else await self.known(server)
            if flight.token is None:
                flight.token = await self._challenge(server)
                self._activity.note(log_events.PEER_TOKEN_OBTAINED, server, server=server)
        except ReiletaError as error:
            flight.error = error
            self._activity.note(
                log_events.PEER_TOKEN_REFUSED,
                server,
                server=server,
                code=error.code,
                cause=getattr(error, "cause", None) or None,
            )
            raise
        finally:
            del self._flights[server]
            flight.done.set()
        return flight.token

    async def _challenge(self, server: str) -> str:
        await self._discover(server)
        id_, nonce = secrets.token_urlsafe(SECRET_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        await self._store.challenges.begin(id_, server, nonce)
        started = self._clock.now_ms()
        body = {"server": self._address, "id": id_, "nonce": nonce}
        try:
            answer = await self._peers.ask("PUT", server, CHALLENGES_PATH, body=body, token="never")  # noqa: S106
        finally:
            # Whatever came of it, nobody may fetch it any more.
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await self._store.challenges.end(id_)
        issued = _issued(answer)
        now = self._clock.now_ms()
        if not now < issued.expires_at <= now + LIFETIME_LIMIT_MS:
            raise MalformedData(cause="challenge: expires_at is not a time to come")
        self._peers.ensure_allowed(server)  # a rule may have changed meanwhile
        sealed = self._sealing().seal(issued.token, server)
        await self._store.servers.keep_peer_token(
            PeerToken(server, issued.id, sealed, started, issued.expires_at)
        )
        return issued.token

    async def _discover(self, server: str) -> Discovery:
        """What the server says of itself now; its key is pinned. Raises ChallengeRefused if an
        admin has to accept its key."""
        answer = await self._peers.ask("GET", server, PATH, token="never")  # noqa: S106
        if answer.data is None:
            if answer.unknown_path:
                raise NoData.field("server", f"has no {PATH}: its version is too old")
            raise NoResponse(cause=f"discovery: status {answer.status}")
        secure = self._secure(server)
        found = discovered(answer.data, server, secure=secure)
        async with self._store.database.transaction() as transaction:
            servers = Servers(transaction, self._clock)
            pinned = await pin(
                servers, found, self._clock, secure=secure, admit=self._new_servers.admit
            )
        self._news.told(pinned)
        if pinned.refused:
            raise ChallengeRefused
        return found

    def _opened(self, kept: PeerToken) -> str | None:
        """The token; None if it was encrypted with another key of this server."""
        return self._sealing().open(kept.sealed, kept.server)


def renewal_at(token: PeerToken) -> int:
    """When a token is renewed (ms): after two thirds of its life."""
    return token.issued_at + (token.expires_at - token.issued_at) * 2 // 3


def _issued(answer: PeerAnswer) -> _Issued:
    """The token of an answer. Raises ChallengeRefused, NoResponse, NoData and MalformedData."""
    if answer.error is not None:
        if answer.unknown_path:
            raise NoData.field("server", f"has no {CHALLENGES_PATH}: its version is too old")
        if answer.status < 500 and answer.status != 429:
            raise ChallengeRefused
        raise NoResponse(cause=f"challenge: status {answer.status}, code {answer.error.code}")
    issued: _Issued = answer.into(_Issued)
    if _TOKEN.fullmatch(issued.token) is None or _TOKEN_ID.fullmatch(issued.id) is None:
        raise MalformedData(cause="challenge: not a token")
    return issued
