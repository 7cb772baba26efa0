"""`/openapi.json`: OpenAPI 3.1, made from the operations and their models.

The pydantic models that check inputs describe them, the msgspec structs that are encoded describe
answers, and the table of errors describes refusals. So the document matches the server.
`api/openapi/asyncapi.py` describes the WebSockets.

quart-schema does not fit: it does not support the envelope, errors with codes and fields, or
several schemas for one status, and its page loads scripts from another host.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec.json import schema_components
from pydantic.json_schema import models_json_schema

from api.credentials import COOKIE
from api.envelope import Envelope
from api.errors import status_of
from api.http.endpoint import Download, Operation
from api.openapi.examples import Json, example_of
from api.openapi.links import PARAMETER, link
from reileta import __version__
from reileta.errors import (
    CredentialInvalid,
    CredentialMalformed,
    DatabaseUnavailable,
    InternalError,
    MediaTypeUnsupported,
    NotLoggedIn,
    PayloadTooLarge,
    PermissionDenied,
    ReiletaError,
    RequestTimedOut,
    TooManyRequests,
)
from reileta.protocol.input_types import check

_REF: Final = "#/components/schemas/{name}"
_REASONS: Final = {
    400: "The request is not valid",
    401: "The credential is missing or not valid",
    403: "Not permitted",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "A conflict with the current state",
    413: "The body is too large",
    415: "The body has another media type",
    416: "The range is outside of the file",
    429: "Too many requests",
    500: "The server failed",
    501: "Not implemented",
    503: "Not available now",
}
_PATHS: Final = {
    "users": "An id, a username, `id@server`, or `@me`, `@server`, `@admin`.",
    "worlds": "An id, or `id@server`.",
    "instances": "An id, a name, or either with `@server`.",
    "services": "An id, or `id@server`.",
}
_PARTS: Final = {
    "asset": "The asset's id.",
    "session": "The session's id.",
    "type": "A resource type: `document`, `world`, or one that the host added.",
    "number": "The resource's integer id.",
    "other": "The user who is followed: an id, a username, or `id@server`.",
}
_CONDITIONS: Final = {
    "If-None-Match": "The `ETag`s that the client has. The answer is 304 if its own is among them.",
}
_PARTS_OF_FILES: Final = {
    "Range": "One range of bytes, such as `bytes=0-1023`; other values ask for the whole file.",
    "If-Range": "An `ETag`: if the file has changed, the answer is the whole file, not the range.",
}
_TITLE: Final = "Reileta"
_ABOUT: Final = (
    "A registry of users, worlds and instances, and access to live instances. Every JSON answer"
    " comes in one envelope: `request`, `time`, `message`, and `data` or `error`. An error has a"
    " stable `code` and names every field at fault in `details`. `/asyncapi.json` describes the"
    " WebSockets."
)


def document(operations: Sequence[Operation]) -> Json:
    """The OpenAPI document of the operations."""
    schemas: Json = {}
    inputs = [operation.takes for operation in operations if operation.takes is not None]
    _, described = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(inputs)],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(described.get("$defs", {}))
    given = [_alternatives(operation) for operation in operations]
    answered = [one for several in given for one in several]
    shapes, components = schema_components([*answered, Envelope], ref_template=_REF)
    schemas.update(components)
    answer = iter(shapes)
    paths: defaultdict[str, Json] = defaultdict(dict)
    for operation, several in zip(operations, given, strict=True):
        choices = [next(answer) for _ in several] or [{}]
        schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
        path = PARAMETER.sub(r"{\1}", operation.path)
        paths[path][operation.method.lower()] = _operation(operation, schema, schemas)
    link(operations, paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": noun} for noun in dict.fromkeys(op.noun for op in operations)],
        "paths": dict(paths),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "query": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "authuser",
                    "description": "Deprecated.",
                },
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
    }


def _alternatives(operation: Operation) -> tuple[Any, ...]:
    if isinstance(operation.gives, Download):
        return ()
    return operation.gives if isinstance(operation.gives, tuple) else (operation.gives,)


def _operation(operation: Operation, answer: Json, schemas: Json) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.noun],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [
            *_path_parameters(operation),
            *_query_parameters(operation, schemas),
            *_header_parameters(operation),
        ],
        "responses": _responses(operation, answer, schemas),
        "security": _security(operation),
    }
    if operation.uploads is not None:
        described["requestBody"] = {
            "required": True,
            "description": operation.uploads.description,
            "content": {
                operation.uploads.kind: {"schema": _BYTES},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": _BYTES},
                        "required": ["file"],
                    }
                },
            },
        }
    if operation.takes is not None and operation.takes_body:
        schema = schemas[operation.takes.__name__]
        described["requestBody"] = {
            "required": not _may_be_empty(operation),
            "content": {
                "application/json": {
                    "schema": _ref(operation.takes.__name__),
                    "example": example_of(schema, schemas),
                }
            },
        }
    return described


def _may_be_empty(operation: Operation) -> bool:
    """Whether the operation works without a body, which then counts as `{}`."""
    assert operation.takes is not None
    try:
        check(operation.takes, {}, operation.invalid)
    except operation.invalid:
        return False
    return True


def _security(operation: Operation) -> list[Json]:
    if operation.need == "none":
        return []
    ways: list[Json] = [{"token": []}, {"query": []}, {"cookie": []}]
    if operation.api == "session":
        ways = ways[:1]
    return ways if operation.need == "required" else [{}, *ways]


def _path_parameters(operation: Operation) -> Iterable[Json]:
    for name in PARAMETER.findall(operation.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARTS.get(name, _PATHS.get(operation.path.split("/")[2], "")),
            "schema": {"type": "string"},
        }
    # A query input describes this parameter itself.
    if _asks_server(operation):
        yield {
            "name": "server",
            "in": "query",
            "required": False,
            "description": "The server of the object; the same as `@server` after an id.",
            "schema": {"type": "string"},
        }


def _asks_server(operation: Operation) -> bool:
    """Whether its query may have `?server`, which is not part of its input."""
    noun = operation.path.split("/")[2] if operation.path.startswith("/api/") else ""
    if noun not in (*_PATHS, "server"):
        return False
    return operation.takes_body or "server" not in getattr(operation.takes, "model_fields", ())


def _query_parameters(operation: Operation, schemas: Json) -> Iterable[Json]:
    if operation.takes is None or operation.takes_body:
        return
    schema = schemas[operation.takes.__name__]
    for name, field in schema["properties"].items():
        inner = _not_null(field)
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": field.get("description", ""),
            "schema": {key: value for key, value in inner.items() if key != "title"},
        }


def _header_parameters(operation: Operation) -> Iterable[Json]:
    """The request headers that downloads and answers with an entity tag use."""
    heeded: dict[str, str] = {}
    if isinstance(operation.gives, Download):
        heeded = _CONDITIONS | (_PARTS_OF_FILES if operation.gives.ranges else {})
    elif operation.cached is not None:
        heeded = _CONDITIONS
    for name, description in heeded.items():
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string"},
        }


def _not_null(field: Json) -> Json:
    """The schema without null, which a query can't express."""
    for choice in field.get("anyOf", ()):
        if choice != {"type": "null"}:
            return dict(choice)
    return {key: value for key, value in field.items() if key != "description"}


