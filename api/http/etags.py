"""Entity tags and a cache of encoded answers.

An operation that only reads the database and live instances is declared with `Cached`. Its `data`
is encoded once, and cached until one of its tables, an occupancy or a user's presence changes.
Entries are per user. The entity tag is the hash of `data`. It is weak, because `request` and `time`
in the envelope differ in every answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from msgspec import Raw
from msgspec.json import Encoder
from werkzeug.http import parse_etags

from actors.node import Node
from reileta.bounded_cache import BoundedCache
from reileta.records import User
from reileta.rules.identity import Principal
from reileta.store.read_cache import TTL_S

LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Limit of the cache."""
_ENTRY_BYTES: Final = 512
"""Estimated overhead of an entry."""

_SHARED: Final = ((b"cache-control", b"no-cache"),)
_PRIVATE: Final = (
    (b"cache-control", b"private, no-cache"),
    (b"vary", b"Authorization, Cookie"),
)

_encode = Encoder().encode


@dataclass(frozen=True, slots=True)
class Cached:
    """The sources of an operation's answer, apart from path, query and caller.

    Attributes:
        tables: tables of the database.
        live: whether it also shows occupancies of instances or the presence of users.
    """

    tables: tuple[str, ...]
    live: bool = False

    def generation(self, node: Node) -> int | None:
        """A number that grows when one of the sources or the server's key changes; None while it
        is unknown."""
        generation = node.store.database.generation(self.tables)
        if generation is None:
            return None
        generation += node.server.revision
        return generation + node.directory.version if self.live else generation


@dataclass(frozen=True, slots=True)
class Unkept:
    """What a handler returns if its answer depends on more than its `Cached` names: it gets an
    entity tag, and is made anew for each request."""

    data: object


@dataclass(frozen=True, slots=True)
class Data:
    """The encoded `data` of an answer, its entity tag, and the user it was made for."""

    raw: Raw
    tag: str
    user: User | None = None

    @classmethod
    def of(cls, body: bytes, user: User | None = None) -> Data:
        """Computes the tag of an encoded body."""
        return cls(Raw(body), blake2b(body, digest_size=12).hexdigest(), user)

    def headers(self, *, private: bool) -> list[tuple[bytes, bytes]]:
        """The headers for caches: the entity tag, `no-cache` (ask again before each use), and
        `private` for answers that depend on the caller."""
        return [(b"etag", b'W/"%b"' % self.tag.encode()), *(_PRIVATE if private else _SHARED)]

    def is_known(self, if_none_match: str | None) -> bool:
        """Whether `If-None-Match` contains the tag: the client has this answer (304)."""
        return if_none_match is not None and parse_etags(if_none_match).contains_weak(self.tag)


class AnswerCache:
    """Cache of encoded answers. At most `LIMIT_BYTES`; drops the least recently used entries."""

    def __init__(self) -> None:
        self._cache: BoundedCache[Data] = BoundedCache(LIMIT_BYTES, TTL_S)

    async def data(
        self,
        key: tuple[Hashable, ...],
        generation: int | None,
        user: User | None,
        make: Callable[[], Awaitable[object]],
    ) -> Data:
        """The cached data of that key, generation and user; made anew if there is none.

        The key contains the user's id (`key_of`). The user is compared as well, because an outdated
        record of a changed user can be in use for a moment.
        """
        data = self._cache.get(key, generation)
        if data is None or (data.user is not user and data.user != user):
            made = await make()
            if isinstance(made, Unkept):
                return Data.of(_encode(made.data), user)
            body = _encode(made)
            data = Data.of(body, user)
            self._cache.put(key, generation, data, len(body) + _ENTRY_BYTES)
        return data


def key_of(
    operation: str,
    principal: Principal | None,
    query: bytes,
    args: Mapping[str, str],
    *,
    scheme: str = "http",
    gateway: str = "",
) -> tuple[Hashable, ...]:
    """The cache key of an answer: operation, caller, query and path, and what is in URLs: the
    scheme and the gateway. Contains the digest of the query, because a query can contain a token.
    """
    viewer = None if principal is None else (principal.user.id, principal.guest)
    digest = blake2b(query).digest() if query else b""
    return (operation, viewer, scheme, gateway, digest, *args.values())
