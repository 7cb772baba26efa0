"""`/openapi.json`: OpenAPI 3.1, made from the operations and their models.

The pydantic models that check inputs describe them, the msgspec structs that are encoded describe
answers, and the table of errors describes refusals. So the document matches the server.
`api/openapi/asyncapi.py` describes the WebSockets.

quart-schema does not fit: it does not support the envelope, errors with codes and fields, or
several schemas for one status, and its page loads scripts from another host.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from api.envelope import Envelope
from api.errors import status_of
from api.http.endpoint import COLLECTIONS, Download, Operation
from api.http.headers import SESSION_COOKIE
from api.http.remote import REMOTE_ERRORS
from api.openapi.examples import Json, example_of
from api.openapi.links import PARAMETER, link
from api.openapi.names import pascal
from api.openapi.schemas import Schemas, name_in, ref
from reileta import __version__
from reileta.errors import (
    CredentialInvalid,
    CredentialMalformed,
    DatabaseUnavailable,
    GuestNotAllowed,
    InternalError,
    MediaTypeUnsupported,
    NotLoggedIn,
    PayloadTooLarge,
    PermissionDenied,
    Redirected,
    ReiletaError,
    RequestTimedOut,
    ServerBlocked,
    ServerNotKnown,
    TooManyRequests,
    VersionConflict,
)
from reileta.protocol.input_types import check

_BEARER: Final = "The `token` of a login, as `Authorization: Bearer …`."
_REASONS: Final = {
    307: "Send the request to another server: `redirect` holds its address",
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
    502: "Another server gave no usable answer",
    503: "Not available now",
}
_PATHS: Final = {
    "admin": "An instance's id, or `id@server`.",
    "users": "An id, a username, `id@server`, or `@me`, `@server`, `@admin`.",
    "worlds": "An id, or `id@server`.",
    "instances": "An id, a name, or either with `@server`.",
    "services": "An id, or `id@server`.",
    "nodes": "An id, or `id@server`.",
}
_PARTS: Final = {
    "asset": "The asset's id.",
    "session": "The session's id.",
    "token": "The token's id.",
    "type": "A resource type: `document`, `world`, or one that the host added.",
    "number": "The resource's integer id.",
    "challenge": "The id of a challenge, or of the token that it gave.",
    "peer": "The address of another server: `host` or `host:port`.",
    "other": "The user who is followed: an id, a username, or `id@server`.",
}
_NUMBER: Final = {"type": "integer", "format": "int64", "minimum": 1, "maximum": 2**53 - 1}
_CONDITIONS: Final = {
    "If-None-Match": "The `ETag`s that the client has. The answer is 304 if its own is among them.",
}
_PARTS_OF_FILES: Final = {
    "Range": "One range of bytes, such as `bytes=0-1023`; other values ask for the whole file.",
    "If-Range": "An `ETag`: if the file has changed, the answer is the whole file, not the range.",
}
_REDIRECT: Final = {"secure": True, "address": "play.example.org:3032"}
_TITLE: Final = "Reileta"
_ABOUT: Final = (
    "A registry of users, worlds and instances, and access to live instances. Every JSON answer"
    " comes in one envelope: `request`, `time`, `message`, and `data` or `error`. An error has a"
    " stable `code` and names every field at fault in `details`. `/asyncapi.json` describes the"
    " WebSockets."
)


def document(
    operations: Sequence[Operation], *, cookie: str = SESSION_COOKIE, base_path: str = ""
) -> Json:
    """The OpenAPI document of the operations, at a server with that cookie and base path."""
    schemas = Schemas(
        [operation.takes for operation in operations if operation.takes is not None],
        [*(one for operation in operations for one in _alternatives(operation)), Envelope],
    )
    schemas.components["FileForm"] = _FILE_FORM
    answers = _Answers(schemas)
    paths: defaultdict[str, Json] = defaultdict(dict)
    for operation in operations:
        path = PARAMETER.sub(r"{\1}", operation.path)
        paths[path][operation.method.lower()] = _operation(operation, schemas, answers)
    link(operations, paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": __version__, "description": _ABOUT},
        "servers": [{"url": base_path or "/"}],
        "tags": [{"name": noun} for noun in dict.fromkeys(op.noun for op in operations)],
        "paths": dict(paths),
        "components": {
            "schemas": schemas.used_by(paths, answers.refusals),
            "responses": dict(sorted(answers.refusals.items())),
            "headers": _HEADER_COMPONENTS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": _BEARER},
                "query": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "authuser",
                    "description": "Deprecated: the token as `?authuser=…`.",
                },
                "server": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "authserver",
                    "description": "The token of another server, as `?authserver=…`.",
                },
                "integrity": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "integrityuser",
                    "description": "The token of a user of another server, as `?integrityuser=…`.",
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookie,
                    "description": "The cookie of a browser, from a page of this server.",
                },
            },
        },
    }


def _alternatives(operation: Operation) -> tuple[Any, ...]:
    if isinstance(operation.gives, Download):
        return ()
    return operation.gives if isinstance(operation.gives, tuple) else (operation.gives,)


def _operation(operation: Operation, schemas: Schemas, answers: _Answers) -> Json:
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
        "responses": _responses(operation, schemas, answers),
        "security": _security(operation),
    }
    if operation.path in COLLECTIONS:
        described["x-aliases"] = [PARAMETER.sub(r"{\1}", operation.path) + "@{server}"]
    if operation.uploads is not None:
        described["requestBody"] = {
            "required": True,
            "description": operation.uploads.description,
            "content": {
                **{kind: {"schema": _BYTES} for kind in (operation.uploads.kind, _BINARY)},
                "multipart/form-data": {"schema": ref("FileForm")},
            },
        }
    if operation.takes is not None and operation.takes_body:
        schema = schemas.of(operation.takes)
        described["requestBody"] = {
            "required": not _may_be_empty(operation),
            "content": {
                "application/json": {
                    "schema": schema,
                    "example": example_of(schema, schemas.components),
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
    if operation.need == "none" and not operation.of_server:
        return []
    ways: list[Json] = [{"token": []}, {"query": []}, {"cookie": []}]
    if operation.guest_access != "no":
        ways.append({"integrity": []})
    if operation.api == "session":
        ways = ways[:1]
    if operation.only == "server":
        ways = [{"token": []}, {"server": []}]
    return ways if operation.need == "required" else [{}, *ways]


def _path_parameters(operation: Operation) -> Iterable[Json]:
    for name in PARAMETER.findall(operation.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARTS.get(name, _PATHS.get(operation.path.split("/")[2], "")),
            "schema": _NUMBER if name == "number" else {"type": "string"},
        }
    if operation.of_server and "server" not in _queried(operation):
        yield {
            "name": "server",
            "in": "query",
            "required": False,
            "description": _server_text(operation),
            "schema": {"type": "string"},
        }


def _queried(operation: Operation) -> Iterable[str]:
    """The parameters of its query that its input describes."""
    return () if operation.takes is None or operation.takes_body else operation.takes.model_fields


def _server_text(operation: Operation) -> str:
    """The description of the parameter `server`."""
    if not operation.of_server:
        return "Must be the address of this server."
    same = "an id" if operation.path not in COLLECTIONS else "the path"
    if operation.remote is None:
        what = "If it is not this one, the answer is a redirect to it (error 10)."
    else:
        what = "This server asks it for the object, for a user who is logged in here."
    return f"The address of a server. {what} The same as `@ADDRESS` after {same}."


def _query_parameters(operation: Operation, schemas: Schemas) -> Iterable[Json]:
    if operation.takes is None or operation.takes_body:
        return
    fields, required = schemas.parameters(operation.takes)
    for name, field in fields.items():
        yield {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": (
                _server_text(operation) if name == "server" else field.get("description", "")
            ),
            "schema": _not_null(field),
        }


def _header_parameters(operation: Operation) -> Iterable[Json]:
    """The request headers that downloads and answers with an entity tag use."""
    heeded: dict[str, str] = {}
    if isinstance(operation.gives, Download):
        heeded = _CONDITIONS | (_PARTS_OF_FILES if operation.gives.ranges else {})
    elif operation.cached is not None:
        heeded = _CONDITIONS
    elif VersionConflict in operation.errors:
        heeded = {"If-Match": "The version that the resource must have; without it, any."}
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


class _Answers:
    """The answers of all operations: a schema for each kind of success, and one for all refusals.

    A refusal has the same schema for every code, because clients handle errors by their code, in
    one place: a type for each error would be 60 types with the same fields, and a union of them in
    every operation. The codes of an operation are in `x-error-codes` of its responses.

    Attributes:
        refusals: responses with one error, by the error's name: components of the document.
    """

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        envelope = schemas.component(Envelope)["properties"]
        self._fields = {name: envelope[name] for name in ("request", "time", "message")}
        self.refusals: Json = {}
        self._add(
            "ErrorAnswer",
            "The answer to a request that was refused.",
            {name: envelope[name] for name in ("error", "redirect")},
            ("error",),
        )

    def success(self, operation: Operation) -> Json:
        """The reference to the schema of an operation's answer."""
        data = self._schemas.of(operation.gives)
        if operation.api == "session":
            # The fields stand beside `message`, so the answer takes the place of its fields.
            name = name_in(data)
            own = self._schemas.component(operation.gives)
            if "request" not in own["properties"]:
                self._add(name, own["description"], own["properties"], own["required"])
            return ref(name)
        name, what = _answer_name(operation, data)
        if name not in self._schemas.components:
            self._add(name, f"The answer with {what}.", {"data": data}, ("data",))
        return ref(name)

    def refusal(self, operation: Operation, status: int, errors: list[type[ReiletaError]]) -> Json:
        """A response with errors: a component if it is always the same."""
        path = PARAMETER.sub(r"{\1}", operation.path)
        if len(errors) > 1:
            return _refusal(path, status, errors)
        name = errors[0].__name__
        self.refusals.setdefault(name, _refusal("/api/…", status, errors))
        return {"$ref": f"#/components/responses/{name}"}

    def _add(
        self, name: str, description: str, fields: Mapping[str, Json], required: Iterable[str]
    ) -> None:
        self._schemas.components[name] = {
            "type": "object",
            "description": description,
            "properties": {**self._fields, **fields},
            "required": [*self._fields, *required],
        }


