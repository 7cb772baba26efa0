"""Opening connections: URLs, the upgrade, messages, pings and closes."""

from __future__ import annotations

import socket

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Event
from websockets.server import ServerProtocol

from benchmarks.connect import Client, Target, upgrade, upgraded
from benchmarks.errors import BenchmarkError, ConnectionLost

TARGET = Target("127.0.0.1", 3032, secure=False)


@pytest.mark.parametrize(
    ("url", "target", "http"),
    [
        ("ws://127.0.0.1:3032", TARGET, "http://127.0.0.1:3032"),
        ("wss://example.org", Target("example.org", 443, True), "https://example.org:443"),
        ("http://[::1]:80/x", Target("::1", 80, False), "http://[::1]:80"),
    ],
)
def test_a_url_is_taken_apart(url: str, target: Target, http: str) -> None:
    assert Target.parse(url) == target
    assert target.http == http


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:3032", "ftp://x", "ws://", "ws://x:port", "ws://[x"]
)
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(BenchmarkError, match="URL"):
        Target.parse(url)


def accept(server: socket.socket) -> tuple[ServerProtocol, Event]:
    """The server's side of the handshake, by the `websockets` library."""
    protocol = ServerProtocol()
    protocol.receive_data(server.recv(4096))
    (request,) = protocol.events_received()
    return protocol, request


def test_the_upgrade_is_one_that_a_server_accepts(pair: tuple[Client, socket.socket]) -> None:
    client, server = pair
    upgrade(client, TARGET, "/api/ws", {"Authorization": "Bearer ua_x"})
    protocol, request = accept(server)
    assert getattr(request, "path", None) == "/api/ws"
    assert getattr(request, "headers", {})["Authorization"] == "Bearer ua_x"
    protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
    first = Frame(Opcode.TEXT, b"hello").serialize(mask=False)
    server.sendall(b"".join(protocol.data_to_send()) + first)
    upgraded(client)
    assert client.receive() == b"hello"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "401"),
        (b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: no\r\n\r\n", "Accept"),
        (b"", "hung up"),
    ],
)
def test_a_refused_upgrade_says_why(
    pair: tuple[Client, socket.socket], answer: bytes, why: str
) -> None:
    client, server = pair
    server.sendall(answer)
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(BenchmarkError, match=why):
        upgraded(client)


def test_a_ping_is_answered_and_a_close_tells_its_code(pair: tuple[Client, socket.socket]) -> None:
    client, server = pair
    server.sendall(Frame(Opcode.PING, b"abc").serialize(mask=False))
    server.sendall(Frame(Opcode.CLOSE, Close(4008, "too slow").serialize()).serialize(mask=False))
    with pytest.raises(ConnectionLost, match="4008 too slow") as caught:
        client.receive()
    assert caught.value.code == 4008
    pong = server.recv(100)
    assert pong[0] == 0x8A
    assert pong[1] == 0x80 | 3


def test_a_connection_that_is_gone_is_said(pair: tuple[Client, socket.socket]) -> None:
    client, server = pair
    server.close()
    with pytest.raises(ConnectionLost, match="hung up"):
        client.receive()
