"""Challenges of other servers: proves who they are, and gives them a token.

The other server claims an address. This server asks that address itself: for the challenge, which
must name this server, the nonce that was sent, and a time; and for the key that signed it. So a
token goes to whoever controls the address, and is good at this server alone.

Strangers get one answer to everything that is wrong, on a grid of 250 ms. Otherwise anyone could
make this server look for open ports, and tell by the answer and the time what is there. A server
that is known also hears that it could not be reached (error 6), since that is not its mistake.

| bound | | beyond it |
|---|---|---|
| challenges from one network | `PER_NETWORK` | Overloaded |
| challenges that claim one host | `PER_HOST` | Overloaded |
| challenges under way | `UNDER_WAY` | Overloaded |
| refusals that are remembered | `REMEMBERED` | the oldest is forgotten |
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import msgspec
import trio

from reileta.clock import Clock
from reileta.errors import (
    BadData,
    ChallengeRefused,
    NoResponse,
    Overloaded,
    ReiletaError,
    RemoteError,
)
from reileta.federation.client import RemoteAnswer, path_of
from reileta.federation.discovery import PATH, Discovery, discovered
from reileta.federation.new_servers import NewServers
from reileta.federation.peers import UNREADABLE, HttpClient, parsed
from reileta.federation.pinning import PeerNews, pin
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.records import ChallengeRefusal, ServerToken
from reileta.rules.federation.addresses import canonical, host_of
from reileta.rules.federation.server_rules import Decision
from reileta.rules.federation.signatures import challenge_bytes, verify
from reileta.rules.ratelimit import Rate, RateLimiter
from reileta.security.credentials import digest, new_token
from reileta.store import Store
from reileta.store.servers import Servers

LIFETIME_MS: Final = 30 * 24 * 3600 * 1000
"""Life of a token."""
PER_NETWORK: Final = Rate(per_s=10 / 60, burst=10)
PER_HOST: Final = Rate(per_s=3 / 60, burst=3)
UNDER_WAY: Final = 16
KEYS: Final = 20_000
FETCH_S: Final = 5.0
"""Seconds for both questions to the other server together."""
FETCH_BYTES: Final = 64 * 1024
GRID_S: Final = 0.25
CLOCK_SKEW_MS: Final = 10 * 60_000
"""How far `expires_at` may be from this server's time."""
REMEMBERED: Final = 100
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""256 bits in base64url."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A challenge that another server has begun, as a request claims. `network` sent it."""

    server: str
    id: str
    nonce: str
    network: str

    def __repr__(self) -> str:
        return f"Claim({self.server!r})"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token of another server, and what is stored of it."""

    token: str
    record: ServerToken

    def __repr__(self) -> str:
        return f"Issued({self.record.id!r})"


class ChallengeCounters(Protocol):
    """Counts of challenges (`reileta/observability/metrics.py`)."""

    def challenge_answered(self, outcome: str) -> None: ...


class _Refused(Exception):
    """The challenge is refused. `absent`: the other server could not be reached."""

    def __init__(self, cause: str, *, absent: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.absent = absent


class _Challenge(msgspec.Struct):
    id: str
    server: str
    nonce: str
    expires_at: int
    signature: str


class ChallengeVerifier:
    """Answers challenges. `address` is this server's own.

    `proved` is told of each server that has proved itself. `limited`: whether the rates count; the
    number under way always does.
    """

    def __init__(
        self,
        *,
        address: str,
        client: HttpClient,
        store: Store,
        clock: Clock,
        decide: Callable[[str], Decision],
        activity: ActivityLog,
        news: PeerNews,
        counters: ChallengeCounters,
        new_servers: NewServers,
        proved: Callable[[str], None] = lambda _: None,
        limited: bool = True,
    ) -> None:
        self._address = address
        self._client = client
        self._store = store
        self._clock = clock
        self._decide = decide
        self._activity = activity
        self._news = news
        self._counters = counters
        self._new_servers = new_servers
        self._proved = proved
        self._limited = limited
        self._networks = RateLimiter(PER_NETWORK, KEYS)
        self._hosts = RateLimiter(PER_HOST, KEYS)
        self._under_way = 0
        self._refusals: deque[ChallengeRefusal] = deque(maxlen=REMEMBERED)

    @property
    def refusals(self) -> Sequence[ChallengeRefusal]:
        """The last refusals, the newest first."""
        return tuple(reversed(self._refusals))

    async def answer(self, claim: Claim) -> Issued:
        """A token for the server that begun the challenge.

        Raises:
            ChallengeRefused: anything about it is wrong.
            NoResponse: a server that is known could not be asked.
            Overloaded: there are too many challenges.
        """
        started_s = trio.current_time()
        address = _canonical(claim.server)
        self._ensure_room(claim.network, address)
        self._under_way += 1
        try:
            issued = await self._answer(claim, address)
        except _Refused as refused:
            error = await self._refusal(claim, address, refused)
        except Overloaded:  # too many new servers
            self._counters.challenge_answered("limited")
            raise
        else:
            self._proved(issued.record.server)
            self._counters.challenge_answered("accepted")
            self._activity.note(
                log_events.CHALLENGE_ACCEPTED,
                claim.network,
                server=issued.record.server,
                token=issued.record.id,
            )
            return issued
        finally:
            self._under_way -= 1
        waited_s = trio.current_time() - started_s
        await trio.sleep_until(started_s + math.ceil(waited_s / GRID_S) * GRID_S)
        raise error

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"challenges_in": self._under_way}

    def _ensure_room(self, network: str, address: str | None) -> None:
        wait_s = 1.0 if self._under_way >= UNDER_WAY else 0.0
        now_s = self._clock.steady_ms() / 1000
        if not wait_s and self._limited:
            wait_s = self._networks.take(network, now_s)
            if not wait_s and address is not None:
                wait_s = self._hosts.take(host_of(address), now_s)
        if wait_s:
            self._counters.challenge_answered("limited")
            overloaded = Overloaded()
            overloaded.retry_after_s = wait_s
            raise overloaded

    async def _refusal(self, claim: Claim, address: str | None, refused: _Refused) -> ReiletaError:
        """Logs and counts a refusal; the error that the client gets."""
        self._refusals.append(ChallengeRefusal(self._clock.now_ms(), address, refused.cause))
        self._activity.note(
            log_events.CHALLENGE_REFUSED, claim.network, server=address, cause=refused.cause
        )
        self._counters.challenge_answered("refused")
        if refused.absent and address is not None:
            known = await self._store.servers.get(address)
            if known is not None and known.public_key is not None:
                return NoResponse(cause=refused.cause)
        return ChallengeRefused()

    async def _answer(self, claim: Claim, address: str | None) -> Issued:
        if address is None:
            raise _Refused("server is not an address")
        if address == self._address:
            raise _Refused("it is this server's own address")
        if _SECRET.fullmatch(claim.id) is None or _SECRET.fullmatch(claim.nonce) is None:
            raise _Refused("id or nonce has another form")
        self._ensure_allowed(address)
        found, challenge = await self._ask(claim, address)
        self._compare(claim, address, found, challenge)
        return await self._issue(address, found, claim.network)

    def _ensure_allowed(self, address: str) -> None:
        if self._decide(address) == "block":
            raise _Refused("a rule or a setting excludes the server")

    async def _ask(self, claim: Claim, address: str) -> tuple[Discovery, _Challenge]:
        """What the server says of itself, and its challenge.

        One after the other: the first answer says where the second question goes. And both use one
        connection, so a claim of an address at which nobody is costs one attempt to connect.
        """
        secure = self._client.secure(address)
        try:
            with trio.fail_after(FETCH_S):
                found = discovered(await self._data(address, PATH), address, secure=secure)
                path = found.base_path + path_of("api", "challenges", claim.id)
                data = await self._data(address, path)
                return found, msgspec.json.decode(data, type=_Challenge)
        except trio.TooSlowError:
            raise _Refused(f"no answer within {FETCH_S:g} s", absent=True) from None
        except RemoteError as error:
            cause = error.cause or error.message
            raise _Refused(cause, absent=isinstance(error, NoResponse)) from None
        except UNREADABLE as error:
            raise _Refused(f"challenge: {error}") from None

    async def _data(self, address: str, path: str) -> msgspec.Raw:
        answer: RemoteAnswer = await self._client.request("GET", address, path)
        if len(answer.body) > FETCH_BYTES:
            raise BadData(cause=f"the body is over {FETCH_BYTES} bytes")
        read = parsed(answer)
        if read.data is None:
            if answer.status >= 500 or answer.status == 429:
                raise NoResponse(cause=f"status {answer.status}")
            raise BadData(cause=f"status {answer.status}")
        return read.data

    def _compare(self, claim: Claim, address: str, found: Discovery, challenge: _Challenge) -> None:
        """Raises _Refused unless all fields are those of the claim, and the key has signed them."""
        if challenge.id != claim.id:
            raise _Refused("challenge: another id")
        if challenge.nonce != claim.nonce:
            raise _Refused("challenge: another nonce")
        if challenge.server != self._address:
            raise _Refused("challenge: it is for another server")
        if abs(challenge.expires_at - self._clock.now_ms()) > CLOCK_SKEW_MS:
            raise _Refused("challenge: expires_at is too far from this server's time")
        signed = challenge_bytes(
            address, self._address, claim.id, claim.nonce, challenge.expires_at
        )
        if not verify(found.public_key, signed, challenge.signature):
            raise _Refused("challenge: the signature is not by the server's key")

    async def _issue(self, address: str, found: Discovery, network: str) -> Issued:
        token = new_token("sa")
        record: ServerToken | None = None
        async with self._store.database.transaction() as transaction:
            servers = Servers(transaction, self._clock)
            pinned = await pin(
                servers,
                found,
                self._clock,
                secure=self._client.secure(address),
                admit=partial(self._new_servers.admit, network=network),
            )
            if not pinned.refused:
                self._ensure_allowed(address)  # a rule may have changed meanwhile
                record = await servers.issue_token(
                    address, digest(token), self._clock.now_ms() + LIFETIME_MS
                )
        self._news.told(pinned)
        if record is None:
            raise _Refused("an admin must accept the server's key")
        return Issued(token, record)


def _canonical(text: str) -> str | None:
    try:
        return canonical(text)
    except ValueError:
        return None
