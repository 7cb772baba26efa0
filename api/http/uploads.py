"""File uploads: a file as the request's body, or as the field `file` of a form.

Files are streamed. `python-multipart` parses forms: it streams, and buffers at most one bounded
header line. (Werkzeug's decoder adds a byte to a file if a chunk ends right behind the boundary
that ends the file.)
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
from api.http.headers import ensure_not_encoded, parameter_of
from api.rate_limits import network
from reileta.errors import InvalidInput, MediaTypeUnsupported, Overloaded, PayloadTooLarge
from reileta.settings import KIB

FIELD: Final = "file"
FORM_BYTES: Final = 64 * KIB
"""Limit of a form without its file: headers, boundaries, other fields."""
FORM_PARTS: Final = 16
AT_ONCE: Final = 256
"""Uploads at once; each takes about 1 MiB of memory."""
AT_ONCE_EACH: Final = 32
"""Uploads at once per user."""
AT_ONCE_EACH_ADDRESS: Final = 64
"""Uploads at once per address."""
FREE_FOR_USER: Final = 8
FREE_FOR_ADDRESS: Final = 4
"""A user gets another slot only while its slots times 8 are fewer than the free ones; an address,
its slots times 4. So the limits shrink as slots become scarce."""
RETRY_AFTER_S: Final = 5.0

_quiet = logging.getLogger("reileta.forms")
_quiet.setLevel(logging.CRITICAL)
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_RAW: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""Content types that clients send without knowing the type of the file: the last is curl's
default."""


class UploadSlots:
    """Limits uploads at once: in all, per user and per address. Over the limits, uploads are
    refused.

    The limits per user and address shrink as slots become scarce. So a few users can't take all
    slots, and a user without an upload gets a slot as long as one is free.
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
    def slot(self, user_id: str, ip: str) -> Iterator[None]:
        """A slot for one upload. Raises Overloaded if there is none."""
        address = network(ip)
        if not self._has_slot(user_id, address):
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        counted = ((self._users, user_id), (self._networks, address))
        for counter, key in counted:
            counter[key] += 1
        try:
            yield
        finally:
            for counter, key in counted:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

    def _has_slot(self, user_id: str, address: str) -> bool:
        free = self._at_once - self._users.total()
        of_user, of_network = self._users[user_id], self._networks[address]
        return (
            of_user < self._each
            and of_network < self._each_address
            and of_user * FREE_FOR_USER < free
            and of_network * FREE_FOR_ADDRESS < free
        )


WriteChunk: TypeAlias = Callable[[bytes | bytearray | memoryview], Awaitable[None]]
"""Called with each chunk of a file as it arrives."""


async def receive(
    call: RequestContext,
    write: WriteChunk,
    limit_bytes: int,
    invalid: type[InvalidInput],
    *,
    kind: str | None = None,
) -> None:
    """Receives the file of a request, of at most `limit_bytes`.

    An upload can take hours. So the call is renewed afterwards (`RequestContext.renew`): the
    handler must check permissions before this, and again afterwards.

    Args:
        write: receives each chunk of the file. Its errors pass through.
        kind: the content type that the file must have, if the request names one; None: any.
        invalid: the error for an invalid form, or one without a file.

    Raises:
        MediaTypeUnsupported: the body is compressed, or has another content type.
        PayloadTooLarge, RequestTimedOut: as `ReceivedBody.chunks`.
        InvalidInput: `invalid`.
        CredentialInvalid: the caller's session or token has ended during the upload.
    """
    await _receive(call.request, write, limit_bytes, invalid, kind)
    await call.renew()


async def _receive(
    request: Request,
    write: WriteChunk,
    limit_bytes: int,
    invalid: type[InvalidInput],
    kind: str | None,
) -> None:
    body = request.body
    assert isinstance(body, ReceivedBody)
    ensure_not_encoded(request)
    content_type = request.mimetype
    if content_type == "multipart/form-data":
        boundary = _boundary(request, invalid)
        await _receive_form(body.chunks(limit_bytes + FORM_BYTES), boundary, write, invalid)
    elif content_type.startswith("multipart/") or (
        kind is not None and content_type not in _RAW | {kind}
    ):
        raise MediaTypeUnsupported.field(
            "Content-Type", f"must be {kind or 'the type of the file'} or multipart/form-data"
        )
    else:
        async for chunk in body.chunks(limit_bytes):
            await write(chunk)


async def receive_whole(
    call: RequestContext, limit_bytes: int, invalid: type[InvalidInput], *, kind: str
) -> bytes:
    """As `receive`, for a file that fits into memory. Returns the file."""
    data = bytearray()

    async def append(chunk: bytes | bytearray | memoryview) -> None:
        data.extend(chunk)
        if len(data) > limit_bytes:
            raise PayloadTooLarge.field(FIELD, f"must be at most {limit_bytes} bytes")

    await receive(call, append, limit_bytes, invalid, kind=kind)
    return bytes(data)


def _boundary(request: Request, invalid: type[InvalidInput]) -> bytes:
    boundary = request.mimetype_params.get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise invalid.field("Content-Type", "must have a boundary of 1 to 70 characters")
    return boundary.encode("ascii")


async def _receive_form(
    chunks: Chunks, boundary: bytes, write: WriteChunk, invalid: type[InvalidInput]
) -> None:
    """Receives the file of a form. Raises `invalid`, also for an incomplete form."""
    form = _Form(boundary, invalid)
    async for chunk in chunks:
        for data in form.feed(bytes(chunk)):
            await write(data)
    form.end()


class _Form:
    """Parser of a form that returns the data of the field `file`."""

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

    def feed(self, data: bytes) -> list[memoryview]:
        """The parts of the file in the next bytes of the form."""
        self._data = []
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise self._broken() from None
        return self._data

    def end(self) -> None:
        """Call at the end of the body. Raises `invalid` if the form is incomplete."""
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
                raise self._invalid.field(FIELD, "must be given once")
            self._inside = self._seen = True
        self._name.clear()
        self._value.clear()

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._data.append(memoryview(data)[start:end])

    def _end(self) -> None:
        self._over = True

    def _broken(self) -> InvalidInput:
        return self._invalid.field("body", "is not a complete multipart form")
