"""The document: whole, and true to what the server answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from api.app import ReiletaApp
from api.openapi.document import resolved
from api.openapi.links import PARAMETER
from tests.api.clients import Client, Json
from tests.api.fakes import FakeNode


@pytest.fixture
async def document(anyone: Client) -> Json:
    return (await anyone.get("/openapi.json")).body


def validator(document: Json, schema: Json) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        {**schema, "components": document["components"]}, validate_formats=True
    )


def operations(document: Json) -> list[tuple[str, str, Json]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_route_of_the_api_is_in_it(app: ReiletaApp, document: Json) -> None:
    described = {
        (path.replace("{", "<").replace("}", ">"), method.upper())
        for path, method, _ in operations(document)
    }
    elsewhere = {"docs", "metrics", "pages"}
    served = {
        (rule.rule.removesuffix("@<server>"), method)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] not in elsewhere and not rule.websocket
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == served


async def test_published_names_of_operations_tags_and_schemas_stay(document: Json) -> None:
    """Clients are generated from these names. A new endpoint adds a line to the file."""
    names = {
        f"{method.upper()} {path} {operation['operationId']} {','.join(operation['tags'])}"
        for path, method, operation in operations(document)
    } | {f"schema {name}" for name in document["components"]["schemas"]}
    published = Path(__file__).with_name("published_names.txt").read_text("utf-8").splitlines()
    assert not set(published) - names


async def test_no_two_names_differ_only_in_their_case_or_their_joints(document: Json) -> None:
    """Clients write one name as `log_in`, `logIn` or `LogIn`: `login` must not be another."""
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    for names in (ids, [*document["components"]["schemas"]]):
        assert len({name.replace("_", "").lower() for name in names}) == len(names)


def inner_schemas(schema: Json) -> list[Json]:
    """The schemas in a schema."""
    several = [
        *schema.get("properties", {}).values(),
        *(one for key in ("anyOf", "allOf", "oneOf") for one in schema.get(key, ())),
        *(schema[key] for key in ("items", "additionalProperties", "not") if schema.get(key)),
    ]
    return [*several, *(inner for one in several for inner in inner_schemas(one))]


async def test_a_generator_has_to_make_up_no_name(document: Json) -> None:
    bodies = [
        body
        for _, _, operation in operations(document)
        for body in (operation.get("requestBody", {}), *operation["responses"].values())
    ]
    contents = [
        content
        for body in (*bodies, *document["components"]["responses"].values())
        for kind, content in body.get("content", {}).items()
        if kind == "application/json"
    ]
    assert all(list(content["schema"]) == ["$ref"] for content in contents)
    parameters = [one["schema"] for _, _, of in operations(document) for one in of["parameters"]]
    components = document["components"]["schemas"]
    nested = [inner for one in (*components.values(), *parameters) for inner in inner_schemas(one)]
    for schema in (*nested, *parameters):
        assert "properties" not in schema, schema
        assert len(schema.get("enum", ())) < 2, f"name it in api/openapi/enums.py: {schema}"


async def test_a_client_sends_only_what_its_caller_gave(document: Json) -> None:
    """A `default` of a property is sent by some generated clients, and would change an object."""
    for name, schema in document["components"]["schemas"].items():
        for inner in inner_schemas(schema):
            assert "default" not in inner, name


async def test_every_operation_has_one_schema_of_errors(document: Json) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                whole = resolved(document, response)
                (content,) = whole["content"].values()
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
                shown = {one["value"]["error"]["code"] for one in content["examples"].values()}
                assert shown == set(whole["x-error-codes"]), (method, path, status)
    codes = document["components"]["schemas"]["ErrorCode"]
    assert len(codes["enum"]) == len(codes["x-enum-varnames"]) == len(set(codes["x-enum-varnames"]))


async def test_operations_about_objects_of_servers_say_so(app: ReiletaApp, document: Json) -> None:
    aliases = set()
    for operation in app.operations:
        path = PARAMETER.sub(r"{\1}", operation.path)
        described = document["paths"][path][operation.method.lower()]
        aliases |= set(described.get("x-aliases", ()))
        texts = [one["description"] for one in described["parameters"] if one["name"] == "server"]
        if not operation.of_server:
            assert texts in ([], ["Must be the address of this server."]), operation.name
            continue
        assert len(texts) == 1, operation.name
        assert "@ADDRESS" in texts[0]
        codes = {
            code
            for response in described["responses"].values()
            for code in resolved(document, response).get("x-error-codes", ())
        }
        remote = {6, 7, 8, 9, 11} if operation.remote is not None else {10}
        assert {3, 5, 135} | remote <= codes, operation.name
    served = {rule.rule for rule in app.url_map.iter_rules() if rule.rule.endswith("@<server>")}
    assert {PARAMETER.sub(r"{\1}", rule) for rule in served} == aliases


async def test_integers_say_how_large_they_are(document: Json) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["World"]["properties"]["created_at"]["format"] == "int64"
    assert schemas["World"]["properties"]["capacity"]["format"] == "int32"
    for schema in schemas.values():
        for inner in inner_schemas(schema):
            assert inner.get("type") != "integer" or inner.keys() & {"format", "const"}


async def test_everything_is_described(document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, inner in schema.get("properties", {}).items():
            assert inner.keys() & {"description", "$ref", "allOf"}, (name, field)
    for path, method, operation in operations(document):
        assert operation["description"], (method, path)
        for parameter in operation["parameters"]:
            assert parameter["description"], (method, path, parameter["name"])


async def test_of_several_views_the_one_with_the_most_fields_comes_first(document: Json) -> None:
    """Clients take the first that fits, and a `User` fits all of them."""
    schemas = document["components"]["schemas"]
    names = [one["$ref"].rpartition("/")[2] for one in schemas["AnyUser"]["anyOf"]]
    assert names == ["UserMe", "UserFriend", "User"]
    required = [set(schemas[name]["required"]) for name in names]
    assert required[0] > required[2] < required[1]
    assert not required[1] <= required[0]


async def test_its_names_are_unique_and_its_references_lead_somewhere(document: Json) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(inner) for inner in value.values()))
        if isinstance(value, list):
            return set().union(*(references(inner) for inner in value))
        return set()

    known = {
        f"#/components/{kind}/{name}"
        for kind, components in document["components"].items()
        for name in components
    }
    assert references(document) <= known
    assert "#/components/schemas/InstanceCreate" in references(document)


async def test_its_examples_fit_its_schemas(document: Json) -> None:
    for path, method, operation in operations(document):
        bodies = [*operation["responses"].values(), operation.get("requestBody", {})]
        bodies = [resolved(document, body) for body in bodies]
        contents = [
            body["content"]["application/json"]
            for body in bodies
            if "application/json" in body.get("content", {})
        ]
        for content in contents:
            examples = [content["example"]] if "example" in content else []
            examples += [example["value"] for example in content.get("examples", {}).values()]
            assert examples, (method, path)
            for example in examples:
                validator(document, content["schema"]).validate(example)


async def test_the_bodies_that_it_shows_are_no_placeholders(document: Json) -> None:
    shown = {
        (method, path): operation["requestBody"]["content"]["application/json"]["example"]
        for path, method, operation in operations(document)
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert shown["post", "/api/instances/{ref}/candidate"] == {"user": "ada"}
    for where, example in shown.items():
        assert "…" not in json.dumps(example, ensure_ascii=False), where


async def test_what_every_operation_can_answer_is_in_it(document: Json) -> None:
    for _, _, operation in operations(document):
        statuses = set(operation["responses"])
        assert {"200", "429", "500", "503"} <= statuses
        if "requestBody" in operation:
            assert {"400", "408", "413", "415"} <= statuses
        if operation["security"] and {} not in operation["security"]:
            assert "401" in statuses


async def test_what_the_server_answers_fits_it(
    document: Json, anyone: Client, ada: Client, node: FakeNode
) -> None:
    world = (await ada.put("/api/worlds", {"title": "t"})).data["id"]
    instance = (await ada.put("/api/instances", {"world": world, "description": "d"})).data["id"]
    asked = [
        (ada, "GET", "/api/server", "/api/server", None),
        (ada, "GET", "/api/time", "/api/time", None),
        (ada, "GET", "/.well-known/avr", "/.well-known/avr", None),
        (ada, "GET", "/healthz", "/healthz", None),
        (ada, "GET", "/api/users", "/api/users", None),
        (ada, "GET", "/api/users/{ref}", "/api/users/@me", None),
        (anyone, "GET", "/api/users/{ref}", "/api/users/ada", None),
        (anyone, "GET", "/api/users/{ref}", "/api/users/nobody", None),
        (anyone, "GET", "/api/users/{ref}", "/api/users/@me", None),
        (ada, "GET", "/api/worlds", "/api/worlds", None),
        (ada, "GET", "/api/worlds", "/api/worlds?limit=0", None),
        (ada, "PUT", "/api/worlds", "/api/worlds", {"title": "t"}),
        (ada, "PUT", "/api/worlds", "/api/worlds", {}),
        (anyone, "PUT", "/api/worlds", "/api/worlds", {"title": "t"}),
        (ada, "GET", "/api/worlds/{ref}", f"/api/worlds/{world}", None),
        (ada, "POST", "/api/worlds/{ref}", f"/api/worlds/{world}", {"title": "u"}),
        (ada, "GET", "/api/instances", "/api/instances", None),
        (ada, "GET", "/api/instances/{ref}", f"/api/instances/{instance}", None),
        (ada, "PUT", "/api/instances", "/api/instances", {"world": world}),
        (ada, "POST", "/api/instances/{ref}", f"/api/instances/{instance}", {"capacity": 2}),
        (ada, "DELETE", "/api/instances/{ref}", f"/api/instances/{instance}", None),
        (ada, "DELETE", "/api/worlds/{ref}", f"/api/worlds/{world}", None),
        (ada, "DELETE", "/api/worlds/{ref}", f"/api/worlds/{world}", None),
        (anyone, "POST", "/api/auth/login", "/api/auth/login", {}),
        (anyone, "POST", "/api/auth/login", "/api/auth/login", {"username": "a", "password": "b"}),
        (ada, "DELETE", "/api/auth/logout", "/api/auth/logout", None),
    ]
    for client, method, path, url, body in asked:
        answer = await client.ask(method, url, body)
        responses = document["paths"][path][method.lower()]["responses"]
        assert str(answer.status) in responses, (method, url, answer.raw)
        response = resolved(document, responses[str(answer.status)])
        schema = response["content"]["application/json"]["schema"]
        validator(document, schema).validate(answer.body)
        if answer.status >= 400:
            assert answer.body["error"]["code"] in response["x-error-codes"]


async def test_a_body_is_required_where_nothing_works_without(document: Json, ada: Client) -> None:
    required = {
        (method, path): operation["requestBody"]["required"]
        for path, method, operation in operations(document)
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert required["post", "/api/instances/{ref}/candidate"] is False
    assert required["put", "/api/worlds"] is False
    assert (await ada.ask("PUT", "/api/worlds")).status == 200
    assert required["put", "/api/services"] is True
    assert (await ada.ask("PUT", "/api/services")).status == 400
    assert required["post", "/api/users/{ref}"] is False
    assert (await ada.ask("POST", "/api/users/@me")).status == 200


async def test_reads_say_which_headers_they_heed(app: ReiletaApp, document: Json) -> None:
    patch = document["paths"]["/resource/{type}/{number}"]["patch"]
    assert "If-Match" in [one["name"] for one in patch["parameters"]]
    heeded = {
        path: [one["name"] for one in operation["parameters"] if one["in"] == "header"]
        for path, method, operation in operations(document)
        if method == "get"
    }
    file = heeded.pop("/api/worlds/{ref}/assets/{asset}/file")
    assert file == ["If-None-Match", "Range", "If-Range"]
    assert heeded.pop("/api/worlds/{ref}/thumbnail") == ["If-None-Match"]
    assert heeded.pop("/api/users/{ref}/thumbnail") == ["If-None-Match"]
    assert heeded.pop("/api/users/{ref}/banner") == ["If-None-Match"]
    tagged = {PARAMETER.sub(r"{\1}", one.path) for one in app.operations if one.cached is not None}
    assert {path for path, headers in heeded.items() if headers} == tagged
    for path in tagged:
        assert heeded[path] == ["If-None-Match"]
        answers = document["paths"][path]["get"]["responses"]
        assert "ETag" in answers["200"]["headers"]
        assert "ETag" in answers["304"]["headers"]
        assert "content" not in answers["304"]


async def test_no_two_schemas_claim_one_name(document: Json) -> None:
    """msgspec would tell them apart by their modules, which are nobody's business."""
    assert not [name for name in document["components"]["schemas"] if "." in name]
