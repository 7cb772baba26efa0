"""Examples for the documents, made from schemas so that they fit them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def example_of(schema: Json, schemas: Json) -> Any:
    """A value that fits the schema: the schema's own example, or one made from its parts."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("default") is not None:
        return schema["default"]
    for choice in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        if choice != {"type": "null"}:
            return example_of(choice, schemas)
    match schema.get("type"):
        case "object":
            return {
                name: example_of(field, schemas)
                for name, field in schema.get("properties", {}).items()
            }
        case "array":
            return [example_of(schema["items"], schemas)] if "items" in schema else []
        case "integer":
            return schema.get("minimum", 1)
        case "number":
            return schema.get("minimum", 0.5)
        case "boolean":
            return False
        case "string":
            return "…"
        case _:
            return None
