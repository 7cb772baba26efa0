"""Examples are put together from schemas."""

from __future__ import annotations

from api.openapi.examples import Json, example_of


def test_examples_are_put_together_from_parts() -> None:
    schemas: Json = {"Leaf": {"type": "string", "examples": ["leaf"]}}
    schema: Json = {
        "type": "object",
        "properties": {
            "leaf": {"$ref": "#/components/schemas/Leaf"},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 3}]},
            "list": {"type": "array", "items": {"enum": ["a", "b"]}},
            "bare": {"type": "array"},
            "flag": {"type": "boolean"},
            "fixed": {"const": 5},
            "text": {"type": "string"},
            "preset": {"type": "integer", "default": 9},
            "any": {},
        },
    }
    assert example_of(schema, schemas) == {
        "leaf": "leaf", "maybe": 3, "list": ["a"], "bare": [], "flag": False, "fixed": 5,
        "text": "…", "preset": 9, "any": None,
    }  # fmt: skip
