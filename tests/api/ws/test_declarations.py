"""Declarations of commands and events, and what comes of them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta, Raw, Struct
from msgspec.json import schema_components

from api.openapi.examples import Json
from api.ws.declarations import Commands, Event, Events, opened
from reileta.errors import NotLoggedIn
from reileta.protocol.input_types import Input


class NumberInput(Input):
    number: int


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


def test_a_declared_command_is_known_by_its_name() -> None:
    table = Commands[object, Any]()

    @table.add(
        "go",
        takes=NumberInput,
        gives=Part,
        errors=(NotLoggedIn,),
        sent={"data": {"number": 1}},
        answered={"number": 2},
    )
    async def go(_: object, given: NumberInput) -> Part:
        """Goes
        there."""
        return Part(given.number)

    command = table.by_name["go"]
    assert table.names == {"go"}
    assert list(table) == [command]
    assert (command.description, command.takes, command.handler) == ("Goes there.", NumberInput, go)
    assert command.example == {"state": 1, "command": "go", "data": {"number": 1}}
    assert command.answer_example == {"state": 1, "command": "go", "data": {"number": 2}}
    with pytest.raises(AssertionError):
        table.add("go", takes=NumberInput, gives=Part, sent={}, answered={})(go)


def test_a_relay_takes_messages_whole() -> None:
    table = Commands[object, Any]()

    @table.add_relay(
        "say",
        gives=Part,
        errors=(),
        options=("loud",),
        sent={"subgroup": "i_1", "data": 1},
        answered={},
    )
    def say(*_: object) -> None:
        """Says it."""

    assert table.relays == {"say": say}
    command = table.by_name["say"]
    assert (command.takes, command.handler, command.options) == (None, None, ("loud",))
    assert command.answer_example["subgroup"] == "i_1"


def test_events_have_groups_that_subscriptions_take() -> None:
    table = Events(
        Event(name="came", description="Came.", data=Part, group="moves"),
        Event(name="went", description="Went.", data=Part, group="moves"),
        Event(name="rang", description="Rang.", data=Part),
    )
    assert table.groups == {"moves": ("came", "went")}
    assert table.members("moves") == frozenset({"came", "went"})
    assert table.members("rang") == frozenset({"rang"})
    assert table.members("all") == table.names == frozenset({"came", "went", "rang"})
    assert table.members("") is None
    with pytest.raises(AssertionError):
        Events(table["came"], table["came"])


def test_fields_kept_as_bytes_are_any_json() -> None:
    described = schema(opened(Kept))
    assert described["required"] == ["name", "bare", "several"]
    properties = described["properties"]
    assert properties["bare"] == {}
    assert properties["preset"] == {"description": "any"}
    assert properties["number"]["default"] is None
    assert properties["name"] == {"type": "string", "examples": ["it"]}
    assert described["description"] == "Some of it is kept as bytes."


def test_a_field_kept_as_bytes_can_have_a_type() -> None:
    (_,), schemas = schema_components([opened(Kept, several=list[Part])], ref_template="{name}")
    assert schemas["Kept"]["properties"]["several"] == {"type": "array", "items": {"$ref": "Part"}}
