"""Positions, as players publish them."""

from __future__ import annotations

import pytest

from reileta.protocol.frames import DataFrames
from reileta.rules.instance.position import position_in, position_in_value


@pytest.mark.parametrize(
    ("value", "position"),
    [
        (b"[1,2]", (1, 2, 0)),
        (b"[1,2.5,-3]", (1, 2.5, -3)),
        (b'{"x":1,"y":2,"z":3,"w":"more"}', (1, 2, 3)),
        (b'{"x":1,"z":3}', (1, 0, 3)),
        (b'{"position":[1,2,3],"rotation":[0,0,0,1]}', (1, 2, 3)),
        (b'{"position":{"x":1,"y":2}}', (1, 2, 0)),
        (b"null", None),
        (b"7", None),
        (b"[1]", None),
        (b"[1,2,3,4]", None),
        (b'[1,"2"]', None),
        (b"[true,2]", None),
        (b'{"x":1}', None),
        (b"[1e400,1]", None),
        (b"[1" + b"0" * 400 + b",1]", None),
        (b'{"position":7}', None),
        (b"[" * 60 + b"]" * 60, None),
    ],
)
def test_a_position_is_read_from_any_of_its_forms(
    value: bytes, position: tuple[float, ...] | None
) -> None:
    assert position_in_value(value) == position
    for size in range(3):  # the length of a frame must not matter
        frames = DataFrames("i_room" + "m" * size, "p_1")
        assert position_in(frames.keyed("at", None, value)) == position
