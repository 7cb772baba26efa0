"""The schemas of both documents, as clients are generated from them best.

pydantic describes inputs and msgspec describes answers. Each has its ways, which generators turn
into types that nobody can use. So every schema is put into one form:

- It has the name that a person would choose (`api/openapi/names.py`), and no title: generators
  prefer titles to names.
- Enumerations are components (`api/openapi/enums.py`). One value is a `const` with its type.
- Integers have a format, because without one some languages take 32 bits for milliseconds.
- "This field or that one" is an `if` with an `else`: generators make two types of an `anyOf`.
- A reference stands alone, or in an `allOf` of one beside a description. Older readers ignore what
  stands beside a reference.
- Properties have no `default`: clients would send it, and an update would then change a field that
  its caller left out. Descriptions name defaults instead. Query parameters keep theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec.json import schema_components
from pydantic.json_schema import models_json_schema

from api.http.presenters import ANY_USER
from api.openapi.enums import ENUMS, enum_of
from api.openapi.examples import Json
from api.openapi.names import published
from reileta.protocol.input_types import Input

REF: Final = "#/components/schemas/"
_INT32: Final = 2**31 - 1
_TYPES: Final = {str: "string", bool: "boolean", int: "integer"}
_ANY_USER: Final = (
    "A user, as the caller may see it: `UserMe` for the user itself and admins, else `UserFriend`"
    " for a friend, else `User`."
)
_UNIONS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {"AnyUser": (ANY_USER, _ANY_USER)}
"""Values of one of several types: by name, the types from the one with the most fields down,
because many clients take the first that fits."""
_STATE: Final = {
    "type": "object",
    "description": "The state that the sockets of a session share: any JSON object.",
    "additionalProperties": {},
}
_AUDIT_DETAILS: Final = {
    "type": "object",
    "description": "Names of the fields sent, and some of their values.",
    "additionalProperties": {},
}
_FIELDS: Final[Mapping[tuple[str, str], Json]] = {
    ("AuditEntry", "details"): {"$ref": f"{REF}AuditDetails"},
    ("Session", "state"): {"$ref": f"{REF}SessionState"},
    ("Subscription", "event"): {"$ref": f"{REF}Topic"},
    ("UserList", "items"): {
        "type": "array",
        "items": {"$ref": f"{REF}AnyUser"},
        "description": "The page",
    },
}
"""Properties whose schema the Python types can't express."""
_MAPS: Final = ("properties", "patternProperties", "dependentSchemas")
_LISTS: Final = ("anyOf", "allOf", "oneOf", "prefixItems")
_ONES: Final = ("items", "not", "contains", "additionalProperties", "propertyNames")
_BESIDE: Final = ("description", "examples", "default", "deprecated")
"""What may stand beside a named enumeration, which says all else."""


def ref(name: str) -> Json:
    """A reference to the schema of that name."""
    return {"$ref": REF + name}


class Schemas:
    """The schemas of some types, as components of a document.

    Args:
        inputs: models of pydantic.
        answers: types that msgspec encodes.
    """

    def __init__(self, inputs: Iterable[type[Input]], answers: Iterable[Any]) -> None:
        models = list(dict.fromkeys(inputs))
        others = list(dict.fromkeys(answers))
        _, described = models_json_schema(
            [(model, "validation") for model in models], ref_template=REF + "{model}"
        )
        shapes, structs = schema_components(others, ref_template=REF + "{name}")
        self._raw: Json = {**described.get("$defs", {}), **structs}
        self._shapes = {one: plain(shape) for one, shape in zip(others, shapes, strict=True)}
        self._shapes.update({model: ref(published(model.__name__)) for model in models})
        self.components: Json = {**ENUMS, "SessionState": _STATE, "AuditDetails": _AUDIT_DETAILS}
        for name, (of, description) in _UNIONS.items():
            choices = [ref(published(one.__name__)) for one in of]
            self.components[name] = {"anyOf": choices, "description": description}
        for name, schema in self._raw.items():
            public = published(name)
            assert public not in self.components, f"two schemas are named {public}"
            self.components[public] = plain(schema)
        for (name, field), schema in _FIELDS.items():
            if name in self.components:
                self.components[name]["properties"][field] = schema

    def of(self, type_: Any) -> Json:
        """The schema of a type, mostly a reference; of a tuple, of one of its types."""
        if isinstance(type_, tuple):
            (union,) = (name for name, (of, _) in _UNIONS.items() if set(of) == set(type_))
            return ref(union)
        return {} if type_ is None else self._shapes[type_]

    def component(self, type_: Any) -> Json:
        """The schema itself, of a type that has a component."""
        found: Json = self.components[name_in(self._shapes[type_])]
        return found

    def parameters(self, model: type[Input]) -> tuple[Mapping[str, Json], frozenset[str]]:
        """The fields of a query, with their defaults, and the names of those that it must have."""
        raw = self._raw[model.__name__]
        fields = {
            name: plain(field, defaults=True) for name, field in raw.get("properties", {}).items()
        }
        return fields, frozenset(raw.get("required", ()))

    def used_by(self, *parts: Any) -> Json:
        """The components that parts of a document refer to, and those that these refer to."""
        used: Json = {}
        waiting = [name for part in parts for name in references(part)]
        while waiting:
            name = waiting.pop()
            if name not in used:
                used[name] = self.components[name]
                waiting += references(used[name])
        return dict(sorted(used.items()))


