"""The guarded client against a hostile server: bounded time, bytes and memory."""

from __future__ import annotations

import datetime
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reileta.errors import BadData, BadRedirect, NoResponse, RemoteError
from reileta.federation.answer_bounds import (
    BODY_BYTES,
    CHUNKED_BYTES,
    HEAD_BYTES,
    SMALL_READ,
)
from reileta.federation.client import (
    CONNECT_S,
    TIMEOUT_S,
    TRIED_ADDRESSES,
    GuardedClient,
    path_of,
)
from reileta.rules.federation.networks import IPAddress, Networks
from tests.federation_peers import hostile
from tests.federation_peers.hostile import Behaviour, Peer, answers, redirect

OWN = "own.example"
SERVER = "peer.example:8443"
ADDRESS = ip_address("203.0.112.7")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LAST_ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
MEMORY_BYTES = 8 * 1024 * 1024


async def resolve(name: str) -> Sequence[IPAddress]:
    return [ADDRESS]


class Internet:
    """A network on which one server is, at every address; without sockets."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.connections: list[tuple[str, int]] = []
        self.peers: list[Peer] = []
        self.tls: ssl.SSLContext | None = None
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def client(
        self,
        *,
        secure: bool = False,
        resolve: Callable[[str], object] = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[GuardedClient]:
        async with trio.open_nursery() as self._nursery:
            async with GuardedClient(
                address=OWN,
                own=lambda ip, port: False,
                allowed=Networks(),
                insecure=frozenset() if secure else frozenset({SERVER}),
                resolve=resolve,  # type: ignore[arg-type]
                connect=self.connect,
                tls=tls,
            ) as client:
                yield client
            self._nursery.cancel_scope.cancel()

    async def connect(self, ip: IPAddress, port: int) -> trio.abc.Stream:
        self.connections.append((str(ip), port))
        # Nothing is buffered, so the peer knows what the client took.
        ours, theirs = trio.testing.lockstep_stream_pair()
        assert self._nursery is not None
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        if self.tls is not None:
            stream = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        await hostile.serve(self.behaviour, self.peers, stream)


async def test_a_request_and_its_answer() -> None:
    internet = Internet(
        answers(b"HTTP/1.1 404 No\r\nContent-Length: 4\r\nX-A: 1\r\nx-a: 2\r\n\r\nnull")
    )
    async with internet.client() as client:
        answer = await client.request(
            "PUT",
            SERVER,
            path_of("api", "users", "a b/ü@c.example"),
            query=[("q", "ä&b"), ("q", "c")],
            headers={"Authorization": "Bearer sa_x"},
            body=b"{}",
        )
    assert (answer.status, answer.body) == (404, b"null")
    assert answer.headers == {"content-length": "4", "x-a": "1, 2"}
    assert internet.connections == [(str(ADDRESS), 8443)]
    lines = internet.peers[0].head.decode().split("\r\n")
    assert lines[0] == "PUT /api/users/a%20b%2F%C3%BC@c.example?q=%C3%A4%26b&q=c HTTP/1.1"
    assert sorted(lines[1:]) == [
        "Accept-Encoding: identity",
        "Accept: application/json",
        "Authorization: Bearer sa_x",
        "Content-Length: 2",
        "Content-Type: application/json",
        f"Host: {SERVER}",
        "User-Agent: AVR(Server)",
    ]


async def test_a_chunked_answer() -> None:
    chunks = b"5\r\n[1,2,\r\n2;x=y\r\n3]\r\n0\r\nTrailer: x\r\n\r\n"
    async with Internet(answers(hostile.CHUNKED + chunks)).client() as client:
        assert (await client.request("GET", SERVER, "/")).body == b"[1,2,3]"


@pytest.mark.parametrize("size", [0, 1, BODY_BYTES - 1, BODY_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_may_be_as_large_as_the_limit(size: int, chunked: bool) -> None:
    body = b"x" * size
    if chunked:
        whole = b"%x\r\n%b\r\n" % (size, body) if size else b""
        answer = hostile.CHUNKED + whole + b"0\r\n\r\n"
    else:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body)
    async with Internet(answers(answer)).client() as client:
        assert (await client.request("GET", SERVER, "/")).body == body


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_bad_data(chunked: bool) -> None:
    size = BODY_BYTES + 1
    answer = (
        hostile.CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
        if chunked
        else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)
    )
    async with Internet(answers(answer)).client() as client:
        with pytest.raises(BadData):
            await client.request("GET", SERVER, "/")


async def refused(internet: Internet, error: type[RemoteError]) -> RemoteError:
    """The error of a request. A second one shows that the client still works."""
    async with internet.client() as client:
        with pytest.raises(error) as caught:
            await client.request("GET", SERVER, "/")
        internet.behaviour = answers(ANSWER)
        assert (await client.request("GET", SERVER, "/")).body == b"{}"
    assert len(internet.connections) == 2
    assert caught.value.cause
    return caught.value


@pytest.mark.parametrize("name", hostile.SLOW)
async def test_a_slow_answer_is_no_answer(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    started_s = trio.current_time()
    internet = Internet(hostile.SLOW[name])
    async with internet.client() as client:
        with pytest.raises(NoResponse):
            await client.request("GET", SERVER, "/")
    assert trio.current_time() - started_s == pytest.approx(TIMEOUT_S)


@pytest.mark.parametrize("name", hostile.SILENT)
async def test_a_closed_connection_is_no_answer(name: str) -> None:
    await refused(Internet(hostile.SILENT[name]), NoResponse if name == "nothing" else RemoteError)


@pytest.mark.parametrize("name", hostile.ENDLESS)
async def test_an_endless_answer_takes_few_bytes_and_little_memory(name: str) -> None:
    internet = Internet(hostile.ENDLESS[name])
    tracemalloc.start()
    try:
        if name == "one body after the other":
            async with internet.client() as client:
                assert (await client.request("GET", SERVER, "/")).body == b"{}"
        else:
            await refused(internet, BadData)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert internet.peers[0].sent <= HEAD_BYTES + BODY_BYTES + CHUNKED_BYTES + 2 * SMALL_READ
    assert peak < MEMORY_BYTES


@pytest.mark.parametrize("name", hostile.MALFORMED)
async def test_an_answer_that_is_not_http_is_bad_data(name: str) -> None:
    internet = Internet(hostile.MALFORMED[name])
    tracemalloc.start()
    try:
        await refused(internet, BadData)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
async def test_a_redirect_is_not_followed(status: int) -> None:
    internet = Internet(redirect("http://127.0.0.1:8443/", status))
    async with internet.client() as client:
        with pytest.raises(BadRedirect):
            await client.request("GET", SERVER, "/")
    assert internet.connections == [(str(ADDRESS), 8443)]
    assert len(internet.peers) == 1


async def test_cookies_are_neither_shown_nor_sent() -> None:
    async def behave(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}")
        assert b"ookie" not in await peer.read_head()
        await peer.send(ANSWER)

    internet = Internet(behave)
    async with internet.client() as client:
        assert "set-cookie" not in (await client.request("GET", SERVER, "/")).headers
        await client.request("GET", SERVER, "/")
    assert len(internet.connections) == 1


async def test_a_connection_is_used_again_but_not_for_another_server() -> None:
    async def behave(peer: Peer) -> None:
        await peer.send(ANSWER)
        while await peer.read_head():
            await peer.send(ANSWER)

    internet = Internet(behave)
    async with internet.client() as client:
        for _ in range(3):
            await client.request("GET", SERVER, "/")
        assert len(internet.connections) == 1


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    internet = Internet(answers(ANSWER))
    async with internet.client() as client:
        await client.request("GET", SERVER, "/")
    assert internet.connections == [(str(ADDRESS), 8443)]


@pytest.mark.parametrize(
    "path", ["", "api", "//evil.example", "/a//b", "/../b", "/a/..", "/a/./b", "/a?b", "/a#b", "/ü"]
)
async def test_a_path_that_is_not_quoted_is_a_defect(path: str) -> None:
    async with Internet(answers(ANSWER)).client() as client:
        with pytest.raises(ValueError, match="path"):
            await client.request("GET", SERVER, path)


@pytest.mark.parametrize("segments", [(), ("",), ("a", ""), ("..",), (".", "a")])
def test_a_segment_is_a_name(segments: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="segments"):
        path_of(*segments)


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "ü", "a\x00"])
async def test_a_header_that_is_not_ascii_is_a_defect(value: str) -> None:
    internet = Internet(answers(ANSWER))
    async with internet.client() as client:
        with pytest.raises(ValueError, match="header"):
            await client.request("GET", SERVER, "/", headers={"Authorization": value})
        with pytest.raises(ValueError, match="header"):
            await client.request("GET", SERVER, "/", headers={value: "x"})
    assert internet.connections == []


@pytest.mark.parametrize(
    "server",
    [
        OWN,
        "",
        "PEER.example",
        "peer.example.",
        "peer.example:443",
        "u@peer.example",
        "a/b",
        "127.1",
    ],
)
async def test_only_canonical_addresses_of_others_are_asked(server: str) -> None:
    async def never(name: str) -> Sequence[IPAddress]:
        raise AssertionError(name)

    internet = Internet(answers(ANSWER))
    async with internet.client(resolve=never) as client:
        with pytest.raises(NoResponse):
            await client.request("GET", server, "/")
    assert internet.connections == []


# The guard ---------------------------------------------------------------------------------------


def resolving(*results: Sequence[str]) -> Callable[[str], object]:
    """A resolver with another answer each time."""
    left = list(results)

    async def resolve(name: str) -> Sequence[IPAddress]:
        return [ip_address(text) for text in left.pop(0)]

    return resolve


async def test_a_name_is_resolved_again_only_for_a_new_connection() -> None:
    """DNS rebinding: the second answer is an internal address."""
    internet = Internet(hostile.ends(LAST_ANSWER))
    async with internet.client(resolve=resolving(["8.8.8.8"], ["127.0.0.1"])) as client:
        await client.request("GET", SERVER, "/")
        with pytest.raises(NoResponse) as caught:
            await client.request("GET", SERVER, "/")
    assert "loopback" in caught.value.cause
    assert internet.connections == [("8.8.8.8", 8443)]


@pytest.mark.parametrize("place", range(5))
async def test_one_bad_address_refuses_the_name(place: int) -> None:
    addresses = ["8.8.8.8", "1.1.1.1", "2600::1", "9.9.9.9"]
    addresses.insert(place, "169.254.169.254")
    internet = Internet(answers(ANSWER))
    async with internet.client(resolve=resolving(addresses)) as client:
        with pytest.raises(NoResponse) as caught:
            await client.request("GET", SERVER, "/")
    assert "link-local" in caught.value.cause
    assert internet.connections == []


@pytest.mark.parametrize("server", ["8.8.8.8", "8.8.8.8:8443", "[2600::1]", "[2600::1]:8443"])
async def test_an_ip_address_is_not_a_server(server: str) -> None:
    internet = Internet(answers(ANSWER))
    async with internet.client() as client:
        with pytest.raises(NoResponse):
            await client.request("GET", server, "/")
    assert internet.connections == []


@pytest.mark.parametrize("port", [22, 25, 1433, 3306, 5432, 6379, 9200, 11211, 27017])
async def test_ports_of_databases_are_refused(port: int) -> None:
    internet = Internet(answers(ANSWER))
    async with internet.client() as client:
        with pytest.raises(NoResponse) as caught:
            await client.request("GET", f"peer.example:{port}", "/")
    assert f"port {port}" in caught.value.cause
    assert internet.connections == []


async def test_an_address_that_does_not_answer_is_followed_by_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tried = []

    async def connect(ip: IPAddress, port: int) -> trio.abc.Stream:
        tried.append(str(ip))
        if len(tried) == 1:
            raise ConnectionRefusedError(111, "Connection refused")
        await trio.sleep_forever()
        raise AssertionError

    async with GuardedClient(
        address=OWN,
        own=lambda ip, port: False,
        allowed=Networks(),
        insecure=frozenset(),
        resolve=resolving([f"8.8.8.{number}" for number in range(1, 40)]),  # type: ignore[arg-type]
        connect=connect,
    ) as client:
        started_s = trio.current_time()
        with pytest.raises(NoResponse):
            await client.request("GET", SERVER, "/")
        taken_s = trio.current_time() - started_s
    assert len(tried) == TRIED_ADDRESSES
    assert taken_s == pytest.approx((TRIED_ADDRESSES - 1) * CONNECT_S)
    assert taken_s <= TIMEOUT_S


# TLS ---------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority, and certificates by it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.certificate = self._certificate(self._name, self._key, [], ca=True)
        self.trusted = ssl.create_default_context(cadata=self._pem(self.certificate))

    def server(self, *names: x509.GeneralName, valid_h: int = 1) -> ssl.SSLContext:
        """A server's side with a certificate for these names, until so many hours from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        made = self._certificate(subject, key, names, valid_h=valid_h)
        file = self._folder / f"{made.serial_number}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file.write_text(self._pem(made) + private.decode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        *,
        ca: bool = False,
        valid_h: int = 24,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=48))
            .not_valid_after(now + datetime.timedelta(hours=valid_h))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _pem(self, certificate: x509.Certificate) -> str:
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_certificate_for_the_name_is_accepted(authority: Authority) -> None:
    internet = Internet(answers(ANSWER))
    internet.tls = authority.server(x509.DNSName("peer.example"))
    async with internet.client(secure=True, tls=authority.trusted) as client:
        assert (await client.request("GET", SERVER, "/")).body == b"{}"
    assert internet.connections == [(str(ADDRESS), 8443)]


