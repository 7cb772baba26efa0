"""What can go wrong: the server refuses a request, or there is no connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class ErrorCode(IntEnum):
    """The codes that programs look at most; `docs/protocol.md` has all."""

    NOT_LOGGED_IN = 3
    PERMISSION_DENIED = 4
    ALREADY_CONNECTED = 15
    INTERNAL_ERROR = 16
    USER_NOT_FOUND = 17
    AUTH_INVALID = 22
    LOGIN_INVALID = 23
    INSTANCE_INVALID = 33
    INSTANCE_NOT_FOUND = 36
    NOT_IN_INSTANCE = 39
    INSTANCE_FULL = 48
    NOT_ALLOWED = 49
    CREDENTIAL_INVALID = 101
    TOO_MANY_REQUESTS = 102
    ACQUIRED_BY_ANOTHER = 113
    NOT_ACQUIRED = 115
    VERSION_CONFLICT = 116
    ALREADY_CANDIDATE = 118
    OVERLOADED = 122
    BANNED = 123
    QUOTA_REACHED = 134


class ReiletaError(Exception):
    """All errors of this package."""


@dataclass(frozen=True, slots=True)
class Detail:
    """A field that the server did not accept, with a sentence for a person."""

    field: str
    message: str


class Refused(ReiletaError):
    """The server refused a request. Rely on `code` and on the fields of `details`.

    `status` is that of an answer over HTTP; `retry_after_s` says after how many seconds the request
    may be sent again, if the server says so; `redirect` names the server to ask instead (code 10).
    """

    def __init__(
        self,
        code: int,
        message: str,
        details: Sequence[Detail] = (),
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        redirect: Mapping[str, Any] | None = None,
    ) -> None:
        reasons = "; ".join(f"{one.field} {one.message}" for one in details)
        super().__init__(f"{message}: {reasons}" if reasons else message)
        self.code = code
        self.details = tuple(details)
        self.status = status
        self.retry_after_s = retry_after_s
        self.redirect = redirect

    @classmethod
    def of(cls, error: object, **extra: Any) -> Refused:
        """The exception for an error object of the server. Raises ProtocolError."""
        try:
            assert isinstance(error, dict)
            details = [Detail(one["field"], one["message"]) for one in error.get("details", ())]
            return cls(int(error["code"]), str(error["message"]), details, **extra)
        except (AssertionError, KeyError, TypeError, ValueError):
            raise ProtocolError(f"not an error of a Reileta server: {error!r}") from None


class Disconnected(ReiletaError):
    """There is no connection, or it was lost before the answer: the server may have done it."""


class TimedOut(ReiletaError):
    """No answer came in time: the server may have done it, or may still do it."""


class QueueEnded(ReiletaError):
    """The place in the queue is gone; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the place in the queue is gone: {reason}")
        self.reason = reason


class ProtocolError(ReiletaError):
    """What answered is not a Reileta server, or it did not take a message."""
