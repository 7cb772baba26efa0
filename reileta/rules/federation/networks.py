"""The IP addresses and ports at which other servers may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from typing import Final

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses, written as IPv6."""

_REFUSED_V4: Final = tuple(
    (IPv4Network(network), name)
    for network, name in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a relay of 6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_REFUSED_V6: Final = tuple(
    (IPv6Network(network), name)
    for network, name in (
        ("::1/128", "loopback"),
        ("::/96", "compatible with IPv4"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("100::/64", "to be discarded"),
        ("2001::/23", "reserved for protocols, such as Teredo"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""All addresses of hosts that are public, apart from `_REFUSED_V6`."""

_WEB_PORTS: Final = frozenset({80, 443})
_FIRST_PORT: Final = 1024
DATABASE_PORTS: Final = frozenset(
    {
        *(1433, 1434),  # SQL Server
        *(1521, 1522, 2483, 2484),  # Oracle
        *(2379, 2380, 4001),  # etcd
        *(2181, 2888, 3888),  # ZooKeeper
        *(3050, 3351),  # Firebird, Pervasive
        *(3306, 33060),  # MySQL
        *(4222, 6222, 8222),  # NATS
        *(5432, 5433, 6432),  # PostgreSQL, PgBouncer
        5672,  # RabbitMQ
        5984,  # CouchDB
        *(6379, 6380, 16379, 16380, 26379),  # Redis
        *(7000, 7001, 7199, 9042, 9160),  # Cassandra
        *(7473, 7474, 7687),  # Neo4j
        *(8086, 8089, 8123, 8529),  # InfluxDB, ClickHouse, ArangoDB
        *(8091, 8092, 8093, 8094, 11207, 11210, 11211),  # Couchbase, memcached
        *(9092, 9093),  # Kafka
        *(9200, 9300),  # Elasticsearch
        *(27017, 27018, 27019, 28017),  # MongoDB
        *(28015, 29015),  # RethinkDB
        50000,  # Db2
    }
) - frozenset(range(32768, 65536))
"""Ports of databases, caches and queues. Ports from 32768 on are not refused: systems give these to
any program."""


class Networks:
    """A set of networks, for the setting `--federation-allow`."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    @classmethod
    def parse(cls, text: str) -> Networks:
        """Parses addresses and networks, separated by commas.

        Raises ValueError, with a message for the operator.
        """
        return cls(parse_network(entry) for entry in map(str.strip, text.split(",")) if entry)

    def __contains__(self, ip: IPAddress) -> bool:
        ip = unmapped(ip)
        return any(ip in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


def parse_network(text: str) -> Network:
    """One address or network. Raises ValueError, with a message for the operator."""
    try:
        network = ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            whole = ip_network(text, strict=False)
            raise ValueError(f"must be an address or a network: {text} is in {whole}") from None
        raise ValueError(
            "must be addresses and networks, separated by commas, such as 127.0.0.1,fd00::/8"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        address = IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
        return IPv4Network((address, network.prefixlen - MAPPED.prefixlen))
    return network


def unmapped(ip: IPAddress) -> IPAddress:
    """The IPv4 address, if it is one that is written as IPv6."""
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped or ip
    return ip


def refusal(ip: IPAddress, port: int, allowed: Networks) -> str | None:
    """Why this server must not connect there; None if it may.

    `allowed` are networks in which servers may be although they are not public. They don't make
    ports of databases allowed.
    """
    return _refused_port(port) or (None if ip in allowed else _refused_ip(unmapped(ip)))


def _refused_port(port: int) -> str | None:
    if port in DATABASE_PORTS:
        return f"port {port} is one of databases"
    if port in _WEB_PORTS or _FIRST_PORT <= port < 65536:
        return None
    return f"port {port} is not 80, 443 or from 1024 on"


def _refused_ip(ip: IPAddress) -> str | None:
    refused: Iterable[tuple[Network, str]]
    refused = _REFUSED_V4 if isinstance(ip, IPv4Address) else _REFUSED_V6
    for network, name in refused:
        if ip in network:
            return f"the address is {name}"
    if isinstance(ip, IPv6Address) and (ip.scope_id is not None or ip not in _GLOBAL_V6):
        return "the address is not public"
    return None