@pytest.mark.parametrize(
    ("names", "valid_h"),
    [
        ([x509.DNSName("other.example")], 1),
        ([x509.DNSName("example")], 1),
        ([x509.DNSName("*.peer.example")], 1),
        ([x509.IPAddress(IPv4Address(int(ADDRESS)))], 1),
        ([], 1),
        ([x509.DNSName("peer.example")], -1),
    ],
)
async def test_a_certificate_must_be_for_the_name_and_valid(
    authority: Authority, names: list[x509.GeneralName], valid_h: int
) -> None:
    internet = Internet(answers(ANSWER))
    internet.tls = authority.server(*names, valid_h=valid_h)
    async with internet.client(secure=True, tls=authority.trusted) as client:
        with pytest.raises(NoResponse) as caught:
            await client.request("GET", SERVER, "/", headers={"Authorization": "Bearer sa_x"})
    assert "certificate" in caught.value.cause
    assert internet.peers[0].head == b""


async def test_a_certificate_must_be_by_an_authority_of_the_system(authority: Authority) -> None:
    internet = Internet(answers(ANSWER))
    internet.tls = authority.server(x509.DNSName("peer.example"))
    async with internet.client(secure=True) as client:
        with pytest.raises(NoResponse) as caught:
            await client.request("GET", SERVER, "/")
    assert "certificate" in caught.value.cause


