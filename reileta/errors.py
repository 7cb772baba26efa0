"""Every error that clients can get, as one tree.

    ReiletaError
    ├── InvalidInput            the request is wrong; `details` name the fields
    │   ├── UserInvalid 14, SessionInvalid 21, AuthInvalid 22, WorldInvalid 24, AssetInvalid 26
    │   ├── ServerInvalid 29, AssetFileInvalid 32, InstanceInvalid 33, IntegrityInvalid 34
    │   ├── TagUnknown 38, ModerationInvalid 40, ServiceInvalid 105, ChallengeInvalid 108,
    │   │   NodeInvalid 140
    │   └── ResourceTypeUnknown 112, MessageInvalid 119, CommandUnknown 120, EventUnknown 121,
    │       ImageInvalid 124, RangeInvalid 127, ResourceInvalid 126
    ├── Unauthenticated         NotLoggedIn 3, LoginInvalid 23, CredentialMalformed 100,
    │                           CredentialInvalid 101, TicketInvalid 131,
    │                           ServerNotKnown 136
    ├── Forbidden               PermissionDenied 4, UserCannotUpdate 12, UserCannotFetch 18,
    │                           UserCannotDelete 19, NotInInstance 39, NotAllowed 49,
    │                           ChallengeRefused 110, Banned 123, AccountSuspended 133,
    │                           ServerBlocked 135, GuestNotAllowed 129, ClientBlocked 137
    ├── NotFound                RequestNotFound 2, ServerNotFound 5, UserNotFound 17,
    │                           SessionNotFound 20, WorldNotFound 25, AssetNotFound 27,
    │                           IntegrityNotFound 35, InstanceNotFound 36, HomeNotFound 43,
    │                           FileNotUploaded 46, PlayerNotFound 50, ServiceNotFound 106,
    │                           ChallengeNotFound 109, ResourceNotFound 111, NotQueued 117,
    │                           NodeNotFound 141
    ├── Conflict                AlreadyConnected 15, WorldExists 30, FileExists 31,
    │                           AlreadyFollowing 37, AssetExists 45, InstanceExists 47,
    │                           InstanceFull 48, ServiceExists 107, ResourceTaken 113,
    │                           ResourceHeld 114, ResourceNotAcquired 115, VersionConflict 116,
    │                           AlreadyCandidate 118, QuotaReached 134
    ├── RemoteError             NoResponse 6, NoData 7, BadData 8, BadRedirect 9, MalformedData 11
    ├── Redirected 10           `address` and `secure` say where to retry
    ├── TooMany                 TooManyRequests 102 (`retry_after_s`), PayloadTooLarge 103,
    │                           HeadTooLarge 103, MediaTypeUnsupported 104, RequestTimedOut 125
    └── Unavailable             ServiceDisabled 1, Overloaded 122 (`retry_after_s`),
        │                       NotImplementedHere 28, InternalError 16, OutcomeUnknown 132,
        │                       InstanceAway 128 (`retry_after_s`)
        └── DatabaseUnavailable 122 (DatabaseFault), StorageUnavailable 122

`code` is the number that clients see (docs/protocol.md#error-codes). HTTP statuses and close codes
are in one table, `api/errors.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class Detail:
    """One wrong field: its dotted name, and a message for a person."""

    field: str
    message: str


class ReiletaError(Exception):
    """An error for the client.

    `code` and `message` belong to the class, `details` to the instance.
    """

    code: ClassVar[int] = 16
    message: ClassVar[str] = "Internal error"

    def __init__(self, *details: Detail) -> None:
        super().__init__(self.message)
        self.details: tuple[Detail, ...] = details

    @classmethod
    def field(cls, field: str, message: str) -> Self:
        """The error with one detail."""
        return cls(Detail(field, message))

    @classmethod
    def fields(cls, details: Iterable[Detail]) -> Self:
        """The error with several details."""
        return cls(*details)

    def __str__(self) -> str:
        if not self.details:
            return self.message
        reasons = "; ".join(f"{detail.field}: {detail.message}" for detail in self.details)
        return f"{self.message} ({reasons})"


class InvalidInput(ReiletaError):
    code, message = 14, "User invalid input"


class Unauthenticated(ReiletaError):
    code, message = 3, "User not logged"


class Forbidden(ReiletaError):
    code, message = 4, "User don't have permission"


class NotFound(ReiletaError):
    code, message = 2, "Request not found"


class Conflict(ReiletaError):
    code, message = 116, "Version conflict"


class RemoteError(ReiletaError):
    """Another server did not answer, or not as it must.

    `cause` is for the log, never for clients: it would tell them about this server's network.
    `retry_after_s`: seconds after which the other server is asked again; None if that is not known.
    """

    code, message = 6, "No response from server"

    def __init__(
        self, *details: Detail, cause: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(*details)
        self.cause = cause
        self.retry_after_s = retry_after_s


class TooMany(ReiletaError):
    code, message = 102, "Too many requests"


class Unavailable(ReiletaError):
    code, message = 1, "Service disabled"
    retry_after_s: float | None = None


class Redirected(ReiletaError):
    """The client must retry at another address."""

    code, message = 10, "Retry with new gateway"

    def __init__(self, address: str, *, secure: bool) -> None:
        super().__init__()
        self.address = address
        self.secure = secure


class TooManyRequests(TooMany):
    """A rate limit was reached; retry after `retry_after_s` seconds."""

    code, message = 102, "Too many requests"

    def __init__(self, retry_after_s: float = 1.0, *details: Detail) -> None:
        super().__init__(*details)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """The server has too much work; retry after `retry_after_s` seconds."""

    code, message = 122, "Overloaded"

    def __init__(self, *details: Detail, retry_after_s: float = 1.0) -> None:
        super().__init__(*details)
        self.retry_after_s = retry_after_s


class DatabaseUnavailable(Overloaded):
    """The database can't be reached, or does not answer."""

    message = "Database unavailable"


