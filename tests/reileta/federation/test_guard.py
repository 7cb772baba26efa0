"""No spelling of an internal address, and no answer of DNS, leads to an internal address.

Real connections over the loopback interface, which no request may reach.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from reileta.errors import BadRedirect, NoResponse
from reileta.federation.client import GuardedClient, ListeningSockets
from reileta.federation.resolver import Resolver
from reileta.rules.federation.addresses import canonical, host_of, is_address, split
from reileta.rules.federation.networks import IPAddress, Networks
from tests.federation_peers.hostile import answers, listening, redirect

EXAMPLES = 100
BATCH = 25
"""Servers that are asked in each example."""
OWN = "own.example"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
NONE = Networks()


class Trap:
    """Sockets that listen on loopback addresses; `port` is that of all."""

    def __init__(self) -> None:
        self._sockets = [socket.socket(socket.AF_INET), socket.socket(socket.AF_INET6)]
        self._sockets[1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._sockets[0].bind(("0.0.0.0", 0))
        self.port: int = self._sockets[0].getsockname()[1]
        self._sockets[1].bind(("::", self.port))
        for one in self._sockets:
            one.listen(1024)
            one.setblocking(False)

    def caught(self) -> int:
        """Number of connections that came."""
        count = 0
        for one in self._sockets:
            while True:
                try:
                    one.accept()[0].close()
                except BlockingIOError:
                    break
                count += 1
        return count

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@contextmanager
def trap() -> Iterator[Trap]:
    trap = Trap()
    try:
        yield trap
    finally:
        trap.close()


def ask(servers: Mapping[str, Sequence[IPAddress]]) -> list[str]:
    """Asks servers; the resolver of the test answers with these addresses. Returns the causes of
    the refusals."""

    async def resolve(name: str) -> Sequence[IPAddress]:
        (addresses,) = (found for server, found in servers.items() if host_of(server) == name)
        return addresses

    async def main() -> list[str]:
        causes = []
        async with GuardedClient(
            address=OWN,
            own=lambda ip, port: False,
            allowed=NONE,
            insecure=frozenset(servers),
            resolve=resolve,
        ) as client:
            for server in servers:
                with pytest.raises(NoResponse) as caught:
                    await client.request("GET", server, "/")
                causes.append(caught.value.cause)
        return causes

    return trio.run(main)


def test_the_trap_catches() -> None:
    """The other tests mean something: without the guard, connections would come."""
    with trap() as listeners:
        for host in ("127.0.0.1", "127.1.2.3", "::1"):
            socket.create_connection((host, listeners.port)).close()
        socket.create_connection(("127.1", listeners.port)).close()
        socket.create_connection(("0x7f000001", listeners.port)).close()
        socket.create_connection(("::ffff:127.0.0.1", listeners.port)).close()
        assert listeners.caught() == 6


def ipv4_spelling(random: Random) -> str:
    """A spelling of a loopback address that systems understand, or nearly do."""
    ip = IPv4Address(random.choice((0, (127 << 24) | random.getrandbits(24), (127 << 24) | 1)))
    parts = list(ip.packed)
    # 127.1 and 127.0.1: the last number stands for several.
    count = random.choice((1, 2, 3, 4, 4))
    last = int.from_bytes(bytes(parts[count - 1 :]))
    forms: tuple[str, ...] = ("{}", "0x{:x}", "0X{:X}", "0{:o}", "0{}", "0x0{:x}", "00{:o}")
    if random.random() < 0.5:
        forms = forms[:1]
    numbers = [random.choice(forms).format(number) for number in [*parts[: count - 1], last]]
    return ".".join(numbers) + random.choice(("", "."))


def ipv6_spelling(random: Random) -> str:
    """A spelling of a loopback address in IPv6, or as one of the ways to write IPv4 as IPv6."""
    number = (127 << 24) | random.getrandbits(24)
    address = IPv6Address(
        random.choice(
            (
                1,
                0,
                number,  # compatible
                (0xFFFF << 32) | number,  # mapped
                (0xFFFF << 48) | number,  # translated
                (0x64_FF9B << 96) | number,  # NAT64
                (0x64_FF9B_0001 << 80) | number,
                (0x2002 << 112) | (number << 80),  # 6to4
                (0x20010000 << 96) | (number ^ 0xFFFF_FFFF),  # Teredo
                (0xFE80 << 112) | (0x5EFE << 32) | number,  # ISATAP
                (0xFE80 << 112) | 1,
                (0xFC00 << 112) | 1,
                (0xFF02 << 112) | 1,
            )
        )
    )
    low = int(address) & 0xFFFF_FFFF
    high = IPv6Address(int(address) ^ low).exploded.rsplit(":", 2)[0]
    forms = (str(address), address.exploded, str(address).upper(), f"{high}:{IPv4Address(low)}")
    text = random.choice(forms)
    if random.random() < 0.3:
        text += random.choice(("%lo", "%1", "%25lo", "%eth0"))
    if random.random() < 0.8:
        return f"[{text}]"
    return random.choice((text, f"[{text}", f"[[{text}]]"))


DIGITS = str.maketrans("0123456789.", "０１２３４５６７８９。")
DISGUISES = (
    *("user@{}", "user:word@{}", "8.8.8.8@{}", "8.8.8.8\\@{}", "8.8.8.8 {}", "{}#8.8.8.8"),
    *("{}/", "{}?", "//{}", "http://{}", " {}", "{} ", "{}\t", "\n{}"),
    *("{}%00", "{}\x00.example", "{}%2e", "{}.."),
)


def spelling(random: Random, port: int) -> str:
    text = random.choice((ipv4_spelling, ipv6_spelling))(random)
    if random.random() < 0.1:
        text = text.translate(DIGITS)
    if random.random() < 0.3:
        text = random.choice(DISGUISES).format(text)
    return text + random.choice((":{}", ":{}", ":{}", "", ":0{}", ":{}/")).format(port)


def test_no_spelling_of_a_loopback_address_is_connected_to() -> None:
    tried: set[str] = set()

    with trap() as listeners:

        @settings(max_examples=EXAMPLES)
        @given(st.integers(0, 2**64))
        def no_spelling(seed: int) -> None:
            random = Random(seed)
            texts = [spelling(random, listeners.port) for _ in range(BATCH)]
            servers = [canonical(text) for text in texts if is_address(text)]
            assert all(ask(dict.fromkeys([*texts, *servers], ())))
            tried.update(servers)

        no_spelling()
        assert listeners.caught() == 0
    assert len(tried) > EXAMPLES  # those that have a canonical form


internal = st.one_of(
    *(
        st.ip_addresses(network=network)
        for network in (
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
            *("100.64.0.0/10", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "192.0.0.0/24"),
            *("::1/128", "::/96", "fc00::/7", "fe80::/10", "ff00::/8", "::ffff:127.0.0.0/104"),
            *("64:ff9b::127.0.0.0/104", "2002:7f00::/24", "2001::/32", "::ffff:10.0.0.0/104"),
        )
    ),
    st.sampled_from([ip_address("255.255.255.255"), ip_address("169.254.169.254")]),
)
public = st.one_of(
    *(st.ip_addresses(network=network) for network in ("8.0.0.0/8", "2600::/16", "2a00::/16"))
)


def test_no_answer_of_dns_leads_to_an_internal_address() -> None:
    """Also among good addresses, which aren't connected to either."""
    with trap() as listeners:
        answer = st.tuples(st.lists(public, max_size=5), internal, st.integers(0, 5))

        @settings(max_examples=EXAMPLES)
        @given(st.lists(answer, min_size=BATCH, max_size=BATCH))
        def no_answer(found: list[tuple[list[IPAddress], IPAddress, int]]) -> None:
            servers = {
                f"peer{number}.example:{listeners.port}": [*good[:place], bad, *good[place:]]
                for number, (good, bad, place) in enumerate(found)
            }
            assert all(cause.startswith("refused: ") for cause in ask(servers))

        no_answer()
        assert listeners.caught() == 0


