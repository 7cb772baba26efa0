"""Parsing and checking of request heads, for all HTTP versions.

HTTP/1.1, HTTP/2 and upgrades to WebSocket all use `checked`, so that a request means the same over
each of them.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httptools

from api.envelope import request_line
from reileta.errors import HeadTooLarge, MessageInvalid, NotImplementedHere, ReiletaError
from reileta.rules.gateway import PASSED
from reileta.settings import KIB

HEAD_LIMIT_BYTES: Final = 16 * KIB
"""Limit of the request line and all headers."""
LINE_LIMIT_BYTES: Final = 8 * KIB
"""Limit of the request target and of each header, because some code that reads them may take more
than linear time."""
HEADER_LIMIT: Final = 100
"""Number of headers of a request."""
PASSED_BYTES: Final = 512
"""What a gateway adds to a head counts against none of these limits, since it must be able to pass
on all that it takes itself: one header of each of `PASSED`, and so many bytes."""

Headers = list[tuple[bytes, bytes]]
"""Pairs of name (lower case) and value."""

_LABEL: Final = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(
    rb"(?:%b(?:\.%b)*\.?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?" % (_LABEL, _LABEL)
)
_HOST_LIMIT: Final = 255 + len(":65535")
_TARGET: Final = re.compile(rb"[!-~]+")
_METHOD: Final = re.compile(rb"[A-Z][A-Z-]{0,31}")
_SCHEMES: Final = (b"http://", b"https://")
_SETTING_BYTES: Final = 6
_LINE_BYTES: Final = len(b": \r\n")
_SPACE: Final = b" \t"


class BadRequest(Exception):
    """A request that is not valid HTTP, or that other parsers could read differently.

    The connection ends after the answer, because the next request's beginning is unknown.
    """

    def __init__(self, error: ReiletaError, target: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.target = target


@dataclass(slots=True)
class RequestHead:
    """The checked head of a request.

    Attributes:
        path: as it was sent, percent-encoded; it begins with one `/`.
        query: the text after the `?`.
        version: `1.0`, `1.1` or `2`.
        content_length: bytes of the body; None without that header.
        chunked: the body comes in chunks.
        keep_alive: the connection may serve another request.
        expects_continue: the client waits for `100 Continue` before it sends the body.
        websocket: it asks for an upgrade to WebSocket.
    """

    method: str
    path: bytes
    query: bytes
    version: str
    headers: Headers
    content_length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    expects_continue: bool = False
    websocket: bool = False

    @property
    def target(self) -> str:
        """Path and query, as text."""
        path = self.path.decode("ascii")
        return f"{path}?{self.query.decode('ascii')}" if self.query else path


def request_line_of(target: str) -> str:
    """Path and query for the envelope, without credentials."""
    path, _, query = target.partition("?")
    return request_line(path, query)


def checked(
    method: bytes, target: bytes, version: str, headers: Headers, *, authority: bytes | None = None
) -> RequestHead:
    """Checks every part of a head.

    Args:
        version: `1.0`, `1.1` or `2`.
        authority: `:authority` of HTTP/2, which replaces `Host`.

    Raises BadRequest.
    """
    if _METHOD.fullmatch(method) is None:
        raise _bad("method", "must be a method of HTTP, in upper case")
    if method == b"CONNECT":
        raise _bad("method", "must not be CONNECT")
    if _TARGET.fullmatch(target) is None:
        raise _bad("path", "must be printable ASCII; percent-encode everything else")
    text = target.decode("ascii")
    path, _, query = target.partition(b"?")
    absolute = None
    if version != "2" and path.lower().startswith(_SCHEMES):
        absolute, path, query = _absolute(target)
    if b"#" in target:
        raise _bad("path", "must not have a fragment")
    if not path.startswith(b"/") or path.startswith(b"//"):
        raise _bad("path", "must begin with one /")
    if len(target) > LINE_LIMIT_BYTES:
        raise BadRequest(HeadTooLarge.field("path", f"must be at most {LINE_LIMIT_BYTES} bytes"))
    if len(headers) > HEADER_LIMIT and len(headers) - len(_passed(headers)) > HEADER_LIMIT:
        raise BadRequest(HeadTooLarge.field("headers", f"must be at most {HEADER_LIMIT}"), text)
    head = RequestHead(method.decode("ascii"), path, query, version, headers)
    head.keep_alive = version != "1.0"
    try:
        _check_headers(head, authority if absolute is None else absolute)
    except BadRequest as bad:
        bad.target = text
        raise
    return head


def _passed(headers: Headers) -> dict[bytes, bytes]:
    """The headers that a gateway adds."""
    return {name: value for name, value in headers if name in PASSED}


def _absolute(target: bytes) -> tuple[bytes, bytes, bytes]:
    """Authority, path and query of `http://host/path?query` (RFC 9112, 3.2.2)."""
    try:
        parts = urlsplit(target)
    except ValueError:
        raise _bad("path", "must be a valid URL, or a path") from None
    return parts.netloc, parts.path or b"/", parts.query


def _check_headers(head: RequestHead, authority: bytes | None) -> None:
    hosts: list[bytes] = []
    upgrades: list[bytes] = []
    settings: list[bytes] = []
    connection: set[bytes] = set()
    for name, value in head.headers:
        if len(name) + len(value) > LINE_LIMIT_BYTES:
            raise BadRequest(
                HeadTooLarge.field("headers", f"must be at most {LINE_LIMIT_BYTES} bytes each")
            )
        match name:
            case b"host":
                hosts.append(value)
            case b"connection":
                connection.update(token.strip(_SPACE) for token in value.lower().split(b","))
            case b"content-length":
                if head.content_length is not None:
                    raise _bad("Content-Length", "must be given once")
                value = value.strip(_SPACE)
                if not value.isdigit() or len(value) > 18:
                    raise _bad("Content-Length", "must be a number of bytes")
                head.content_length = int(value)
            case b"transfer-encoding":
                if head.version != "1.1" or head.chunked:
                    raise _bad("Transfer-Encoding", "must be given once, over HTTP/1.1")
                if value.strip(_SPACE).lower() != b"chunked":
                    raise BadRequest(
                        NotImplementedHere.field("Transfer-Encoding", "must be chunked")
                    )
                head.chunked = True
            case b"upgrade":
                upgrades.append(value)
            case b"http2-settings":
                settings.append(value)
            case b"expect":
                head.expects_continue = (
                    head.version != "1.0" and value.strip(_SPACE).lower() == b"100-continue"
                )
            case _:
                pass
    if b"close" in connection:
        head.keep_alive = False
    elif b"keep-alive" in connection:
        head.keep_alive = True
    if head.chunked and head.content_length is not None:
        raise _bad("Content-Length", "must not be combined with Transfer-Encoding")
    _check_host(head, hosts, authority)
    _check_upgrade(head, upgrades)
    if settings and not (len(settings) == 1 and _are_settings(settings[0])):
        raise _bad("HTTP2-Settings", "must be given once, as base64url of HTTP/2 settings")


def _check_host(head: RequestHead, hosts: Iterable[bytes], authority: bytes | None) -> None:
    """Ensures that a request has one host: a proxy and this server could use different ones."""
    known = list(hosts)
    if len(known) > 1:
        raise _bad("Host", "must be given once")
    for host in known:
        _check_authority(host, "Host")
    if authority is not None:
        _check_authority(authority, "Host")
        if head.version == "2" and known and known[0].lower() != authority.lower():
            raise _bad("Host", "must be the same as :authority")
        if not known or known[0] != authority:
            head.headers = [pair for pair in head.headers if pair[0] != b"host"]
            head.headers.append((b"host", authority))
    elif not known and head.version != "1.0":
        raise _bad("Host", "is missing")


def is_authority(host: bytes) -> bool:
    """Whether the text is a host name or address, with an optional port."""
    try:
        _check_authority(host, "Host")
    except BadRequest:
        return False
    return True


@functools.lru_cache(maxsize=512)
def _check_authority(host: bytes, field: str) -> None:
    host = host.strip(_SPACE)
    if len(host) > _HOST_LIMIT or _HOST.fullmatch(host) is None:
        raise _bad(field, "must be a host name or address, with an optional port")
    port = host.rpartition(b":")[2]
    if port.isdigit() and b":" in host and not host.endswith(b"]") and int(port) > 65535:
        raise _bad(field, "must have a port of at most 65535")


def _check_upgrade(head: RequestHead, upgrades: list[bytes]) -> None:
    if not upgrades:
        return
    if head.version != "1.1":
        raise _bad("Upgrade", "needs HTTP/1.1")
    if len(upgrades) > 1:
        raise _bad("Upgrade", "must be given once")
    if upgrades[0].strip(_SPACE).lower() == b"websocket" and head.method == "GET":
        if head.content_length or head.chunked:
            raise _bad("Upgrade", "must not have a body")
        head.websocket = True


def _are_settings(value: bytes) -> bool:
    value = value.strip(_SPACE)
    try:
        decoded = base64.b64decode(value + b"=" * (-len(value) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(decoded) % _SETTING_BYTES == 0


def _bad(field: str, message: str) -> BadRequest:
    return BadRequest(MessageInvalid.field(field, message))


class _Fields:
    """The target and the headers, as httptools reports them.

    The parser keeps it. It does not keep the parser: in a reference cycle, both would stay in
    memory until the garbage collector comes, which is after minutes for old objects.
    """

    __slots__ = ("headers", "url")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.url = b""

    def on_url(self, url: bytes) -> None:
        """Called by httptools."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools."""
        self.headers.append((name.lower(), value))


