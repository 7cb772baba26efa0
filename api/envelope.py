"""The envelope that every JSON response of either face comes in (PROTOCOL §2)."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import unquote_plus

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.json import Encoder

from api.http.headers import is_query_bounded
from reileta.errors import Redirected, ReiletaError

_SECRET_ARGS: Final = frozenset({"authuser", "authserver", "integrityuser"})


class DetailView(Struct):
    """A field at fault, and what is wrong with it."""

    field: Annotated[str, Meta(examples=["capacity"])]
    message: Annotated[str, Meta(examples=["must be 1 to 1024"])]


class ErrorView(Struct):
    """Why a request was refused. `code` is stable, `message` is for people."""

    code: Annotated[int, Meta(examples=[33])]
    message: Annotated[str, Meta(examples=["Instance invalid input"])]
    details: tuple[DetailView, ...] | UnsetType = UNSET


class RedirectView(Struct):
    """Where to ask instead."""

    secure: bool
    address: Annotated[str, Meta(examples=["play.example.org:3032"])]


class Envelope(Struct):
    """What every response comes in. A key without a value is left out."""

    request: Annotated[
        str, Meta(description="The path and query that was asked for", examples=["/api/time"])
    ]
    time: Annotated[int, Meta(description="Milliseconds since 1970 UTC", examples=[1790000000000])]
    message: Annotated[str, Meta(examples=["OK"])]
    data: Any = UNSET
    error: ErrorView | UnsetType = UNSET
    redirect: RedirectView | UnsetType = UNSET


_encode = Encoder().encode


def success(request: str, time_ms: int, data: object) -> bytes:
    """The envelope of an answer, as JSON. `data` is a view, or anything else msgspec encodes."""
    return _encode(Envelope(request, time_ms, "OK", data))


def success_at_top(request: str, time_ms: int, fields: Struct) -> bytes:
    """The envelope of an answer of S's face, as JSON: the fields stand beside `message`."""
    said = {name: getattr(fields, name) for name in fields.__struct_fields__}
    given = {name: value for name, value in said.items() if value is not UNSET}
    return _encode({"request": request, "time": time_ms, "message": "OK", **given})


def failure(request: str, time_ms: int, error: ReiletaError) -> bytes:
    """The envelope of a refusal, as JSON; a `Redirected` carries `redirect` as well."""
    redirect: RedirectView | UnsetType = UNSET
    if isinstance(error, Redirected):
        redirect = RedirectView(error.secure, error.address)
    view = error_view(error)
    return _encode(Envelope(request, time_ms, view.message, UNSET, view, redirect))


def error_view(error: ReiletaError) -> ErrorView:
    """R's `error` object: code, message, and the fields at fault."""
    details: tuple[DetailView, ...] | UnsetType = UNSET
    if error.details:
        details = tuple(DetailView(_whole(d.field), _whole(d.message)) for d in error.details)
    return ErrorView(error.code, error.message, details)


def _whole(text: str) -> str:
    """The text without surrogates that stand alone: keys of a body can hold them, UTF-8 can't."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def request_line(raw_path: str, query: str) -> str:
    """`request` of the envelope: path and query as they were sent, with credentials taken out.

    A query that is out of bounds is left out whole.
    """
    if not query or not is_query_bounded(query):
        return raw_path
    if any(name in query for name in _SECRET_ARGS) or "%" in query:
        query = "&".join(_without_secret(pair) for pair in query.split("&"))
    return f"{raw_path}?{query}"


def _without_secret(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    # A name can be percent-encoded and still be read as `authuser`.
    return name + equals if unquote_plus(name) in _SECRET_ARGS else pair
