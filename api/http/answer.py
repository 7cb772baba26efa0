"""HTTP answers, as a connection sends them."""

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
"""A body that is read while it is sent: an async context manager whose value is an async iterator
of bytes. It is closed in any case, also when sending fails."""
EncodedHeaders = Iterable[tuple[bytes, bytes]]
"""Pairs of name (lower case) and value, as they are sent."""

_JSON: Final = (b"content-type", b"application/json")


@dataclass(slots=True)
class Answer:
    """An answer to an HTTP request.

    Attributes:
        status: the status code.
        headers: pairs of name (lower case) and value, without line breaks. They include
            `content-length` if the length is known; never `connection` or `transfer-encoding`.
        body: the whole body, or a body to stream. A connection does not send it for `HEAD`.
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
    """An answer with a JSON body and additional headers."""
    return Answer(status, [_JSON, (b"content-length", b"%d" % len(body)), *headers], body)


def encoded(headers: Mapping[str, str] | Headers) -> EncodedHeaders:
    """Headers as they are sent; `Headers` if a name occurs twice."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def response_of(answer: Answer) -> Response:
    """An `Answer` with a whole body as Quart's response, for requests through ASGI."""
    assert isinstance(answer.body, bytes)
    response = Response(answer.body, answer.status)
    response.headers = Headers([(name.decode(), value.decode()) for name, value in answer.headers])
    return response
