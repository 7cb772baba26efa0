"""The hosts in the URL of a database. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the URL. `port` is None for the driver's default."""

    name: str
    port: int | None


def hosts_of(url: str) -> list[Host]:
    """The hosts of a `postgresql://` URL, in its order; one or none if the driver needs no choice.

    Raises ValueError for a URL that can't be parsed.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    listed = unquote(parts.netloc.rpartition("@")[2]) or query.get("host", [""])[-1]
    ports = [int(port) for port in query.get("port", [""])[-1].split(",") if port]
    names = listed.split(",")
    if len(ports) == 1:
        ports *= len(names)
    hosts = []
    for place, name in enumerate(names):
        default = ports[place] if place < len(ports) else None
        hosts.append(_host(name, default))
    return hosts


def _host(name: str, default: int | None) -> Host:
    if name.startswith("/"):  # the folder of a Unix socket
        return Host(name, default)
    if name.startswith("["):
        name, _, rest = name[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = name.partition(":")
    return Host(name, int(port) if port else default)
