"""The gateway's proxy, against registries that do what a test wants."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from api.http.answer import Answer
from api.http.bodies import ReceivedRequest
from api.listen.byte_stream import ClientGone
from api.listen.exchange import ReceivedHeaders
from api.proxy import proxy as proxy_module
from api.proxy.proxy import GatewayProxy, State
from api.proxy.upstream import tls_context
from reileta.errors import MessageInvalid, NoResponse, Overloaded
from reileta.roles import EtaUrl
from reileta.rules.gateway import Passed, is_proved
from reileta.startup import StartupError
from tests.conftest import PATIENCE_S

SECRET = b"a secret of gateways and registries"
NOW = 1_790_000_000_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
Serve = Callable[["Seen"], Awaitable[None]]


class Seen:
    """One connection, as a registry sees it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.data = b""

    async def head(self) -> bytes:
        """The next request's head; empty at the end of the connection."""
        while b"\r\n\r\n" not in self.data:
            more = await self.stream.receive_some()
            if not more:
                return b""
            self.data += more
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        return head

    async def until(self, text: bytes) -> None:
        """Reads until the text has come."""
        while text not in self.data:
            more = await self.stream.receive_some()
            assert more, self.data
            self.data += more

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)


class FakeRegistry:
    """Serves the n-th connection with the n-th function, the last one again and again."""

    def __init__(self, url: EtaUrl) -> None:
        self.url = url
        self.heads: list[bytes] = []
        self.connections = 0


async def registry(nursery: trio.Nursery, *serves: Serve) -> FakeRegistry:
    async def serve(stream: trio.SocketStream) -> None:
        made.connections += 1
        async with stream:
            await serves[min(made.connections, len(serves)) - 1](Seen(stream))

    listeners = await nursery.start(trio.serve_tcp, serve, 0)
    made = FakeRegistry(EtaUrl(False, "127.0.0.1", listeners[0].socket.getsockname()[1]))
    return made


MADE: list[GatewayProxy] = []


def proxy(*etas: EtaUrl, tls: ssl.SSLContext | None = None) -> GatewayProxy:
    made = GatewayProxy(
        etas, gateway="play.example.org", secret=SECRET, now_ms=lambda: NOW, tls=tls
    )
    MADE.append(made)
    return made


def request(
    method: str = "GET",
    target: bytes = b"/api/users?limit=2",
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes | None = None,
    *,
    whole: bool = True,
) -> ReceivedRequest:
    path, _, query = target.partition(b"?")

    async def no_push(path: str, headers: Any) -> None: ...

    made = ReceivedRequest(
        method,
        "https",
        path.decode(),
        query,
        ReceivedHeaders([("Remote-Addr", "192.0.2.7"), ("Host", "play.example.org"), *headers]),
        "",
        "1.1",
        scope={  # type: ignore[typeddict-item]
            "type": "http",
            "scheme": "https",
            "raw_path": path,
            "client": ("192.0.2.7", 1),
        },
        send_push_promise=no_push,
    )
    if body is not None:
        made.body.append(body)
    if whole:
        made.body.set_complete()
    return made


async def ask(one: GatewayProxy, what: ReceivedRequest | None = None) -> Answer:
    with trio.fail_after(PATIENCE_S):
        return await one.answer(what or request(), "00f067aa0ba902b7")