class DatabaseFault(DatabaseUnavailable):
    """The database answers, but is not as it must be: a permission or a table is missing, or data
    is corrupted. It does not pass by itself."""


class OutcomeUnknown(Unavailable):
    """Nobody can say now whether the order was carried out. It can be repeated safely."""

    code, message = 132, "Outcome unknown"

    def __init__(self, *details: Detail, retry_after_s: float = 1.0) -> None:
        super().__init__(*details)
        self.retry_after_s = retry_after_s


class StorageUnavailable(Overloaded):
    """Files can't be written or read: the disk is full or broken. Nothing was stored."""

    message = "Storage unavailable"


class UserInvalid(InvalidInput):
    code, message = 14, "User invalid input"


class SessionInvalid(InvalidInput):
    code, message = 21, "Session invalid input"


class AuthInvalid(InvalidInput):
    code, message = 22, "Auth invalid input"


class WorldInvalid(InvalidInput):
    code, message = 24, "World invalid input"


class AssetInvalid(InvalidInput):
    code, message = 26, "World asset invalid input"


class ServerInvalid(InvalidInput):
    code, message = 29, "Server invalid input"


class AssetFileInvalid(InvalidInput):
    code, message = 32, "World asset invalid file"


class InstanceInvalid(InvalidInput):
    code, message = 33, "Instance invalid input"


class IntegrityInvalid(InvalidInput):
    code, message = 34, "Integrity invalid input"


class TagUnknown(InvalidInput):
    code, message = 38, "Tag not found"


class ModerationInvalid(InvalidInput):
    code, message = 40, "Invalid moderation type"


class NodeInvalid(InvalidInput):
    code, message = 140, "Node invalid input"


class ServiceInvalid(InvalidInput):
    code, message = 105, "Service invalid input"


class ChallengeInvalid(InvalidInput):
    code, message = 108, "Challenge invalid input"


class ResourceTypeUnknown(InvalidInput):
    code, message = 112, "Resource type unknown"


class MessageInvalid(InvalidInput):
    code, message = 119, "Message invalid"


class CommandUnknown(InvalidInput):
    code, message = 120, "Unknown command"


class EventUnknown(InvalidInput):
    code, message = 121, "Unknown event"


class ImageInvalid(InvalidInput):
    code, message = 124, "Invalid image"


class RangeInvalid(InvalidInput):
    """The requested range has no byte of the file, which is `size` bytes long."""

    code, message = 127, "Range not satisfiable"

    def __init__(self, *details: Detail, size: int = 0) -> None:
        super().__init__(*details)
        self.size = size


class ResourceInvalid(InvalidInput):
    code, message = 126, "Resource invalid input"


class NotLoggedIn(Unauthenticated):
    code, message = 3, "User not logged"


class LoginInvalid(Unauthenticated):
    code, message = 23, "Auth invalid login"


class CredentialMalformed(Unauthenticated):
    code, message = 100, "Malformed credentials"


class CredentialInvalid(Unauthenticated):
    code, message = 101, "Credentials not valid"


class TicketInvalid(Unauthenticated):
    """A ticket for a direct connection is not valid, or was used."""

    code, message = 131, "Ticket not valid"


class ServerNotKnown(Unauthenticated):
    """The operation is for other servers, and needs the token of one."""

    code, message = 136, "Server not known"


class PermissionDenied(Forbidden):
    code, message = 4, "User don't have permission"


class UserCannotUpdate(Forbidden):
    code, message = 12, "User cannot update"


class UserCannotFetch(Forbidden):
    code, message = 18, "User cannot fetch"


class UserCannotDelete(Forbidden):
    code, message = 19, "User cannot be deleted"


class NotInInstance(Forbidden):
    code, message = 39, "Not in instance"


class NotAllowed(Forbidden):
    code, message = 49, "User not allowed"


class ChallengeRefused(Forbidden):
    code, message = 110, "Challenge refused"


class Banned(Forbidden):
    code, message = 123, "Banned"


