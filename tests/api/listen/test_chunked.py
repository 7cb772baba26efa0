"""Chunked bodies: any split of the bytes gives the same, and llhttp agrees on what is valid."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import httptools
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.listen.chunked import CHUNKS_AT_ONCE, ChunkedDecoder, ChunkedError
from api.listen.request_head import HEAD_LIMIT_BYTES

Result = tuple[bytes, bool, bytes] | None
"""The data, whether the body is whole, and what lies behind it; None for what is refused."""


def decoded(data: bytes, cuts: list[int] | None = None) -> Result:
    """What the decoder makes of the data, cut at those places."""
    decoder = ChunkedDecoder()
    buffer, body = bytearray(), b""
    edges = [0, *sorted(cuts or []), len(data)]
    try:
        for start, end in pairwise(edges):
            buffer += data[start:end]
            if not decoder.done:
                body += b"".join(decoder.feed(buffer))
            while decoder.paused:
                body += b"".join(decoder.feed(buffer))
    except ChunkedError:
        return None
    return body, decoder.done, bytes(buffer) if decoder.done else b""


class Llhttp:
    """What llhttp makes of it: None when it refuses."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.whole = False
        self.refused = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(httptools.HttpParserUpgrade):
            try:
                for byte in data:  # what lies behind the body is not its matter
                    parser.feed_data(bytes([byte]))
                    if self.whole:
                        break
            except httptools.HttpParserError:
                self.refused = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


VALID = [
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"A\r\n0123456789\r\n0\r\n\r\n",
    b'a;x\r\n0123456789\r\n0;y="z"\r\n\r\n',
    b'2;a=b;c="d;\\"e";f\r\nab\r\n0\r\n\r\n',
    b"003\r\nabc\r\n000\r\n\r\n",
    b"3\r\n\r\n\r\r\n0\r\n\r\n",
    b"0\r\nX-A: b\r\nc: \xff\r\n\r\n",
]
INVALID = [
    b"\r\n",
    b"\n",
    b"g\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b"3_0\r\n",
    b"\xd9\xa3\r\nabc\r\n0\r\n\r\n",
    b"3;\x00\r\nabc\r\n0\r\n\r\n",
    b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    b"3\nabc\r\n0\r\n\r\n",
    b"3\rabc\r\n0\r\n\r\n",
    b"3\r\nabc0\r\n\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"3\r\nabc\r0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3\r\nabc\r\n\r\n0\r\n\r\n",
    b"10000000000000000\r\n",
    b"ffffffffffffffffffff\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n: x\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\n X: folded\r\n\r\n",
    b"0\n\r\n",
    b"0\r\n\n",
]


@pytest.mark.parametrize("body", VALID)
def test_what_is_valid(body: bytes) -> None:
    result = decoded(body + b"GET")
    assert result is not None
    assert result[1:] == (True, b"GET")
    for at in range(len(body)):
        assert decoded(body[:at]) is not None, at
        assert not decoded(body[:at])[1], at  # type: ignore[index]


@pytest.mark.parametrize("body", INVALID)
def test_what_is_not_valid(body: bytes) -> None:
    assert decoded(body) is None
    assert decoded(body, list(range(len(body)))) is None


def test_what_is_bounded() -> None:
    assert decoded(b"3;" + b"x" * 509 + b"\r\nabc\r\n0\r\n\r\n") is not None
    for body in (
        b"3;" + b"x" * 600 + b"\r\nabc\r\n",
        b"3;" + b"x" * 600,
        b"0\r\nX: " + b"y" * HEAD_LIMIT_BYTES + b"\r\n\r\n",
        b"0\r\nX: " + b"y" * HEAD_LIMIT_BYTES * 2,
        b"0\r\n" + b"X: y\r\n" * HEAD_LIMIT_BYTES,
        chunk(b"x", b";" + b"e" * 400) * 1_000,
        b"1\r\nx\r\n" * 70_000,
    ):
        assert decoded(body) is None, body[:20]
    assert decoded(chunk(b"x" * 200) * 10_000 + b"0\r\n\r\n") is not None


def test_others_get_a_turn() -> None:
    decoder = ChunkedDecoder()
    buffer = bytearray(chunk(b"x") * (CHUNKS_AT_ONCE + 10))
    assert len(decoder.feed(buffer)) == CHUNKS_AT_ONCE
    assert decoder.paused
    assert len(decoder.feed(buffer)) == 10
    assert not decoder.paused


lines = st.sampled_from([*VALID, *INVALID])
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6).map(
    lambda parts: b"".join(chunk(part) for part in parts) + b"0\r\n\r\n"
)
mutations = st.sampled_from(
    [
        b'"',
        b'"\\',
        b";a=b",
        b';a="b;c"',
        b"=",
        b"\r",
        b"\n",
        b"\r\n",
        b"0",
        b"f",
        b";",
        b" ",
        b"\t",
        b"\x00",
        b":",
        b"\xff",
        b"\x0b",
        b"",
    ]
)


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A body that was valid before something was put into it, or in its place."""
    body = draw(bodies | lines)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        gone = draw(st.integers(0, 2))
        body = body[:at] + draw(mutations) + body[at + gone :]
    return body + draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n"]))


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(nearly(), st.lists(st.integers(0, 200), max_size=12))
def test_any_split_gives_the_same(data: bytes, cuts: list[int]) -> None:
    whole = decoded(data)
    assert decoded(data, [min(cut, len(data)) for cut in cuts]) == whole
    assert decoded(data, list(range(len(data)))) == whole


@settings(
    max_examples=1_000,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(nearly())
@example(b"3;\xff\r\nabc\r\n0\r\n\r\n")
def test_llhttp_agrees(data: bytes) -> None:
    """Whatever llhttp refuses is refused here, and what both take is the same."""
    ours, theirs = decoded(data), Llhttp(data)
    if ours is None:
        return  # stricter: of extensions, trailers and sizes
    if theirs.refused:
        assert not ours[1]  # a line that has not ended is not looked at yet
    else:
        assert (theirs.body, theirs.whole) == ours[:2]


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(bodies)
def test_what_a_client_would_send_is_taken(data: bytes) -> None:
    ours, theirs = decoded(data), Llhttp(data)
    assert ours is not None
    assert (theirs.body, theirs.whole) == ours[:2]