async def content(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    with trio.fail_after(PATIENCE_S):
        async with answer.body as parts:
            return b"".join([part async for part in parts])


@pytest.fixture
async def again(nursery: trio.Nursery) -> AsyncIterator[Callable[..., Awaitable[FakeRegistry]]]:
    async def make(*serves: Serve) -> FakeRegistry:
        return await registry(nursery, *serves)

    yield make
    while MADE:
        MADE.pop().close()


Make = Callable[..., Awaitable[FakeRegistry]]


async def test_a_request_is_passed_on_as_one_of_the_gateway(again: Make) -> None:
    heads: list[bytes] = []

    async def serve(seen: Seen) -> None:
        while head := await seen.head():
            heads.append(head)
            await seen.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: then\r\nConnection: X-Hop\r\n"
                b"X-Hop: 1\r\nKeep-Alive: 5\r\nETag: W/1\r\nX-Two: a\r\nX-Two: b\r\n\r\nhi"
            )

    fake = await again(serve)
    one = proxy(fake.url)
    said = request(
        "GET",
        b"/api/w%2Fx?a=%20",
        (
            ("Avr-Client", "203.0.113.9"),
            ("Avr_Gateway", "false evil.example"),
            ("X-Forwarded-For", "203.0.113.9"),
            ("Forwarded", "for=203.0.113.9"),
            ("Connection", "keep-alive, X-Mine, Host"),
            ("X-Mine", "1"),
            ("Te", "trailers"),
            ("Proxy-Authorization", "Basic x"),
            ("Remote-Addr", "203.0.113.9"),
            ("Authorization", "Bearer ua_x"),
            ("Range", "bytes=0-1"),
        ),
    )
    answer = await ask(one, said)
    assert (answer.status, answer.body) == (200, b"hi")
    assert answer.headers == [
        (b"etag", b"W/1"),
        (b"x-two", b"a"),
        (b"x-two", b"b"),
        (b"content-length", b"2"),
    ]
    line, *lines = heads[0].split(b"\r\n")
    assert line == b"GET /api/w%2Fx?a=%20 HTTP/1.1"
    *lines, given = lines
    assert sorted(each.lower() for each in lines) == [
        b"authorization: bearer ua_x",
        b"avr-client: 192.0.2.7",
        b"avr-gateway: true play.example.org",
        b"avr-trace: 00f067aa0ba902b7",
        b"host: play.example.org",
        b"range: bytes=0-1",
    ]
    passed = Passed(True, "play.example.org", "192.0.2.7", "00f067aa0ba902b7")
    name, _, value = given.partition(b": ")
    assert name.lower() == b"avr-proof"
    assert is_proved(value.decode(), SECRET, passed, "GET", b"/api/w%2Fx?a=%20", NOW)
    await ask(one)
    assert fake.connections == 1, "the connection is used again"


async def test_bodies_keep_their_length_or_come_in_chunks(again: Make) -> None:
    got: list[bytes] = []

    async def serve(seen: Seen) -> None:
        while head := await seen.head():
            await seen.until(b"0\r\n\r\n" if b"chunked" in head else b"body")
            got.append(head.lower() + seen.data)
            seen.data = b""
            await seen.send(OK)

    one = proxy((await again(serve)).url)
    await ask(one, request("POST", headers=(("Content-Length", "4"),), body=b"body"))
    await ask(one, request("POST", headers=(("Transfer-Encoding", "chunked"),), body=b"body"))
    assert b"content-length: 4" in got[0]
    assert got[0].endswith(b"body")
    assert b"transfer-encoding: chunked" in got[1]
    assert got[1].endswith(b"4\r\nbody\r\n0\r\n\r\n")


