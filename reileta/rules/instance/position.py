"""Positions, as players publish them in a value of theirs."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from reileta.protocol.frames import payload_of

Position = tuple[float, float, float]


class _Data(msgspec.Struct):
    data: Any = None


class _Event(msgspec.Struct):
    data: _Data


_decode: Final = msgspec.json.Decoder(_Event).decode
_decode_value: Final = msgspec.json.Decoder().decode


def position_in(frame: bytes) -> Position | None:
    """The position in an `instance-data` frame; None: there is none."""
    try:
        return position_of(_decode(payload_of(frame)).data.data)
    except (msgspec.MsgspecError, RecursionError):
        return None


def position_in_value(data: bytes) -> Position | None:
    """The position in a retained value; None: there is none."""
    try:
        return position_of(_decode_value(data))
    except (msgspec.MsgspecError, RecursionError):
        return None


def position_of(value: object) -> Position | None:
    """A position: `[x, y]`, `[x, y, z]`, an object with `x` and `y` or `z`, or an object that has
    one of these as its `position`."""
    if isinstance(value, dict):
        inner = value.get("position")
        if inner is not None:
            value = inner
    if isinstance(value, dict):
        if "x" not in value or not ("y" in value or "z" in value):
            return None
        value = [value["x"], value.get("y", 0), value.get("z", 0)]
    if not isinstance(value, list) or not 2 <= len(value) <= 3:
        return None
    numbers: list[float] = []
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int | float):
            return None
        try:
            number = float(one)
        except OverflowError:
            return None
        if not math.isfinite(number):
            return None
        numbers.append(number)
    return numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else 0.0
