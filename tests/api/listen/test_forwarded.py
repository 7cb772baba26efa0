"""The client behind trusted proxies."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from api.listen.exchange import Listening, Peer
from api.listen.forwarded import HOPS, Origin, ProxyHeaders, origin_of
from api.listen.gateways import TrustedGateways
from api.listen.request_head import RequestHead
from reileta.rules.gateway import Passed, proof
from reileta.trusted_proxies import TrustedProxies

PROXY, INNER, CLIENT, FORGED = "10.0.0.1", "10.0.0.2", "203.0.113.9", "198.51.100.7"
TRUSTED = TrustedProxies.parse("10.0.0.0/8,fd00::/8,unix:")

Lines = list[tuple[str, str]]


def origin(*lines: tuple[str, str]) -> Origin:
    """The origin of a request of the proxy with these headers."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    return origin_of(headers, PROXY, 80, TRUSTED.trusts)


def of(value: str) -> str:
    """The address that an `X-Forwarded-For` leads to."""
    return origin(("x-forwarded-for", value)).address


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"  {CLIENT}\t", CLIENT),
        (f"{FORGED}, {CLIENT}", CLIENT),
        (f"{FORGED},{CLIENT}, {INNER}", CLIENT),
        (f"{FORGED}, {INNER}, {CLIENT}", CLIENT),
        (f"{CLIENT}, {INNER}:80, unix:", CLIENT),
        (f"{CLIENT}, , ", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"{CLIENT}, fd00::1", CLIENT),
        # Nobody but trusted proxies: the first one is where it began.
        ("10.9.9.9, 10.0.0.2", "10.9.9.9"),
        # Unknown clients count for the last proxy that is known.
        ("unknown", PROXY),
        (f"{CLIENT}, unknown", PROXY),
        (f"{CLIENT}, unknown, {INNER}", INNER),
        ("_hidden", PROXY),
        (f"{CLIENT}, <script>", PROXY),
        (f"{CLIENT}, 203.0.113.256", PROXY),
        (f"{CLIENT}, 203.0.113.09", PROXY),
        (f"{CLIENT}, 203.0.113.9:99999", PROXY),
        (f"{CLIENT}, [{CLIENT}]", PROXY),
        (f"{CLIENT}, [2001:db8::1", PROXY),
        (f"{CLIENT}, localhost", PROXY),
        (f"{CLIENT}, \xb2", PROXY),
        ("", PROXY),
    ],
)
def test_the_last_address_that_is_not_a_proxy(value: str, address: str) -> None:
    assert of(value) == address


def test_several_lines_are_one_list() -> None:
    lines = [("x-forwarded-for", FORGED), ("x-forwarded-for", CLIENT), ("x-forwarded-for", INNER)]
    assert origin(*lines).address == CLIENT
    elements = [("forwarded", f"for={FORGED}"), ("forwarded", f"for={CLIENT}, for={INNER}")]
    assert origin(*elements).address == CLIENT


def test_a_chain_that_is_too_long() -> None:
    assert of(", ".join([CLIENT] + [INNER] * (HOPS - 1))) == CLIENT
    assert of(", ".join([CLIENT] + [INNER] * HOPS)) == INNER


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"for={CLIENT}", (CLIENT, None, None)),
        (f"For={CLIENT};Proto=HTTPS;Host=play.example.org", (CLIENT, "https", b"play.example.org")),
        (
            f'for="{CLIENT}:80";proto="https";host="a.example:8443"',
            (CLIENT, "https", b"a.example:8443"),
        ),
        ('for="[2001:db8::1]:4711"', ("2001:db8::1", None, None)),
        ("for=[2001:db8::1]", ("2001:db8::1", None, None)),
        (f"for={FORGED};proto=http, for={CLIENT};proto=https", (CLIENT, "https", None)),
        # What the first proxy says of the client counts, not what the second says of the first.
        (
            f"for={CLIENT};proto=https;host=a, for={INNER};proto=http;host=b",
            (CLIENT, "https", b"a"),
        ),
        (
            f"for={FORGED};proto=http,for={CLIENT};proto=https , for={INNER}",
            (CLIENT, "https", None),
        ),
        ("for=unknown;proto=https", (PROXY, "https", None)),
        ('for="_gazonk"', (PROXY, None, None)),
        ("proto=https;by=203.0.113.43", (PROXY, "https", None)),
        (f"for={FORGED}, for", (PROXY, None, None)),
        (f"for={FORGED}, for={CLIENT};for={FORGED}", (PROXY, None, None)),
        # A quote that the client left open would hide what the proxy appended.
        (f'for="{FORGED}, for={CLIENT};proto=https', (PROXY, None, None)),
        (f'for="\\", for={CLIENT}', (PROXY, None, None)),
        (f'for={FORGED};x="a,b;c\\"", for={CLIENT}', (CLIENT, None, None)),
        (f'for={CLIENT};proto=ftp;host="a/b"', (CLIENT, None, None)),
        (f"; , for={CLIENT};", (CLIENT, None, None)),
    ],
)
def test_the_standard_header(value: str, expected: tuple[str, str | None, bytes | None]) -> None:
    found = origin(("forwarded", value))
    assert (found.address, found.scheme, found.host) == expected
    assert found.reported


