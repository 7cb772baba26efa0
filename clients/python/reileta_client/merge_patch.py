"""JSON merge patches (RFC 7396)."""

from __future__ import annotations

from typing import Any


def merged(value: Any, patch: Any) -> Any:
    """The value with the patch applied; both stay as they are."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), change)
    return result
