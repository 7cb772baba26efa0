"""Checks for values that PostgreSQL can't store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from reileta.errors import InvalidInput
from reileta.unicode import is_unicode

_BIGINT: Final = range(-(2**63), 2**63)


def check_storable(args: Iterable[object]) -> None:
    """Raises InvalidInput for NUL, lone surrogates, and integers over 64 bits."""
    for arg in args:
        if isinstance(arg, str):
            if "\x00" in arg or not is_unicode(arg):
                raise InvalidInput.field("text", "must not contain NUL or lone surrogates")
        elif isinstance(arg, int):
            if arg not in _BIGINT:
                raise InvalidInput.field("number", "must be a 64-bit integer")
        elif isinstance(arg, (list, tuple)):
            check_storable(arg)
