"""Files as answers: conditional, in parts, and never as something a browser would run.

A file is known by its hash, which is its entity tag. What comes out is an attachment or a picture,
with a type of ours, `nosniff`, and a policy that lets it do nothing.
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
from reileta.media.files import FileStore, Reader

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
NAME_LENGTH: Final = 100


def safe_name(text: str, extension: str) -> str:
    """A file name that means the same everywhere: ASCII letters, digits, `.`, `_`, `-`, and an
    extension of ours at the end, whatever the text has there."""
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
    """The file, or a part of it, or that the asker has it already.

    Args:
        kind: the content type.
        private: whether others may not see it, so that no cache may share it.
        filename: what to save it as; without, it is shown.
        ranges: whether `Range` is heeded.

    Raises:
        RangeInvalid: no byte of the range is in the file.
        FileNotUploaded, StorageUnavailable: it is not there, or can't be read.
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
    # However long it takes: the connection hangs up on a client that does not read.
    response.timeout = None
    return response


def _is_known(request: Request, hash_: str) -> bool:
    """Whether the asker has the file. A list of tags can be long: it is not taken apart."""
    tags = ",".join(request.headers.getlist("If-None-Match"))
    return tags.strip() == "*" or quote_etag(hash_) in tags


def _part(request: Request, hash_: str, size: int) -> tuple[int, int] | None:
    """Start and end of the one range that is asked for; None for the whole file.

    Several ranges, other units and nonsense ask for the whole file (RFC 9110, 14.2), as does a
    range of another version (`If-Range`), and a `HEAD`, for which ranges mean nothing.
    """
    asked = request.headers.getlist("Range")
    wanted = one_range(asked[0]) if len(asked) == 1 and request.method == "GET" else None
    if wanted is None:
        return None
    unchanged = request.headers.get("If-Range")
    if unchanged is not None and unchanged != quote_etag(hash_):
        return None
    first, last = wanted
    if first is None:
        if last and not size:
            return None  # all of nothing
        start, end = (max(size - last, 0), size) if last else (size, size)
    else:
        start, end = first, size if last is None else min(last + 1, size)
    if start >= end:
        raise RangeInvalid(size=size)
    return start, end


class _FileBody(ResponseBody):
    """The bytes of a file, open while they are sent."""

    def __init__(self, files: FileStore, hash_: str, start: int, end: int) -> None:
        self._opened = files.open(hash_, start, end)

    async def __aenter__(self) -> Reader:
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._opened.__aexit__(exc_type, exc_value, tb)
