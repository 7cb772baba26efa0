"""The client behind trusted proxies: `X-Forwarded-For`, `-Proto`, `-Host`, and `Forwarded`.

A proxy appends the address that it was reached from. So the chain is read from its right end, and
the first address that is not a trusted proxy is the client: everything to the left of it was sent
by the client, which can write anything. `Forwarded` (RFC 7239) is read in the same way.

Most proxies set only one of the two, and pass the other on as the client sent it. So if both are
there, they must agree. Otherwise the client is not known.

If the client is not known, the request counts for the last proxy that is known. This applies to
`unknown`, to identifiers such as `_hidden`, and to malformed values. Such clients share the limits
of one address, so no client gains from hiding.

Werkzeug's and Hypercorn's middlewares count hops instead of checking addresses, Uvicorn's checks
addresses but neither reads `Forwarded` nor a host. All of them trust a hop for its place in the
chain, or choose between the two kinds of headers by a setting.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

import structlog

from api.listen.request_head import Headers, is_authority
from reileta.observability.log_events import (
    GATEWAY_NOT_TRUSTED,
    PROXY_NOT_TRUSTED,
    PROXY_UNCLEAR,
)
from reileta.rules.gateway import PASSED
from reileta.trusted_proxies import UNIX, TrustedProxies

HOPS: Final = 32
"""Proxies in a chain. The client behind a longer one is not known."""
NODES: Final = 4096
"""Number of addresses in headers whose parsing is cached."""

_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
_FORWARDED: Final = b"forwarded"
_NAMES: Final = frozenset({_FOR, _PROTO, _HOST, _FORWARDED})
_SCHEMES: Final = {b"http": "http", b"ws": "http", b"https": "https", b"wss": "https"}
"""Some proxies name the scheme of an upgrade `wss`."""
_PORT: Final = r"(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]+))?"
_NODE: Final = re.compile(rf"(?:([0-9.]{{7,15}})|\[([0-9A-Za-z:.%]{{2,64}})\]){_PORT}")
_QUOTED: Final = rb'"(?:[^"\\]|\\.)*+"'
_LINE: Final = re.compile(rb'(?:%b|[^"])*+' % _QUOTED)
_ELEMENT: Final = re.compile(rb'(?:%b|[^",])++' % _QUOTED)
_PARAMETER: Final = re.compile(rb'(?:%b|[^";])++' % _QUOTED)
_PAIR: Final = re.compile(
    rb"""([!#$%&'*+.^_`|~0-9A-Za-z-]++)="""
    rb"""(?:"((?:[^"\\]|\\.)*+)"|([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]++))""",
    re.DOTALL,
)
"""The lenient part: IPv6 and ports without quotes."""
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_SPACE: Final = b" \t"

T = TypeVar("T")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from.

    Attributes:
        address: the client's; that of a proxy if the client is not known.
        reported: a proxy has said something about the address, even that it is unknown.
        scheme: `http` or `https`, as the client reached the first trusted proxy; None: not said.
        host: the host that the client asked for; None: not said.
        unclear: the headers contradict each other.
    """

    address: str
    port: int
    reported: bool = False
    scheme: str | None = None
    host: bytes | None = None
    unclear: bool = False


class ProxyHeaders:
    """Reads the headers of proxies, and logs once if they are not as they should be."""

    def __init__(self, trusted: TrustedProxies) -> None:
        self.trusted = trusted
        self._logged: set[tuple[str, str, bool]] = set()

    def origin(self, headers: Headers, address: str, port: int) -> Origin:
        """The origin of a request that a trusted proxy has sent from that address and port."""
        origin = origin_of(headers, address, port, self.trusted.trusts)
        if origin.unclear:
            self._log_once(PROXY_UNCLEAR, headers, address)
        return origin

    def ignored(self, headers: Headers, address: str) -> None:
        """Call for a request from another address: logs if it has headers of a proxy."""
        if any(name in _NAMES for name, _ in headers):
            self._log_once(PROXY_NOT_TRUSTED, headers, address)

    def no_gateway(self, headers: Headers, address: str, setting: str) -> None:
        """Call at a registry for a request whose headers of a gateway don't count, if it has any:
        logs the setting that is wrong then."""
        if any(name in PASSED for name, _ in headers):
            self._log_once(GATEWAY_NOT_TRUSTED, headers, address, setting)

    def _log_once(
        self, event: str, headers: Headers, address: str, setting: str = "--trusted-proxies"
    ) -> None:
        """Logs an event once for public addresses, and once for others, so that a stranger can't
        use up the line about the operator's own proxy. The log has no addresses of people."""
        public = _is_public(address)
        if (event, setting, public) in self._logged:
            return
        self._logged.add((event, setting, public))
        _log.warning(
            event,
            proxy="a public address" if public else address,
            headers=sorted({name.decode("latin-1") for name, _ in headers} & _TEXTS),
            setting=setting,
        )


_TEXTS: Final = frozenset(name.decode() for name in _NAMES | PASSED)


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def origin_of(headers: Headers, address: str, port: int, trusts: Callable[[str], bool]) -> Origin:
    """The origin of a request from a trusted proxy at that address and port."""
    old = _of_x_forwarded(headers, address, port, trusts)
    new = _of_forwarded(headers, address, port, trusts)
    if old is None or new is None:
        return old or new or Origin(address, port)
    unclear = old.reported and new.reported and old.address != new.address
    known = old if old.reported else new
    scheme, schemes_agree = _agreed(old.scheme, new.scheme)
    host, hosts_agree = _agreed(old.host, new.host)
    return Origin(
        address if unclear else known.address,
        port if unclear else known.port,
        known.reported,
        scheme,
        host,
        unclear or not schemes_agree or not hosts_agree,
    )


def _agreed(one: T | None, other: T | None) -> tuple[T | None, bool]:
    """The value that is given, if not two different ones are; and whether that is so."""
    if one is None or other is None or one == other:
        return (other if one is None else one), True
    return None, False


def _of_x_forwarded(
    headers: Headers, address: str, port: int, trusts: Callable[[str], bool]
) -> Origin | None:
    """None without such headers."""
    chain = [entry.decode("latin-1") for entry in _entries(headers, _FOR)]
    schemes, hosts = _entries(headers, _PROTO), _entries(headers, _HOST)
    if not (chain or schemes or hosts):
        return None
    address, port, hops = _client(chain, address, port, trusts)
    scheme, host = _nth_last(schemes, hops), _nth_last(hosts, hops)
    return Origin(address, port, bool(chain), _scheme(scheme), _host(host))


def _of_forwarded(
    headers: Headers, address: str, port: int, trusts: Callable[[str], bool]
) -> Origin | None:
    """None without the header."""
    elements = [
        element
        for name, line in headers
        if name == _FORWARDED
        for element in forwarded_elements(line)
    ]
    if not elements:
        return None
    chain = [element.get(b"for", b"").decode("latin-1") for element in elements]
    address, port, hops = _client(chain, address, port, trusts)
    first = elements[-hops]
    return Origin(address, port, True, _scheme(first.get(b"proto")), _host(first.get(b"host")))


def _client(
    chain: Sequence[str], address: str, port: int, trusts: Callable[[str], bool]
) -> tuple[str, int, int]:
    """The address and port of the client, and its place in the chain, counted from the right."""
    hops = 0
    for text in reversed(chain):
        hops += 1
        node = parse_node(text)
        if node is None or hops > HOPS:
            return address, 0, hops
        address, port = node
        if not trusts(address):
            break
    return address, port, hops


def _entries(headers: Headers, wanted: bytes) -> list[bytes]:
    """The entries of a list that can be spread over several lines. Empty ones do not count."""
    lines = [value for name, value in headers if name == wanted]
    entries = [entry.strip(_SPACE) for line in lines for entry in line.split(b",")]
    return [entry for entry in entries if entry]


def _nth_last(entries: Sequence[bytes], number: int) -> bytes | None:
    """The entry of the outermost trusted proxy, which the client reached. If there are fewer
    entries than proxies, some proxies don't append, and this is the first entry."""
    return entries[-min(max(number, 1), len(entries))] if entries else None


def _scheme(text: bytes | None) -> str | None:
    return None if text is None else _SCHEMES.get(text.lower())


def _host(text: bytes | None) -> bytes | None:
    return text if text is not None and is_authority(text) else None


@lru_cache(maxsize=NODES)
def parse_node(text: str) -> tuple[str, int] | None:
    """Address and port of an entry of a chain, such as `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
    `[2001:db8::1]:80` or `unix:`. The port is 0 if there is none. None: not known."""
    if text.startswith('"') and text.endswith('"'):
        text = text[1:-1]
    if text == UNIX:
        return UNIX, 0
    match = _NODE.fullmatch(text)
    ip = (match[1] or match[2]) if match is not None else text
    port = int(match[3] or 0) if match is not None else 0
    if port > 65535:
        return None
    try:
        parsed = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if match is not None and match[2] is not None and parsed.version == 4:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed), port


def forwarded_elements(line: bytes) -> list[dict[bytes, bytes]]:
    """The elements of a `Forwarded` line: values by parameter, whose names are in lower case.

    An element that is not valid has no parameters; a line that is not valid is one such element.
    """
    if _LINE.fullmatch(line) is None:
        return [{}]
    return [_element(text) for text in _ELEMENT.findall(line) if text.strip(_SPACE)]


def _element(text: bytes) -> dict[bytes, bytes]:
    element: dict[bytes, bytes] = {}
    for pair in _PARAMETER.findall(text):
        if not pair.strip(_SPACE):
            continue
        match = _PAIR.fullmatch(pair.strip(_SPACE))
        if match is None or match[1].lower() in element:
            return {}
        quoted = match[2] is not None
        element[match[1].lower()] = _ESCAPED.sub(rb"\1", match[2]) if quoted else match[3]
    return element
