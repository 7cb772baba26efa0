"""The domain under which one owner can make any number of hosts. Pure.

With a wildcard in its DNS, an owner of `evil.example` has as many servers as it likes. So what is
bounded for one owner is bounded for a domain. No list of all public suffixes is used: a domain is
the last two labels of a host, and three under the usual second labels of countries (`co.uk`). So
hosts of a service that gives names to everybody (`dyndns.example`) share what one owner gets.
"""

from __future__ import annotations

import re
from typing import Final

from reileta.rules.federation.addresses import host_of, is_ip_literal

DOMAIN: Final = r"[^.]+\.(?:(?:ac|co|com|edu|gov|mil|net|org|ne|or)\.[a-z][a-z]|[^.]+)$"
"""The domain of a host that is a name. Python and PostgreSQL read this expression alike."""
DOMAIN_SQL: Final = (
    "CASE WHEN host ~ '^[0-9.]+$' OR host LIKE '[%' THEN host "
    f"ELSE coalesce(substring(host from '{DOMAIN}'), host) END"
)
"""SQL: as `domain_of`, of the column `host`."""
_DOMAIN: Final = re.compile(DOMAIN)


def domain_of(address: str) -> str:
    """The domain of a canonical address; of an IP address, the address without the port."""
    host = host_of(address)
    found = None if is_ip_literal(host) else _DOMAIN.search(host)
    return host if found is None else found[0]
