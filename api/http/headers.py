"""What is read of a request's head, in time that no client can make long.

Each header is looked at no further than anything sensible needs. The parsers of the framework are
linear, but slow: a head of 16 KiB can keep one busy for 20 ms.
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
"""The one cookie that is looked at."""

_COOKIE: Final = re.compile(rf'(?:^|;)[ \t]*+{SESSION_COOKIE}[ \t]*+=[ \t]*+"?+([^;" \t]*+)')
_PARAMETER: Final = re.compile(
    rb'[ \t]*+;[ \t]*+([^;="\s]++)=("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^;"]*+)', re.DOTALL
)
_RANGE: Final = re.compile(r"([0-9]*+)-([0-9]*+)")


class BoundedHeaders(BaseRequestWebsocket):
    """What a request and an upgrade share: their query, cookies and content type."""

    @cached_property
    def args(self) -> MultiDict[str, str]:
        """The query. Raises MessageInvalid for one that is out of bounds."""
        ensure_query(self.query_string)
        return super().args

    @cached_property
    def cookies(self) -> ImmutableMultiDict[str, str]:
        """The session's cookie, if there is one; others are not ours."""
        found = _COOKIE.search(";".join(self.headers.getlist("Cookie")))
        return ImmutableMultiDict([] if found is None else [(SESSION_COOKIE, found[1])])

    def _parse_content_type(self) -> None:
        if len(self.headers.get("Content-Type", "")) > CONTENT_TYPE_LENGTH:
            raise MediaTypeUnsupported.field(
                "Content-Type", f"must be at most {CONTENT_TYPE_LENGTH} characters"
            )
        super()._parse_content_type()


def is_query_bounded(query: bytes | str) -> bool:
    """Whether a query has no more bytes and fields than any endpoint needs."""
    ampersands = query.count(b"&") if isinstance(query, bytes) else query.count("&")
    return len(query) <= QUERY_BYTES and ampersands < QUERY_FIELDS


def ensure_query(query: bytes) -> None:
    """Raises MessageInvalid for a query that is out of bounds."""
    if not is_query_bounded(query):
        raise MessageInvalid.field(
            "query", f"must be at most {QUERY_BYTES} bytes and {QUERY_FIELDS} fields"
        )


def one_range(header: str) -> tuple[int | None, int | None] | None:
    """First and last byte of the one range that a `Range` header asks for (RFC 9110, 14.1.2).

    Without a first, the last is how many bytes of the end are asked for. None for several ranges,
    other units, and what is not valid: whoever serves the file may ignore all of these.
    """
    unit, equals, ranges = header.strip().partition("=")
    if unit.lower() != "bytes" or not equals or len(ranges) > RANGE_LENGTH:
        return None
    one = _RANGE.fullmatch(ranges.strip(" \t,"))  # a list may have empty members
    if one is None or not (one[1] or one[2]):
        return None
    first, last = (int(text) if text else None for text in one.groups())
    if first is not None and last is not None and last < first:
        return None
    return first, last


def parameter_of(header: bytes, name: bytes) -> bytes | None:
    """A parameter of a header such as `Content-Disposition: form-data; name="file"`.

    Looks at the first few parameters alone.
    """
    position = header.find(b";")
    for _ in range(DISPOSITION_PARAMETERS):
        found = None if position < 0 else _PARAMETER.match(header, position)
        if found is None:
            return None
        if found[1].lower() == name:
            value = found[2].strip()
            if value[:1] == b'"':
                value = re.sub(rb"\\(.)", rb"\1", value[1:-1], flags=re.DOTALL)
            return value
        position = found.end()
    return None
