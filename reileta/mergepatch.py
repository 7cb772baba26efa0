"""JSON merge patches (RFC 7396), with which states and documents are changed (PROTOCOL §8).

Ours, because the libraries there are for it have not been kept, and it is a page of the RFC.
Nothing given is changed; what stays the same is shared between the value before and after.
"""

from __future__ import annotations

from reileta.jsonvalues import Json, same


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
