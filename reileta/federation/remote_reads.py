"""Reads of other servers' objects, with a cache that all users of this server share.

Another server shows its objects to this server, not to one of its users. So one answer is right for
all users, and may be cached: an object for `FOUND_S`, that there is none for `MISSING_S`. Nothing
else is cached. Equal requests that come meanwhile wait for the first one's answer.

`Peers` bounds the requests to one server, and refuses them at once while a server does not answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Protocol, TypeAlias

import msgspec
import trio

from reileta.bounded_cache import BoundedCache
from reileta.clock import Clock
from reileta.errors import (
    ChallengeRefused,
    InvalidInput,
    NoData,
    NoResponse,
    NotFound,
    ReiletaError,
    RemoteError,
    TooManyRequests,
)
from reileta.federation.peers import Method, PeerAnswer, PeerError
from reileta.observability.activity_log import ActivityLog
from reileta.observability.log_events import REMOTE_ANSWER_REFUSED, REMOTE_OBJECTS_LEFT_OUT
from reileta.observability.metrics import Metrics
from reileta.rules.federation.remote_objects import Question, Source, read
from reileta.rules.ratelimit import Rate, RateLimiter

Query: TypeAlias = Sequence[tuple[str, str]]

LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Limit of the cache; beyond it, the least recently used answers are dropped."""
FOUND_S: Final = 60.0
"""Seconds for which an answer is cached."""
MISSING_S: Final = 10.0
"""Seconds for which it is cached that there is no such object."""
PEER: Final = Rate(per_s=10, burst=10)
"""Requests to one server, for all users together. Answers from the cache don't count."""
AT_ONCE_BYTES: Final = 16 * 1024
"""Larger answers are checked in a thread: the worst of 1 MiB takes 65 ms."""
THREADS: Final = 2
_ENTRY_BYTES: Final = 512
"""Estimated overhead of an entry."""
TOO_MANY: Final = 429
FAILED: Final = 500
"""The first status of a server that failed."""
CODES: Final = 1000
"""Error codes from here on are not shown."""


class AskedPeers(Protocol):
    """Requests to other servers (`reileta/federation/peers.py`)."""

    async def ask(
        self, method: Method, server: str, path: str, *, query: Query = (), via: bool = False
    ) -> PeerAnswer: ...

    def asking(self, user: str) -> AbstractAsyncContextManager[None]: ...

    def ensure_allowed(self, server: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RemoteData:
    """The `data` of an answer, checked and encoded anew, and its entity tag."""

    raw: msgspec.Raw
    tag: str

    @classmethod
    def of(cls, body: bytes) -> RemoteData:
        """Computes the tag of an encoded body."""
        return cls(msgspec.Raw(body), blake2b(body, digest_size=12).hexdigest())


@dataclass(frozen=True, slots=True)
class Read:
    """A read of another server.

    Attributes:
        server: its canonical address.
        path: the path there, quoted.
        query: the query there, in any order, without credentials.
        question: what the answer must be.
        errors: the errors of the other server that are passed on, by their codes.
    """

    server: str
    path: str
    question: Question
    query: Query = ()
    errors: Mapping[int, type[ReiletaError]] = field(default_factory=dict)

    @property
    def key(self) -> _Key:
        return (self.server, self.path, tuple(sorted(self.query)))


_Key: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]
_Outcome: TypeAlias = RemoteData | ReiletaError


@dataclass(slots=True)
class _Flight:
    """A request that is under way. `outcome` is None if its requester went away."""

    done: trio.Event = field(default_factory=trio.Event)
    outcome: _Outcome | None = None


