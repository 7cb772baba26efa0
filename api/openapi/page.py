"""The routes of `/openapi.json`, `/asyncapi.json` and `/docs/plain`, a page that shows both.

The page is plain HTML, made from both documents once, when the server starts. It needs no script
and nothing from another host, and its Content-Security-Policy forbids both. If the pages with
a search and "try it" (`clients/web`) were not built, it is at `/docs`, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from typing import Any, Final

from quart import Blueprint, Response, request
from quart.wrappers import Request

from api.http.endpoint import Operation
from api.http.etags import Data
from api.openapi.asyncapi import (
    CLOSE_CODES,
    GROUPS,
    REFUSALS,
    asyncapi,
    message_of,
    operations_of,
    server_of,
)
from api.openapi.document import document, resolved
from api.openapi.examples import Json
from reileta.site import Site

PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_ORDER: Final = ("get", "put", "post", "patch", "delete")
_REFUSAL: Final = {
    "request": "/api/instances",
    "time": 1790000000000,
    "message": "Instance invalid input",
    "error": {
        "code": 33,
        "message": "Instance invalid input",
        "details": [{"field": "capacity", "message": "must be 1 to 1024"}],
    },
}
_INTRODUCTION: Final = (
    "Players meet through the WebSocket `/api/ws`, which stands after the endpoints."
    " A token comes from `/api/auth/login` and goes into each request as `Authorization: Bearer …`."
    " Metrics for Prometheus are at `/metrics`."
)


@dataclass(frozen=True)
class Documents:
    """Both documents and the page, as they are sent."""

    openapi: bytes
    asyncapi: bytes
    """For clients that came without TLS."""
    asyncapi_over_tls: bytes
    page: bytes


def documents(operations: Sequence[Operation], site: Site, cookie: str) -> Documents:
    """The documents of a server; see `docs_blueprint`. This takes some tenths of a second."""
    endpoints = document(operations, cookie=cookie, base_path=site.base_path)
    sockets = asyncapi(site, cookie=cookie)
    plain, secure = (
        {**sockets, "servers": {"this": server_of(replace(site, secure=over_tls))}}
        for over_tls in (False, True)
    )
    return Documents(
        openapi=json.dumps(endpoints, ensure_ascii=False).encode(),
        asyncapi=json.dumps(plain, ensure_ascii=False).encode(),
        asyncapi_over_tls=json.dumps(secure, ensure_ascii=False).encode(),
        page=render(endpoints, sockets, site.base_path).encode(),
    )


def docs_blueprint(
    operations: Sequence[Operation], site: Site, cookie: str, *, alone: bool = True
) -> Blueprint:
    """Both documents, the page, and its style sheet.

    Args:
        site: where clients reach the server.
        cookie: the name of its cookie.
        alone: whether no other page is at `/docs`: then this one is.
    """
    blueprint = Blueprint("docs", __name__)
    made = documents(operations, site, cookie)
    style = files("api.openapi").joinpath("static", "docs.css").read_bytes()

    @blueprint.get("/openapi.json")
    async def openapi() -> Response:
        return _cached(request, made.openapi, "application/json")

    @blueprint.get("/asyncapi.json")
    async def async_api() -> Response:
        body = made.asyncapi_over_tls if request.scheme == "https" else made.asyncapi
        return _cached(request, body, "application/json")

    @blueprint.get("/docs/plain")
    async def plain() -> Response:
        response = _cached(request, made.page, "text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response

    if alone:
        blueprint.add_url_rule("/docs", "docs", plain)

    @blueprint.get("/docs/docs.css")
    async def stylesheet() -> Response:
        return _cached(request, style, "text/css; charset=utf-8")

    return blueprint


def _cached(asked: Request, body: bytes, content_type: str) -> Response:
    """A response that anyone may cache; 304 if the client has it."""
    data = Data.of(body)
    headers = {name.decode(): value.decode() for name, value in data.headers(private=False)}
    if not data.is_known(asked.headers.get("If-None-Match")):
        return Response(body, 200, headers, content_type=content_type)
    unchanged = Response(b"", 304, headers)
    del unchanged.headers["Content-Length"], unchanged.headers["Content-Type"]
    return unchanged


def render(described: Json, sockets: Json, base_path: str = "") -> str:
    """The OpenAPI document and the AsyncAPI document as one page."""
    info = described["info"]
    groups: dict[str, list[tuple[str, str, Json]]] = {}
    for path, methods in described["paths"].items():
        for method in sorted(methods, key=_ORDER.index):
            groups.setdefault(methods[method]["tags"][0], []).append(
                (method, path, methods[method])
            )
    schemas = described["components"]["schemas"] | sockets["components"]["schemas"]
    # The payloads of messages are shown with their messages.
    listed = schemas.keys() - sockets["components"]["messages"].keys()
    channels = sockets["channels"]
    title = escape(info["title"])
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title} API</title>",
            f'<link rel="stylesheet" href="{base_path}/docs/docs.css"></head><body>',
            f"<nav><p class=brand>{title} <small>{escape(info['version'])}</small></p>",
            *(_contents(noun, entries) for noun, entries in groups.items()),
            *(_channel_contents(key, channel, sockets) for key, channel in channels.items()),
            '<h2><a href="#schemas">Schemas</a></h2></nav>',
            f"<main><h1>{title} API</h1><p>{_prose(info['description'])}</p>",
            f"<p>{_prose(_INTRODUCTION)}</p>",
            f'<p>For machines: <a href="{base_path}/openapi.json">openapi.json</a> describes the',
            f' endpoints, <a href="{base_path}/asyncapi.json">asyncapi.json</a> the WebSockets.',
            f" A refusal looks like this; each endpoint lists its codes.</p>{_sample(_REFUSAL)}",
            *(_group(noun, entries, described, schemas) for noun, entries in groups.items()),
            *(_channel(key, channel, sockets, schemas) for key, channel in channels.items()),
            '<h2 id="schemas">Schemas</h2>',
            *(_schema(name, schemas[name]) for name in sorted(listed)),
            "</main></body></html>",
        ]
    )


def _contents(noun: str, entries: Iterable[tuple[str, str, Json]]) -> str:
    links = "".join(
        f'<li><a href="#{operation["operationId"]}"><b class="{method}">{method.upper()}</b>'
        f" {escape(path)}</a></li>"
        for method, path, operation in entries
    )
    name = escape(noun)
    return f'<h2><a href="#noun-{name}">{name.capitalize()}</a></h2><ul>{links}</ul>'


def _group(
    noun: str, entries: Iterable[tuple[str, str, Json]], document: Json, schemas: Json
) -> str:
    name = escape(noun)
    return f'<h2 id="noun-{name}">{name.capitalize()}</h2>' + "".join(
        _operation(method, path, operation, document, schemas)
        for method, path, operation in entries
    )


def _operation(method: str, path: str, operation: Json, document: Json, schemas: Json) -> str:
    parts = [
        f'<section id="{operation["operationId"]}">',
        f'<h3><b class="{method}">{method.upper()}</b> <code>{escape(path)}</code></h3>',
        f"<p><strong>{escape(operation['summary'])}.</strong> {_prose(operation['description'])}",
        f" <em>{_credential(operation['security'])}</em></p>",
    ]
    if operation["parameters"]:
        parts.append(_parameters(operation["parameters"]))
    body = operation.get("requestBody")
    if body is not None:
        parts.append(_body(body, schemas))
    refusals = {}
    for status, response in operation["responses"].items():
        whole = resolved(document, response)
        if int(status) >= 400 or "x-error-codes" in whole:
            refusals[status] = whole
        else:
            parts.append(f"<h4>Answer: {status}</h4>{_success(whole)}")
    parts.append(f"{_refusals(refusals)}</section>")
    return "".join(parts)


def _body(body: Json, schemas: Json) -> str:
    """The fields of a JSON body with a sample, or the media types of another body."""
    parts = ["<h4>Body</h4>"]
    for kind, content in body["content"].items():
        schema = content["schema"]
        if kind != "application/json":
            parts.append(f"<p><code>{escape(kind)}</code>: {_type(schema)}</p>")
            continue
        parts.append(_fields(_target(schema, schemas)))
        if "example" in content:
            parts.append(_sample(content["example"]))
    return "".join(parts)


def _target(schema: Json, schemas: Json) -> Json:
    """The schema that a reference leads to; other schemas unchanged."""
    found: Json = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _success(response: Json) -> str:
    parts = []
    if response["description"] != "OK":
        parts.append(f"<p>{_prose(response['description'])}</p>")
    for kind, content in response.get("content", {}).items():
        if "example" in content:
            parts.append(_sample(content["example"]))
        else:
            parts.append(f"<p><code>{escape(kind)}</code></p>")
    return "".join(parts)


def _refusals(answers: Json) -> str:
    """One row for each code, since all refusals look alike."""
    rows = []
    for status, response in answers.items():
        for content in response.get("content", {}).values():
            for example in content.get("examples", {}).values():
                error = example["value"]["error"]
                rows.append(
                    f"<tr><td><b>{status}</b></td><td>{error['code']}</td>"
                    f"<td>{escape(error['message'])}</td></tr>"
                )
    head = "<tr><th>status</th><th>code</th><th>message</th></tr>"
    return (
        "<details><summary>Refusals:"
        f" {', '.join(answers)}</summary><table>{head}{''.join(rows)}</table></details>"
    )


def _credential(security: list[Json]) -> str:
    if not security:
        return "Needs no credential."
    return "A credential is optional." if {} in security else "Needs a credential."


def _parameters(parameters: Iterable[Json]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
        f"<td>{_type(p['schema'])}</td><td>{_note(p['schema'], p.get('description', ''))}</td></tr>"
        for p in parameters
    )
    return f"<table><tr><th>name</th><th>in</th><th>type</th><th>meaning</th></tr>{rows}</table>"


def _channel_contents(key: str, channel: Json, document: Json) -> str:
    links = "".join(
        f'<li><a href="#{name}"><b class="{kind}">{kind.upper()}</b>'
        f" {escape(operation['title'])}</a></li>"
        for kind, action in (("send", "receive"), ("event", "send"))
        for name, operation in operations_of(document, key, action).items()
    )
    return f'<h2><a href="#channel-{key}">{escape(channel["address"])}</a></h2><ul>{links}</ul>'


def _channel(key: str, channel: Json, document: Json, schemas: Json) -> str:
    """A WebSocket: how it is opened and closed, and its messages both ways."""
    parts = [
        f'<h2 id="channel-{key}">WebSocket <code>{escape(channel["address"])}</code></h2>',
        f"<p><strong>{escape(channel['title'])}.</strong> {_prose(channel['description'])}</p>",
    ]
    parts += [
        f"<p><code>{escape(name)}</code> is {_prose(parameter['description'])}.</p>"
        for name, parameter in channel.get("parameters", {}).items()
    ]
    parts.append(_codes("Refusals of the upgrade", channel[REFUSALS]))
    if GROUPS in channel:
        rows = (
            (f"<b>{escape(name)}</b>", ", ".join(f"<code>{escape(one)}</code>" for one in of))
            for name, of in channel[GROUPS].items()
        )
        parts.append(f"<details><summary>Groups of events</summary>{_table(rows)}</details>")
    rows = ((f"<b>{code}</b>", _prose(why)) for code, why in channel[CLOSE_CODES].items())
    parts.append(f"<details><summary>Close codes</summary>{_table(rows)}</details>")
    for kind, action in (("send", "receive"), ("event", "send")):
        parts += [
            _message_section(kind, name, operation, document, schemas)
            for name, operation in operations_of(document, key, action).items()
        ]
    return "".join(parts)


def _message_section(kind: str, name: str, operation: Json, document: Json, schemas: Json) -> str:
    """A command with its replies, or an event. `kind` is what the client sees of it."""
    (message,) = (message_of(document, one) for one in operation["messages"])
    need = "Needs a credential." if "security" in operation else "Needs no credential."
    note = f" <em>{need}</em>" if kind == "send" else ""
    parts = [
        f'<section id="{name}">',
        f'<h3><b class="{kind}">{kind.upper()}</b> <code>{escape(operation["title"])}</code></h3>',
        f"<p>{_prose(operation['description'])}{note}</p>",
        _message(message, schemas),
    ]
    if "tags" in message:
        groups = ", ".join(f"<code>{escape(tag['name'])}</code>" for tag in message["tags"])
        parts.append(f"<p>Group: {groups}.</p>")
    if kind == "send":
        for reference in operation["reply"]["messages"]:
            reply = message_of(document, reference)
            parts.append(f"<h4>{_prose(reply['title'].capitalize())}</h4>")
            parts.append(_message(reply, schemas))
    return "".join((*parts, "</section>"))


def _message(message: Json, schemas: Json) -> str:
    """The fields of a message, those of its data, and an example."""
    payload = _target(message["payload"], schemas)
    parts = [_fields(payload)]
    for name in ("data", "payload"):
        data = payload["properties"].get(name, {})
        if "$ref" in data:
            parts.append(f"<h4><code>{name}</code>: {_type(data)}</h4>")
            parts.append(_fields(_target(data, schemas)))
    parts += [_sample(example["payload"]) for example in message["examples"]]
    return "".join(parts)


def _codes(title: str, errors: Iterable[Json]) -> str:
    """A table of errors."""
    head = "".join(f"<th>{key}</th>" for key in next(iter(errors)))
    rows = ((escape(str(value)) for value in error.values()) for error in errors)
    return f"<details><summary>{title}</summary>{_table(rows, f'<tr>{head}</tr>')}</details>"


def _table(rows: Iterable[Iterable[str]], head: str = "") -> str:
    """Cells that are HTML already."""
    lines = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    return f"<table>{head}{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _schema(name: str, schema: Json) -> str:
    return (
        f'<section id="schema-{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        f"<p>{_prose(schema.get('description', ''))}</p>{_fields(schema)}</section>"
    )


def _fields(schema: Json) -> str:
    """An object's fields; a `?` marks those that may be left out."""
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{'' if field in required else '?'}</td>"
        f"<td>{_type(inner)}</td><td>{_note(inner, inner.get('description', ''))}</td></tr>"
        for field, inner in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>" if rows else ""


def _note(schema: Json, description: str) -> str:
    """The description, and the default unless it is empty."""
    default = schema.get("default")
    if default is None or default in ([], "") or default is False:
        return _prose(description)
    return f"{_prose(description)} Default <code>{escape(json.dumps(default))}</code>."


def _type(schema: Json) -> str:
    """A value's type in a few words, with links to the schemas."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " | ".join(_type(choice) for choice in schema["anyOf"])
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    words = escape(str(schema.get("type", "any JSON")))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words += f", {low} to {high}"
    low, high = schema.get("minLength"), schema.get("maxLength")
    if high is not None:
        words += f", {low or 0} to {high} characters"
    if "pattern" in schema:
        words += f", <code>{escape(schema['pattern'])}</code>"
    return words


def _prose(text: str) -> str:
    """Text with `code` between backticks."""
    parts = escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts)
    )


def _sample(value: Any) -> str:
    text = escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f'<pre tabindex="0">{text}</pre>'
