"""The JSON envelope of all answers, in both APIs."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import unquote_plus

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.json import Encoder

from api.http.headers import is_query_bounded
from reileta.errors import Redirected, ReiletaError, by_code

_SECRET_ARGS: Final = frozenset({"authuser", "authserver", "integrityuser"})


class DetailView(Struct):
    """A field that is not valid, and the reason."""

    field: Annotated[str, Meta(description="Its dotted path", examples=["capacity"])]
    message: Annotated[str, Meta(description="For people", examples=["must be 1 to 1024"])]


class ErrorView(Struct):
    """The reason why a request was refused. `code` is stable; `message` is for people."""

    code: Annotated[int, Meta(examples=[33], extra_json_schema={"enum": [*by_code()]})]
    message: Annotated[str, Meta(description="For people", examples=["Instance invalid input"])]
    details: (
        Annotated[tuple[DetailView, ...], Meta(description="The fields that are not valid")]
        | UnsetType
    ) = UNSET


class RedirectView(Struct):
    """The server to send the request to instead."""

    secure: Annotated[bool, Meta(description="Whether it uses TLS")]
    address: Annotated[str, Meta(description="Its `host:port`", examples=["play.example.org:3032"])]


class Envelope(Struct):
    """The envelope of every answer. Keys without a value are left out."""

    request: Annotated[
        str, Meta(description="Path and query of the request", examples=["/api/time"])
    ]
    time: Annotated[int, Meta(description="Milliseconds since 1970 UTC", examples=[1790000000000])]
    message: Annotated[str, Meta(description="`OK`, or the error's", examples=["OK"])]
    data: Any = UNSET
    error: ErrorView | UnsetType = UNSET
    redirect: RedirectView | UnsetType = UNSET


_encode = Encoder().encode


def success(request: str, time_ms: int, data: object) -> bytes:
    """The envelope of an answer, as JSON. `data` is a view or another value for msgspec."""
    return _encode(Envelope(request, time_ms, "OK", data))


def success_at_top(request: str, time_ms: int, fields: Struct) -> bytes:
    """The envelope of an answer of the session API, as JSON: the fields stand beside `message`."""
    values = {name: getattr(fields, name) for name in fields.__struct_fields__}
    present = {name: value for name, value in values.items() if value is not UNSET}
    return _encode({"request": request, "time": time_ms, "message": "OK", **present})


def failure(request: str, time_ms: int, error: ReiletaError) -> bytes:
    """The envelope of an error, as JSON. A `Redirected` also has `redirect`."""
    redirect: RedirectView | UnsetType = UNSET
    if isinstance(error, Redirected):
        redirect = RedirectView(error.secure, error.address)
    view = error_view(error)
    return _encode(Envelope(request, time_ms, view.message, UNSET, view, redirect))


def error_view(error: ReiletaError) -> ErrorView:
    """The `error` object: code, message, and the fields that are not valid."""
    details: tuple[DetailView, ...] | UnsetType = UNSET
    if error.details:
        details = tuple(
            DetailView(_encodable(d.field), _encodable(d.message)) for d in error.details
        )
    return ErrorView(error.code, error.message, details)


def _encodable(text: str) -> str:
    """Replaces lone surrogates, which a key of a body can contain and UTF-8 can't encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def request_line(raw_path: str, query: str) -> str:
    """`request` of the envelope: path and query as they were sent, without credentials.

    A query that is too large is left out.
    """
    if not query or not is_query_bounded(query):
        return raw_path
    if any(name in query for name in _SECRET_ARGS) or "%" in query:
        query = "&".join(_without_secret(pair) for pair in query.split("&"))
    return f"{raw_path}?{query}"


def _without_secret(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    # A percent-encoded name is also read as `authuser`.
    return name + equals if unquote_plus(name) in _SECRET_ARGS else pair
