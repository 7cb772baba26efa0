"""One server has one address, however it is spelled."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reileta.rules.federation.addresses import (
    TEXT_LENGTH,
    canonical,
    covers,
    host_of,
    is_address,
    is_ip_literal,
    same_server,
    split,
    with_port,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("play.example.org", "play.example.org"),
        ("Play.Example.ORG", "play.example.org"),
        ("play.example.org.", "play.example.org"),
        ("play.example.org:443", "play.example.org"),
        ("play.example.org:80", "play.example.org"),
        ("PLAY.example.org.:8443", "play.example.org:8443"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example:8443", "xn--bcher-kva.example:8443"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("r3---a.example.org", "r3---a.example.org"),
        ("localhost:3032", "localhost:3032"),
        ("192.0.2.1:3032", "192.0.2.1:3032"),
        ("192.0.2.1.", "192.0.2.1"),
        ("[::1]", "[::1]"),
        ("[2001:DB8:0:0:0:0:0:1]:3032", "[2001:db8::1]:3032"),
        ("[2001:db8::0001]:443", "[2001:db8::1]"),
        ("[64:ff9b::192.0.2.1]", "[64:ff9b::c000:201]"),
        ("a-b.c:65535", "a-b.c:65535"),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert canonical(text) == address
    assert canonical(address) == address
    assert is_address(text)
    assert same_server(text, address)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..b", ".a", "-a.b", "a-.b", "a b", "a_b", "host\n", " host", "host "),
        *("host:", "host:0", "host:65536", "host:080", "host:+80", "host:８０", "host:1:2"),
        *("::1", "[::1", "::1]", "[]", "[::g]", "[::1]x", "[::1]:", "[fe80::1%eth0]", "[::1].a"),
        *("[::ffff:192.0.2.1]", "[192.0.2.1]", "[v1.a]"),
        *("http://host", "host/path", "host?query", "host#part", "user@host", "user:word@host"),
        *("host\\path", "host%2e", "127%2e0%2e0%2e1", "a\x00b", "\ud800.example"),
        *("127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0177.0.0.1"),
        *("127.0.0.01", "256.0.0.1", "1.2.3.4.5", "127.0.0.1..", "0x", "a.0x7f", "a.1", "0"),
        *("１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "a。b", "ａ.example", "xn--.example"),
        *("xn---bbk.example", "xn--a.example", "\u200d.example", "\u05d0a.example", "☃.example"),
        *("a" * 64, ".".join(["a" * 60] * 5), "ü" * 60, "a" * 10_000, "ü" * 10_000),
    ],
)
def test_all_other_texts_are_not_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|is) "):
        canonical(text)
    assert not is_address(text)
    assert not same_server(text, text)


ALPHABET = string.ascii_letters + string.digits + ".-:[]%@/xX0１。üßÜİK\u0308\u200d\u05d0ſǅ"


@given(st.text(ALPHABET, max_size=30) | st.text(max_size=TEXT_LENGTH + 1))
@example("İ.example")
@example("ǅ.example")
def test_a_canonical_address_is_ascii_and_stays(text: str) -> None:
    if not is_address(text):
        return
    address = canonical(text)
    assert canonical(address) == address
    assert address.isascii()
    assert address == address.lower()
    assert len(address) <= 253 + 6
    host, port = split(address)
    assert address == (host if port is None else f"{host}:{port}")
    assert port not in (80, 443)


labels = st.from_regex(r"[a-z]([a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports = st.none() | st.integers(1, 65535)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """An address, and a spelling of it."""
    host = draw(names | st.ip_addresses().map(str))
    if ":" in host:
        if host.startswith("::ffff:"):
            host = "::1"
        host = f"[{host}]"
    port = draw(ports)
    address = host if port in (None, 80, 443) else f"{host}:{port}"
    spelled = "".join(one.upper() if draw(st.booleans()) else one for one in host)
    if not host.startswith("[") and draw(st.booleans()):
        spelled += "."
    if port is None and draw(st.booleans()):
        port = draw(st.sampled_from((80, 443)))
    return address, spelled if port is None else f"{spelled}:{port}"


@given(spellings())
def test_all_spellings_of_a_server_have_one_address(spelling: tuple[str, str]) -> None:
    address, text = spelling
    assert canonical(text) == address


@given(spellings(), spellings())
def test_different_servers_have_different_addresses(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert same_server(one[1], other[1]) == (one[0] == other[0])


def test_an_address_is_taken_apart() -> None:
    assert split("play.example.org:3032") == ("play.example.org", 3032)
    assert split("[2001:db8::1]") == ("[2001:db8::1]", None)
    assert host_of("[2001:db8::1]:3032") == "[2001:db8::1]"
    assert with_port("2001:db8::1", 3032) == "[2001:db8::1]:3032"
    assert with_port("Play.example.org", 443) == "play.example.org"
    assert [is_ip_literal(canonical(one)) for one in ("192.0.2.1:1", "[::1]", "a1.b")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("pattern", "address", "covered"),
    [
        ("evil.example", "evil.example", True),
        ("evil.example", "evil.example:8443", True),
        ("evil.example", "a.b.evil.example:8443", True),
        ("evil.example:1234", "a.evil.example:8443", True),
        ("evil.example", "notevil.example", False),
        ("a.evil.example", "evil.example", False),
        ("example", "evil.example", True),
        ("192.0.2.1", "192.0.2.1:3032", True),
        ("192.0.2.1", "1.192.0.2", False),
        ("[2001:db8::1]:1", "[2001:db8::1]:2", True),
        ("[2001:db8::1]", "[2001:db8::2]", False),
    ],
)
def test_a_rule_covers_ports_and_subdomains(pattern: str, address: str, covered: bool) -> None:
    assert covers(pattern, address) == covered
