"""Files that come in as a request's body: as they are, or as the field `file` of a form.

Nothing here is held in memory but what is being looked at. Forms are taken apart by
`python-multipart`, which streams, holds no more than a line of a part's head, and bounds these.
(Werkzeug's decoder, which is here anyway, adds a byte to a file when the form happens to be cut
right behind the boundary that ends it.)
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser
from quart.wrappers import Request

from api.http.bodies import Chunks, ReceivedBody
from api.http.endpoint import RequestContext
from api.http.headers import parameter_of
from api.rate_limits import network
from reileta.errors import InvalidInput, MediaTypeUnsupported, Overloaded, PayloadTooLarge
from reileta.settings import KIB

FIELD: Final = "file"
FORM_BYTES: Final = 64 * KIB
"""What a form may have beside its file: heads, boundaries, other fields."""
FORM_PARTS: Final = 16
AT_ONCE: Final = 256
"""Files that come in at once; each holds about a MiB."""
AT_ONCE_EACH: Final = 32
"""Files of one user that come in at once."""
AT_ONCE_EACH_ADDRESS: Final = 64
"""Files from one address that come in at once."""
FREE_FOR_USER: Final = 8
FREE_FOR_ADDRESS: Final = 4
"""A user has at most one eighth of the places that are free, an address at most one quarter: the
fewer are free, the fewer more those get who have many."""
RETRY_AFTER_S: Final = 5.0

_quiet = logging.getLogger("reileta.forms")
_quiet.setLevel(logging.CRITICAL)
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_RAW: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""What clients call a body that they say nothing about: curl has the last of these by default."""


class UploadSlots:
    """How many files come in now: in all, of each user, and from each address. Over the limits,
    askers are sent away, for every one of them holds memory and time.

    The limits of users and addresses shrink as places get scarce: a few users can't take all of
    them, and one that has none yet gets one as long as there is any.
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        each: int = AT_ONCE_EACH,
        each_address: int = AT_ONCE_EACH_ADDRESS,
    ) -> None:
        self._at_once = at_once
        self._each = each
        self._each_address = each_address
        self._users: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()

    @contextmanager
    def place(self, user_id: str, ip: str) -> Iterator[None]:
        """A place for one file. Raises Overloaded."""
        where = network(ip)
        if not self._has_place(user_id, where):
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        counted = ((self._users, user_id), (self._networks, where))
        for counter, key in counted:
            counter[key] += 1
        try:
            yield
        finally:
            for counter, key in counted:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

    def _has_place(self, user_id: str, where: str) -> bool:
        free = self._at_once - self._users.total()
        of_user, of_network = self._users[user_id], self._networks[where]
        return (
            of_user < self._each
            and of_network < self._each_address
            and of_user * FREE_FOR_USER < free
            and of_network * FREE_FOR_ADDRESS < free
        )


Sink: TypeAlias = Callable[[bytes | bytearray | memoryview], Awaitable[None]]
"""Where the bytes of a file go, as they come."""


async def receive(
    call: RequestContext,
    sink: Sink,
    limit_bytes: int,
    invalid: type[InvalidInput],
    *,
    kind: str | None = None,
) -> None:
    """Takes in the file that a request brings, of at most so many bytes.

    The client may take hours. So the call is renewed afterwards (`RequestContext.renew`): the
    handler judges what the asker may do before, and again with what follows.

    Args:
        kind: the content type that the file must have, if it says one; None: any.
        invalid: the error for a form that is none, or has no file.

    Raises:
        MediaTypeUnsupported: the body is compressed, or says to be something else.
        PayloadTooLarge, RequestTimedOut: as `ReceivedBody.chunks`.
        InvalidInput: `invalid`.
        CredentialInvalid: the asker's session or token has ended meanwhile.
        And what `sink` raises.
    """
    await _receive(call.request, sink, limit_bytes, invalid, kind)
    await call.renew()


async def _receive(
    request: Request,
    sink: Sink,
    limit_bytes: int,
    invalid: type[InvalidInput],
    kind: str | None,
) -> None:
    body = request.body
    assert isinstance(body, ReceivedBody)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupported.field("Content-Encoding", "must be identity")
    said = request.mimetype
    if said == "multipart/form-data":
        boundary = _boundary(request, invalid)
        await _receive_form(body.chunks(limit_bytes + FORM_BYTES), boundary, sink, invalid)
    elif said.startswith("multipart/") or (kind is not None and said not in _RAW | {kind}):
        raise MediaTypeUnsupported.field(
            "Content-Type", f"must be {kind or 'the type of the file'} or multipart/form-data"
        )
    else:
        async for chunk in body.chunks(limit_bytes):
            await sink(chunk)


async def receive_whole(
    call: RequestContext, limit_bytes: int, invalid: type[InvalidInput], *, kind: str
) -> bytes:
    """As `receive`, for a file that is small enough to be held."""
    data = bytearray()

    async def keep(chunk: bytes | bytearray | memoryview) -> None:
        data.extend(chunk)
        if len(data) > limit_bytes:
            raise PayloadTooLarge.field(FIELD, f"must be at most {limit_bytes} bytes")

    await receive(call, keep, limit_bytes, invalid, kind=kind)
    return bytes(data)


def _boundary(request: Request, invalid: type[InvalidInput]) -> bytes:
    boundary = request.mimetype_params.get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise invalid.field("Content-Type", "must name a boundary, of 1 to 70 characters")
    return boundary.encode("ascii")


async def _receive_form(
    chunks: Chunks, boundary: bytes, sink: Sink, invalid: type[InvalidInput]
) -> None:
    """Takes in the file of a form. Raises `invalid`, also for one that ends before its end."""
    form = _Form(boundary, invalid)
    async for chunk in chunks:
        for data in form.take(bytes(chunk)):
            await sink(data)
    form.end()


class _Form:
    """Goes through a form's parts, and gives what is in the one that is the file."""

    def __init__(self, boundary: bytes, invalid: type[InvalidInput]) -> None:
        self._invalid = invalid
        self._parts = 0
        self._name = bytearray()
        self._value = bytearray()
        self._inside = False
        self._seen = False
        self._over = False
        self._data: list[memoryview] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_part_data": self._content,
                "on_end": self._end,
            },
        )
        self._parser.logger = _quiet

    def take(self, data: bytes) -> list[memoryview]:
        """What of the file is in the next bytes of the form."""
        self._data = []
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise self._broken() from None
        return self._data

    def end(self) -> None:
        """There are no more bytes."""
        if not self._over:
            raise self._broken()
        if not self._seen:
            raise self._invalid.field(FIELD, "is required")

    def _part(self) -> None:
        self._inside = False
        self._parts += 1
        if self._parts > FORM_PARTS:
            raise self._broken()

    def _header(self) -> None:
        disposes = self._name.lower() == b"content-disposition"
        if disposes and parameter_of(bytes(self._value), b"name") == FIELD.encode():
            if self._seen:
                raise self._invalid.field(FIELD, "is given more than once")
            self._inside = self._seen = True
        self._name.clear()
        self._value.clear()

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._data.append(memoryview(data)[start:end])

    def _end(self) -> None:
        self._over = True

    def _broken(self) -> InvalidInput:
        return self._invalid.field("body", "is no whole multipart form")