@pytest.mark.parametrize(
    ("chain", "schemes", "scheme"),
    [
        (CLIENT, "https", "https"),
        (CLIENT, "HTTPS", "https"),
        (CLIENT, "wss", "https"),
        (CLIENT, "ws", "http"),
        (CLIENT, "http, https", "https"),
        (f"{CLIENT}, {INNER}", "https", "https"),
        (f"{CLIENT}, {INNER}", "https, http", "https"),
        (f"{FORGED}, {CLIENT}, {INNER}", "http, https, http", "https"),
        (CLIENT, "gopher", None),
        ("", "https", "https"),
    ],
)
def test_the_scheme_that_the_client_used(chain: str, schemes: str, scheme: str | None) -> None:
    lines = [("x-forwarded-for", chain), ("x-forwarded-proto", schemes)]
    assert origin(*lines).scheme == scheme


@pytest.mark.parametrize("host", ["a/b", "a b", "u@a", "", "a:b", "x" * 300, "[::1"])
def test_a_host_that_is_none(host: str) -> None:
    assert origin(("x-forwarded-host", host)).host is None


def test_no_header_at_all() -> None:
    assert origin(("host", "x")) == Origin(PROXY, 80)


def test_a_scheme_alone_says_nothing_of_the_client() -> None:
    assert origin(("x-forwarded-proto", "https")) == Origin(PROXY, 80, scheme="https")
    assert origin(("x-forwarded-for", "unknown")).reported


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("x-forwarded-for", CLIENT), ("forwarded", f"for={CLIENT}")], (CLIENT, False)),
        ([("x-forwarded-for", CLIENT), ("forwarded", f"for={FORGED}")], (PROXY, True)),
        ([("x-forwarded-for", FORGED), ("forwarded", f"for={CLIENT}")], (PROXY, True)),
        ([("x-forwarded-for", CLIENT), ("forwarded", 'for="')], (PROXY, True)),
        ([("x-forwarded-proto", "https"), ("forwarded", f"for={CLIENT}")], (CLIENT, False)),
    ],
)
def test_both_headers_must_agree(lines: Lines, expected: tuple[str, bool]) -> None:
    """A proxy sets one of them, and passes the other on as the client sent it."""
    found = origin(*lines)
    assert (found.address, found.unclear) == expected


def test_contradicting_schemes_and_hosts_do_not_count() -> None:
    found = origin(
        ("x-forwarded-for", CLIENT),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example"),
        ("forwarded", f"for={CLIENT};proto=http;host=b.example"),
    )
    assert (found.address, found.scheme, found.host) == (CLIENT, None, None)
    assert found.unclear


@given(st.text(alphabet='"\\,;= \t[]:._abfor012', max_size=40))
def test_nothing_that_a_client_writes_hides_it(written: str) -> None:
    """The proxy appends to what the client sent. The result is the client, or not known."""
    for line in (
        ("forwarded", f"{written}, for={CLIENT};proto=https"),
        ("forwarded", f'{written}, for="[2001:db8::1]:80"'),
        ("x-forwarded-for", f"{written}, {CLIENT}"),
    ):
        assert origin(line).address in (CLIENT, "2001:db8::1", PROXY)


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=30), max_size=4))
def test_any_value_leads_to_an_address(values: list[str]) -> None:
    for name in ("x-forwarded-for", "forwarded"):
        found = origin(*((name, value) for value in values))
        ipaddress.ip_address(found.address) if found.address != "unix:" else None


