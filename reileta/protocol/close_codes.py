"""The close codes of WebSockets, with their reasons and reconnect advice.

Codes up to 1015 are those of RFC 6455. The codes from 4000 on are Reileta's own. One code can have
a different meaning on each API, so each member holds a meaning for each API that sends it. The
tables in docs/protocol.md#close-codes and docs/sessions.md#close-codes-of-the-session-api, and the
published descriptions of the WebSockets, list these members.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Reconnect(StrEnum):
    """The advice to a client whose socket was closed."""

    AS_TOLD = "reconnect after the number of seconds in the reason"
    LATER = "reconnect after a delay that grows with each attempt"
    LOG_IN = "log in again, then reconnect"
    SEND_LESS = "reconnect, and send less"
    NOT_NEEDED = "don't reconnect: the newer socket is the one to use"
    READ_FASTER = "reconnect, and read faster"
    NOT_ALLOWED = "don't reconnect: the next attempt is refused, too"
    FIX_CLIENT = "fix the client; the server closes the socket for the same cause again"


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a code on one API."""

    reason: str
    reconnect: Reconnect

    def __str__(self) -> str:
        return f"{self.reason}: {self.reconnect}."


_GOING_AWAY = Meaning("The server stops", Reconnect.AS_TOLD)
_PROTOCOL_ERROR = Meaning("The client broke the WebSocket protocol", Reconnect.FIX_CLIENT)
_MESSAGE_TOO_BIG = Meaning("A message was too large", Reconnect.FIX_CLIENT)
_TRY_AGAIN_LATER = Meaning(
    "The server has too many connections, or could not serve the session", Reconnect.LATER
)
_CLIENT_BLOCKED = Meaning(
    "A rule of the server refuses the client's network, its User-Agent or its account",
    Reconnect.NOT_ALLOWED,
)
_TOO_SLOW = Meaning(
    "Too much data waited for the client, or it did not read", Reconnect.READ_FASTER
)


class CloseCode(IntEnum):
    """Why the server closes a WebSocket.

    `registry` and `session` are the meanings on the registry API and on the session API; None: that
    API does not send the code.
    """

    registry: Meaning | None
    session: Meaning | None

    def __new__(cls, code: int, registry: Meaning | None, session: Meaning | None) -> CloseCode:
        member = int.__new__(cls, code)
        member._value_ = code
        member.registry = registry
        member.session = session
        return member

    GOING_AWAY = 1001, _GOING_AWAY, _GOING_AWAY
    PROTOCOL_ERROR = 1002, _PROTOCOL_ERROR, _PROTOCOL_ERROR
    INVALID_DATA = (
        1007,
        Meaning("A text message was not UTF-8", Reconnect.FIX_CLIENT),
        None,
    )
    POLICY_VIOLATION = (
        1008,
        Meaning("Too many or too large messages, or too many control frames", Reconnect.SEND_LESS),
        Meaning(
            "Too many messages or control frames, too many events that wait for their Ack,"
            " or an event that the client did not acknowledge in time",
            Reconnect.SEND_LESS,
        ),
    )
    MESSAGE_TOO_BIG = 1009, _MESSAGE_TOO_BIG, _MESSAGE_TOO_BIG
    INTERNAL_ERROR = (
        1011,
        Meaning("The server failed to serve the socket", Reconnect.LATER),
        None,
    )
    TRY_AGAIN_LATER = 1013, _TRY_AGAIN_LATER, _TRY_AGAIN_LATER
    CREDENTIAL_GONE = (
        4000,
        Meaning("The credential is no longer valid", Reconnect.LOG_IN),
        Meaning("The token is no longer valid, or the session has ended", Reconnect.LOG_IN),
    )
    NO_CREDENTIAL = (
        4001,
        Meaning("No credential came in time", Reconnect.FIX_CLIENT),
        Meaning("A message was not a text frame", Reconnect.FIX_CLIENT),
    )
    # The same number: on the session API, the credential comes with the upgrade.
    NOT_TEXT = NO_CREDENTIAL
    NOT_AN_OBJECT = 4002, None, Meaning("A message was not a JSON object", Reconnect.FIX_CLIENT)
    # The same number: on the link of an instance node (docs/nodes.md).
    BAD_FORM = NOT_AN_OBJECT
    FIELD_MISSING = 4003, None, Meaning("A field is missing", Reconnect.FIX_CLIENT)
    FIELD_TYPE = 4004, None, Meaning("A field has the wrong type", Reconnect.FIX_CLIENT)
    FIELD_VALUE = (
        4005,
        None,
        Meaning("A field has a value that is not allowed", Reconnect.FIX_CLIENT),
    )
    TOO_SLOW = 4008, _TOO_SLOW, _TOO_SLOW
    REPLACED = (
        4009,
        None,
        Meaning(
            "A newer socket of the same token took the place of this one, which did not answer a"
            " ping",
            Reconnect.NOT_NEEDED,
        ),
    )
    CLIENT_BLOCKED = 4010, _CLIENT_BLOCKED, _CLIENT_BLOCKED
