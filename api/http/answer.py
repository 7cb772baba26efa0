"""The application's answer to an HTTP request, as a connection sends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from quart import Response
from quart.utils import encode_headers
from quart.wrappers.response import DataBody, ResponseBody
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

Streamed = ResponseBody
"""A body that is read while it is sent, and closed when that ends, however it ends: an async
context manager that gives an async iterator of bytes."""
EncodedHeaders = Iterable[tuple[bytes, bytes]]
"""Names in lower case, and values, as they are sent."""

_JSON: Final = (b"content-type", b"application/json")


@dataclass(slots=True)
class Answer:
    """An answer to an HTTP request.

    Attributes:
        status: the status code.
        headers: names in lower case, and values. They never hold a line break. `content-length` is
            among them when the length is known; `connection` and `transfer-encoding` never are.
        body: the whole body, or one to stream. A connection sends none of it for `HEAD`.
        close: whether the connection must end after this answer.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | Streamed
    close: bool = False


def answer_of(response: Response | WerkzeugResponse) -> Answer:
    """Quart's response as an `Answer`."""
    headers = encode_headers(response.headers)
    if isinstance(response, WerkzeugResponse):
        return Answer(response.status_code, headers, response.get_data())
    body = response.response
    return Answer(response.status_code, headers, body.data if isinstance(body, DataBody) else body)


def json_answer(body: bytes, status: int = 200, headers: EncodedHeaders = ()) -> Answer:
    """An answer whose body is JSON, with headers of its own."""
    return Answer(status, [_JSON, (b"content-length", b"%d" % len(body)), *headers], body)


def encoded(headers: Mapping[str, str]) -> EncodedHeaders:
    """Headers as they are sent."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def response_of(answer: Answer) -> Response:
    """An `Answer` with a whole body as Quart's response, for what asks through ASGI."""
    assert isinstance(answer.body, bytes)
    response = Response(answer.body, answer.status)
    response.headers = Headers([(name.decode(), value.decode()) for name, value in answer.headers])
    return response
