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
NAME: Final = rf"{_CLEAN}*[^\s\u0000-\u001f{_UNCLEAN}]{_CLEAN}*"
TEXT: Final = rf"[^\u0000-\u0008\u000b-\u001f{_UNCLEAN}]*"
STORABLE: Final = r"[^\u0000]*"

_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
WORLD_REF: Final[dict[str, JsonValue]] = {
    "pattern": rf"^w_{_UUID}(:[A-Za-z0-9][A-Za-z0-9._-]{{0,31}})?"
    rf"(@{LABEL}(\.{LABEL}){{0,2}}(:({_PORT}))?)?$"
}
"""The documented patterns of a `Reference` that is a `WorldIDAt`, with or without a version."""
