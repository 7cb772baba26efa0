"""Identifiers and names (docs/protocol.md#names-and-times). Pure."""

from __future__ import annotations

import ipaddress
import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["u", "w", "i", "s", "p", "f"]
"""user, world, instance, session, player, asset"""

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID: Final = re.compile(rf"(?P<kind>[uwispf])_{_UUID}")
_USERNAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{2,31}")
_INSTANCE_NAME: Final = re.compile(r"[a-z0-9._-]{3,32}")
_HOST: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_SERVICE: Final = re.compile(
    r"(?=.{3,128}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
)
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_PLATFORM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")


def new_id(kind: Kind) -> str:
    """A new identifier, such as `u_1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed`."""
    return f"{kind}_{uuid.UUID(bytes=secrets.token_bytes(16), version=4)}"


def is_id(text: str, kind: Kind) -> bool:
    """Whether the text is an identifier of that kind."""
    match = _ID.fullmatch(text)
    return match is not None and match["kind"] == kind


def is_username(text: str) -> bool:
    return _USERNAME.fullmatch(text) is not None


def is_instance_name(text: str) -> bool:
    return _INSTANCE_NAME.fullmatch(text) is not None


def is_service_id(text: str) -> bool:
    """Whether the text is a valid service id: reverse DNS, such as `com.example.voice`."""
    return _SERVICE.fullmatch(text) is not None


def is_asset_version(text: str) -> bool:
    """Whether the text is a valid asset version; `w_…:1.2@server` holds one, too."""
    return _VERSION.fullmatch(text) is not None


def is_platform(text: str) -> bool:
    """Whether the text is a valid name of an engine or a platform."""
    return _PLATFORM.fullmatch(text) is not None


def is_server_address(text: str) -> bool:
    """Whether the text is a `ServerAt`: `host` or `host:port`, lower case, IPv6 in brackets."""
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket:
            return False
        try:
            ipaddress.IPv6Address(inside)
        except ValueError:
            return False
        return not rest or (rest.startswith(":") and _is_port(rest[1:]))
    host, colon, port = text.partition(":")
    return _HOST.fullmatch(host) is not None and (not colon or _is_port(port))


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) <= 65535


@dataclass(frozen=True, slots=True)
class At:
    """`id@server`, parsed. `server` is None if the text has no server."""

    id: str
    server: str | None = None

    @classmethod
    def parse(cls, text: str) -> At:
        """Parses `id`, `name`, `id@server`, or a reserved name such as `@me` or `@me@server`."""
        head, at, server = text[1:].partition("@")
        return cls(text[:1] + head, server if at else None)

    def local_to(self, address: str) -> bool:
        """Whether this names an object of the server at `address`."""
        return self.server is None or self.server == address

    def __str__(self) -> str:
        return self.id if self.server is None else f"{self.id}@{self.server}"


def at(id_: str, address: str) -> str:
    """`id@address` for a local identifier; an identifier with a server stays as it is."""
    return id_ if "@" in id_[1:] else f"{id_}@{address}"


def user_ref(text: str, address: str) -> str:
    """A user as records store it: `id` for a user of this server, else `id@server`."""
    named = At.parse(text)
    return named.id if named.local_to(address) else text


def server_of(text: str) -> str | None:
    """The server in `id@server`; None for a bare identifier."""
    return At.parse(text).server if text else None


def all_of(address: str) -> str:
    """The reference to all users of another server, in bans: `*@server`."""
    return f"*@{address}"


def banned_server(text: str) -> str | None:
    """The server in a reference that `all_of` has made; None for a reference to one user."""
    return text[2:] if text.startswith("*@") else None


def is_user_ref(text: str) -> bool:
    """Whether the text refers to a user: a bare id of this server, or a `UserIDAt`."""
    return is_id(text, "u") or is_user_at(text)


def is_user_at(text: str) -> bool:
    """Whether the text is a `UserIDAt`: a user's id with its server."""
    named = At.parse(text)
    return is_id(named.id, "u") and named.server is not None and is_server_address(named.server)
