"""Sockets as the document describes them, from any declaration."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct
from msgspec.json import schema_components

from api.openapi.examples import Json
from api.openapi.websockets import Command, Event, Socket, describe, opened, types_of
from reileta.errors import AlreadyConnected, NotLoggedIn


class Kept(Struct):
    """Some of it is kept as bytes."""

    name: Annotated[str, Meta(examples=["it"])]
    bare: Raw
    several: list[Raw]
    preset: Annotated[Raw, Meta(description="any")] = Raw(b"null")
    number: int | None = None


class Part(Struct):
    number: Annotated[int, Meta(examples=[7])]


def schema(struct: type[Struct]) -> Json:
    (_,), schemas = schema_components([struct], ref_template="{name}")
    found: Json = schemas[struct.__name__]
    return found


def test_what_is_kept_as_bytes_is_any_json() -> None:
    described = schema(opened(Kept))
    assert described["required"] == ["name", "bare", "several"]
    properties = described["properties"]
    assert properties["bare"] == {}
    assert properties["preset"] == {"description": "any"}
    assert properties["number"]["default"] is None
    assert properties["name"] == {"type": "string", "examples": ["it"]}
    assert described["description"] == "Some of it is kept as bytes."


def test_a_field_can_be_said_to_be_more_than_any_json() -> None:
    (_,), schemas = schema_components([opened(Kept, several=list[Part])], ref_template="{name}")
    assert schemas["Kept"]["properties"]["several"] == {"type": "array", "items": {"$ref": "Part"}}


def socket(**changes: Any) -> Socket:
    declared: dict[str, Any] = {
        "path": "/ws",
        "summary": "s",
        "about": "a",
        "security": ({}, {"token": []}),
        "refusals": (AlreadyConnected,),
        "sends": (Kept,),
        "receives": (Part, Kept),
        "data_in": "data",
        "commands": (
            Command(
                name="go",
                about="Goes.",
                data=Part,
                answer=(Part, Kept),
                errors=(NotLoggedIn,),
                example={"go": 1},
                answered={"gone": 1},
                need=False,
            ),
        ),
        "events": (
            Event(name="gone", about="Went.", data=Part, told="all", group="g", subgroup="s"),
            Event(name="came", about="Came.", data=(Part, Kept), told="", example=False),
        ),
        "closes": {"1001": "Goes."},
    }
    return Socket(**{**declared, **changes})


def test_each_type_is_asked_for_once() -> None:
    assert types_of([socket(), socket(path="/other")]) == [Kept, Part]


def test_a_socket_is_described_by_its_declaration() -> None:
    schemas: Json = {"Part": schema(Part), "Kept": {}}
    refs = {Part: {"$ref": "#/Part"}, Kept: {"$ref": "#/Kept"}}
    either = {"anyOf": [refs[Part], refs[Kept]]}
    described = describe([socket()], refs.__getitem__, schemas)
    assert described == {
        "/ws": {
            "summary": "s",
            "description": "a",
            "security": [{}, {"token": []}],
            "refusals": [{"status": 409, "code": 15, "message": "User already connected"}],
            "sends": refs[Kept],
            "receives": either,
            "dataIn": "data",
            "commands": {
                "go": {
                    "description": "Goes.",
                    "needsCredential": False,
                    "data": refs[Part],
                    "answer": either,
                    "errors": [{"code": 3, "message": "User not logged"}],
                    "example": {"go": 1},
                    "answerExample": {"gone": 1},
                }
            },
            "events": {
                "gone": {
                    "description": "Went.",
                    "sentTo": "all",
                    "data": refs[Part],
                    "group": "g",
                    "subgroup": "s",
                    "example": {"number": 7},
                },
                "came": {
                    "description": "Came.",
                    "sentTo": "",
                    "data": either,
                    "example": False,
                },
            },
            "closeCodes": {"1001": "Goes."},
        }
    }
    grouped = describe([socket(groups={"g": ("gone",)})], refs.__getitem__, schemas)
    assert grouped["/ws"]["groups"] == {"g": ["gone"]}