@pytest.mark.parametrize(
    "name",
    ["localhost", "localhost.", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "::1"],
)
async def test_the_resolver_of_the_system_does_not_lead_there_either(name: str) -> None:
    """Even if a name got past the rules for addresses."""
    with trap() as listeners:
        async with GuardedClient(
            address=OWN,
            own=lambda ip, port: False,
            allowed=NONE,
            insecure=frozenset({f"peer.example:{listeners.port}"}),
            resolve=lambda _: Resolver()(name),
        ) as client:
            with pytest.raises(NoResponse):
                await client.request("GET", f"peer.example:{listeners.port}", "/")
        assert listeners.caught() == 0


async def test_a_setting_allows_a_network() -> None:
    async with listening(answers(ANSWER)) as (server, peers):
        port = split(server)[1]
        name, other = f"peer.example:{port}", f"127.0.1.2:{port}"

        async def resolve(name: str) -> Sequence[IPAddress]:
            return [ip_address("127.0.0.2")]

        async with GuardedClient(
            address=OWN,
            own=lambda ip, port: False,
            allowed=Networks.parse("127.0.0.0/24"),
            insecure=frozenset({server, name, other}),
            resolve=resolve,
        ) as client:
            for asked in (server, name):
                assert (await client.request("GET", asked, "/")).body == b"{}"
            with pytest.raises(NoResponse):
                await client.request("GET", other, "/")
    assert [peer.head.split(b"\r\n")[1].decode() for peer in peers] == [
        f"Host: {server}",
        f"Host: {name}",
    ]


