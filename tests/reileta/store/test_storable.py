"""What PostgreSQL can't hold is found before it is asked."""

from __future__ import annotations

import pytest

from reileta.errors import InvalidInput
from reileta.store.storable import check_storable


@pytest.mark.parametrize(
    "value", ["", "a", "Übergröße 😀", 0, 2**63 - 1, -(2**63), None, True, b"\x00"]
)
def test_what_it_holds(value: object) -> None:
    check_storable([value])
    check_storable([[value]])


@pytest.mark.parametrize(
    "value", ["\x00", "a\x00", "\ud800", "é\udfff", 2**63, -(2**63) - 1, 10**60]
)
def test_what_it_does_not_hold(value: object) -> None:
    with pytest.raises(InvalidInput):
        check_storable(["fine", value])
    with pytest.raises(InvalidInput):
        check_storable([["fine", (value,)]])
