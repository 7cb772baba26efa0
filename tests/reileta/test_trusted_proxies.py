"""Whose headers count."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from reileta.settings import Settings
from reileta.trusted_proxies import TrustedProxies


@pytest.mark.parametrize(
    ("text", "address", "trusted"),
    [
        ("", "127.0.0.1", False),
        ("", "::1", False),
        ("", "unix:", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("10.0.0.0/8, fd00::/8", "10.255.0.1", True),
        ("10.0.0.0/8, fd00::/8", "fd12::1", True),
        ("10.0.0.0/8,,fd00::/8,", "192.0.2.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("127.0.0.1,unix:", "unix:", True),
        ("0.0.0.0/0", "::1", False),
        ("127.0.0.1", "somewhere", False),
    ],
)
def test_the_addresses_that_are_trusted(text: str, address: str, trusted: bool) -> None:
    assert TrustedProxies.parse(text).trusts(address) is trusted
    assert bool(TrustedProxies.parse(text)) is bool(text.strip(","))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("localhost", "such as 127.0.0.1"),
        ("127.0.0.1 10.0.0.1", "such as 127.0.0.1"),
        ("10.0.0.1/8", "10.0.0.1/8 is in 10.0.0.0/8"),
        ("*", "such as 127.0.0.1"),
        ("10.0.0.0/33", "such as 127.0.0.1"),
    ],
)
def test_a_wrong_one_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        Settings(trusted_proxies=text)