async def test_a_redirect_to_loopback_is_not_followed() -> None:
    with trap() as listeners:
        async with (
            listening(redirect(f"http://127.0.0.1:{listeners.port}/")) as (server, peers),
            GuardedClient(
                address=OWN,
                own=lambda ip, port: False,
                allowed=Networks.parse("127.0.0.0/8"),
                insecure=frozenset({server}),
            ) as client,
        ):
            with pytest.raises(BadRedirect):
                await client.request("GET", server, "/")
        assert listeners.caught() == 0
    assert len(peers) == 1


# This server itself ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listening", "own", "others"),
    [
        ([("127.0.0.1", 3032)], ["127.0.0.1"], ["127.0.0.2", "::1", "8.8.8.8"]),
        ([("0.0.0.0", 3032)], ["127.0.0.1", "127.0.0.2"], ["8.8.8.8", "::1"]),
        ([("::", 3032)], ["127.0.0.1", "::1"], ["8.8.8.8", "2600::1"]),
        ([("fe80::1%lo", 3032)], ["fe80::1"], ["fe80::2", "127.0.0.1"]),
    ],
)
def test_this_server_is_recognised(
    listening: list[tuple[str, int]], own: list[str], others: list[str]
) -> None:
    sockets = ListeningSockets(listening)
    for text in own:
        assert sockets(ip_address(text), 3032)
        assert not sockets(ip_address(text), 3033)
    for text in others:
        assert not sockets(ip_address(text), 3032)


async def test_a_name_for_this_server_is_refused() -> None:
    with trap() as listeners:

        async def resolve(name: str) -> Sequence[IPAddress]:
            return [ip_address("127.0.0.1")]

        async with GuardedClient(
            address=OWN,
            own=ListeningSockets([("0.0.0.0", listeners.port)]),
            allowed=Networks.parse("127.0.0.0/8"),
            insecure=frozenset({f"alias.example:{listeners.port}"}),
            resolve=resolve,
        ) as client:
            with pytest.raises(NoResponse) as caught:
                await client.request("GET", f"alias.example:{listeners.port}", "/")
        assert "own" in caught.value.cause
        assert listeners.caught() == 0


async def test_the_connected_address_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that connects elsewhere, by a rule of its firewall, is noticed."""
    async with listening(answers(ANSWER)) as (server, peers):
        port = int(server.rpartition(":")[2])
        with trio.socket.socket() as sock:
            kind: Any = type(sock)
        real = kind.connect

        async def diverted(self: trio.socket.SocketType, address: object) -> None:
            await real(self, ("127.0.0.2", port))

        monkeypatch.setattr(kind, "connect", diverted)

        async def resolve(name: str) -> Sequence[IPAddress]:
            return [ip_address("8.8.8.8")]

        async with GuardedClient(
            address=OWN,
            own=lambda ip, port: False,
            allowed=NONE,
            insecure=frozenset({f"peer.example:{port}"}),
            resolve=resolve,
        ) as client:
            with pytest.raises(NoResponse) as caught:
                await client.request("GET", f"peer.example:{port}", "/")
    assert "another address" in caught.value.cause
    assert b"".join(peer.head for peer in peers) == b""
