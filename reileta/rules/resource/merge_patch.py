"""JSON merge patches (RFC 7396), for states and documents.

Our own code, because the existing libraries are unmaintained, and it is one page of the RFC. The
arguments don't change; unchanged parts are shared between the old and the new value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reileta.rules.resource.json_values import Json, same, text_of, values_within


def apply(target: Json, patch: Json) -> Json:
    """Applies the patch: null removes a member, an object is merged, anything else replaces.

    The result is not nested deeper than the deeper argument.
    """
    if not isinstance(patch, dict):
        return patch
    return apply_object(target if isinstance(target, dict) else {}, patch)


def apply_object(target: dict[str, Json], patch: dict[str, Json]) -> dict[str, Json]:
    """`apply` for two objects. The result's text is not longer than both arguments' texts
    together."""
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = apply(merged.get(name), value)
        else:
            merged[name] = value
    return merged


_MEMBER: Final = 2
"""Bytes of a member besides its name and value: a colon and a comma."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How much a value has grown: bytes of its text, and values in it."""

    size: int = 0
    values: int = 0


def apply_measured(
    target: dict[str, Json], patch: dict[str, Json]
) -> tuple[dict[str, Json], Growth]:
    """Like `apply_object`; also returns how much the object grows.

    Only changed members are visited, so the work grows with the patch and the values it replaces,
    not with the target.
    """
    merged = dict(target)
    size = values = 0
    for name, value in patch.items():
        there = name in target
        before = target.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[name], growth = apply_measured(before, value)
            size += growth.size
            values += growth.values
            continue
        if there:
            weight = _weigh(before)
            size -= weight.size
            values -= weight.values
        if value is not None:
            after = merged[name] = apply({}, value)
            weight = _weigh(after)
            size += weight.size
            values += weight.values
        elif there:
            del merged[name]
        size += (_MEMBER + len(text_of(name))) * ((name in merged) - there)
    # Commas separate members: there is one fewer.
    size += (not merged) - (not target)
    return merged, Growth(size, values)


def _weigh(value: Json) -> Growth:
    text = text_of(value)
    return Growth(len(text), values_within(text) if isinstance(value, (dict, list)) else 1)


def diff(before: dict[str, Json], after: dict[str, Json]) -> dict[str, Json]:
    """The smallest patch that turns `before` into `after`; arrays are replaced as a whole.

    A patch can't set a member to null, so `after` must not contain null, except in arrays. States
    fulfil this, since they start empty and only patches change them.
    """
    patch: dict[str, Json] = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            below = diff(old, value)
            if below:
                patch[name] = below
        elif name not in before or not same(old, value):
            patch[name] = value
    return patch
