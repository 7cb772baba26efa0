"""The heads of requests: the same however they are split, and strict wherever two could differ."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.errors import status_of
from api.listen.request_head import (
    HEAD_LIMIT_BYTES,
    HEADER_LIMIT,
    LINE_LIMIT_BYTES,
    PASSED_BYTES,
    BadRequest,
    HeadParser,
    RequestHead,
    checked,
)
from reileta.rules.gateway import Passed
from tests.e2e.smuggling import ACCEPTED, HOSTS, REFUSED, Case, get, hosted


def parsed(data: bytes, cuts: list[int] | None = None) -> RequestHead | int:
    """The head, as a connection reads it, or the status of the refusal."""
    end = data.find(b"\r\n\r\n")
    stop = len(data) if end < 0 else end + 4
    edges = [0, *sorted(min(cut, stop) for cut in cuts or []), stop]
    parser = HeadParser()
    try:
        for start, to in pairwise(edges):
            if start < to:
                parser.feed(data[start:to])
        if end < 0:
            return 0
        return parser.head(data[: data.find(b"\r\n")])
    except BadRequest as bad:
        return status_of(type(bad.error))


class Llhttp:
    """Whether llhttp takes all of a head, and only that."""

    def __init__(self, head: bytes) -> None:
        self.complete = False
        self.taken = False
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self.taken = True
        except httptools.HttpParserError:
            return
        self.taken = True

    def on_headers_complete(self) -> None:
        self.complete = True


# The corpus ------------------------------------------------------------------------------------

BODIES = ("chunks: ",)


@pytest.mark.parametrize(
    "case",
    [case for case in REFUSED if not case.name.startswith(BODIES)],
    ids=lambda case: case.name,
)
def test_what_is_refused(case: Case) -> None:
    sent, statuses = case.sent, case.statuses
    sent = sent.lstrip(b"\r\n") or sent
    found = parsed(sent)
    assert found in statuses or found == 0 or found == 431
    assert parsed(sent, list(range(min(len(sent), 2_000)))) == found


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_what_is_accepted(case: Case) -> None:
    sent = case.sent.lstrip(b"\r\n")
    found = parsed(sent)
    assert isinstance(found, RequestHead)
    assert parsed(sent, list(range(len(sent)))) == found


# What is made of it ----------------------------------------------------------------------------


def head_of(data: bytes) -> RequestHead:
    found = parsed(data)
    assert isinstance(found, RequestHead), found
    return found


def test_path_and_query() -> None:
    for target, path, query in (
        (b"/", b"/", b""),
        (b"/a/b?c=d&e", b"/a/b", b"c=d&e"),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"/a%2Fb?%3F", b"/a%2Fb", b"%3F"),
        (b"/a?", b"/a", b""),
        (b"/a//b", b"/a//b", b""),
        (b"/..;/a", b"/..;/a", b""),
        (b"http://y/a?b", b"/a", b"b"),
        (b"http://y", b"/", b""),
        (b"http://y?b", b"/", b"b"),
        (b"HTTP://y:1/a;c?b", b"/a;c", b"b"),
    ):
        head = head_of(get(path=target))
        assert (head.path, head.query) == (path, query), target
        assert head.target == (path + (b"?" + query if query else b"")).decode()


def test_the_host_of_an_absolute_target_counts() -> None:
    """RFC 9112, 3.2.2: whatever `Host` says."""
    for target, host in ((b"http://y:80/a", b"y:80"), (b"/a", b"x"), (b"http://x/", b"x")):
        hosts = [value for name, value in head_of(get(path=target)).headers if name == b"host"]
        assert hosts == [host]
    over_1_0 = head_of(hosted(path=b"http://y/", version=b"1.0"))
    assert (b"host", b"y") in over_1_0.headers


def test_no_host_over_http_1_0() -> None:
    assert head_of(hosted(version=b"1.0")).version == "1.0"


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_bad_authority_of_http_2(host: bytes) -> None:
    for headers, authority in (([], host), ([(b"host", host)], None), ([(b"host", b"x")], host)):
        with pytest.raises(BadRequest):
            checked(b"GET", b"/", "2", list(headers), authority=authority)


def test_http_2_has_one_host() -> None:
    head = checked(b"GET", b"/", "2", [(b"a", b"b")], authority=b"x")
    assert (b"host", b"x") in head.headers
    head = checked(b"GET", b"/", "2", [(b"host", b"X")], authority=b"x")
    assert [name for name, _ in head.headers] == [b"host"]
    for headers, authority in (([(b"host", b"y")], b"x"), ([], None)):
        with pytest.raises(BadRequest):
            checked(b"GET", b"/", "2", list(headers), authority=authority)


def test_bodies() -> None:
    assert head_of(get()).content_length is None
    assert head_of(get(b"Content-Length: 007")).content_length == 7
    assert head_of(get(b"Transfer-Encoding: CHUNKED")).chunked
    assert head_of(get(b"Expect: 100-Continue", b"Content-Length: 1")).expects_continue
    assert not head_of(hosted(b"Expect: 100-continue", version=b"1.0")).expects_continue


def test_upgrades() -> None:
    assert head_of(get(b"Upgrade: WebSocket", b"Connection: Upgrade")).websocket
    for lines, method in (
        ((b"Upgrade: h2c",), b"GET"),
        ((b"Upgrade: websocket, h2c",), b"GET"),
        ((b"Upgrade: websocket",), b"POST"),
        ((), b"GET"),
    ):
        assert not head_of(get(*lines, method=method)).websocket


def test_bounds() -> None:
    line = LINE_LIMIT_BYTES - 2
    assert isinstance(parsed(get(b"A: " + b"x" * (LINE_LIMIT_BYTES - 1))), RequestHead)
    assert parsed(get(b"A: " + b"x" * LINE_LIMIT_BYTES)) == 431
    assert isinstance(parsed(get(path=b"/" + b"x" * (LINE_LIMIT_BYTES - 1))), RequestHead)
    assert parsed(get(path=b"/" + b"x" * LINE_LIMIT_BYTES)) == 431
    assert isinstance(parsed(get(*[b"a: b"] * (HEADER_LIMIT - 1))), RequestHead)
    assert parsed(get(*[b"a: b"] * HEADER_LIMIT)) == 431
    assert parsed(get(*[b"a: " + b"x" * line] * 3)) == 431
    never = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * HEAD_LIMIT_BYTES
    assert parsed(never[: HEAD_LIMIT_BYTES - 1]) == 0
    assert parsed(never[: HEAD_LIMIT_BYTES + PASSED_BYTES + 1]) == 431


def test_what_a_gateway_adds_does_not_count() -> None:
    """Else a registry behind it would refuse what the gateway has taken."""
    passed = Passed(True, "a" * 255 + ":65535", "2001:db8:1111:2222:3333:4444:5555:6666", "0" * 16)
    added = [
        b"avr-gateway: " + passed.gateway_header.encode(),
        b"avr-client: " + passed.client.encode(),
        b"avr-trace: " + passed.trace.encode(),
        b"avr-proof: " + b"0" * 64,
    ]
    assert sum(len(line) + 2 for line in added) <= PASSED_BYTES
    most = [b"a: b"] * (HEADER_LIMIT - 1)
    assert isinstance(parsed(get(*most, *added)), RequestHead)
    assert parsed(get(*most, b"c: d", *added)) == 431
    assert parsed(get(*most, *added, added[1])) == 431  # each once
    room = HEAD_LIMIT_BYTES - len(get(b"a: ", b"b: ", b"c: ")) - 2 * 8000
    largest = [b"a: " + b"x" * 8000, b"b: " + b"x" * 8000, b"c: " + b"x" * room]
    assert len(get(*largest)) == HEAD_LIMIT_BYTES
    assert isinstance(parsed(get(*largest)), RequestHead)
    assert isinstance(parsed(get(*largest, *added)), RequestHead)
    largest[2] += b"x"
    assert parsed(get(*largest)) == 431
    assert parsed(get(*largest, *added)) == 431
    assert parsed(get(*largest, b"x-more: " + b"y" * 100)) == 431


# Whatever comes --------------------------------------------------------------------------------

seeds = st.sampled_from(
    [case.sent for case in (*REFUSED, *ACCEPTED) if len(case.sent) < 400]
    + [get(b"A: b", b"C: d"), get(b"Upgrade: websocket", b"Connection: Upgrade")]
)
mutations = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b"\x00",
        b"\x0b",
        b"\xff",
        b"/",
        b"#",
        b"",
        b"G",
    ]
)


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A head of the corpus, with something put into it or taken out of it."""
    head = draw(seeds)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(head)))
        gone = draw(st.integers(0, 2))
        head = head[:at] + draw(mutations) + head[at + gone :]
    return head


