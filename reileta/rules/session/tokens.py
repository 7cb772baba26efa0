"""The life of a Token: two keys, of which refreshing makes new ones (S `Token`, PROTOCOL §4).

A token is a chain of pairs, an access and a refresh key each, of which the newest is the current
one. Refreshing makes a new pair, whose lifetimes begin anew (sliding). Whoever refreshed may never
get the answer, so the pair before lives on until the new one is first used, and can refresh again:
then the pair that nobody has used gives way to another.

So a refresh key is *spent* once a newer pair was used, or once it gave way. Nobody who plays fair
has a spent key and uses it: it was stolen, or its successor was. That kills the token, and with it
whatever either of the two has (the theft signal). A spent key is remembered until it would have
expired; after that it is refused as any other.

Everything here is a value; times are ms. `reileta/store/tokens.py` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Pair:
    """An access and a refresh key, as the SHA-256 of each, and until when each is good."""

    access_hash: bytes
    refresh_hash: bytes | None
    access_expires: int
    refresh_expires: int

    @property
    def expires(self) -> int:
        """When neither is good any more."""
        return max(self.access_expires, self.refresh_expires)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long keys live from the moment when they are made."""

    access_ms: int
    refresh_ms: int

    def pair(self, access_hash: bytes, refresh_hash: bytes, now: int) -> Pair:
        """A new pair."""
        return Pair(access_hash, refresh_hash, now + self.access_ms, now + self.refresh_ms)


@dataclass(frozen=True, slots=True)
class Spent:
    """A refresh key that kills the token when it is used, and until when it is remembered."""

    refresh_hash: bytes
    expires: int


Refusal: TypeAlias = Literal["killed", "unknown", "expired"]


@dataclass(frozen=True, slots=True)
class Chain:
    """The keys of one token.

    Attributes:
        current: the newest pair.
        previous: the pair before, while nobody has used the newest.
        spent: refresh keys that were used up; at least those that are asked about.
        killed_at: since when no key of it is good.
    """

    current: Pair
    previous: Pair | None = None
    spent: tuple[Spent, ...] = ()
    killed_at: int | None = None

    def alive(self, now: int) -> bool:
        """Whether any key of it is good: what is not alive counts for no limit."""
        pairs = (self.current,) if self.previous is None else (self.current, self.previous)
        return self.killed_at is None and any(pair.expires > now for pair in pairs)

    def accepts(self, access_hash: bytes, now: int) -> bool:
        """Whether an access key is good."""
        pair = self.pair_of(access_hash)
        return self.killed_at is None and pair is not None and pair.access_expires > now

    def pair_of(self, access_hash: bytes) -> Pair | None:
        """The pair that an access key is of, good or not, if it has not been replaced."""
        for pair in (self.current, self.previous):
            if pair is not None and pair.access_hash == access_hash:
                return pair
        return None

    def used(self) -> Chain:
        """Its current pair was used: the one before dies."""
        if self.previous is None or self.killed_at is not None:
            return self
        return replace(self, previous=None, spent=self._spent_with(self.previous))

    def killed(self, now: int) -> Chain:
        """Ended, for good; the first time counts."""
        return self if self.killed_at is not None else replace(self, killed_at=now)

    def refreshed(self, refresh_hash: bytes, new: Pair, now: int) -> Chain | Refusal:
        """What becomes of it when someone comes with a refresh key and is to get the pair `new`.

        A result that is `killed_at` now is a theft signal. A refusal changes nothing.
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
