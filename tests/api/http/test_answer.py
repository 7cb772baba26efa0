"""Answers, as connections send them and as Quart's responses."""

from __future__ import annotations

import pytest
from quart import Response
from werkzeug.wrappers import Response as WerkzeugResponse

from api.http.answer import Answer, answer_of, encoded, json_answer, response_of


async def body_of(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    async with answer.body as parts:
        return b"".join([part async for part in parts])


async def test_a_response_as_an_answer() -> None:
    answer = answer_of(Response(b"abc", 202, {"X-Made": "yes"}, content_type="text/plain"))
    assert (answer.status, answer.body, answer.close) == (202, b"abc", False)
    assert sorted(answer.headers) == [
        (b"content-length", b"3"),
        (b"content-type", b"text/plain"),
        (b"x-made", b"yes"),
    ]


async def test_a_response_of_werkzeug_as_an_answer() -> None:
    answer = answer_of(WerkzeugResponse(b"abc", 308, {"Location": "/docs"}))
    assert (answer.status, answer.body) == (308, b"abc")
    assert (b"location", b"/docs") in answer.headers


async def test_a_streamed_response_as_an_answer() -> None:
    async def parts() -> object:
        yield b"a"
        yield b"bc"

    answer = answer_of(Response(parts()))  # type: ignore[arg-type]
    assert await body_of(answer) == b"abc"
    assert b"content-length" not in dict(answer.headers)
    with pytest.raises(AssertionError):
        response_of(answer)


@pytest.mark.parametrize("status", [200, 404])
async def test_json_there_and_back(status: int) -> None:
    answer = json_answer(b"{}", status, encoded({"Retry-After": "1"}))
    assert answer.headers == [
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"retry-after", b"1"),
    ]
    assert answer_of(response_of(answer)) == answer


async def test_an_answer_without_a_body_says_nothing_of_one() -> None:
    answer = Answer(304, [(b"etag", b'W/"1"')], b"")
    assert answer_of(response_of(answer)) == answer
