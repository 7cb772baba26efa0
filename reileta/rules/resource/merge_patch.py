"""JSON merge patches (RFC 7396), with which states and documents are changed (PROTOCOL §8).

Ours, because the libraries there are for it have not been kept, and it is a page of the RFC.
Nothing given is changed; what stays the same is shared between the value before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reileta.rules.resource.json_values import Json, same, text_of, values_within


def apply(target: Json, patch: Json) -> Json:
    """The target with the patch: null takes a member out, an object is merged, the rest replaces.

    The result is nested no deeper than the deeper of the two.
    """
    if not isinstance(patch, dict):
        return patch
    return apply_object(target if isinstance(target, dict) else {}, patch)


def apply_object(target: dict[str, Json], patch: dict[str, Json]) -> dict[str, Json]:
    """`apply` for two objects, which make an object. As text it is no longer than both together."""
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
"""Bytes of a member beside its name and value: a colon and a comma."""


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much a value has grown: bytes of its text, and values in it."""

    size: int = 0
    values: int = 0


def apply_measured(
    target: dict[str, Json], patch: dict[str, Json]
) -> tuple[dict[str, Json], Growth]:
    """`apply_object`, and by how much the object grows.

    Only members that change are looked at, so the work grows with the patch and with what it takes
    the place of, not with the target.
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
    # Commas stand between members: one fewer than there are.
    size += (not merged) - (not target)
    return merged, Growth(size, values)


def _weigh(value: Json) -> Growth:
    text = text_of(value)
    return Growth(len(text), values_within(text) if isinstance(value, (dict, list)) else 1)


def diff(before: dict[str, Json], after: dict[str, Json]) -> dict[str, Json]:
    """The smallest patch of members that makes `before` into `after`; lists are replaced whole.

    No patch can make a member null: in `after` none may be, but within lists. What patches have
    made of an empty object, as every state is, has none.
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
