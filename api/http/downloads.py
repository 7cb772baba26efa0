"""File downloads: conditional requests, ranges, safe headers.

A file's entity tag is its hash. Files are sent as an attachment or an image, with a content type
that the server chooses, `nosniff`, and a Content-Security-Policy that forbids everything, so that
no browser runs them.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Final

from quart import Response
from quart.wrappers import Request
from quart.wrappers.response import ResponseBody
from werkzeug.http import quote_etag

from api.http.headers import one_range
from reileta.errors import RangeInvalid
from reileta.media.files import FileReader, FileStore

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
NAME_LENGTH: Final = 100


def safe_name(text: str, extension: str) -> str:
    """A portable file name: ASCII letters, digits, `.`, `_`, `-`, and the given extension."""
    name = _UNSAFE.sub("-", text).strip("-.")[:NAME_LENGTH].strip("-.")
    return f"{name or 'file'}{extension}"


async def download(
    request: Request,
    files: FileStore,
    hash_: str,
    *,
    kind: str,
    private: bool,
    filename: str | None = None,
    ranges: bool = False,
) -> Response:
    """Answers with the file (200), a part of it (206), or 304 if the client has it already.

    Args:
        kind: the content type.
        private: whether the file is private, so that shared caches must not store it.
        filename: the name to save it as; None: the browser displays the file.
        ranges: whether `Range` is supported.

    Raises:
        RangeInvalid: the range does not overlap the file.
        FileNotUploaded, StorageUnavailable: the file is missing, or can't be read.
    """
    headers = {
        "ETag": quote_etag(hash_),
        "Cache-Control": "private, no-cache" if private else "no-cache",
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    }
    if ranges:
        headers["Accept-Ranges"] = "bytes"
    if _is_known(request, hash_):
        unchanged = Response(b"", 304, headers)
        del unchanged.headers["Content-Length"], unchanged.headers["Content-Type"]
        return unchanged
    async with files.open(hash_, 0, 0) as reader:
        size = reader.size
    headers["Content-Disposition"] = (
        "inline" if filename is None else f'attachment; filename="{filename}"'
    )
    status, start, end = 200, 0, size
    part = _part(request, hash_, size) if ranges else None
    if part is not None:
        status, (start, end) = 206, part
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    response = Response(
        b"" if request.method == "HEAD" else _FileBody(files, hash_, start, end),
        status,
        headers,
        content_type=kind,
    )
    response.headers["Content-Length"] = str(end - start)
    # No time limit here: the connection closes if the client does not read.
    response.timeout = None
    return response


def _is_known(request: Request, hash_: str) -> bool:
    """Whether the client has the file. The list of tags can be long, so it is not parsed."""
    tags = ",".join(request.headers.getlist("If-None-Match"))
    return tags.strip() == "*" or quote_etag(hash_) in tags


def _part(request: Request, hash_: str, size: int) -> tuple[int, int] | None:
    """Start and end of the requested range; None for the whole file.

    The whole file is sent for several ranges, other units and invalid ranges (RFC 9110, 14.2), for
    a range of another version (`If-Range`), and for `HEAD`.
    """
    headers = request.headers.getlist("Range")
    range_ = one_range(headers[0]) if len(headers) == 1 and request.method == "GET" else None
    if range_ is None:
        return None
    unchanged = request.headers.get("If-Range")
    if unchanged is not None and unchanged != quote_etag(hash_):
        return None
    first, last = range_
    if first is None:
        if last and not size:
            return None  # the end of an empty file is the whole file
        start, end = (max(size - last, 0), size) if last else (size, size)
    else:
        start, end = first, size if last is None else min(last + 1, size)
    if start >= end:
        raise RangeInvalid(size=size)
    return start, end


class _FileBody(ResponseBody):
    """The bytes of a file, which is open while they are sent."""

    def __init__(self, files: FileStore, hash_: str, start: int, end: int) -> None:
        self._opened = files.open(hash_, start, end)

    async def __aenter__(self) -> FileReader:
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._opened.__aexit__(exc_type, exc_value, tb)
