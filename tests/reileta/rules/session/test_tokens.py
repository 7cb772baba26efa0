"""The life of a token, rule by rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reileta.rules.session.tokens import (
    REPEAT_MS,
    Chain,
    Lifetimes,
    Pair,
    Repeated,
    Rotation,
    Spent,
)

LIFETIMES = Lifetimes(access_ms=15, refresh_ms=60)


def pair(number: int, now: int) -> Pair:
    return LIFETIMES.pair(b"a%d" % number, b"r%d" % number, now)


def refreshed(chain: Chain, key: bytes, number: int, now: int) -> Chain:
    after = chain.refreshed(key, pair(number, now), now)
    assert isinstance(after, Chain), after
    return after


FIRST = Chain(pair(1, 0))


def test_refreshing_rotates_both_keys_and_lifetimes_slide() -> None:
    after = refreshed(FIRST, b"r1", 2, 10)
    assert after.current == Pair(b"a2", b"r2", 25, 70)
    assert after.accepts(b"a2", 24)
    assert not after.accepts(b"a2", 25)


def test_the_keys_before_live_on_until_the_new_pair_is_first_used() -> None:
    after = refreshed(FIRST, b"r1", 2, 10)
    assert after.accepts(b"a1", 14)
    assert not after.accepts(b"a1", 15), "for as long as they would have"
    used = after.used()
    assert not used.accepts(b"a1", 14)
    assert used.accepts(b"a2", 14)
    assert used.used() is used


def test_who_never_got_the_answer_can_refresh_again() -> None:
    again = refreshed(refreshed(FIRST, b"r1", 2, 10), b"r1", 3, 11)
    assert again.accepts(b"a3", 12)
    assert again.accepts(b"a1", 12)
    assert not again.accepts(b"a2", 12), "one new pair at a time"


def test_using_the_old_refresh_key_after_that_kills_the_token() -> None:
    used = refreshed(FIRST, b"r1", 2, 10).used()
    stolen = refreshed(used, b"r1", 3, 11)
    assert stolen.killed_at == 11
    assert not stolen.accepts(b"a2", 11)
    assert not stolen.alive(11)


def test_refreshing_with_the_new_key_is_its_first_use() -> None:
    third = refreshed(refreshed(FIRST, b"r1", 2, 10), b"r2", 3, 20)
    assert third.previous == pair(2, 10)
    assert refreshed(third, b"r1", 4, 21).killed_at == 21


def test_a_pair_that_gave_way_and_is_used_all_the_same_kills_the_token() -> None:
    again = refreshed(refreshed(FIRST, b"r1", 2, 10), b"r1", 3, 11)
    assert refreshed(again, b"r2", 4, 12).killed_at == 12


def test_an_expired_refresh_key_is_refused_and_nothing_else() -> None:
    assert FIRST.refreshed(b"r1", pair(2, 60), 60) == "expired"
    second = refreshed(FIRST, b"r1", 2, 10)
    assert second.refreshed(b"r1", pair(3, 60), 60) == "expired"
    assert second.used().refreshed(b"r1", pair(3, 60), 60) == "expired"
    assert isinstance(second.refreshed(b"r2", pair(3, 60), 60), Chain)


def test_unknown_keys_and_dead_tokens_are_refused() -> None:
    assert FIRST.refreshed(b"a1", pair(2, 1), 1) == "unknown"
    dead = FIRST.killed(5)
    assert dead.killed(6).killed_at == 5
    assert dead.refreshed(b"r1", pair(2, 6), 6) == "killed"
    assert not dead.accepts(b"a1", 6)
    assert dead.used() is dead


def test_a_token_without_a_refresh_key_has_none_to_spend() -> None:
    bot = Chain(Pair(b"a2", b"r2", 9, 9), Pair(b"a1", None, 9, 9))
    assert bot.used() == Chain(Pair(b"a2", b"r2", 9, 9))


def test_a_token_lives_as_long_as_any_of_its_keys() -> None:
    long = Chain(Pair(b"a2", b"r2", 5, 5), Pair(b"a1", b"r1", 9, 9))
    assert long.alive(8)
    assert not long.alive(9)
    assert not long.used().alive(8)


@pytest.mark.parametrize("key", [b"a1", b"a9"])
def test_the_pair_of_a_key(key: bytes) -> None:
    assert (FIRST.pair_of(key) == FIRST.current) is (key == b"a1")


def rotated(chain: Chain, key: bytes, number: int, at: int) -> Chain:
    rotation = Rotation(b"s%d" % number, b"r%d" % number, at)
    after = chain.refreshed(key, pair(number, 10), 10, rotation)
    assert isinstance(after, Chain), after
    return after


def test_a_key_is_repeated_until_its_time_is_over() -> None:
    after = rotated(FIRST, b"r1", 2, 1_000)
    for chain in (after, after.used()):
        for at in (1_000, 1_000 + REPEAT_MS - 1, 999):
            assert chain.repeated(b"r1", 10, at) == Repeated(pair(2, 10), (b"s2",))
        assert chain.repeated(b"r1", 10, 1_000 + REPEAT_MS) is None
        assert chain.repeated(b"r1", 10, 1_000 - REPEAT_MS) is None, "the clock was set back"
        assert chain.repeated(b"r1", 70, 1_000) is None, "the pair has expired"
        assert chain.repeated(b"r2", 10, 1_000) is None, "the current one"
        assert chain.repeated(b"r9", 10, 1_000) is None
        assert chain.killed(10).repeated(b"r1", 10, 1_000) is None


def test_the_successor_of_a_pair_that_is_no_longer_valid_is_given() -> None:
    third = rotated(rotated(FIRST, b"r1", 2, 0), b"r2", 3, 5_000)
    assert third.repeated(b"r1", 10, 5_000) == Repeated(pair(2, 10), (b"s2",))
    assert third.used().repeated(b"r1", 10, 5_000) == Repeated(pair(3, 10), (b"s2", b"s3"))
    assert third.used().repeated(b"r1", 10, 10_000) is None
    assert third.used().repeated(b"r2", 10, 10_000) == Repeated(pair(3, 10), (b"s3",))


def test_a_key_that_was_exchanged_twice_gives_the_second_pair() -> None:
    twice = rotated(rotated(FIRST, b"r1", 2, 0), b"r1", 3, REPEAT_MS)
    assert twice.repeated(b"r1", 10, REPEAT_MS) == Repeated(pair(3, 10), (b"s3",))
    assert twice.repeated(b"r2", 10, REPEAT_MS) is None, "it was replaced, never exchanged"


def test_a_rotation_whose_successor_is_not_remembered_gives_nothing() -> None:
    lost = Chain(pair(3, 10), None, (Spent(b"r1", 60, Rotation(b"s2", b"r2", 0)),))
    assert lost.repeated(b"r1", 10, 0) is None


class TokenMachine(RuleBasedStateMachine):
    """Whoever has all keys there ever were: at most two pairs are good at a time, two only while
    the newest is unused, and no refresh key works twice once something newer was used."""

    @initialize()
    def issue(self) -> None:
        self.now = 0
        self.numbers = itertools.count(2)
        self.chain = FIRST
        self.made = [FIRST.current]
        self.used_up: set[bytes | None] = set()

    @rule(by=st.integers(0, 20))
    def wait(self, by: int) -> None:
        self.now += by

    @rule(which=st.integers(0, 9))
    def use(self, which: int) -> None:
        key = self.made[-1 - which % len(self.made)]
        if not self.chain.accepts(key.access_hash, self.now):
            return
        if key == self.chain.current:
            if self.chain.previous is not None:
                self.used_up.add(self.chain.previous.refresh_hash)
            self.chain = self.chain.used()

    @rule(which=st.integers(0, 9))
    def refresh(self, which: int) -> None:
        key = self.made[-1 - which % len(self.made)]
        new = pair(next(self.numbers), self.now)
        assert key.refresh_hash is not None
        before = self.chain
        after = before.refreshed(key.refresh_hash, new, self.now)
        if isinstance(after, str):
            assert key.refresh_expires <= self.now or before.killed_at is not None
            return
        if after.killed_at is not None:
            assert key.refresh_hash in self.used_up
        else:
            assert key.refresh_hash not in self.used_up
            assert key.refresh_expires > self.now
            gone = {before.current, before.previous} - {after.current, after.previous}
            self.used_up.update(one.refresh_hash for one in gone if one is not None)
            self.made.append(new)
        self.chain = after

    @invariant()
    def few_are_good(self) -> None:
        good = [one for one in self.made if self.chain.accepts(one.access_hash, self.now)]
        assert len(good) <= (1 if self.chain.previous is None else 2)
        if self.chain.killed_at is not None:
            assert good == []
        assert self.used_up == {one.refresh_hash for one in self.chain.spent}
        assert all(isinstance(one, Spent) for one in self.chain.spent)


TestTokenMachine = TokenMachine.TestCase