def name_in(schema: Json) -> str:
    """The name of the component that a reference leads to."""
    name: str = schema["$ref"].rpartition("/")[2]
    return name


def references(value: Any) -> Iterator[str]:
    """The names of the schemas that a part of a document refers to."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(REF):
            yield reference.removeprefix(REF)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from references(one)


def plain(schema: Json, *, defaults: bool = False) -> Json:
    """A schema in the form that the top of this file describes."""
    schema = {key: value for key, value in schema.items() if key != "title"}
    _demand_either(schema)
    for keyword in _MAPS:
        if keyword in schema:
            schema[keyword] = {
                name: plain(one, defaults=defaults) for name, one in schema[keyword].items()
            }
    for keyword in _LISTS:
        if keyword in schema:
            schema[keyword] = [plain(one, defaults=defaults) for one in schema[keyword]]
    for keyword in _ONES:
        if isinstance(schema.get(keyword), dict):
            schema[keyword] = plain(schema[keyword], defaults=defaults)
    if "description" not in schema:
        described = [one["description"] for one in schema.get("anyOf", ()) if "description" in one]
        if len(described) == 1:  # a type or null
            (schema["description"],) = described
    if not defaults and "default" in schema:
        _describe_default(schema)
    if "$ref" in schema:
        return _referring(published(name_in(schema)), schema)
    named = enum_of(schema["enum"]) if "enum" in schema else None
    if named is not None:
        return _referring(named, {key: schema[key] for key in _BESIDE if key in schema})
    if len(schema.get("enum", ())) == 1:
        (schema["const"],) = schema.pop("enum")
    if "const" in schema:
        schema = {"type": _TYPES[type(schema["const"])], **schema}
    if schema.get("type") == "integer" and "const" not in schema:
        bounded = schema.get("maximum", 2**53) <= _INT32 and schema.get("minimum", 0) >= -_INT32
        schema["format"] = "int32" if bounded else "int64"
    return schema


def either(first: str, second: str) -> Json:
    """The part of an object's schema that demands one of two fields, or both."""
    return {"if": {"required": [first]}, "else": {"required": [second]}}


def _demand_either(schema: Json) -> None:
    """Rewrites an `anyOf` of two objects that only differ in the field that they must have."""
    match schema.get("anyOf"):
        case [{"required": [first], **one}, {"required": [second], **two}] if not one and not two:
            del schema["anyOf"]
            schema.update(either(first, second))


def _describe_default(schema: Json) -> None:
    """Moves the default of a property into its description, unless it says nothing."""
    default = schema.pop("default")
    if default is None or default is False or default in ([], ""):
        return
    words = f"Default: `{json.dumps(default, ensure_ascii=False)}`."
    schema["description"] = f"{schema.get('description', '')} {words}".strip()


def _referring(name: str, beside: Json) -> Json:
    """A reference, in an `allOf` if something stands beside it."""
    rest = {key: value for key, value in beside.items() if key != "$ref"}
    return {"allOf": [ref(name)], **rest} if rest else ref(name)
