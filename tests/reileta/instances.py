"""Instances, users and visitors made short, for the tests of the rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from reileta import records
from reileta.rules.identity import Visitor
from reileta.rules.instance import events
from reileta.rules.instance.events import InstanceEvent
from reileta.rules.instance.instance import Instance, InstanceLimits
from reileta.rules.instance.seats import Player

HOME = "home.example:3032"


def user(number: int) -> str:
    """A `UserIDAt`; number 0 owns the instances that `room` makes."""
    return f"u_00000000-0000-4000-8000-{number:012x}@{HOME}"


OWNER = user(0)


def visitor(number: int, session: int = 0, **more: Any) -> Visitor:
    """A session of a user; `friends` may be given as numbers."""
    friends = frozenset(user(one) for one in more.pop("friends", ()))
    return Visitor(f"s_{number}.{session}", user(number), f"User {number}", friends=friends, **more)


def record_of(*tags: str, capacity: int = 4) -> records.InstanceRecord:
    """The record of an instance of `OWNER`."""
    return records.InstanceRecord(
        id="i_1",
        name="room",
        title=None,
        description=None,
        world="w_1",
        owner=OWNER.partition("@")[0],
        capacity=capacity,
        tags=frozenset(tags),
        created_at=0,
        updated_at=0,
    )


def room(
    *extra: str,
    access: str = "avr:public",
    capacity: int = 4,
    banned: Iterable[records.Ban] = (),
    now: int = 0,
    **limits: int,
) -> Instance:
    """An instance of `OWNER`; the numbers of its players' ids count from 1."""
    record = record_of(access, *extra, capacity=capacity)
    numbers = itertools.count(1)
    return Instance(
        record,
        owner=OWNER,
        bans=banned,
        limits=InstanceLimits(**limits),
        now=now,
        new_player_id=lambda: f"p_{next(numbers)}",
    )


def filled(instance: Instance, *numbers: int, now: int = 0) -> list[Player]:
    """Lets users in, one after the other, a millisecond apart."""
    return [instance.join(visitor(one), now + at)[0] for at, one in enumerate(numbers)]


def gone(out: Iterable[InstanceEvent]) -> list[tuple[str, str]]:
    """Who left, and why."""
    return [(one.player.user, one.reason) for one in out if isinstance(one, events.Left)]


def states(instance: Instance) -> list[tuple[str, str, int | None]]:
    return [(one.user, one.state, one.position) for one in instance.entries()]
