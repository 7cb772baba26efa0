"""Addresses of servers (`ServerAt`), with one spelling for each. Pure.

Two spellings of one server would be two servers to everything that compares: a ban, a block and a
pinned key would not hold for the other spelling. So each address that comes from outside passes
through `canonical` before it is compared or stored.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

import idna

IPAddress = IPv4Address | IPv6Address

TEXT_LENGTH: Final = 320
"""Longest text that is looked at. A canonical address has at most 259 characters."""
CACHED: Final = 4096
"""Number of texts whose canonical address is cached."""

DEFAULT_PORTS: Final = frozenset({80, 443})
"""Ports that an address leaves out: a server without a port in its address is at 443, or at 80 if
this server reaches it without TLS. Both are left out for all servers, since the name of a server
must not depend on how another one reaches it."""

_HOST_LENGTH: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PORT_LIMIT: Final = 65535


def canonical(text: str) -> str:
    """The one spelling of a server's address: `host` or `host:port`.

    The host is in lower case, without a dot at its end, in A-labels (`xn--…`, IDNA 2008), or an IP
    address; an IPv6 address is in brackets and compressed (RFC 5952). Default ports are left out.

    Raises ValueError, with a message for the field, if the text is not such an address. Other
    spellings of IPv4 addresses (`127.1`, `0x7f.0.0.1`, `2130706433`) are not.
    """
    if len(text) > TEXT_LENGTH:
        raise ValueError("is too long for the address of a server")
    return _canonical(text)


def is_address(text: str) -> bool:
    """Whether the text is an address of a server, in any spelling."""
    try:
        canonical(text)
    except ValueError:
        return False
    return True


def same_server(one: str, other: str) -> bool:
    """Whether two texts are addresses of one server. Texts that are not addresses never are."""
    try:
        return canonical(one) == canonical(other)
    except ValueError:
        return False


def host_of(address: str) -> str:
    """The host of a canonical address: without the port, IPv6 in brackets."""
    return split(address)[0]


def split(address: str) -> tuple[str, int | None]:
    """Host and port of a canonical address. The port is None for the default port."""
    if address.endswith("]"):
        return address, None
    host, colon, port = address.rpartition(":")
    return (host, int(port)) if colon else (address, None)


def ip_of(address: str) -> IPAddress | None:
    """The IP address that is the host of a canonical address; None if the host is a name."""
    host = host_of(address)
    if host.startswith("["):
        return IPv6Address(host[1:-1])
    try:
        return IPv4Address(host)
    except AddressValueError:
        return None


def is_ip_literal(address: str) -> bool:
    """Whether the host of a canonical address is an IP address."""
    return ip_of(address) is not None


def covers(pattern: str, address: str) -> bool:
    """Whether a rule about `pattern` holds for a server: for its host, and for its parent domains.

    Both are canonical. Ports don't count: `evil.example` covers `a.evil.example:8443`.
    """
    covered, host = host_of(pattern), host_of(address)
    return host == covered or (not is_ip_literal(address) and host.endswith(f".{covered}"))


def with_port(host: str, port: int) -> str:
    """The canonical address of a host, a name or an IP address without brackets, and a port.

    Raises ValueError as `canonical`.
    """
    return canonical(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


@lru_cache(maxsize=CACHED)
def _canonical(text: str) -> str:
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("must be host or host:port, with IPv6 in brackets")
        host, colon, port = f"[{_ipv6(inside)}]", rest[:1], rest[1:]
    else:
        name, colon, port = text.partition(":")
        if ":" in port:
            raise ValueError("must be host or host:port, with IPv6 in brackets")
        host = _host(name)
    if not colon:
        return host
    if _PORT.fullmatch(port) is None or int(port) > _PORT_LIMIT:
        raise ValueError("must have a port between 1 and 65535, or none")
    return host if int(port) in DEFAULT_PORTS else f"{host}:{port}"


def _ipv6(text: str) -> IPv6Address:
    try:
        if "%" in text:
            raise ValueError(text)
        ip = IPv6Address(text)
    except ValueError:
        raise ValueError("must have an IPv6 address without a zone in its brackets") from None
    if ip.ipv4_mapped is not None:
        raise ValueError(f"must name the IPv4 address as such: {ip.ipv4_mapped}")
    return ip


def _host(name: str) -> str:
    labels = _labels(name)
    host = ".".join(labels)
    if len(host) > _HOST_LENGTH:
        raise ValueError("must have a host of at most 253 characters")
    # As in URLs: a host whose last label is a number is an IPv4 address, or nothing.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            if str(IPv4Address(host)) == host:
                return host
        except AddressValueError:
            pass
        raise ValueError("must name an IPv4 address as four decimal numbers: 192.0.2.1")
    return host


def _labels(name: str) -> list[str]:
    text = name if name.isascii() else unicodedata.normalize("NFC", name)
    return [_a_label(label) for label in text.lower().removesuffix(".").split(".")]


def _a_label(label: str) -> str:
    if label.isascii() and not label.startswith("xn--"):
        # Not all names of hosts are valid in IDNA: `r3---a.example.org` is in use.
        encoded = label
    else:
        try:
            encoded = idna.alabel(label).decode("ascii")
        except idna.IDNAError:
            raise ValueError("must have a host whose name is valid (IDNA 2008)") from None
    if _LABEL.fullmatch(encoded) is None:
        raise ValueError("must have a host of letters, digits, hyphens and dots")
    return encoded
