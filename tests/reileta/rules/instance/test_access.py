"""The six access tags,, as a table."""

from __future__ import annotations

import pytest

from reileta.errors import Banned, NotAllowed
from reileta.rules.identity import Visitor
from reileta.rules.instance.access import ACCESS_TAGS, AccessTag, access_of, may_enter, may_invite
from reileta.rules.instance.instance import Instance
from tests.reileta.instances import OWNER, room, user, visitor

# 1 is the master, 2 another inside; all were let in while the instance was public.
WHO: dict[str, Visitor] = {
    "owner": visitor(0),
    "master again": visitor(1, session=1),
    "inside again": visitor(2, session=1),
    "friend of owner": visitor(10, friends=[0]),
    "friend of master": visitor(11, friends=[1]),
    "friend of one inside": visitor(12, friends=[2]),
    "friend of a stranger": visitor(13, friends=[99]),
    "invited by owner": visitor(14),
    "invited by master": visitor(15),
    "invited by one inside": visitor(16),
    "stranger": visitor(17),
    "banned friend": visitor(18, friends=[0, 1, 2]),
    "admin": visitor(19, admin=True),
    "banned admin": visitor(20, admin=True),
    "guest": visitor(21, guest=True),
    "guest that says it is an admin": visitor(22, guest=True, admin=True),
}
ALWAYS = {"owner", "master again", "inside again", "admin", "banned admin"}
ENTERS: dict[str, set[str]] = {
    "avr:public": set(WHO) - {"banned friend"},
    "avr:friends_plus": ALWAYS | {"friend of owner", "friend of master", "friend of one inside"},
    "avr:friends_only": ALWAYS | {"friend of owner", "friend of master"},
    "avr:invite_plus": ALWAYS | {"invited by owner", "invited by master", "invited by one inside"},
    "avr:invite_only": ALWAYS | {"invited by owner", "invited by master"},
    "avr:private": ALWAYS,
}


def scene(access: str) -> Instance:
    """An instance with that access, its master and another inside, invitations and bans."""
    instance = room(access="avr:invite_plus", capacity=100)
    instance.admit(visitor(0), user(1), 0)
    instance.admit(visitor(0), user(2), 0)
    instance.join(visitor(1), 1)
    instance.join(visitor(2), 2)
    instance.admit(visitor(0), WHO["invited by owner"].user, 3)
    instance.admit(visitor(1), WHO["invited by master"].user, 3)
    instance.admit(visitor(2), WHO["invited by one inside"].user, 3)
    for one in ("banned friend", "banned admin"):
        instance.moderate(visitor(0), WHO[one].user, "ban", None, None, 3)
    instance.tick(3 + instance.limits.hold_ms)  # the held seats are gone, the invitations stay
    assert instance.entries() == ()
    instance.record = room(access=access, capacity=100).record
    return instance


@pytest.mark.parametrize("access", ACCESS_TAGS)
@pytest.mark.parametrize("who", WHO)
def test_who_may_join(access: str, who: str) -> None:
    instance = scene(access)
    if who in ENTERS[access]:
        player, _ = instance.join(WHO[who], 50_000)
        assert instance.players[player.id].user == WHO[who].user
    else:
        expected = Banned if who == "banned friend" else NotAllowed
        with pytest.raises(expected):
            instance.join(WHO[who], 50_000)
        assert instance.connected == 2


@pytest.mark.parametrize("access", ACCESS_TAGS)
def test_the_owners_friend_opens_what_friends_may_enter(access: AccessTag) -> None:
    allowed = access in ("avr:public", "avr:friends_plus", "avr:friends_only")
    assert allowed is may_enter(
        access,
        user=user(1),
        friends=frozenset({OWNER}),
        admin=False,
        owner=OWNER,
        master=None,
        inside=(),
        invited=None,
    )


@pytest.mark.parametrize(
    ("access", "who"),
    [
        ("avr:invite_plus", {"owner", "admin", "master", "inside"}),
        ("avr:invite_only", {"owner", "admin", "master"}),
        *((tag, set()) for tag in ACCESS_TAGS if "invite" not in tag),
    ],
)
def test_who_may_invite(access: AccessTag, who: set[str]) -> None:
    askers = {"owner": 0, "master": 1, "inside": 2, "admin": 3, "stranger": 4}
    found = {
        name
        for name, number in askers.items()
        if may_invite(
            access,
            user=user(number),
            admin=name == "admin",
            owner=OWNER,
            master=user(1),
            inside={user(1), user(2)},
        )
    }
    assert found == who


def test_access_of_tags() -> None:
    assert access_of({"avr:official", "avr:friends_plus"}) == "avr:friends_plus"
    assert access_of(()) == "avr:private"
    assert access_of({"avr:public", "avr:invite_only"}) == "avr:private"