class RemoteReads:
    """Reads and caches objects of other servers.

    Args:
        source: what is known of a server, by its address.
        existing: of these ids of this server's users and worlds, those that exist.
        limited: whether rate limits are on.
    """

    def __init__(
        self,
        peers: AskedPeers,
        *,
        address: str,
        source: Callable[[str], Awaitable[Source]],
        existing: Callable[[Set[str]], Awaitable[Set[str]]],
        clock: Clock,
        metrics: Metrics,
        activity: ActivityLog,
        limited: bool = True,
    ) -> None:
        self._peers = peers
        self._address = address
        self.source = source
        self._existing = existing
        self._clock = clock
        self._metrics = metrics
        self._activity = activity
        self._rates = RateLimiter(PEER, keys=1_000) if limited else None
        self._cache: BoundedCache[RemoteData | type[ReiletaError]] = BoundedCache(
            LIMIT_BYTES, FOUND_S, self._monotonic
        )
        self._threads = trio.CapacityLimiter(THREADS)
        self._flights: dict[_Key, _Flight] = {}
        self._epoch = 0
        """Grows when objects are dropped: an answer that was asked for before is not cached."""

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"remote_flights": len(self._flights)}

    @property
    def held_bytes(self) -> int:
        """The size of the cached answers."""
        return self._cache.held_bytes

    async def read(self, wanted: Read, user: str) -> RemoteData:
        """The object or list, for a user of this server.

        Raises:
            ServerBlocked: a rule or a setting of this server excludes the other one.
            RemoteError: one of 6 to 11, with details if the answer is wrong.
            TooManyRequests: this server asks the other one too often.
            Overloaded: too many requests to the other server, or of this user, wait.
            ReiletaError: one of `wanted.errors`, as the other server answered.
        """
        key = wanted.key
        while True:
            found = self._cached(key, wanted)
            if found is not None:
                return found
            flight = self._flights.get(key)
            if flight is None:
                # The user's turn comes before the request that others may share, so that nobody
                # waits in this user's line.
                async with self._peers.asking(user):
                    found = self._cached(key, wanted)
                    if found is not None:
                        return found
                    if key not in self._flights:
                        return await self._fly(key, wanted)
                continue
            await flight.done.wait()
            match flight.outcome:
                case RemoteData():
                    self._metrics.remote_reads["shared"] += 1
                    return flight.outcome
                case ReiletaError():
                    raise flight.outcome
                case None:
                    continue  # its requester went away: the next one asks

    def _cached(self, key: _Key, wanted: Read) -> RemoteData | None:
        """The cached object, or None. Raises ServerBlocked, and the cached error."""
        self._peers.ensure_allowed(wanted.server)
        cached = self._cache.get(key, 0)
        if cached is None:
            return None
        self._metrics.remote_reads["cached"] += 1
        if isinstance(cached, RemoteData):
            return cached
        raise cached

    async def server_blocked(self, blocked: Callable[[str], bool]) -> None:
        """Drops the objects of the blocked servers."""
        self._epoch += 1
        self._cache.drop(lambda key: blocked(key[0]))

    async def _fly(self, key: _Key, wanted: Read) -> RemoteData:
        flight = self._flights[key] = _Flight()
        try:
            data = await self._fetch(key, wanted)
        except ReiletaError as error:
            flight.outcome = error
            raise
        else:
            flight.outcome = data
            return data
        finally:
            del self._flights[key]
            flight.done.set()

    async def _fetch(self, key: _Key, wanted: Read) -> RemoteData:
        self._count(wanted.server)
        epoch = self._epoch
        try:
            data = await self._ask(wanted)
        except NotFound as error:
            self._metrics.remote_reads["missing"] += 1
            if epoch == self._epoch:
                self._cache.put(key, 0, type(error), _size(key), ttl_s=MISSING_S)
            raise
        except RemoteError as error:
            self._metrics.remote_reads["failed"] += 1
            if not isinstance(error, NoResponse):  # `Peers` logs these
                self._activity.note(
                    REMOTE_ANSWER_REFUSED,
                    wanted.server,
                    server=wanted.server,
                    code=error.code,
                    fields=[detail.field for detail in error.details],
                )
            raise
        self._metrics.remote_reads["fetched"] += 1
        # The server may have been blocked meanwhile.
        self._peers.ensure_allowed(wanted.server)
        if epoch == self._epoch:
            self._cache.put(key, 0, data, len(bytes(data.raw)) + _size(key))
        return data

    async def _ask(self, wanted: Read) -> RemoteData:
        source = await self.source(wanted.server)
        try:
            reply = await self._peers.ask(
                "GET", wanted.server, wanted.path, query=wanted.query, via=True
            )
        except ChallengeRefused:  # our token has ended there, and it issues no other
            raise NoData.field("server", "does not accept this server") from None
        if reply.error is not None:
            raise _refusal(reply.status, reply.error, wanted.errors)
        if reply.data is None:
            raise NoData
        work = (bytes(reply.data), wanted.question, source, self._address)
        if len(work[0]) <= AT_ONCE_BYTES:
            answer = read(*work)
        else:
            answer = await trio.to_thread.run_sync(read, *work, limiter=self._threads)
        ours = answer.ours
        view = answer.without(ours - await self._existing(ours) if ours else ours)
        if answer.left_out:
            self._activity.note(
                REMOTE_OBJECTS_LEFT_OUT,
                wanted.server,
                server=wanted.server,
                objects=answer.left_out,
            )
        return RemoteData.of(msgspec.json.encode(view))

    def _count(self, server: str) -> None:
        if self._rates is not None:
            wait_s = self._rates.take(server, self._monotonic())
            if wait_s > 0:
                raise TooManyRequests(wait_s)

    def _monotonic(self) -> float:
        return self._clock.steady_ms() / 1000


def _refusal(
    status: int, error: PeerError, passed: Mapping[int, type[ReiletaError]]
) -> ReiletaError:
    """The error for the requester. Most errors are about this server, and not about its user: error
    3 there does not mean that the user is not logged in here."""
    if status == TOO_MANY or status >= FAILED:
        return NoResponse(cause=f"status {status}")
    known = passed.get(error.code)
    if known is not None and issubclass(known, NotFound):
        return known()
    if known is not None and issubclass(known, InvalidInput):
        return known.field("server", "does not accept this query")
    code = f" with error {error.code}" if 0 < error.code < CODES else ""
    return NoData.field("server", f"refuses this request{code}")


def _size(key: _Key) -> int:
    server, path, query = key
    return _ENTRY_BYTES + len(server) + len(path) + sum(len(a) + len(b) for a, b in query)
