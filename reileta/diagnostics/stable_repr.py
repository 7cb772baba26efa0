"""Values as reproducible one-line text that is safe for terminals.

Sets are sorted, control characters are escaped, and payloads are shown by size and beginning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

PREVIEW: Final = 60
"""Characters of a payload that are shown."""

RECORDED_NAMES: Final = {"InstanceRecord": "Instance"}
"""Present names of classes, with the names that the digests in recordings were made with.

Add a class of `replay.state` here when you rename it, so that earlier recordings still match.
"""

LATER_FIELDS: Final = {
    "InstanceRecord": {"entered", "node", "position_key"},
    "Candidate": {"precedes"},
    "Mute": {"by", "clock_set_ms", "created_at", "reason"},
}
"""Fields that were added to classes of `replay.state`. They are left out while they have their
default, so that earlier recordings still match. Add a field here when you add it to a class.
"""

_CONTROL: Final = {
    code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))
}


def stable_repr(value: Any, *, whole: bool = False) -> str:
    """The value as one line. With `whole`, a payload is represented by its SHA-256."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bytes):
        return _payload(value, whole)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        later = LATER_FIELDS.get(name, set())
        fields = (
            f"{one.name}={stable_repr(getattr(value, one.name), whole=whole)}"
            for one in dataclasses.fields(value)
            if one.name not in later or getattr(value, one.name) != one.default
        )
        return f"{RECORDED_NAMES.get(name, name)}({', '.join(fields)})"
    if isinstance(value, Mapping):
        inner = (
            f"{stable_repr(key, whole=whole)}: {stable_repr(one, whole=whole)}"
            for key, one in value.items()
        )
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, AbstractSet):
        return f"{{{', '.join(sorted(stable_repr(one, whole=whole) for one in value))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(stable_repr(one, whole=whole) for one in value)}]"
    return str(value)


def quoted(text: str) -> str:
    """The text in quotation marks, with control characters and line separators escaped."""
    return json.dumps(text, ensure_ascii=False).translate(_CONTROL)


def _payload(data: bytes, whole: bool) -> str:
    if whole:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
    shown = data.decode("utf-8", "backslashreplace")
    cut = "..." if len(shown) > PREVIEW else ""
    return f"<{len(data)} bytes {quoted(shown[:PREVIEW])}{cut}>"