def _answer_name(operation: Operation, data: Json) -> tuple[str, str]:
    """The name of the schema of an answer, and what the answer has."""
    if "$ref" not in data:  # a bare value, which only its operation names
        name = pascal(operation.name.removeprefix("get_"))
        return f"{name}Answer", f"`{name}`"
    name = name_in(data)
    return f"{name.removeprefix('Any').removesuffix('Result')}Answer", f"`{name}`"


def _responses(operation: Operation, schemas: Schemas, answers: _Answers) -> Json:
    refusals: defaultdict[int, list[type[ReiletaError]]] = defaultdict(list)
    for error in (*operation.errors, *_shared(operation)):
        if error not in refusals[status_of(error)]:
            refusals[status_of(error)].append(error)
    responses: Json = {}
    if isinstance(operation.gives, Download):
        responses = _downloads(operation.gives)
    else:
        schema = answers.success(operation)
        example = example_of(schema, schemas.components)
        path = PARAMETER.sub(r"{\1}", operation.path)
        responses["200"] = success = {
            "description": "OK",
            "headers": _HEADERS,
            "content": {
                "application/json": {"schema": schema, "example": {**example, "request": path}}
            },
        }
        if operation.cached is not None:
            success["headers"] = {**_HEADERS, **_WEAK}
            responses["304"] = {**_UNCHANGED, "headers": {**_HEADERS, **_WEAK}}
    for status, errors in sorted(refusals.items()):
        responses[str(status)] = answers.refusal(operation, status, errors)
    return responses


