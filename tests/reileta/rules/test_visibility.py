"""Who may see a thing, as a table."""

from __future__ import annotations

import pytest

from reileta.errors import InstanceNotFound
from reileta.rules.instance.access import ACCESS_TAGS, PRIVATE, AccessTag
from reileta.rules.visibility import (
    EVERYONE,
    Audience,
    instance_news,
    instance_oversight,
    of_instance,
    of_owned,
    of_world,
)
from tests.reileta.instances import OWNER, room, user, visitor

ASKERS = ("owner", "moderator", "inside", "sharer", "stranger", None)


def seers(audience: Audience) -> set[str | None]:
    return {who for who in ASKERS if audience.admits(who)}


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (of_world("owner", {"avr:public"}, ()), set(ASKERS)),
        (of_world("owner", {"avr:private"}, ()), {"owner"}),
        (of_world("owner", {"avr:private"}, {"sharer"}), {"owner", "sharer"}),
        (of_owned("owner", {"sharer"}), {"owner", "sharer"}),
        (
            instance_oversight(owner="owner", master="inside", moderators={"moderator": None}),
            {"owner", "inside", "moderator"},
        ),
        (instance_oversight(owner="owner", master=None, moderators=()), {"owner"}),
    ],
)
def test_who_may_see_it(audience: Audience, expected: set[str | None]) -> None:
    assert seers(audience) == seers(audience.frozen()) == expected
    assert audience.admits("stranger", admin=True)


@pytest.mark.parametrize("access", ACCESS_TAGS)
def test_an_instance(access: AccessTag) -> None:
    by_name = of_instance(access, owner="owner", moderators=["moderator"], inside={"inside"})
    assert seers(by_name) == (
        {"owner", "moderator", "inside"} if access == PRIVATE else set(ASKERS)
    )
    news = instance_news(access, owner="owner", inside={"inside"})
    assert seers(news) == (set(ASKERS) if access == "avr:public" else {"owner", "inside"})


def test_a_part_of_a_name_is_nobody() -> None:
    assert not of_world("owner", {"avr:private"}, ()).admits("own")


def test_an_audience_follows_what_changes_until_it_is_frozen() -> None:
    inside = {"one"}
    audience = of_instance(PRIVATE, owner="owner", moderators=(), inside=inside)
    before = audience.frozen()
    inside.add("two")
    assert audience.admits("two")
    assert not before.admits("two")
    assert EVERYONE.frozen() is EVERYONE


def test_a_private_room() -> None:
    """Players inside keep sight of it when it becomes private, and lose it when they leave; an
    invitation gives none, and a banned user has none."""
    one = room(access="avr:invite_plus", capacity=9)
    for number in (1, 2, 3):
        one.admit(visitor(0), user(number), 0)
    one.join(visitor(1), 1)
    one.add_moderator(visitor(0), user(4), 1)
    one.moderate(visitor(0), user(3), "ban", None, None, 2)
    one.record = room(access="avr:private", capacity=9).record
    seen = set()
    for number in range(6):
        try:
            one.ensure_visible(visitor(number))
        except InstanceNotFound:
            continue
        seen.add(number)
    assert seen == {0, 1, 4}
    one.ensure_visible(visitor(5, admin=True))
    for nobody in (None, visitor(5, admin=True, guest=True)):
        with pytest.raises(InstanceNotFound):
            one.ensure_visible(nobody)
    one.leave("s_1.0", 3)
    with pytest.raises(InstanceNotFound):
        one.ensure_visible(visitor(1))
    assert one.news_audience.admits(OWNER)
    assert not one.news_audience.admits(user(1))
    assert one.oversight.admits(user(4))


def test_a_banned_user_of_an_instance_that_is_not_private_may_see_it() -> None:
    one = room(access="avr:invite_only")
    one.moderate(visitor(0), user(3), "ban", None, None, 2)
    one.ensure_visible(visitor(3))
    one.ensure_visible(None)
