"""The events' names and groups."""

from __future__ import annotations

import pytest

from reileta.protocol import events


def test_every_event_but_ping_is_in_one_group() -> None:
    named = {
        value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)
    }
    grouped = [name for names in events.GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert events.EVENTS == named == {*grouped, events.PING}


def test_events_are_in_the_group_that_they_are_named_after() -> None:
    for group in ("update", "instance"):
        assert all(name.startswith(f"{group}-") for name in events.GROUPS[group])


@pytest.mark.parametrize("group", events.GROUPS)
def test_a_groups_name_takes_its_members(group: str) -> None:
    assert events.members(group) == frozenset(events.GROUPS[group])


def test_an_event_takes_itself_and_all_takes_everything() -> None:
    assert events.members("update-user") == frozenset({"update-user"})
    assert events.members("ping") == frozenset({"ping"})
    assert events.members("all") == events.EVENTS
    assert events.members("nothing") is None
    assert events.members("") is None