async def test_a_server_without_tls_is_not_asked_in_clear(authority: Authority) -> None:
    received = []

    async def connect(ip: IPAddress, port: int) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()

        async def answer() -> None:
            received.append(bytes(await theirs.receive_some(4096)))
            await theirs.send_all(ANSWER)

        nursery.start_soon(answer)
        return ours

    async with (
        trio.open_nursery() as nursery,
        GuardedClient(
            address=OWN,
            own=lambda ip, port: False,
            allowed=Networks(),
            insecure=frozenset({"other.example"}),
            resolve=resolve,
            connect=connect,
            tls=authority.trusted,
        ) as client,
    ):
        assert client.secure(SERVER)
        with pytest.raises(NoResponse) as caught:
            await client.request("GET", SERVER, "/", headers={"Authorization": "Bearer sa_x"})
    assert caught.value.cause.startswith("TLS")
    assert len(received) == 1
    assert b"sa_x" not in received[0]


# One answer for each request ---------------------------------------------------------------------

SECOND = b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"evil"'


def padded(size: int) -> bytes:
    """An answer of that many bytes, with head and body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    return head % (size - len(head % size)) + b"x" * (size - len(head % size))


@asynccontextmanager
async def at_a_socket(
    tmp_path: Path, *sent: bytes, secure: bool
) -> AsyncIterator[tuple[GuardedClient, str, list[int]]]:
    """A client, and a server that sends these bytes at once for the first request of its first
    connection, and else one answer for each request. The numbers of its connections' requests."""
    authority = Authority(tmp_path)
    requests: list[int] = []
    tls = authority.server(x509.DNSName("peer.example")) if secure else None

    async def serve(tcp: trio.SocketStream) -> None:
        number = len(requests)
        requests.append(0)
        stream: trio.abc.Stream = tcp
        if tls is not None:
            stream = trio.SSLStream(tcp, tls, server_side=True, https_compatible=True)
        peer = Peer(stream)
        with suppress(trio.BrokenResourceError):  # the client had enough
            while await peer.read_head():
                requests[number] += 1
                first = number == 0 and requests[number] == 1
                await peer.send(b"".join(sent) if first else ANSWER)

    async def loopback(name: str) -> Sequence[IPAddress]:
        return [ip_address("127.0.0.2")]

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.2")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        server = f"peer.example:{listener.socket.getsockname()[1]}"
        async with GuardedClient(
            address=OWN,
            own=lambda ip, port: False,
            allowed=Networks.parse("127.0.0.0/8"),
            insecure=frozenset() if secure else frozenset({server}),
            resolve=loopback,
            tls=authority.trusted,
        ) as client:
            yield client, server, requests
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("first", "secure"),
    [
        (ANSWER, False),
        (hostile.CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", False),
        (padded(SMALL_READ), False),
        (b"HTTP/1.1 103 Early\r\n\r\n" + ANSWER, False),
        (b"HTTP/1.1 204 No\r\n\r\n", False),
        (ANSWER, True),
        (padded(SMALL_READ), True),  # the rest of a record that is decrypted
        (padded(16 * 1024), True),  # a record that is not
        (hostile.CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", True),
    ],
    ids=lambda one: one[:40].decode() if isinstance(one, bytes) else str(one),
)
@pytest.mark.parametrize("second", [SECOND, SECOND[:9], b"\r\n"], ids=["whole", "part", "line"])
async def test_a_second_answer_is_not_that_of_the_next_request(
    tmp_path: Path, first: bytes, second: bytes, secure: bool
) -> None:
    async with at_a_socket(tmp_path, first, second, secure=secure) as (client, server, requests):
        await client.request("GET", server, "/")
        assert (await client.request("GET", server, "/")).body == b"{}"
        assert requests == [1, 1]


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "first", [ANSWER, b"HTTP/1.1 103 Early\r\n\r\n" + ANSWER, padded(200_000)], ids=len
)
async def test_a_connection_with_one_answer_for_each_request_is_used_again(
    tmp_path: Path, first: bytes, secure: bool
) -> None:
    async with at_a_socket(tmp_path, first, secure=secure) as (client, server, requests):
        for _ in range(3):
            await client.request("GET", server, "/")
        assert requests == [3]
