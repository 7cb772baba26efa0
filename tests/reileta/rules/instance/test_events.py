from __future__ import annotations

import dataclasses
import inspect
from typing import get_args

from reileta.rules.instance import events


def test_the_union_is_closed_over_frozen_values() -> None:
    members = set(get_args(events.Happening))
    defined = {
        one
        for one in vars(events).values()
        if inspect.isclass(one) and one.__module__ == events.__name__
    }
    assert members == defined
    for one in members:
        assert dataclasses.is_dataclass(one)
        assert "__slots__" in vars(one)
        assert vars(one)["__dataclass_params__"].frozen
