"""Bounded parsing of query, cookies and other request headers.

Each header has a limit, because the framework's parsers are slow: a head of 16 KiB can take them
20 ms.
"""

from __future__ import annotations

import re
from typing import Final

from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import ImmutableMultiDict, MultiDict
from werkzeug.utils import cached_property

from reileta.errors import MediaTypeUnsupported, MessageInvalid
from reileta.settings import KIB

CONTENT_TYPE_LENGTH: Final = 256
QUERY_BYTES: Final = 8 * KIB
QUERY_FIELDS: Final = 32
RANGE_LENGTH: Final = 256
DISPOSITION_PARAMETERS: Final = 8

SESSION_COOKIE: Final = "_suid"
"""The beginning of the session's cookie's name (`cookie_name`). Earlier versions used it alone."""

_COOKIE: Final = re.compile(
    rf'(?:^|;)[ \t]*+({SESSION_COOKIE}(?:_[0-9]{{1,5}})?)[ \t]*+=[ \t]*+"?+([^;" \t]*+)'
)
_PARAMETER: Final = re.compile(
    rb'[ \t]*+;[ \t]*+([^;="\s]++)=("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^;"]*+)', re.DOTALL
)
_RANGE: Final = re.compile(r"([0-9]*+)-([0-9]*+)")


def ensure_not_encoded(request: BaseRequestWebsocket) -> None:
    """Raises MediaTypeUnsupported if the request's body is compressed. The server decompresses no
    bodies, so no small request becomes a large one."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupported.field("Content-Encoding", "must be identity")


class BoundedHeaders(BaseRequestWebsocket):
    """Query, cookies and content type of a request or upgrade."""

    @cached_property
    def args(self) -> MultiDict[str, str]:
        """The query. Raises MessageInvalid if it is too large."""
        ensure_query(self.query_string)
        return super().args

    @cached_property
    def cookies(self) -> ImmutableMultiDict[str, str]:
        """The sessions' cookies of this server, and of others on its host: the first of each name.
        Other cookies are ignored."""
        found: dict[str, str] = {}
        for match in _COOKIE.finditer(";".join(self.headers.getlist("Cookie"))):
            found.setdefault(match[1], match[2])
        return ImmutableMultiDict(found)

    def _parse_content_type(self) -> None:
        if len(self.headers.get("Content-Type", "")) > CONTENT_TYPE_LENGTH:
            raise MediaTypeUnsupported.field(
                "Content-Type", f"must be at most {CONTENT_TYPE_LENGTH} characters"
            )
        super()._parse_content_type()


def cookie_name(address: str, port: int) -> str:
    """The name of a server's cookie, such as `_suid_3032`.

    Browsers send a cookie to all ports of a host. So servers on one host need different names, or
    else a login at one of them logs users out of the other.

    Args:
        address: the server's `ServerAt`. Its port counts, because clients can't see the port that a
            server behind a proxy or in a container listens on.
        port: the port that the server listens on, if the address has none.
    """
    _, _, public = address.rpartition("]")[2].partition(":")
    return f"{SESSION_COOKIE}_{public or port}"


def is_query_bounded(query: bytes | str) -> bool:
    """Whether a query is within `QUERY_BYTES` and `QUERY_FIELDS`."""
    ampersands = query.count(b"&") if isinstance(query, bytes) else query.count("&")
    return len(query) <= QUERY_BYTES and ampersands < QUERY_FIELDS


def ensure_query(query: bytes) -> None:
    """Raises MessageInvalid if the query is too large."""
    if not is_query_bounded(query):
        raise MessageInvalid.field(
            "query", f"must be at most {QUERY_BYTES} bytes and {QUERY_FIELDS} fields"
        )


def one_range(header: str) -> tuple[int | None, int | None] | None:
    """First and last byte of the range in a `Range` header (RFC 9110, 14.1.2).

    If the first is None, the last is a number of bytes from the end. Returns None for several
    ranges, other units and invalid ranges, all of which a server may ignore.
    """
    unit, equals, ranges = header.strip().partition("=")
    if unit.lower() != "bytes" or not equals or len(ranges) > RANGE_LENGTH:
        return None
    match = _RANGE.fullmatch(ranges.strip(" \t,"))  # a list may have empty members
    if match is None or not (match[1] or match[2]):
        return None
    first, last = (int(text) if text else None for text in match.groups())
    if first is not None and last is not None and last < first:
        return None
    return first, last


def parameter_of(header: bytes, name: bytes) -> bytes | None:
    """A parameter of a header such as `Content-Disposition: form-data; name="file"`.

    Only the first `DISPOSITION_PARAMETERS` parameters are searched.
    """
    position = header.find(b";")
    for _ in range(DISPOSITION_PARAMETERS):
        match = None if position < 0 else _PARAMETER.match(header, position)
        if match is None:
            return None
        if match[1].lower() == name:
            value = match[2].strip()
            if value[:1] == b'"':
                value = re.sub(rb"\\(.)", rb"\1", value[1:-1], flags=re.DOTALL)
            return value
        position = match.end()
    return None
