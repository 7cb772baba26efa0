"""Entity tags of answers, 304, and answers that are encoded once for all who may share them.

An operation that only shows what the database and the live instances have says so (`Cached`). Its
`data` is encoded once, and remembered until a table that it is of, an occupancy or somebody's
presence changes; what one user was shown is given to no other. Its entity tag is of `data` alone,
and so is weak: `request` and `time` of the envelope stand beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

from msgspec import Raw
from msgspec.json import Encoder
from werkzeug.http import parse_etags

from reileta.bounded_cache import BoundedCache
from reileta.records import User
from reileta.rules.instance.access import Principal
from reileta.store import Store
from reileta.store.read_cache import TTL_S

LIMIT_BYTES: Final = 16 * 1024 * 1024
"""What all remembered answers may come to."""
_ENTRY_BYTES: Final = 512
"""About what an entry takes beside its data."""

_SHARED: Final = ((b"cache-control", b"no-cache"),)
_PRIVATE: Final = (
    (b"cache-control", b"private, no-cache"),
    (b"vary", b"Authorization, Cookie"),
)

_encode = Encoder().encode


class Live(Protocol):
    """What of the living server decides whether an answer is still what it was."""

    @property
    def store(self) -> Store: ...
    @property
    def live_version(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Cached:
    """What the answer of an operation is made of, beside the path, the query and who asks.

    `tables` of the database; `live`: also occupancies, or who is connected.
    """

    tables: tuple[str, ...]
    live: bool = False

    def generation(self, node: Live) -> int | None:
        """A number that grows when any of it changes; None while nobody can tell."""
        generation = node.store.database.generation(self.tables)
        if generation is None or not self.live:
            return generation
        return generation + node.live_version


@dataclass(frozen=True, slots=True)
class Data:
    """The `data` of an answer, encoded; `tag` is its entity tag, `user` whom it was made for."""

    raw: Raw
    tag: str
    user: User | None = None

    @classmethod
    def of(cls, body: bytes, user: User | None = None) -> Data:
        """What is encoded already, with its tag."""
        return cls(Raw(body), blake2b(body, digest_size=12).hexdigest(), user)

    def headers(self, *, private: bool) -> list[tuple[bytes, bytes]]:
        """The entity tag, and who may keep the answer: nobody without asking again (`no-cache`),
        and what is for one asker (`private`), no cache that several share."""
        return [(b"etag", b'W/"%b"' % self.tag.encode()), *(_PRIVATE if private else _SHARED)]

    def is_known(self, if_none_match: str | None) -> bool:
        """Whether `If-None-Match` names the tag: the asker has the answer, so 304 is enough."""
        return if_none_match is not None and parse_etags(if_none_match).contains_weak(self.tag)


class AnswerCache:
    """The encoded data that is remembered."""

    def __init__(self) -> None:
        self._kept: BoundedCache[Data] = BoundedCache(LIMIT_BYTES, TTL_S)

    async def data(
        self,
        key: tuple[Hashable, ...],
        generation: int | None,
        user: User | None,
        make: Callable[[], Awaitable[object]],
    ) -> Data:
        """The data for those who ask with that key: as it was made for the same user, of the same
        generation, or made now.

        The key holds whom it is for (`key_of`). The user is compared as well, for a user that
        changed can for a moment be known as it was before.
        """
        data = self._kept.get(key, generation)
        if data is None or (data.user is not user and data.user != user):
            body = _encode(await make())
            data = Data.of(body, user)
            self._kept.put(key, generation, data, len(body) + _ENTRY_BYTES)
        return data


def key_of(
    operation: str, principal: Principal | None, query: bytes, args: Mapping[str, str]
) -> tuple[Hashable, ...]:
    """What decides about an operation's answer at one moment, who asks included. Of the query, in
    which there can be a token, it holds the digest."""
    viewer = None if principal is None else (principal.user.id, principal.guest)
    return (operation, viewer, blake2b(query).digest() if query else b"", *args.values())
