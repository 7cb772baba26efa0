"""Who hears whom."""

from __future__ import annotations

from benchmarks.connect import Target
from benchmarks.dialects import Plain
from benchmarks.rooms import Rooms


def test_everybody_else_in_the_room_hears_a_player() -> None:
    rooms = Rooms(Target("h", 1, False), Plain(3), players=8, group=3)
    assert [rooms.audience(number) for number in range(8)] == [2, 2, 2, 2, 2, 2, 1, 1]
