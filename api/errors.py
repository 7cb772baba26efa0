"""What each error is outside of the house: its HTTP status, its WebSocket close code, its answer.

The one table of statuses and close codes stands here (PROTOCOL §§2, 7); a class that is not in it
has what its nearest ancestor has. Here too is the one mapper of exceptions to HTTP responses: what
no handler expected becomes code 16 with a log event, and never a traceback in an answer.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import WebsocketMismatch

from reileta.errors import (
    Conflict,
    CredentialInvalid,
    CredentialMalformed,
    Forbidden,
    HeadTooLarge,
    InternalError,
    InvalidInput,
    MediaTypeUnsupported,
    MessageInvalid,
    NotFound,
    NotImplementedHere,
    NotLoggedIn,
    Overloaded,
    PayloadTooLarge,
    RangeInvalid,
    Redirected,
    ReiletaError,
    RemoteError,
    RequestNotFound,
    RequestTimedOut,
    TooMany,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from reileta.observability.log_events import REQUEST_FAILED
from reileta.protocol.close_codes import CloseCode

T = TypeVar("T")

_log = structlog.stdlib.get_logger(__name__)

STATUSES: Final[dict[type[ReiletaError], int]] = {
    ReiletaError: 500,
    InvalidInput: 400,
    RangeInvalid: 416,
    Unauthenticated: 401,
    CredentialMalformed: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    RemoteError: 502,
    Redirected: 307,
    TooMany: 429,
    PayloadTooLarge: 413,
    HeadTooLarge: 431,
    MediaTypeUnsupported: 415,
    RequestTimedOut: 408,
    Unavailable: 503,
    NotImplementedHere: 501,
    InternalError: 500,
}

CLOSE_CODES: Final[dict[type[ReiletaError], CloseCode]] = {
    CredentialInvalid: CloseCode.CREDENTIAL_GONE,
    NotLoggedIn: CloseCode.NO_CREDENTIAL,
    TooManyRequests: CloseCode.POLICY_VIOLATION,
    PayloadTooLarge: CloseCode.MESSAGE_TOO_BIG,
    Overloaded: CloseCode.TRY_AGAIN_LATER,
    InternalError: CloseCode.INTERNAL_ERROR,
}


class WrongMethod(RequestNotFound):
    """The path is known, the method is not: code 2, as for an unknown path, with status 405."""

    message = "Method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__()
        self.allowed = tuple(sorted(allowed))


STATUSES[WrongMethod] = 405


def status_of(error: type[ReiletaError]) -> int:
    """The HTTP status of an error, by its nearest ancestor in the table."""
    for ancestor in error.__mro__:
        if ancestor in STATUSES:
            return STATUSES[ancestor]
    raise TypeError(f"{error!r} is no error of Reileta's")


def close_code_of(error: type[ReiletaError]) -> CloseCode | None:
    """The close code of an error that ends a WebSocket; None: it is answered on the socket."""
    for ancestor in error.__mro__:
        if ancestor in CLOSE_CODES:
            return CLOSE_CODES[ancestor]
    return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as HTTP says it: the error itself, its status, and headers that go with it."""

    error: ReiletaError
    status: int
    headers: tuple[tuple[str, str], ...] = field(default=())


async def answered(work: Callable[[], Awaitable[T]], refuse: Callable[[Exception], T]) -> T:
    """What `work` gives, or what `refuse` makes of the exception that came out of it."""
    try:
        return await work()
    except Exception as exception:  # noqa: BLE001 - the mapper
        return refuse(exception)


def refusal_of(exception: Exception, *, route: str) -> Refusal:
    """What to answer for an exception that came out of a handler or of Quart itself.

    `route` is the rule that was asked for, for the log; paths and queries can hold credentials.
    """
    match exception:
        case ReiletaError():
            error = exception
        case HTTPException():
            error = _of_http(exception)
        case _:
            _log.error(REQUEST_FAILED, route=route, exc_info=exception)
            error = InternalError()
    return Refusal(error, status_of(type(error)), tuple(_headers(error)))


def _of_http(exception: HTTPException) -> ReiletaError:
    """Werkzeug's own refusals (unknown paths, bodies that are too large, …) as errors of ours."""
    if isinstance(exception, MethodNotAllowed):
        return WrongMethod(exception.valid_methods or ())
    if isinstance(exception, WebsocketMismatch):
        return MessageInvalid.field("Upgrade", "is needed for a WebSocket's path, and for no other")
    match exception.code:
        case 404:
            return RequestNotFound()
        case 408:
            return RequestTimedOut()
        case 413:
            return PayloadTooLarge()
        case 415:
            return MediaTypeUnsupported()
        case int() as code if code < 500:
            return MessageInvalid()
        case _:
            return InternalError()


def _headers(error: ReiletaError) -> Iterable[tuple[str, str]]:
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        yield "Retry-After", str(max(1, math.ceil(retry_after_s)))
    if isinstance(error, RangeInvalid):
        yield "Content-Range", f"bytes */{error.size}"
    if isinstance(error, WrongMethod):
        yield "Allow", ", ".join(error.allowed)
    if isinstance(error, Unauthenticated) and not isinstance(error, CredentialMalformed):
        yield "WWW-Authenticate", "Bearer"