class AccountSuspended(Forbidden):
    """An admin has suspended the account; the details name the end and the reason."""

    code, message = 133, "Account suspended"

    @classmethod
    def until(cls, until: int | None, reason: str | None) -> Self:
        """`until` in ms; None: until an admin lifts it."""
        details = [Detail("until", "an admin lifts it" if until is None else str(until))]
        if reason is not None:
            details.append(Detail("reason", reason))
        return cls(*details)


class ServerBlocked(Forbidden):
    """A rule of this server, or its settings, exclude the other server."""

    code, message = 135, "Server blocked"


class ClientBlocked(Forbidden):
    """A rule of this server refuses the client's network, its `User-Agent` or its account."""

    code, message = 137, "Client blocked"


class GuestNotAllowed(Forbidden):
    """Users of other servers may not do that here."""

    code, message = 129, "Guest not allowed"


class RequestNotFound(NotFound):
    code, message = 2, "Request not found"


class ServerNotFound(NotFound):
    code, message = 5, "Server not found"


class UserNotFound(NotFound):
    code, message = 17, "User not found"


class SessionNotFound(NotFound):
    code, message = 20, "Session not found"


class WorldNotFound(NotFound):
    code, message = 25, "World not found"


class AssetNotFound(NotFound):
    code, message = 27, "World asset not found"


class IntegrityNotFound(NotFound):
    code, message = 35, "Integrity not found"


class InstanceNotFound(NotFound):
    code, message = 36, "Instance not found"


class HomeNotFound(NotFound):
    code, message = 43, "User has no home"


class FileNotUploaded(NotFound):
    code, message = 46, "File not uploaded"


class PlayerNotFound(NotFound):
    code, message = 50, "Player not found"


class ServiceNotFound(NotFound):
    code, message = 106, "Service not found"


class ChallengeNotFound(NotFound):
    code, message = 109, "Challenge not found"


class ResourceNotFound(NotFound):
    code, message = 111, "Resource not found"


class NodeNotFound(NotFound):
    code, message = 141, "Node not found"


class NotQueued(NotFound):
    code, message = 117, "Not in the queue"


class AlreadyConnected(Conflict):
    code, message = 15, "User already connected"


class WorldExists(Conflict):
    code, message = 30, "World already exists"


class FileExists(Conflict):
    code, message = 31, "Asset file already uploaded"


class AlreadyFollowing(Conflict):
    code, message = 37, "Already following"


class AssetExists(Conflict):
    code, message = 45, "Asset already exists"


class InstanceExists(Conflict):
    code, message = 47, "Instance already exists"


class InstanceFull(Conflict):
    code, message = 48, "Instance is full"


class ServiceExists(Conflict):
    code, message = 107, "Service already exists"


class ResourceTaken(Conflict):
    code, message = 113, "Resource acquired by another session"


class ResourceHeld(Conflict):
    code, message = 114, "Session has a resource already"


class ResourceNotAcquired(Conflict):
    code, message = 115, "Resource not acquired"


class VersionConflict(Conflict):
    code, message = 116, "Version conflict"


class AlreadyCandidate(Conflict):
    code, message = 118, "Already a candidate"


class QuotaReached(Conflict):
    """The user owns as many as allowed; the details name the quota and its value."""

    code, message = 134, "Quota reached"


class NoResponse(RemoteError):
    code, message = 6, "No response from server"


class NoData(RemoteError):
    code, message = 7, "No data from server"


class BadData(RemoteError):
    code, message = 8, "Bad data from server"


class BadRedirect(RemoteError):
    code, message = 9, "Bad redirection from server"


class MalformedData(RemoteError):
    code, message = 11, "Malformed data from server"


class PayloadTooLarge(TooMany):
    code, message = 103, "Payload too large"


class HeadTooLarge(PayloadTooLarge):
    """A request's line and headers are too large, or there are too many headers."""


class MediaTypeUnsupported(TooMany):
    code, message = 104, "Unsupported media type"


class RequestTimedOut(TooMany):
    """The body did not arrive in time."""

    code, message = 125, "Request timed out"


class ServiceDisabled(Unavailable):
    code, message = 1, "Service disabled"


class InstanceAway(Unavailable):
    """The instance lives on a node that is not connected; retry after `retry_after_s` seconds."""

    code, message = 128, "Instance away"

    def __init__(self, *details: Detail, retry_after_s: float = 5.0) -> None:
        super().__init__(*details)
        self.retry_after_s = retry_after_s


class NotImplementedHere(Unavailable):
    code, message = 28, "Not implemented"


class InternalError(Unavailable):
    code, message = 16, "Internal error"


def by_code() -> dict[int, type[ReiletaError]]:
    """For each code its error, in the order of the codes; of several, the first that is declared.

    The classes that only group others share a code with one of them, which is the one here.
    """
    declared = [
        error
        for error in globals().values()
        if isinstance(error, type) and issubclass(error, ReiletaError)
    ]
    groups = set(ReiletaError.__subclasses__()) - {Redirected}
    leaves = [error for error in declared if error not in groups and error is not ReiletaError]
    found: dict[int, type[ReiletaError]] = {}
    for error in leaves:
        found.setdefault(error.code, error)
    return dict(sorted(found.items()))
