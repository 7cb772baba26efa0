"""Where clients reach the server: the beginning of every URL. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

OWN_ROOTS: Final = frozenset(
    {
        ".well-known",
        "api",
        "assets",
        "asyncapi.json",
        "auth",
        "console",
        "docs",
        "healthz",
        "metrics",
        "openapi.json",
        "readyz",
        "resource",
        "session",
        "ws",
    }
)
"""The first segments of the server's own paths."""
_BASE_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]{1,64}){1,8}")


@dataclass(frozen=True, slots=True)
class Site:
    """An address, and how clients reach it.

    Attributes:
        address: the server's `ServerAt`, `host` or `host:port`.
        secure: whether clients reach it over TLS.
        base_path: what all paths begin with, such as `/vr`; empty for none.
        gateway: the address that URLs name, if it is not `address`; empty for none.
    """

    address: str
    secure: bool = False
    base_path: str = ""
    gateway: str = ""

    @property
    def reached_at(self) -> str:
        """The address that URLs name."""
        return self.gateway or self.address

    @property
    def url(self) -> str:
        """`https://play.example.org/vr`."""
        return f"http{'s' if self.secure else ''}://{self.reached_at}{self.base_path}"

    @property
    def websocket_url(self) -> str:
        """`wss://play.example.org/vr`."""
        return f"ws{'s' if self.secure else ''}://{self.reached_at}{self.base_path}"


def gateway_at(url: str) -> tuple[bool, str]:
    """Whether a gateway uses TLS, and its address, by the URL that it tells other nodes
    (`Site.url`)."""
    scheme, _, rest = url.partition("://")
    return scheme == "https", rest.partition("/")[0]


def base_path_of(text: str) -> str:
    """The base path that an operator means: `/vr` for `/vr/`, empty for `/`.

    Raises ValueError, with a message for the operator. The server answers with and without the base
    path, since proxies may remove it. So it must differ from the server's own paths.
    """
    path = text.rstrip("/")
    if not path and text:
        return ""
    if _BASE_PATH.fullmatch(path) is None:
        raise ValueError("must be a path such as /vr, of letters, digits, and . _ ~ -")
    if path.split("/")[1] in OWN_ROOTS:
        raise ValueError(f"must not begin with /{path.split('/')[1]}, a path of the server itself")
    return path


def without_base_path(path: str, base_path: str) -> str:
    """The path without the base path, if it has it."""
    if base_path and path.startswith(base_path):
        rest = path[len(base_path) :]
        if not rest:
            return "/"
        if rest[0] == "/" and rest[1:2] != "/":
            return rest
    return path
