"""Identifiers and names (docs/protocol.md#names-and-times). Pure."""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Final, Literal

from reileta.rules.federation.addresses import canonical, is_address

Kind = Literal["u", "w", "i", "s", "p", "f", "n"]
"""user, world, instance, session, player, asset, instance node"""

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID: Final = re.compile(rf"(?P<kind>[uwispfn])_{_UUID}")
_USERNAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{2,31}")
_INSTANCE_NAME: Final = re.compile(r"[a-z0-9._-]{3,32}")
_SERVICE: Final = re.compile(
    r"(?=.{3,128}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
)
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_PLATFORM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


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


@dataclass(frozen=True, slots=True)
class At:
    """`id@server`, parsed.

    `server` is None if the text has no server. `parse` makes it canonical
    (`rules/federation/addresses.py`), and leaves a text that is not an address as it is.
    """

    id: str
    server: str | None = None

    @classmethod
    def parse(cls, text: str) -> At:
        """Parses `id`, `name`, `id@server`, or a reserved name such as `@me` or `@me@server`."""
        head, at, server = text[1:].partition("@")
        return cls(text[:1] + head, _canonical(server) if at else None)

    def local_to(self, address: str) -> bool:
        """Whether this names an object of the server at the canonical address."""
        return self.server is None or self.server == address

    def __str__(self) -> str:
        return self.id if self.server is None else f"{self.id}@{self.server}"


def _canonical(server: str) -> str:
    try:
        return canonical(server)
    except ValueError:
        return server


def at(id_: str, address: str) -> str:
    """`id@address` for a local identifier; an identifier with a server stays as it is."""
    return id_ if "@" in id_[1:] else f"{id_}@{address}"


def user_ref(text: str, address: str) -> str:
    """A user as records store it: `id` for a user of this server, else `id@server`."""
    named = At.parse(text)
    return named.id if named.local_to(address) else str(named)


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
    """Whether the text is a `UserIDAt`: a user's id with the canonical address of its server."""
    named = At.parse(text)
    return (
        is_id(named.id, "u")
        and named.server is not None
        and is_address(named.server)
        and str(named) == text
    )
