"""What one owner can have any number of."""

from __future__ import annotations

import pytest

from reileta.rules.federation.domains import DOMAIN_SQL, domain_of
from reileta.store import Store

EXAMPLES = [
    ("example.org", "example.org"),
    ("a.example.org", "example.org"),
    ("a.b.c.example.org:3032", "example.org"),
    ("a.example.co.uk", "example.co.uk"),
    ("example.co.uk", "example.co.uk"),
    ("a.b.example.com.au:80", "example.com.au"),
    ("x1.t.co", "t.co"),
    ("x1.com.example", "com.example"),
    ("x1.abc.de", "abc.de"),
    ("localhost:3032", "localhost"),
    ("127.0.0.9:3032", "127.0.0.9"),
    ("[2001:db8::1]:3032", "[2001:db8::1]"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
]


@pytest.mark.parametrize(("address", "domain"), EXAMPLES)
def test_hosts_of_one_owner_have_one_domain(address: str, domain: str) -> None:
    assert domain_of(address) == domain


@pytest.mark.database
async def test_the_database_finds_the_same_domain(store: Store) -> None:
    for number, (address, domain) in enumerate(EXAMPLES):
        host = address if address.endswith("]") else address.rpartition(":")[0] or address
        await store.database.execute(
            "INSERT INTO servers (address, host, secure, state, first_seen) "
            "VALUES ($1, $2, true, 'known', 0)",
            str(number),
            host,
        )
        found = await store.database.value(
            f"SELECT {DOMAIN_SQL} FROM servers WHERE address = $1", str(number)
        )
        assert found == domain, address
