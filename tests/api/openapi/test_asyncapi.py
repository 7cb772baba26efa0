"""`/asyncapi.json`: valid, complete, and with examples that fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import trio

from api.app import ReiletaApp
from api.http.headers import SESSION_COOKIE
from api.openapi.asyncapi import (
    CHANNELS,
    CLOSE_CODES,
    ERROR_CODES,
    GROUPS,
    asyncapi,
    message_of,
    operations_of,
    payload_of,
)
from api.ws.gateway import Gateway, gateway_blueprint
from api.ws.registry.commands import COMMANDS
from api.ws.registry.events import EVENTS
from reileta.site import Site
from tests.api.clients import Client, Json
from tests.api.openapi.test_document import inner_schemas
from tests.test_house import ROOT


@pytest.fixture
def document() -> Json:
    return asyncapi(Site("play.example.org:3032", secure=True))


def validator(document: Json, schema: Json) -> jsonschema_rs.Draft7Validator:
    """AsyncAPI's own schemas are those of draft 7."""
    return jsonschema_rs.Draft7Validator({**schema, "components": document["components"]})


def objects_of(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from objects_of(one)


def test_it_is_valid_by_the_official_schema(document: Json) -> None:
    official = json.loads(
        (ROOT / "tests/vendor/asyncapi" / f"asyncapi-{document['asyncapi']}.json").read_text()
    )
    jsonschema_rs.validator_for(official).validate(document)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validator_for(official).validate({**document, "channels": []})


def test_its_references_lead_somewhere_and_none_stands_beside_other_fields(
    document: Json,
) -> None:
    for one in objects_of(document):
        if isinstance(one.get("$ref"), str):
            assert list(one) == ["$ref"]  # draft 7 ignores what stands beside it
            found: Any = document
            for part in one["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            assert found


async def test_it_is_served_with_the_servers_own_address(app: ReiletaApp, anyone: Client) -> None:
    answer = await anyone.get("/asyncapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == asyncapi(Site(app.node.address), cookie=app.auth.cookie)
    assert answer.body["servers"]["this"] == {"host": app.node.address, "protocol": "ws"}
    cookie = answer.body["components"]["securitySchemes"]["cookie"]
    assert cookie["name"] == app.auth.cookie != SESSION_COOKIE
    over_tls = (await anyone.get("/asyncapi.json", scheme="https")).body
    assert over_tls["servers"]["this"]["protocol"] == "wss"


async def test_every_websocket_is_in_it_and_none_is_in_the_openapi_document(
    lines: ReiletaApp, anyone: Client, nursery: trio.Nursery
) -> None:
    gateway = Gateway(lines.node, lines.auth)
    lines.register_blueprint(gateway_blueprint(gateway))
    served = {rule.rule for rule in lines.url_map.iter_rules() if rule.websocket}
    assert {address for channel in CHANNELS for address in channel.addresses} == served
    openapi = (await anyone.get("/openapi.json")).body
    assert not served & set(openapi["paths"])
    assert "x-websockets" not in openapi


def test_the_server_receives_every_command_and_sends_every_event(document: Json) -> None:
    for channel in CHANNELS:
        key = channel.id or "registry"
        received = operations_of(document, key, "receive").values()
        assert [one["title"] for one in received] == [one.name for one in channel.commands]
        sent = {one["title"] for one in operations_of(document, key, "send").values()}
        assert sent - {"refusal of a message"} == channel.events.names
        described = document["channels"][key]
        assert described[CLOSE_CODES].keys() == set(map(str, channel.close_codes))
    groups = document["channels"]["registry"][GROUPS]
    assert {name: frozenset(of) for name, of in groups.items()} == {
        name: EVENTS.members(name) for name in (*EVENTS.groups, "all")
    }


def test_every_command_has_an_answer_and_a_refusal_with_its_codes(document: Json) -> None:
    for operation in operations_of(document, "registry", "receive").values():
        answer, refusal = (message_of(document, one) for one in operation["reply"]["messages"])
        command = COMMANDS.by_name[operation["title"]]
        assert payload_of(document, answer)["required"] == ["state", "command", "data"]
        error = payload_of(document, refusal)["properties"]["error"]
        assert error["allOf"] == [{"$ref": "#/components/schemas/ErrorInfo"}]
        assert {error.code for error in command.errors} <= set(error[ERROR_CODES])
        assert ("security" in operation) == (command.need == "session")


def test_its_schemas_are_named_and_described(document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, inner in schema.get("properties", {}).items():
            told = {"description", "$ref", "allOf", "const"}
            assert inner.keys() & told or field in ("data", "payload"), (name, field)
        for inner in inner_schemas(schema):
            assert "properties" not in inner, name
            assert len(inner.get("enum", ())) < 2, f"name it in api/openapi/enums.py: {inner}"
    assert {"Role", "LeaveReason", "CandidateReason", "Topic"} <= document["components"][
        "schemas"
    ].keys()
    for name, message in document["components"]["messages"].items():
        assert message["payload"] == {"$ref": f"#/components/schemas/{name}"}


def test_its_examples_fit_its_schemas_and_are_no_placeholders(document: Json) -> None:
    for name, message in document["components"]["messages"].items():
        assert message["examples"], name
        for example in message["examples"]:
            validator(document, message["payload"]).validate(example["payload"])
            shown = json.dumps(example, ensure_ascii=False)
            assert '": "…"' not in re.sub(r'"(description|title|url|hash|icon)": "…"', "", shown)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("InstanceJoinCommand", {"command": "instance-join"}),
        ("InstanceDataCommand", {"command": "instance-data", "data": 1}),
        ("SubscribeCommand", {"command": "subscribe", "data": {}}),
        ("SubscribeCommand", {"command": "unsubscribe", "data": {"event": "all"}}),
        ("PingAnswer", {"command": "ping", "data": {"client": 1, "server": 2}}),
        ("PingRefusal", {"command": "ping", "error": {"code": 999, "message": "Full"}}),
        ("SessionClosingEvent", {"type": "event"}),
    ],
)
def test_other_messages_do_not_fit(document: Json, name: str, message: Json) -> None:
    payload = document["components"]["messages"][name]["payload"]
    with pytest.raises(jsonschema_rs.ValidationError):
        validator(document, payload).validate(message)


def test_its_schemas_mean_the_same_as_those_of_the_newest_draft(document: Json) -> None:
    newer = {"prefixItems", "unevaluatedProperties", "dependentRequired", "$defs", "$dynamicRef"}
    for one in objects_of(document["components"]["schemas"]):
        assert not newer & one.keys()


async def test_a_schema_of_both_documents_is_the_same_in_both(
    document: Json, anyone: Client
) -> None:
    openapi = (await anyone.get("/openapi.json")).body["components"]["schemas"]
    for name, schema in document["components"]["schemas"].items():
        assert "." not in name  # msgspec would tell two of one name apart by their modules
        assert openapi.get(name, schema) == schema
