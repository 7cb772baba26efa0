"""The addresses of the proxies whose headers count (`--trusted-proxies`). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix:"
"""How proxies name a client that reached them through a Unix socket."""
ADDRESSES: Final = 4096
"""Number of addresses whose trust is cached."""
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


class TrustedProxies:
    """Networks of trusted proxies. No address is trusted by default, not even loopback.

    Args:
        networks: the networks that the proxies' addresses are in.
        unix: trust proxies that are reached through a Unix socket.
    """

    def __init__(self, networks: Iterable[Network] = (), *, unix: bool = False) -> None:
        self._networks = tuple(networks)
        self._unix = unix
        self.trusts = lru_cache(maxsize=ADDRESSES)(self._trusts)
        """Whether the proxy at that address is trusted."""

    @classmethod
    def parse(cls, text: str) -> TrustedProxies:
        """Parses addresses, networks and `unix:`, separated by commas.

        Raises ValueError, with a message for the operator.
        """
        entries = [entry.strip() for entry in text.split(",")]
        entries = [entry for entry in entries if entry]
        unix = UNIX in entries
        return cls((_network(entry) for entry in entries if entry != UNIX), unix=unix)

    def __bool__(self) -> bool:
        return bool(self._networks) or self._unix

    def _trusts(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            whole = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"must be an address or a network: {text} is in {whole}") from None
        raise ValueError(
            "must be addresses and networks, separated by commas, such as 127.0.0.1,fd00::/8"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        address = ipaddress.IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
        return ipaddress.IPv4Network((address, network.prefixlen - _MAPPED.prefixlen))
    return network
