"""Schemas of pydantic and msgspec are put into one form."""

from __future__ import annotations

from api.openapi.names import pascal, published
from api.openapi.schemas import plain, ref, references


def test_names_are_those_of_the_things() -> None:
    assert published("WorldView") == "World"
    assert published("ListView_WorldView_") == "WorldList"
    assert published("ListView_SessionEntry_") == "UserSessionList"
    assert published("WorldCreate") == "WorldCreate"
    assert pascal("instance-join") == pascal("instance_join") == "InstanceJoin"


def test_an_enumeration_with_a_name_is_a_reference_whatever_bounds_its_text_had() -> None:
    roles = ["admin", "master", "moderator", "normal", "owner"]
    assert plain({"enum": roles}) == ref("Role")
    bounded = {"type": "string", "maxLength": 9, "enum": roles, "description": "Its role"}
    assert plain(bounded) == {"allOf": [ref("Role")], "description": "Its role"}
    assert plain({"enum": ["red", "green"]}) == {"enum": ["red", "green"]}


def test_one_value_is_a_constant_with_its_type() -> None:
    assert plain({"enum": [True]}) == {"type": "boolean", "const": True}
    assert plain({"enum": ["event"]}) == {"type": "string", "const": "event"}


def test_integers_get_the_size_that_their_bounds_need() -> None:
    assert plain({"type": "integer", "maximum": 100})["format"] == "int32"
    assert plain({"type": "integer"})["format"] == "int64"
    assert plain({"type": "integer", "minimum": -(2**40), "maximum": 0})["format"] == "int64"


def test_titles_go_but_a_property_may_be_named_title() -> None:
    schema = {"title": "WorldView", "properties": {"title": {"title": "Title", "type": "string"}}}
    assert plain(schema) == {"properties": {"title": {"type": "string"}}}


def test_a_default_is_told_in_words_except_to_a_query() -> None:
    field = {"type": "boolean", "default": True, "description": "Why."}
    assert plain(field) == {"type": "boolean", "description": "Why. Default: `true`."}
    assert plain(field, defaults=True) == field
    assert plain({"type": "array", "default": []}) == {"type": "array"}


def test_nothing_stands_beside_a_reference() -> None:
    beside = {"$ref": "#/components/schemas/WorldView", "description": "A world"}
    assert plain(beside) == {"allOf": [ref("World")], "description": "A world"}
    assert [*references({"items": [plain(beside)]})] == ["World"]


def test_a_type_or_null_has_the_description_of_the_type() -> None:
    schema = {"anyOf": [{"type": "string", "description": "A text"}, {"type": "null"}]}
    assert plain(schema)["description"] == "A text"


def test_one_field_or_another_makes_no_two_types() -> None:
    schema = plain({"anyOf": [{"required": ["world"]}, {"required": ["id"]}]})
    assert schema == {"if": {"required": ["world"]}, "else": {"required": ["id"]}}
    kept = {"anyOf": [{"required": ["world"], "type": "object"}, {"required": ["id"]}]}
    assert plain(kept) == kept