class HeadParser:
    """Parses the head of one HTTP/1 request, piece by piece."""

    __slots__ = ("_fields", "_parser", "_size")

    def __init__(self) -> None:
        self._fields = _Fields()
        self._parser = httptools.HttpRequestParser(self._fields)
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Parses a piece of the head. The piece must not contain data behind the head.

        Raises BadRequest as soon as the data can't be a valid head.
        """
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise _bad("request", f"is not valid HTTP: {error}") from None
        if self._size > HEAD_LIMIT_BYTES + PASSED_BYTES:
            raise self._too_large()

    def _too_large(self) -> BadRequest:
        return BadRequest(
            HeadTooLarge.field("headers", f"must be at most {HEAD_LIMIT_BYTES} bytes")
        )

    def head(self, line: bytes) -> RequestHead:
        """The head, after all of it was fed. `line` is its first line. Raises BadRequest."""
        if self._size > HEAD_LIMIT_BYTES:
            passed = _passed(self._fields.headers)
            added = sum(len(name) + len(value) + _LINE_BYTES for name, value in passed.items())
            if self._size - min(added, PASSED_BYTES) > HEAD_LIMIT_BYTES:
                raise self._too_large()
        parts = line.split(b" ")
        if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise _bad("request", "must begin with a method, a path and HTTP/1.1")
        return checked(parts[0], self._fields.url, parts[2][-3:].decode(), self._fields.headers)