def _responses(operation: Operation, answer: Json, schemas: Json) -> Json:
    refusals: defaultdict[int, list[type[ReiletaError]]] = defaultdict(list)
    for error in (*operation.errors, *_shared(operation)):
        if error not in refusals[status_of(error)]:
            refusals[status_of(error)].append(error)
    data = {"type": "object", "properties": {"data": answer}, "required": ["data"]}
    example = example_of(answer, schemas)
    at_top = operation.api == "session"
    success = {
        "description": "OK",
        "headers": _HEADERS,
        "content": {
            "application/json": {
                "schema": {"allOf": [_ref("Envelope"), answer if at_top else data]},
                "example": _enveloped(
                    operation, "OK", **(example if at_top else {"data": example})
                ),
            }
        },
    }
    responses: Json = {"200": success}
    if operation.cached is not None:
        success["headers"] = {**_HEADERS, **_WEAK}
        responses["304"] = {**_UNCHANGED, "headers": {**_HEADERS, **_WEAK}}
    if isinstance(operation.gives, Download):
        responses = _downloads(operation.gives)
    for status, errors in sorted(refusals.items()):
        responses[str(status)] = _refusal(operation, status, errors)
    return responses


_BYTES: Final = {"type": "string", "format": "binary"}
_TAG: Final = {
    "ETag": {"description": "The file's SHA-256, in quotes", "schema": {"type": "string"}},
    "Cache-Control": {"schema": {"type": "string"}},
}
_WEAK: Final = {**_TAG, "ETag": {"description": "Of `data`, weak", "schema": {"type": "string"}}}
_UNCHANGED: Final = {"description": "The client has it: `If-None-Match` names its `ETag`"}


