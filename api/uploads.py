"""Files that come in as a request's body: as they are, or as the field `file` of a form.

Nothing here is held in memory but what is being looked at. Forms are taken apart by Werkzeug's
`MultipartDecoder`, which is there already, knows nothing of I/O, and streams; what it may hold is
bounded here: a part's head, a preamble or an epilogue that does not end is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias, assert_never

from quart.wrappers import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import (
    NEED_DATA,
    Data,
    Epilogue,
    Field,
    File,
    MultipartDecoder,
    Preamble,
)

from api.bodies import Chunks, ReceivedBody
from reileta.errors import InvalidInput, MediaTypeUnsupported, Overloaded, PayloadTooLarge
from reileta.settings import KIB

FIELD: Final = "file"
FORM_BYTES: Final = 64 * KIB
"""What a form may have beside its file: heads, boundaries, other fields."""
FORM_PARTS: Final = 16
SLICE_BYTES: Final = 64 * KIB
"""How much of a form is looked at at once."""
HELD_BYTES: Final = SLICE_BYTES + 16 * KIB
"""How much of a form is held while what it begins with has not ended."""

AT_ONCE: Final = 256
"""Files that come in at once; each holds about a MiB."""
AT_ONCE_EACH: Final = 32
"""Files of one user that come in at once."""
RETRY_AFTER_S: Final = 5.0

_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_RAW: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""What clients call a body that they say nothing about: curl has the last of these by default."""


class Places:
    """How many files come in now: in all, and of each user. Over the limits, askers are sent away,
    for every one of them holds memory and time."""

    def __init__(self, *, at_once: int = AT_ONCE, each: int = AT_ONCE_EACH) -> None:
        self._at_once = at_once
        self._each = each
        self._taken: Counter[str] = Counter()

    @contextmanager
    def place(self, user_id: str) -> Iterator[None]:
        """A place for one file. Raises Overloaded."""
        if self._taken.total() >= self._at_once or self._taken[user_id] >= self._each:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]


Sink: TypeAlias = Callable[[bytes | bytearray], Awaitable[None]]
"""Where the bytes of a file go, as they come."""


async def receive(
    request: Request,
    sink: Sink,
    limit_bytes: int,
    invalid: type[InvalidInput],
    *,
    kind: str | None = None,
) -> None:
    """Takes in the file that a request brings, of at most so many bytes.

    Args:
        kind: the content type that the file must have, if it says one; None: any.
        invalid: the error for a form that is none, or has no file.

    Raises:
        MediaTypeUnsupported: the body is compressed, or says to be something else.
        PayloadTooLarge, RequestTimedOut: as `ReceivedBody.chunks`.
        InvalidInput: `invalid`.
        And what `sink` raises.
    """
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
    request: Request, limit_bytes: int, invalid: type[InvalidInput], *, kind: str
) -> bytes:
    """As `receive`, for a file that is small enough to be held."""
    data = bytearray()

    async def keep(chunk: bytes | bytearray) -> None:
        data.extend(chunk)
        if len(data) > limit_bytes:
            raise PayloadTooLarge.field(FIELD, f"must be at most {limit_bytes} bytes")

    await receive(request, keep, limit_bytes, invalid, kind=kind)
    return bytes(data)


def _boundary(request: Request, invalid: type[InvalidInput]) -> bytes:
    _, options = parse_options_header(request.headers.get("Content-Type"))
    boundary = options.get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise invalid.field("Content-Type", "must name a boundary, of 1 to 70 characters")
    return boundary.encode("ascii")


async def _receive_form(
    chunks: Chunks, boundary: bytes, sink: Sink, invalid: type[InvalidInput]
) -> None:
    """Takes in the file of a form. Raises `invalid`, also for one that ends before its end."""
    decoder = MultipartDecoder(boundary, HELD_BYTES, max_parts=FORM_PARTS)
    reader = _FormReader(decoder, invalid)
    async for chunk in chunks:
        view = memoryview(chunk)
        for at in range(0, len(view), SLICE_BYTES):
            for data in reader.take(bytes(view[at : at + SLICE_BYTES])):
                await sink(data)
    for data in reader.take(None):
        await sink(data)
    if not reader.seen:
        raise invalid.field(FIELD, "is required")


class _FormReader:
    """Goes through a form's parts, and gives what is in the one that is the file."""

    def __init__(self, decoder: MultipartDecoder, invalid: type[InvalidInput]) -> None:
        self._decoder = decoder
        self._invalid = invalid
        self._inside = False
        self.seen = False
        """Whether the file has begun."""

    def take(self, data: bytes | None) -> Iterator[bytes]:
        """What of the file is in the next bytes of the form; None: there are no more."""
        try:
            self._decoder.receive_data(data)
            while True:
                event = self._decoder.next_event()
                if event is NEED_DATA:
                    return
                assert isinstance(event, Preamble | Field | File | Data | Epilogue)
                match event:
                    case Field() | File():
                        self._inside = event.name == FIELD
                        if self._inside and self.seen:
                            raise self._invalid.field(FIELD, "is given more than once")
                        self.seen |= self._inside
                    case Data():
                        if self._inside and event.data:
                            yield event.data
                    case Epilogue():
                        return
                    case Preamble():
                        pass
                    case _:
                        assert_never(event)
        except (ValueError, RequestEntityTooLarge):
            raise self._invalid.field("body", "is no whole multipart form") from None
