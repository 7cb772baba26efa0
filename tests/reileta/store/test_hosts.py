"""The hosts in the URL of a database."""

from __future__ import annotations

import pytest

from reileta.store.hosts import Host, hosts_of


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://ann:pw@one/db", [Host("one", None)]),
        ("postgresql://one:1,two:2/db", [Host("one", 1), Host("two", 2)]),
        ("postgresql://ann:a%40b@one,two:7/db?port=5", [Host("one", 5), Host("two", 7)]),
        (
            "postgresql://ann@[::1]:1,[::2],x/db",
            [Host("::1", 1), Host("::2", None), Host("x", None)],
        ),
        ("postgresql:///db?host=/run/a,/run/b&port=1,2", [Host("/run/a", 1), Host("/run/b", 2)]),
        ("postgresql://%2Frun%2Fa/db?port=9", [Host("/run/a", 9)]),
        ("postgresql:///db", [Host("", None)]),
    ],
)
def test_hosts_are_read_from_the_url(url: str, hosts: list[Host]) -> None:
    assert hosts_of(url) == hosts
