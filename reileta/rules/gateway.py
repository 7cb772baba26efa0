"""What a gateway tells a registry about a request, in four headers. Pure.

    AVR-Gateway: true play.example.org
    AVR-Client: 192.0.2.7
    AVR-Trace: 00f067aa0ba902b7
    AVR-Proof: 64 hexadecimal digits

The first says how the client reached the gateway: whether over TLS, and the address that URLs in
the answer name. The proof is an HMAC-SHA256 over the other three, the method, the target and the
minute, with a secret that gateway and registry share. It may be one minute old, or new.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

GATEWAY: Final = b"avr-gateway"
CLIENT: Final = b"avr-client"
TRACE: Final = b"avr-trace"
PROOF: Final = b"avr-proof"
PASSED: Final = frozenset({GATEWAY, CLIENT, TRACE, PROOF})
MINUTE_MS: Final = 60_000

_CLAIMED: Final = re.compile(r"(?:avr|x[-_]forwarded)[-_].*|forwarded", re.IGNORECASE | re.DOTALL)
_GATEWAY: Final = re.compile(
    r"(true|false) ([a-z0-9._-]{1,255}(?::\d{1,5})?|\[[0-9a-f:.]+\](?::\d{1,5})?)"
)
_TRACE: Final = re.compile(r"[0-9a-f]{16}")
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True, slots=True)
class Passed:
    """A request as a gateway passes it on.

    Attributes:
        secure: whether the client reached the gateway over TLS.
        gateway: the address of the gateway.
        client: the IP address of the client.
        trace: 16 hexadecimal digits.
    """

    secure: bool
    gateway: str
    client: str
    trace: str

    @property
    def gateway_header(self) -> str:
        return f"{'true' if self.secure else 'false'} {self.gateway}"


def is_claimed(name: str) -> bool:
    """Whether a gateway drops a client's header of that name: only gateways and proxies may send
    it. Some programs take `_` in a name for `-`."""
    return _CLAIMED.fullmatch(name) is not None


def is_hop_by_hop(name: str) -> bool:
    """Whether a header concerns one connection only. `name` is in lower case."""
    return name in _HOP_BY_HOP


def named_by_connection(values: Iterable[str]) -> frozenset[str]:
    """The names of further headers of one connection, in lower case, by the values of
    `Connection`. `Host` and the length of the body are never among them."""
    names = {name.strip().lower() for value in values for name in value.split(",")}
    return frozenset(names - {"host", "content-length"})


def proof(secret: bytes, passed: Passed, method: str, target: bytes, now_ms: int) -> str:
    """The value of `AVR-Proof`. `target`: path and query, as they are sent."""
    return _proof(secret, passed, method, target, now_ms // MINUTE_MS)


def _proof(secret: bytes, passed: Passed, method: str, target: bytes, minute: int) -> str:
    lines = (
        b"avr-gw-1",
        method.encode(),
        target,
        passed.gateway_header.encode(),
        passed.client.encode(),
        passed.trace.encode(),
        b"%d" % minute,
    )
    return hmac.new(secret, b"\n".join(lines), hashlib.sha256).hexdigest()


def is_proved(
    given: str, secret: bytes, passed: Passed, method: str, target: bytes, now_ms: int
) -> bool:
    """Whether the proof is right, and at most a minute old or early."""
    minute = now_ms // MINUTE_MS
    return any(
        hmac.compare_digest(given.encode(), _proof(secret, passed, method, target, each).encode())
        for each in (minute, minute - 1, minute + 1)
    )


def passed_by(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Passed, str] | None:
    """What a request's headers say, and its proof (empty if it has none).

    None if one of them is missing, is there twice or is not well-formed. Header names are in lower
    case.
    """
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in PASSED:
            if name in found:
                return None
            found[name] = value.decode("latin-1")
    gateway = _GATEWAY.fullmatch(found.get(GATEWAY, ""))
    client, trace = found.get(CLIENT, ""), found.get(TRACE, "")
    if gateway is None or _TRACE.fullmatch(trace) is None:
        return None
    try:
        parsed = ipaddress.ip_address(client)
    except ValueError:
        return None
    if str(parsed) != client:
        return None  # gateways write the canonical form
    return Passed(gateway[1] == "true", gateway[2], client, trace), found.get(PROOF, "")
