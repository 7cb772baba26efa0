"""HTTP status and WebSocket close code of each error, and the mapping of exceptions.

An error class that is not in a table has the value of its nearest ancestor. An unexpected exception
is logged and answered with code 16; its traceback is never sent to the client.
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
    ClientBlocked,
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
    ClientBlocked: CloseCode.CLIENT_BLOCKED,
    InternalError: CloseCode.INTERNAL_ERROR,
}


class WrongMethod(RequestNotFound):
    """The path exists, but not for this method. Code 2, as for an unknown path; status 405."""

    message = "Method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__()
        self.allowed = tuple(sorted(allowed))


STATUSES[WrongMethod] = 405


def status_of(error: type[ReiletaError]) -> int:
    """The HTTP status of an error class. Raises TypeError for other classes."""
    for ancestor in error.__mro__:
        if ancestor in STATUSES:
            return STATUSES[ancestor]
    raise TypeError(f"{error!r} is not a ReiletaError")


def close_code_of(error: type[ReiletaError]) -> CloseCode | None:
    """The close code of an error that closes a WebSocket; None if it is only answered."""
    for ancestor in error.__mro__:
        if ancestor in CLOSE_CODES:
            return CLOSE_CODES[ancestor]
    return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error with its HTTP status and headers."""

    error: ReiletaError
    status: int
    headers: tuple[tuple[str, str], ...] = field(default=())


async def answered(work: Callable[[], Awaitable[T]], refuse: Callable[[Exception], T]) -> T:
    """The result of `work`, or of `refuse` if `work` raised an exception."""
    try:
        return await work()
    except Exception as exception:  # noqa: BLE001 - the mapper
        return refuse(exception)


def refusal_of(exception: Exception, *, route: str) -> Refusal:
    """The refusal for an exception of a handler or of Quart.

    `route` is the matched rule, for the log. The path is not logged: it can contain credentials.
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
    """The ReiletaError for an error of Werkzeug, such as an unknown path or a large body."""
    if isinstance(exception, MethodNotAllowed):
        return WrongMethod(exception.valid_methods or ())
    if isinstance(exception, WebsocketMismatch):
        return MessageInvalid.field(
            "Upgrade", "is required for the path of a WebSocket, and not allowed for others"
        )
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
