"""The life of a token: a chain of key pairs, extended by each refresh.

A pair is an access key and a refresh key; the newest pair is the current one. A refresh makes a new
pair, whose lifetimes start now (sliding expiry). The answer with the new pair can get lost, so the
previous pair stays valid until the new one is first used, and can refresh again: then the unused
pair is replaced by another.

Two tabs of a browser share their keys, and refresh them at the same time. So for `REPEAT_MS` after
a refresh, the same refresh key gives the same new pair again, used or not. If that pair was
refreshed and its successor used meanwhile, the newest successor is given. A thief who comes within
that time gets the pair of the victim; the theft is found at the next refresh, since one of the two
comes later than that with a spent key.

A refresh key is *spent* once a newer pair was used, or once its pair was replaced. An honest client
never uses a spent key: either it or its successor was stolen. So this revokes the token, and with
it the keys of both parties. A spent key is remembered until it would have expired; after that, it
is refused like any unknown key.

Everything here is a value; times are ms. `reileta/store/tokens.py` stores them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

REPEAT_MS: Final = 10_000
"""Time for which a refresh key that was just used gives the same new pair again."""


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
class Rotation:
    """How a refresh key was exchanged for another.

    The new pair can be made again from the refresh key and `seed`; neither is enough alone.
    `successor` is the hash of the new refresh key. `at` is a time of the database's clock, which
    alone judges the time for repeats, so that a jump of a server's clock does not change it.
    """

    seed: bytes
    successor: bytes
    at: int

    def repeats(self, at: int) -> bool:
        """Whether the same pair is given again at that time. If the clock was set back, it is not
        for as long as the step."""
        return abs(at - self.at) < REPEAT_MS


@dataclass(frozen=True, slots=True)
class Spent:
    """A refresh key whose use revokes the token, and until when it is remembered.

    `rotation`: how it was exchanged, if it was.
    """

    refresh_hash: bytes
    expires: int
    rotation: Rotation | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """A pair that was made before, and the seeds that make it from the refresh key, one after the
    other."""

    pair: Pair
    seeds: tuple[bytes, ...]


Refusal: TypeAlias = Literal["killed", "unknown", "expired"]


@dataclass(frozen=True, slots=True)
class Chain:
    """The keys of one token.

    Attributes:
        current: the newest pair.
        previous: the pair before it, until the newest is first used.
        spent: used refresh keys; at least those that matter for the call.
        killed_at: when it was revoked.
        rotation: how the refresh key of `previous` was exchanged for that of `current`.
    """

    current: Pair
    previous: Pair | None = None
    spent: tuple[Spent, ...] = ()
    killed_at: int | None = None
    rotation: Rotation | None = None

    @property
    def expires(self) -> int:
        """When all keys have expired."""
        return max(pair.expires for pair in (self.current, self.previous) if pair is not None)

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
        spent = self._spent_with(self.previous, self.rotation)
        return replace(self, previous=None, rotation=None, spent=spent)

    def killed(self, now: int) -> Chain:
        """The token is revoked for good; the first time counts."""
        return self if self.killed_at is not None else replace(self, killed_at=now)

    def repeated(self, refresh_hash: bytes, now: int, at: int) -> Repeated | None:
        """The pair that a refresh with that key has just given, if it was at most `REPEAT_MS` ago.

        `at` is now by the database's clock. None: `refreshed` decides.
        """
        rotations = {
            one.refresh_hash: one.rotation for one in self.spent if one.rotation is not None
        }
        valid = {self.current.refresh_hash: self.current}
        if self.previous is not None:
            valid[self.previous.refresh_hash] = self.previous
            if self.previous.refresh_hash is not None and self.rotation is not None:
                rotations[self.previous.refresh_hash] = self.rotation
        rotation = rotations.get(refresh_hash)
        if self.killed_at is not None or rotation is None or not rotation.repeats(at):
            return None
        seeds: list[bytes] = []
        while rotation is not None:
            seeds.append(rotation.seed)
            pair = valid.get(rotation.successor)
            if pair is not None:
                return Repeated(pair, tuple(seeds)) if pair.expires > now else None
            rotation = rotations.pop(rotation.successor, None)
        return None

    def refreshed(
        self, refresh_hash: bytes, new: Pair, now: int, rotation: Rotation | None = None
    ) -> Chain | Refusal:
        """The result of a refresh with that key, for which `new` is the new pair, made by
        `rotation`. None: it can't be made again.

        A result with `killed_at` equal to now means theft. A refusal changes nothing.
        """
        if self.killed_at is not None:
            return "killed"
        if refresh_hash == self.current.refresh_hash:
            if self.current.refresh_expires <= now:
                return "expired"
            return replace(self.used(), current=new, previous=self.current, rotation=rotation)
        before = self.previous
        if before is not None and refresh_hash == before.refresh_hash:
            if before.refresh_expires <= now:
                return "expired"
            spent = self._spent_with(self.current)
            return replace(self, current=new, spent=spent, rotation=rotation)
        for one in self.spent:
            if one.refresh_hash == refresh_hash:
                return self.killed(now) if one.expires > now else "expired"
        return "unknown"

    def _spent_with(self, pair: Pair, rotation: Rotation | None = None) -> tuple[Spent, ...]:
        if pair.refresh_hash is None:
            return self.spent
        return (*self.spent, Spent(pair.refresh_hash, pair.refresh_expires, rotation))