def _downloads(gives: Download) -> Json:
    """The responses with a file or a part of it, and the one without (304)."""
    content = {gives.kind: {"schema": _BYTES}}
    headers = {**_HEADERS, **_TAG, "Content-Disposition": {"schema": {"type": "string"}}}
    responses: Json = {"200": {"description": "OK", "headers": headers, "content": content}}
    if gives.ranges:
        extent = {"Content-Range": {"schema": {"type": "string"}}}
        responses["206"] = {
            "description": "The requested part of the file",
            "headers": {**headers, **extent},
            "content": content,
        }
    responses["304"] = {**_UNCHANGED, "headers": {**_HEADERS, **_TAG}}
    return responses


def _shared(operation: Operation) -> Iterable[type[ReiletaError]]:
    if operation.takes is not None:
        yield operation.invalid
    if operation.need != "none":
        yield from (CredentialMalformed, CredentialInvalid)
    if operation.need == "required" and operation.api == "registry":
        yield NotLoggedIn
    if operation.only is not None:
        yield PermissionDenied
    if operation.takes_body or operation.uploads is not None:
        yield from (PayloadTooLarge, MediaTypeUnsupported, RequestTimedOut)
    yield from (TooManyRequests, InternalError, DatabaseUnavailable)


def _refusal(operation: Operation, status: int, errors: list[type[ReiletaError]]) -> Json:
    headers = dict(_HEADERS)
    if status in (429, 503):
        headers["Retry-After"] = {"description": "Seconds", "schema": {"type": "integer"}}
    codes = sorted({error.code for error in errors})
    return {
        "description": _REASONS[status] + ": " + ", ".join(f"{e.code} {e.message}" for e in errors),
        "headers": headers,
        "content": {
            "application/json": {
                "schema": {
                    "allOf": [
                        _ref("Envelope"),
                        {
                            "type": "object",
                            "properties": {
                                "error": {
                                    "type": "object",
                                    "properties": {"code": {"enum": codes}},
                                }
                            },
                            "required": ["error"],
                        },
                    ]
                },
                "examples": {
                    error.__name__: {
                        "value": _enveloped(
                            operation,
                            error.message,
                            error={"code": error.code, "message": error.message},
                        )
                    }
                    for error in errors
                },
            }
        },
    }


_HEADERS: Final = {
    "X-Trace-Id": {
        "description": "The request's trace: search the server's log for it.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    }
}


def _enveloped(operation: Operation, message: str, **rest: object) -> Json:
    path = PARAMETER.sub(r"{\1}", operation.path)
    return {"request": path, "time": 1790000000000, "message": message, **rest}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