_BINARY: Final = "application/octet-stream"
"""The content type of a file for clients that know no other; every upload accepts it."""
_BYTES: Final = {"type": "string", "format": "binary"}
_FILE_FORM: Final = {
    "type": "object",
    "description": "A form with a file.",
    "properties": {"file": {**_BYTES, "description": "The file."}},
    "required": ["file"],
}
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
        yield from (GuestNotAllowed, ServerBlocked)
    if operation.need != "none" or operation.of_server:
        yield from (CredentialMalformed, CredentialInvalid)
    if operation.of_server:
        yield NotLoggedIn
        yield from (Redirected, ServerBlocked) if operation.remote is None else REMOTE_ERRORS
    if operation.only == "server":
        yield ServerNotKnown
    elif operation.need == "required" and operation.api == "registry":
        yield NotLoggedIn
    if operation.only is not None and operation.only != "server":
        yield PermissionDenied
    if operation.need != "none" and not operation.temporary_access:
        yield PermissionDenied
    if operation.of_server:
        yield PermissionDenied
    if operation.takes_body or operation.uploads is not None:
        yield from (PayloadTooLarge, MediaTypeUnsupported, RequestTimedOut)
    yield from (TooManyRequests, InternalError, DatabaseUnavailable)


def _refusal(path: str, status: int, errors: Sequence[type[ReiletaError]]) -> Json:
    headers = dict(_HEADERS)
    if status in (429, 502, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return {
        "description": _REASONS[status] + ": " + ", ".join(f"{e.code} {e.message}" for e in errors),
        "headers": headers,
        "content": {
            "application/json": {
                "schema": ref("ErrorAnswer"),
                "examples": {
                    error.__name__: {
                        "value": {
                            "request": path,
                            "time": 1790000000000,
                            "message": error.message,
                            "error": {"code": error.code, "message": error.message},
                            **({"redirect": _REDIRECT} if error is Redirected else {}),
                        }
                    }
                    for error in errors
                },
            }
        },
        "x-error-codes": sorted({error.code for error in errors}),
    }


def resolved(document: Mapping[str, Any], response: Json) -> Json:
    """A response of an operation, also if the operation only refers to it."""
    if "$ref" not in response:
        return response
    found: Json = document["components"]["responses"][name_in(response)]
    return found


_HEADER_COMPONENTS: Final = {
    "X-Trace-Id": {
        "description": "The request's trace: search the server's log for it.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    },
    "Retry-After": {
        "description": "Seconds",
        "schema": {"type": "integer", "format": "int32", "minimum": 0},
    },
}
_HEADERS: Final = {"X-Trace-Id": {"$ref": "#/components/headers/X-Trace-Id"}}
