"""Every event of `/api/ws` is declared as the server sends it and the documents describe it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.ws.declarations import Event
from api.ws.registry.events import EVENTS, DataView
from reileta.protocol import events
from reileta.protocol.frames import DataFrames, payload_of
from tests.test_docs import constants, rows


def test_every_name_of_an_event_is_declared() -> None:
    assert EVENTS.names == constants(events)


def test_every_event_but_ping_is_in_one_group() -> None:
    grouped = [name for names in EVENTS.groups.values() for name in names]
    assert sorted([*grouped, events.PING]) == sorted(EVENTS.names)


@pytest.mark.parametrize("event", list(EVENTS), ids=lambda one: one.name)
def test_its_group_and_whom_it_is_sent_to_are_in_the_documents(event: Event) -> None:
    (row,) = (row for row in rows("Events") if row[0] == f"`{event.name}`")
    _, group, subgroup, told = row
    assert group.strip("`") == (event.group or "")
    assert subgroup == (event.subgroup or "")
    assert bool(told) == bool(event.sent_to)


@pytest.mark.parametrize(
    ("key", "at"), [(None, None), ("pose", None), ("pose", 12.5), (None, 3), ("pose", 0)]
)
def test_what_players_say_is_described_as_it_is_framed(key: str | None, at: float | None) -> None:
    frames = DataFrames("i_1", "p_1")
    plain = key is None and at is None
    frame = frames.plain(b"[1]") if plain else frames.keyed(key, at, b"[1]")
    data: dict[str, Any] = json.loads(payload_of(frame))["data"]
    spoken = msgspec.convert(data, DataView)
    assert msgspec.to_builtins(spoken) == data
