"""The memory of a closed connection is free at once, whatever the client did with it.

A connection has up to 50 KiB. In a reference cycle, it waits for the garbage collector, which comes
to old objects only after minutes; clients can make connections faster.
"""

from __future__ import annotations

import gc
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h2.connection
import pytest
import trio
from websockets.server import ServerProtocol

from api.listen.byte_stream import PlainStream, TlsStream
from api.listen.exchange import Peer
from api.listen.http1 import PREFACE, Http1Connection
from api.listen.http2 import Http2Connection, Stream
from api.listen.request_head import HeadParser, RequestHead
from api.listen.timeouts import Timeouts
from api.listen.upgrade import Upgrade
from api.ws.registry.connection import RegistryConnection
from api.ws.session.connection import SessionConnection
from api.ws.transport.tcp import EpollTransport
from api.ws.transport.tls import StreamTransport
from tests.e2e.clients import CLOSE, RawClient, frame, until, upgrade_head
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.split_roles import SPLIT

BRIEF: Final = Timeouts(
    handshake_s=0.2, head_s=0.2, progress_s=0.2, linger_s=0.1, half_closed_s=0.1, tick_s=0.02
)
CLASSES: Final = frozenset(
    {
        ssl.SSLObject,
        EpollTransport,
        HeadParser,
        Http1Connection,
        Http2Connection,
        Peer,
        PlainStream,
        RegistryConnection,
        RequestHead,
        ServerProtocol,
        SessionConnection,
        Stream,
        StreamTransport,
        TlsStream,
        Upgrade,
    }
)
"""What a connection is made of."""
OF_GATEWAYS: Final = {HeadParser, Http1Connection, Peer, PlainStream, RequestHead, Upgrade}
"""Of these, those of a gateway's connection to a registry, which may stay open. A gateway and its
registry are in the same process here."""


@dataclass(frozen=True)
class Visit:
    """A client's connection, and what it has to know."""

    client: RawClient
    account: Account
    room: str

    async def ended(self) -> None:
        """Waits until the server has closed."""
        await self.client.ended()


