"""The life of a token: a chain of key pairs, extended by each refresh.

A pair is an access key and a refresh key; the newest pair is the current one. A refresh makes a new
pair, whose lifetimes start now (sliding expiry). The answer with the new pair can get lost, so the
previous pair stays valid until the new one is first used, and can refresh again: then the unused
pair is replaced by another.

A refresh key is *spent* once a newer pair was used, or once its pair was replaced. An honest client
never uses a spent key: either it or its successor was stolen. So this revokes the token, and with
it the keys of both parties. A spent key is remembered until it would have expired; after that, it
is refused like any unknown key.

Everything here is a value; times are ms. `reileta/store/tokens.py` stores them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Pair:
    """An access and a refresh key, each as its SHA-256 with its expiry."""

    access_hash: bytes
    refresh_hash: bytes | None
    access_expires: int
    refresh_expires: int

    @property
    def expires(self) -> int:
        """When both keys have expired."""
        return max(self.access_expires, self.refresh_expires)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Lifetimes of new keys."""

    access_ms: int
    refresh_ms: int

    def pair(self, access_hash: bytes, refresh_hash: bytes, now: int) -> Pair:
        """A new pair."""
        return Pair(access_hash, refresh_hash, now + self.access_ms, now + self.refresh_ms)


@dataclass(frozen=True, slots=True)
class Spent:
    """A refresh key whose use revokes the token, and until when it is remembered."""

    refresh_hash: bytes
    expires: int


Refusal: TypeAlias = Literal["killed", "unknown", "expired"]


@dataclass(frozen=True, slots=True)
class Chain:
    """The keys of one token.

    Attributes:
        current: the newest pair.
        previous: the pair before it, until the newest is first used.
        spent: used refresh keys; at least those that matter for the call.
        killed_at: when it was revoked.
    """

    current: Pair
    previous: Pair | None = None
    spent: tuple[Spent, ...] = ()
    killed_at: int | None = None

    def alive(self, now: int) -> bool:
        """Whether any key is valid; a token without one counts for no limit."""
        pairs = (self.current,) if self.previous is None else (self.current, self.previous)
        return self.killed_at is None and any(pair.expires > now for pair in pairs)

    def accepts(self, access_hash: bytes, now: int) -> bool:
        """Whether an access key is valid."""
        pair = self.pair_of(access_hash)
        return self.killed_at is None and pair is not None and pair.access_expires > now

    def pair_of(self, access_hash: bytes) -> Pair | None:
        """The pair of an access key, valid or not, if it has not been replaced."""
        for pair in (self.current, self.previous):
            if pair is not None and pair.access_hash == access_hash:
                return pair
        return None

    def used(self) -> Chain:
        """The current pair was used: the previous one becomes invalid."""
        if self.previous is None or self.killed_at is not None:
            return self
        return replace(self, previous=None, spent=self._spent_with(self.previous))

    def killed(self, now: int) -> Chain:
        """The token is revoked for good; the first time counts."""
        return self if self.killed_at is not None else replace(self, killed_at=now)

    def refreshed(self, refresh_hash: bytes, new: Pair, now: int) -> Chain | Refusal:
        """The result of a refresh with that key, for which `new` is the new pair.

        A result with `killed_at` equal to now means theft. A refusal changes nothing.
        """
        if self.killed_at is not None:
            return "killed"
        if refresh_hash == self.current.refresh_hash:
            if self.current.refresh_expires <= now:
                return "expired"
            return replace(self.used(), current=new, previous=self.current)
        before = self.previous
        if before is not None and refresh_hash == before.refresh_hash:
            if before.refresh_expires <= now:
                return "expired"
            return replace(self, current=new, spent=self._spent_with(self.current))
        for one in self.spent:
            if one.refresh_hash == refresh_hash:
                return self.killed(now) if one.expires > now else "expired"
        return "unknown"

    def _spent_with(self, pair: Pair) -> tuple[Spent, ...]:
        if pair.refresh_hash is None:
            return self.spent
        return (*self.spent, Spent(pair.refresh_hash, pair.refresh_expires))