async def test_an_answer_can_come_before_the_body_has(again: Make) -> None:
    async def serve(seen: Seen) -> None:
        await seen.head()
        await seen.send(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n")
        assert await seen.head() == b"", "the connection ends, since its body never came"

    one = proxy((await again(serve)).url)
    large = request("POST", headers=(("Content-Length", "9000"),), body=b"x" * 100, whole=False)
    assert (await ask(one, large)).status == 413
    assert one.exchanges == 0


async def test_a_body_that_waits_for_100_waits_for_the_registry_s(again: Make) -> None:
    async def serve(seen: Seen) -> None:
        assert b"expect: 100-continue" in (await seen.head()).lower()
        assert seen.data == b""
        await seen.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await seen.until(b"body")
        await seen.send(OK)

    one = proxy((await again(serve)).url)
    headers = (("Content-Length", "4"), ("Expect", "100-Continue"))
    assert (await ask(one, request("POST", headers=headers, body=b"body"))).status == 200


async def test_a_fault_of_the_client_s_body_is_its_own(again: Make) -> None:
    async def serve(seen: Seen) -> None:
        while await seen.stream.receive_some():
            pass

    one = proxy((await again(serve)).url)
    broken = request("POST", headers=(("Transfer-Encoding", "chunked"),), whole=False)

    async def fail() -> None:
        raise MessageInvalid

    broken.body.receive_with(fail)
    with pytest.raises(MessageInvalid):
        await ask(one, broken)
    assert one.exchanges == 0


async def test_only_what_changes_nothing_is_sent_again(again: Make) -> None:
    async def once(seen: Seen) -> None:
        await seen.head()
        await seen.send(OK)
        await seen.head()  # and closes without an answer

    async def serve(seen: Seen) -> None:
        while await seen.head():
            await seen.send(OK)

    fake = await again(once, serve)
    one = proxy(fake.url)
    await ask(one)
    assert (await ask(one)).status == 200
    assert fake.connections == 2

    for method, body in (("POST", None), ("DELETE", None), ("PUT", b"x"), ("GET", b"x")):
        fake = await again(once, serve)
        one = proxy(fake.url)
        await ask(one)
        headers = (("Content-Length", "1"),) if body else ()
        with pytest.raises(NoResponse):
            await ask(one, request(method, headers=headers, body=body))
        assert fake.connections == 1


async def test_a_registry_that_says_nothing_at_all_is_not_asked_again(again: Make) -> None:
    async def silent(seen: Seen) -> None:
        await seen.head()

    async def garbage(seen: Seen) -> None:
        await seen.head()
        await seen.send(b"SSH-2.0-x\r\n\r\n")

    async def twice(seen: Seen) -> None:
        await seen.head()
        await seen.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi")

    async def short(seen: Seen) -> None:
        await seen.head()
        await seen.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi")

    for serve in (silent, garbage, twice, short):
        fake = await again(serve)
        one = proxy(fake.url)
        with pytest.raises(NoResponse):
            await ask(one)
        assert (fake.connections, one.exchanges) == (1, 0)

    # Another one is asked, if that is safe, and if the first one did not begin to answer.
    async def serve_well(seen: Seen) -> None:
        while await seen.head():
            await seen.send(OK)

    for serve, method, answered in (
        (silent, "GET", True),
        (silent, "POST", False),
        (garbage, "GET", False),
        (short, "GET", False),
    ):
        first, second = await again(serve), await again(serve_well)
        one = proxy(first.url, second.url)
        if answered:
            assert (await ask(one, request(method))).status == 200
        else:
            with pytest.raises(NoResponse):
                await ask(one, request(method))
        assert (first.connections, second.connections) == (1, answered)


async def test_a_request_that_ends_two_registries_does_not_end_a_third(again: Make) -> None:
    async def silent(seen: Seen) -> None:
        await seen.head()

    fakes = [await again(silent) for _ in range(3)]
    with pytest.raises(NoResponse):
        await ask(proxy(*(fake.url for fake in fakes)))
    assert sum(fake.connections for fake in fakes) == 2


async def test_a_registry_that_is_slow_for_a_moment_is_still_asked(
    again: Make, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "CHECK_S", 0.02)
    hangs = True

    async def serve(seen: Seen) -> None:
        while head := await seen.head():
            if hangs and b"/readyz" in head:
                await trio.sleep_forever()
            await seen.send(OK)

    fake = await again(serve)
    one = proxy(fake.url)
    with capture_logs() as logs:
        nursery.start_soon(one.watch)
        with trio.fail_after(PATIENCE_S):
            while one.states[str(fake.url)] is not State.LOST:
                assert (await ask(one)).status == 200
                await trio.sleep(0)
            with pytest.raises(Overloaded):
                await ask(one)
            hangs = False
            while one.states[str(fake.url)] is not State.READY:
                await trio.sleep(0.01)
        assert (await ask(one)).status == 200
    changes = [log["state"] for log in logs if log["event"] == "registry.changed"]
    assert changes[:3] == ["unready", "lost", "ready"]


@pytest.mark.parametrize("begun", [b"", OK[:-1]])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_waits_at_a_lost_registry_goes_to_another_one_if_that_is_safe(
    again: Make, nursery: trio.Nursery, method: str, begun: bytes
) -> None:
    """A process that is stopped keeps its connections, and says nothing."""
    asked, stopped, answered = trio.Event(), trio.Event(), trio.Event()

    async def stops(seen: Seen) -> None:
        await seen.head()
        await seen.send(begun)
        asked.set()
        await stopped.wait()
        await seen.send(OK[len(begun) :])

    async def serve(seen: Seen) -> None:
        while await seen.head():
            await seen.send(OK)

    first, second = await again(stops), await again(serve)
    one = proxy(first.url, second.url)
    found = {str(registry): registry for registry in one._states}  # noqa: SLF001

    async def get() -> None:
        assert (await ask(one, request(method))).status == 200
        answered.set()

    nursery.start_soon(get)
    with trio.fail_after(PATIENCE_S):
        await asked.wait()
        one._note(found[str(second.url)], State.LOST)  # noqa: SLF001
        one._note(found[str(first.url)], State.LOST)  # noqa: SLF001
        await wait_all_tasks_blocked()
        assert not answered.is_set()  # there is nowhere to go
        one._note(found[str(second.url)], State.READY)  # noqa: SLF001
        if method == "POST":
            await wait_all_tasks_blocked()
            assert not answered.is_set()
            stopped.set()
        await answered.wait()
    assert second.connections == (method == "GET")
    assert one.exchanges == 0
    stopped.set()


async def test_a_registry_that_can_t_be_reached_is_passed_over(again: Make) -> None:
    async def serve(seen: Seen) -> None:
        while await seen.head():
            await seen.send(OK)

    fake, gone = await again(serve), EtaUrl(False, "127.0.0.1", 1)
    one = proxy(gone, fake.url)
    made = request("POST", headers=(("Content-Length", "4"),), body=b"body")
    assert (await ask(one, made)).status == 200
    assert one.states == {str(gone): State.LOST, str(fake.url): State.READY}
    assert one.unready() is None
    none = proxy(gone)
    with pytest.raises(Overloaded) as raised:
        await ask(none)
    assert raised.value.retry_after_s == 1
    assert none.unready() is not None


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_that_breaks_off_breaks_the_client_s_off(
    again: Make, chunked: bool
) -> None:
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 9000000"
    start = b"5\r\nstart\r\n" if chunked else b"start"

    async def serve(seen: Seen) -> None:
        await seen.head()
        await seen.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + start)

    one = proxy((await again(serve)).url)
    answer = await ask(one)
    with pytest.raises(ClientGone):
        await content(answer)
    assert one.exchanges == 0