@settings(max_examples=400, deadline=None, derandomize=True)
@given(nearly() | st.binary(max_size=60), st.lists(st.integers(0, 300), max_size=10))
@example(b"GET / HTTP/1.1\r\nHost: x\r\n\n\r\n\r\n", [])
def test_any_split_gives_the_same(data: bytes, cuts: list[int]) -> None:
    whole = parsed(data)
    assert bool(parsed(data, cuts)) == bool(whole) or whole == 0
    if isinstance(whole, RequestHead):
        assert parsed(data, cuts) == whole
        assert parsed(data, list(range(len(data)))) == whole
    elif whole:
        assert not isinstance(parsed(data, cuts), RequestHead)


@settings(max_examples=1_000, deadline=None, derandomize=True)
@given(nearly() | st.binary(max_size=60))
def test_what_llhttp_refuses_is_refused(data: bytes) -> None:
    """And where both take a head, both see its end at the same place."""
    found = parsed(data)
    if not isinstance(found, RequestHead):
        return
    stop = data.index(b"\r\n\r\n") + 4
    assert Llhttp(data[:stop]).taken
    assert Llhttp(data[:stop]).complete
    for at in range(stop):
        assert not Llhttp(data[:at]).complete
    assert found.path.startswith(b"/")
    assert not found.path.startswith(b"//")
    hosts = [value for name, value in found.headers if name == b"host"]
    assert len(hosts) <= 1
    for name, value in found.headers:
        assert not set(name + value) & set(b"\x00\r\n")
