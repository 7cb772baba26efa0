from __future__ import annotations

import pytest

from reileta.errors import ModerationInvalid
from reileta.records import Ban
from reileta.rules.instance.sanctions import REASON_LIMIT, Mute, Sanctions, check
from tests.reileta.instances import OWNER, user


def ban(number: int, until: int | None = None) -> Ban:
    return Ban("i_1", user(number), until, None, OWNER, 0)


def force(*bans: Ban) -> Sanctions:
    return Sanctions(bans, bans_limit=2, mutes_limit=2)


@pytest.mark.parametrize("type_", ["kick", "ban", "unban", "mute", "unmute", "warn"])
def test_the_measures(type_: str) -> None:
    assert check(type_, "x" * REASON_LIMIT, None, 0) == type_


@pytest.mark.parametrize(
    ("type_", "reason", "until", "field"),
    [
        ("hug", None, None, "type"),
        ("ban", "x" * (REASON_LIMIT + 1), None, "reason"),
        ("ban", None, 5, "until"),
        ("mute", None, 4, "until"),
        ("kick", None, 6, "until"),
        ("unban", None, 6, "until"),
    ],
)
def test_what_is_wrong_is_named(
    type_: str, reason: str | None, until: int | None, field: str
) -> None:
    with pytest.raises(ModerationInvalid) as caught:
        check(type_, reason, until, 5)
    assert [detail.field for detail in caught.value.details] == [field]


def test_bans_and_mutes_run_out() -> None:
    moderation = force(ban(1, until=10), ban(2))
    moderation.mute(Mute(user(1), 20))
    moderation.mute(Mute(user(3), None))
    assert sorted(moderation.deadlines) == [10, 20]
    assert moderation.banned(user(1), 9)
    assert not moderation.banned(user(1), 10)
    assert moderation.muted(user(1), 19)
    assert not moderation.muted(user(1), 20)
    assert moderation.expire(9) == ([], [])
    assert moderation.expire(20) == ([user(1)], [user(1)])
    assert moderation.banned(user(2), 10**15)
    assert moderation.muted(user(3), 10**15)
    assert list(moderation.deadlines) == []


def test_both_are_bounded_and_can_be_changed_at_the_bound() -> None:
    moderation = force(ban(1), ban(2))
    moderation.ban(ban(1, until=10))
    assert moderation.bans[user(1)].until == 10
    with pytest.raises(ModerationInvalid):
        moderation.ban(ban(3))
    moderation.mute(Mute(user(1), None))
    moderation.mute(Mute(user(2), None))
    moderation.mute(Mute(user(2), 5))
    with pytest.raises(ModerationInvalid):
        moderation.mute(Mute(user(3), None))


def test_a_mute_is_never_longer_for_a_clock_that_was_set_and_a_ban_ends_at_its_time() -> None:
    moderation = Sanctions([ban(1, 100)], [Mute(user(2), 100)], bans_limit=9, mutes_limit=9)
    moderation.clock_was_set(-80)
    assert sorted(moderation.deadlines) == [20, 100]
    assert moderation.muted(user(2), 19)
    assert not moderation.muted(user(2), 20)
    assert moderation.mutes[user(2)].until == 100  # as it was said
    moderation.clock_was_set(120)
    assert sorted(moderation.deadlines) == [100, 100]
    moderation.clock_was_set(-60)
    assert moderation.expire(80) == ([], [user(2)])
    assert moderation.banned(user(1), 99)