def test_headers_of_strangers_are_logged_once_for_each_kind() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.9"), (b"cookie", b"secret")]
    proxies = ProxyHeaders(TRUSTED)
    with capture_logs() as logs:
        proxies.ignored([(b"host", b"x")], "192.168.0.1")
        for address in ("9.9.9.9", "8.8.8.8", "192.168.0.1", "127.0.0.1", "9.9.9.9"):
            proxies.ignored(headers, address)
    assert [log["proxy"] for log in logs] == ["a public address", "192.168.0.1"]
    assert logs[0]["headers"] == ["x-forwarded-for"]
    assert {log["log_level"] for log in logs} == {"warning"}


def test_headers_of_gateways_that_don_t_count_are_logged_once_for_each_setting() -> None:
    headers = [(b"avr-client", b"203.0.113.9"), (b"avr-proof", b"0" * 64)]
    proxies = ProxyHeaders(TRUSTED)
    with capture_logs() as logs:
        for setting in ("--trusted-proxies", "--gateway-secret") * 2:
            proxies.no_gateway([(b"host", b"x")], "192.168.0.1", setting)
            proxies.no_gateway(headers, "192.168.0.1", setting)
    assert [(log["event"], log["setting"], log["proxy"]) for log in logs] == [
        ("gateway.not_trusted", "--trusted-proxies", "192.168.0.1"),
        ("gateway.not_trusted", "--gateway-secret", "192.168.0.1"),
    ]
    assert logs[0]["headers"] == ["avr-client", "avr-proof"]


def test_while_a_secret_is_replaced_a_registry_believes_gateways_with_either() -> None:
    old, new, other = (letter * 32 for letter in (b"o", b"n", b"x"))
    passed = Passed(True, "play.example", CLIENT, "0" * 16)

    def believes(secrets: list[bytes], secret: bytes) -> bool:
        headers = [
            (b"avr-gateway", passed.gateway_header.encode()),
            (b"avr-client", passed.client.encode()),
            (b"avr-trace", passed.trace.encode()),
            (b"avr-proof", proof(secret, passed, "GET", b"/api/worlds?limit=1", 0).encode()),
        ]
        head = RequestHead("GET", b"/api/worlds", b"limit=1", "1.1", headers)
        return TrustedGateways(secrets, lambda: 0).passed(head) == passed

    assert [believes([old, new], one) for one in (old, new, other)] == [True, True, False]
    assert [believes([new], one) for one in (old, new)] == [False, True]
    assert believes([], other)


def test_a_registry_names_the_setting_for_which_it_does_not_believe_a_gateway() -> None:
    settings: Any = SimpleNamespace(trusted_proxies=PROXY)
    nothing: Any = None
    gateways = TrustedGateways([b"secret"], lambda: 0)
    listening = Listening(nothing, settings, nothing, gateways=gateways)
    forged = [
        (b"avr-gateway", b"true play.example"),
        (b"avr-client", CLIENT.encode()),
        (b"avr-trace", b"0" * 16),
        (b"avr-proof", b"0" * 64),
    ]
    with capture_logs() as logs:
        for address, headers in ((PROXY, []), (INNER, []), (PROXY, forged), (INNER, forged)):
            peer = Peer(address, 1, ("", 80), proxy=address == PROXY)
            head = RequestHead("GET", b"/api/worlds", b"", "1.1", headers)
            assert listening.enter(peer, head) is peer
    assert [(log["event"], log["proxy"], log["setting"]) for log in logs] == [
        ("gateway.not_trusted", PROXY, "--gateway-secret"),
        ("gateway.not_trusted", INNER, "--trusted-proxies"),
    ]


def test_a_contradiction_is_logged_once() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.9"), (b"forwarded", b"for=unknown")]
    proxies = ProxyHeaders(TRUSTED)
    with capture_logs() as logs:
        for port in range(3):
            assert proxies.origin(headers, PROXY, port).address == PROXY
    assert [log["event"] for log in logs] == ["proxy.unclear"]