def left() -> list[str]:
    """The objects of connections that are in memory."""
    looked_for = CLASSES - OF_GATEWAYS if SPLIT else CLASSES
    found = [one for one in gc.get_objects() if type(one) in looked_for]
    ours = [one for one in found if getattr(one, "server_side", True)]  # not the client's TLS
    return sorted(type(one).__qualname__ for one in ours)


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def http2_frames(*requests: tuple[str, str]) -> bytes:
    """The bytes of an HTTP/2 connection that begins these requests; those with POST have a body
    that does not come."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    for number, (method, path) in enumerate(requests):
        fields = (
            (":method", method),
            (":path", path),
            (":scheme", "https"),
            (":authority", "x"),
            ("content-type", "application/json"),
        )
        connection.send_headers(2 * number + 1, fields, end_stream=method != "POST")
    return connection.data_to_send()


def request(line: str, *lines: str, body: str = "") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *lines, "", body]).encode()


# What a client does before it goes. In `LEAVING`, it waits until the server closes; else it closes.

GET: Final = request("GET /api/time")
HALF_HEAD: Final = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Le"
HALF_BODY: Final = request("POST /api/auth/login", "Content-Length: 100", body="{")


async def _nothing(_: Visit) -> None:
    pass


async def _answered(visit: Visit) -> None:
    await visit.client.send(GET)
    assert (await visit.client.answer()).status == 200


async def _no_route(visit: Visit) -> None:
    await visit.client.send(request("GET /api/nothing"))
    assert (await visit.client.answer()).status == 404


async def _wrong_method(visit: Visit) -> None:
    await visit.client.send(request("PATCH /api/time"))
    assert (await visit.client.answer()).status == 405


async def _wrong_input(visit: Visit) -> None:
    await visit.client.send(request("POST /api/auth/login", "Content-Length: 2", body="{}"))
    assert (await visit.client.answer()).status == 400


async def _malformed(visit: Visit) -> None:
    await visit.client.send(b"nonsense\r\n\r\n")
    assert (await visit.client.answer()).status == 400


async def _half_head(visit: Visit) -> None:
    await visit.client.send(HALF_HEAD)


async def _half_head_too_late(visit: Visit) -> None:
    await visit.client.send(HALF_HEAD)
    await visit.ended()


async def _half_body(visit: Visit) -> None:
    await visit.client.send(HALF_BODY)


async def _half_body_too_late(visit: Visit) -> None:
    await visit.client.send(HALF_BODY)
    await visit.ended()


async def _unread(visit: Visit) -> None:
    await visit.client.send(request("GET /openapi.json") * 8)


async def _refused_upgrade(visit: Visit) -> None:
    await visit.client.send(upgrade_head(None, "Authorization: Basic x"))
    assert (await visit.client.answer()).status == 400


async def _wrong_upgrade(visit: Visit) -> None:
    await visit.client.send(upgrade_head(None, without="Sec-WebSocket-Key"))
    assert (await visit.client.answer()).status == 400


async def _half_upgrade(visit: Visit) -> None:
    await visit.client.send(upgrade_head(visit.account))


async def _http2_preface(visit: Visit) -> None:
    await visit.client.send(PREFACE)


async def _http2_too_late(visit: Visit) -> None:
    await visit.client.send(PREFACE)
    await visit.ended()


async def _http2_requests(visit: Visit) -> None:
    await visit.client.send(
        http2_frames(
            ("GET", "/api/time"),
            ("POST", "/api/auth/login"),
            ("GET", "/openapi.json"),
            ("GET", "/api/nothing"),
            ("POST", "/api/time"),
        )
    )


async def _http2_answered(visit: Visit) -> None:
    await _http2_requests(visit)
    await visit.client.take(100)


async def _http2_malformed(visit: Visit) -> None:
    await visit.client.send(http2_frames(("GET", "/api/time")) + b"\0" * 40)
    await visit.ended()


async def _inside(visit: Visit) -> None:
    await visit.client.enter(visit.account, visit.room)


async def _closing(visit: Visit) -> None:
    await _inside(visit)
    await visit.client.send(frame(CLOSE, b"\x03\xe8"))
    await visit.ended()


async def _half_frame(visit: Visit) -> None:
    await _inside(visit)
    await visit.client.send(b"\x81\xfe\x10\x00\x00\x00\x00\x00abc")


async def _broken_frame(visit: Visit) -> None:
    await _inside(visit)
    await visit.client.send(frame(1, b"\xff"))
    await visit.ended()


async def _session_socket(visit: Visit) -> None:
    await visit.client.send(upgrade_head(visit.account, path="/ws/user"))
    assert (await visit.client.answer()).status == 101
    await visit.client.frame()


async def _stranger(visit: Visit) -> None:
    await visit.client.send(upgrade_head(None))
    assert (await visit.client.answer()).status == 101


KINDS: Final[dict[str, Callable[[Visit], Awaitable[None]]]] = {
    work.__name__.strip("_"): work
    for work in (
        _nothing,
        _answered,
        _no_route,
        _wrong_method,
        _wrong_input,
        _malformed,
        _half_head,
        _half_head_too_late,
        _half_body,
        _half_body_too_late,
        _unread,
        _refused_upgrade,
        _wrong_upgrade,
        _half_upgrade,
        _http2_preface,
        _http2_too_late,
        _http2_requests,
        _http2_answered,
        _http2_malformed,
        _inside,
        _closing,
        _half_frame,
        _broken_frame,
        _session_socket,
        _stranger,
    )
}


async def gone_without_a_trace(harness: ServerHarness, before: list[str]) -> None:
    """Waits until nothing of the connections is in memory, without a garbage collection."""
    admission = harness.server.http_server.admission
    await until(lambda: not len(admission))
    # The tasks of a connection end a moment after it gave its place back.
    with trio.move_on_after(5):
        while left() != before:
            # Each look stops the process. If it has three nodes, they have leases to renew.
            await trio.sleep(0.25 if SPLIT else 0.02)
    assert left() == before


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_closed_connection_leaves_nothing_in_memory(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext, secure: bool
) -> None:
    cert, key = certificate
    settings: dict[str, Any] = {"tls_cert": cert, "tls_key": key} if secure else {}
    async with running(
        database_url,
        timeouts=BRIEF,
        rate_limits="off",
        seat_grace_s=0,  # a seat keeps its player's last socket
        closed_seat_grace_s=0,
        **settings,
    ) as harness:
        account = await harness.account()
        room = (await harness.instance(account)).id
        faults: dict[str, str] = {}
        for name, work in KINDS.items():
            with without_collector():
                before = left()
                async with RawClient.connected(harness, tls=trusting if secure else None) as client:
                    await work(Visit(client, account, room))
                try:
                    await gone_without_a_trace(harness, before)
                except AssertionError as error:
                    faults[name] = str(error)[:300]
        assert faults == {}


@pytest.mark.slow
async def test_a_failed_handshake_leaves_nothing_in_memory(
    database_url: str, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    distrusting = ssl.create_default_context()
    async with running(
        database_url, timeouts=BRIEF, rate_limits="off", tls_cert=cert, tls_key=key
    ) as harness:
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"):
            for waits in (False, True):
                with without_collector():
                    before = left()
                    async with RawClient.connected(harness) as client:
                        await client.send(sent)
                        if waits:
                            await client.ended()
                    await gone_without_a_trace(harness, before)
        with without_collector():
            before = left()
            with pytest.raises(trio.BrokenResourceError):
                async with RawClient.connected(harness, tls=distrusting):
                    pass
            await gone_without_a_trace(harness, before)


async def test_a_seat_that_is_kept_holds_no_tls(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    cert, key = certificate
    async with running(database_url, tls_cert=cert, tls_key=key, seat_grace_s=600) as harness:
        account = await harness.account()
        room = (await harness.instance(account)).id
        with without_collector():
            async with RawClient.connected(harness, tls=trusting) as client:
                await client.enter(account, room)
            await until(lambda: not len(harness.server.http_server.admission))
            await until(lambda: "SSLObject" not in left())
            assert harness.hosting.node.debug_counts()["players"] == 1
