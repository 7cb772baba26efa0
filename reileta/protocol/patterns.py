"""Regular expressions for input, valid in Python and JSON Schema.

`reileta/protocol/input_types.py` validates with them, or `/openapi.json` documents with them what
Python code validates.
"""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

LABEL: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""A part of a host name."""
_PORT: Final = (
    r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5])))"
)
_BRACKETS: Final = r"\[[0-9a-fA-F:.]{2,45}\]|"
URL: Final = (
    rf"https://({_BRACKETS}[A-Za-z0-9]([A-Za-z0-9.-]{{0,251}}[A-Za-z0-9])?)"
    rf"(:({_PORT}))?([/?#][!#-;=?-\[\]_a-z~%]*)?"
)
DOCUMENTED_URL: Final = URL.replace(_BRACKETS, "")
"""Without IPv6 addresses, which a regular expression can't validate."""

# Control characters, line separators, and marks that change the text direction.
_UNCLEAN: Final = r"\u007f-\u009f\u2028-\u202e\u2066-\u2069"
_CLEAN: Final = rf"[^\u0000-\u001f{_UNCLEAN}]"
EMAIL: Final = (
    rf"[^@\s\u0000-\u001f{_UNCLEAN}]{{1,64}}@[^@\s.\u0000-\u001f{_UNCLEAN}]+"
    rf"(\.[^@\s.\u0000-\u001f{_UNCLEAN}]+)+"
)
# Invisible everywhere; those beyond U+FFFF can't be written in a way that all programs understand.
_HIDDEN: Final = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u2060-\u206f\u3164\ufdd0-\ufdef"
    r"\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff"
)
# Invisible, but allowed where they belong (reileta/names.py).
_JOINERS: Final = r"\u180b-\u180f\u200c\u200d\u2800\ufe00-\ufe0f"
_SEEN: Final = rf"[^\u0000-\u001f{_UNCLEAN}{_HIDDEN}]"
NAME: Final = rf"{_SEEN}*[^\s\u0000-\u001f{_UNCLEAN}{_HIDDEN}{_JOINERS}]{_SEEN}*"
"""Wider than what is accepted: reileta/names.py also looks at the characters around each."""
TEXT: Final = rf"[^\u0000-\u0008\u000b-\u001f{_UNCLEAN}]*"
PASSWORD: Final = rf"[^\u0000-\u001f\u007f-\u009f\u2028\u2029{_HIDDEN}\ufe00-\ufe0f]*"
"""Wider than what is accepted: reileta/opaque_string.py also refuses what Unicode has not
assigned."""
STORABLE: Final = r"[^\u0000]*"

_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
WORLD_REF: Final[dict[str, JsonValue]] = {
    "pattern": rf"^w_{_UUID}(:[A-Za-z0-9][A-Za-z0-9._-]{{0,31}})?"
    rf"(@{LABEL}(\.{LABEL}){{0,2}}(:({_PORT}))?)?$"
}
"""The documented patterns of a `Reference` that is a `WorldIDAt`, with or without a version."""
