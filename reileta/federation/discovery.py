"""What another server says of itself: `/.well-known/avr`, checked as any input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec

from reileta.errors import MalformedData
from reileta.rules.federation.addresses import canonical, host_of
from reileta.rules.federation.signatures import (
    CHAIN_LENGTH,
    Link,
    follows_chain,
    is_public_key,
)
from reileta.site import base_path_of

PATH: Final = "/.well-known/avr"
API: Final = "/api/"
"""What the paths of a server's API begin with, below its base path."""
URL_LENGTH: Final = 512
VERSION_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a server at `address` published. The gateways are URLs of that server, or None."""

    address: str
    public_key: str
    keys: tuple[Link, ...]
    gateway_http: str | None
    gateway_ws: str | None
    version: str | None

    @property
    def base_path(self) -> str:
        """Below which path its API is; empty for the root."""
        return base_path_at(self.gateway_http, self.address)

    def follows(self, pin: str | None) -> bool:
        """Whether its key is the pinned one, or follows from it. Without a pin any key does."""
        if pin is None or pin == self.public_key:
            return True
        chained = bool(self.keys) and self.keys[0].public_key == self.public_key
        return chained and follows_chain(pin, self.keys, self.address)


class _LinkPart(msgspec.Struct):
    public_key: str
    since: int
    by: str


class _GatewaysPart(msgspec.Struct):
    http: str | None = None
    ws: str | None = None


class _Part(msgspec.Struct):
    address: str
    public_key: str
    keys: list[_LinkPart] = []
    gateways: _GatewaysPart | None = None
    version: str | None = None


def base_path_at(gateway: str | None, server: str) -> str:
    """The path of a server's gateway, if that is at the server's own address; else the root.

    `server`: a canonical address.
    """
    if gateway is None:
        return ""
    try:
        parts = urlsplit(gateway)
        return base_path_of(parts.path) if canonical(parts.netloc) == server else ""
    except ValueError:
        return ""


def discovered(data: msgspec.Raw, server: str, *, secure: bool) -> Discovery:
    """The discovery of the server at that canonical address, from the `data` of its answer.

    `secure`: it is reached over TLS, so its gateways must be, too.

    Raises MalformedData if a field has another form, and if the address is another one.
    """
    try:
        part = msgspec.json.decode(data, type=_Part)
        address = canonical(part.address)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise MalformedData(cause=f"discovery: {error}") from None
    if address != server:
        raise MalformedData(cause="discovery: it has another address")
    if not is_public_key(part.public_key):
        raise MalformedData(cause="discovery: public_key is not a key")
    if len(part.keys) > CHAIN_LENGTH:
        raise MalformedData(cause="discovery: too many keys")
    gateways = part.gateways or _GatewaysPart()
    return Discovery(
        address=server,
        public_key=part.public_key,
        keys=tuple(Link(one.public_key, one.since, one.by) for one in part.keys),
        gateway_http=_gateway(gateways.http, server, "https" if secure else "http"),
        gateway_ws=_gateway(gateways.ws, server, "wss" if secure else "ws"),
        version=_version(part.version),
    )


def _gateway(url: str | None, server: str, scheme: str) -> str | None:
    """The URL of a gateway, if it can be one: on the host of the server, or below it. A gateway
    elsewhere could make a server send its clients anywhere."""
    if url is None or len(url) > URL_LENGTH or not url.isascii() or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        place = canonical(parts.netloc)
    except ValueError:
        return None
    if parts.scheme not in (scheme, "https", "wss") or parts.query or parts.fragment or " " in url:
        return None
    host, own = host_of(place), host_of(server)
    return url if host == own or host.endswith(f".{own}") else None


def _version(text: str | None) -> str | None:
    if text is None or len(text) > VERSION_LENGTH or not text.isprintable():
        return None
    return text