async def test_large_answers_are_streamed_and_their_connection_is_used_again(again: Make) -> None:
    async def serve(seen: Seen) -> None:
        while head := await seen.head():
            if b"/chunks" in head:
                await seen.send(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
                )
            else:
                await seen.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
                await seen.send(b"x" * 300_000)

    fake = await again(serve)
    one = proxy(fake.url)
    assert len(await content(await ask(one))) == 300_000
    assert await content(await ask(one, request(target=b"/chunks"))) == b"abcde"
    assert len(await content(await ask(one))) == 300_000
    assert fake.connections == 1


async def test_an_answer_that_nobody_reads_frees_its_connection(again: Make) -> None:
    ended = trio.Event()

    async def serve(seen: Seen) -> None:
        await seen.head()
        await seen.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
        assert await seen.head() == b""
        ended.set()

    one = proxy((await again(serve)).url)
    answer = await ask(one)
    assert one.exchanges == 1
    del answer
    assert one.exchanges == 0
    with trio.fail_after(PATIENCE_S):
        await ended.wait()


async def test_answers_without_a_body(again: Make) -> None:
    async def serve(seen: Seen) -> None:
        while head := await seen.head():
            if head.startswith(b"HEAD"):
                await seen.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
            else:
                await seen.send(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n")

    fake = await again(serve)
    one = proxy(fake.url)
    head = await ask(one, request("HEAD"))
    assert (head.status, head.body, head.headers) == (200, b"", [(b"content-length", b"300000")])
    same = await ask(one)
    assert (same.status, same.body, same.headers) == (304, b"", [(b"etag", b"x")])
    assert fake.connections == 1


async def test_the_best_registry_is_chosen_by_its_readiness(
    again: Make, nursery: trio.Nursery
) -> None:
    async def ready(seen: Seen) -> None:
        while await seen.head():
            await seen.send(OK)

    async def draining(seen: Seen) -> None:
        while await seen.head():
            await seen.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    first, second = await again(draining), await again(ready)
    one = proxy(first.url, second.url, EtaUrl(False, "127.0.0.1", 1))
    nursery.start_soon(one.watch)
    wanted = [State.UNREADY, State.READY, State.LOST]
    with trio.fail_after(PATIENCE_S):
        while list(one.states.values()) != wanted:
            await trio.sleep(0.01)
    before = first.connections
    for _ in range(3):
        assert (await ask(one)).status == 200
    assert first.connections == before


async def test_a_registry_over_tls_must_have_a_certificate_of_a_known_authority(
    nursery: trio.Nursery, again: Make, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(OK)

    listeners = await nursery.start(trio.serve_ssl_over_tcp, serve, 0, context)
    port = listeners[0].transport_listener.socket.getsockname()[1]
    for host, authorities, works in (
        ("127.0.0.1", certificate[0], True),
        ("127.0.0.1", None, False),
        ("localhost", certificate[0], False),  # it is for the address alone
    ):
        one = proxy(EtaUrl(True, host, port), tls=tls_context(authorities))
        if works:
            assert (await ask(one)).status == 200
        else:
            with pytest.raises(Overloaded):
                await ask(one)
    empty = tmp_path / "empty.pem"
    empty.touch()
    for wrong in (empty, tmp_path / "nothing.pem"):
        with pytest.raises(StartupError):
            tls_context(wrong)
