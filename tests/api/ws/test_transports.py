from __future__ import annotations

import pytest
import structlog.testing
import trio
from trio.testing import wait_all_tasks_blocked
from websockets.uri import parse_uri

from actors.fanout import Batch
from api.ws.transports import AsgiWire
from reileta.frames import text_frame
from reileta.metrics import Metrics

_URI = parse_uri("ws://localhost/")
KIB = 1024
LIMIT = 64 * KIB


class FakeSocket:
    """An ASGI server's WebSocket, which takes a message when the test lets it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.goodbyes: list[tuple[int, str]] = []
        self.fails: Exception | None = None
        self.gate = trio.Semaphore(0)
        self.inbox, self._incoming = trio.open_memory_channel[str | bytes](10)

    async def receive(self) -> str | bytes:
        return await self._incoming.receive()

    async def send(self, data: str) -> None:
        await self.gate.acquire()
        if self.fails is not None:
            raise self.fails
        self.sent.append(data)

    async def close(self, code: int, reason: str = "") -> None:
        self.goodbyes.append((code, reason))


def on_asgi(nursery: trio.Nursery, metrics: Metrics) -> tuple[AsgiWire, FakeSocket]:
    fake = FakeSocket()
    wire = AsgiWire(fake, nursery, metrics, backlog_limit_bytes=LIMIT, remote="192.0.2.1")
    return wire, fake


def allow(fake: FakeSocket, count: int) -> None:
    for _ in range(count):
        fake.gate.release()


async def test_asgi_message_by_message(nursery: trio.Nursery) -> None:
    metrics = Metrics()
    wire, fake = on_asgi(nursery, metrics)
    keyed = Batch([text_frame(b"%d" % n) for n in range(4)], [None, "k", "k", None])
    wire.write([(keyed, 0, len(keyed))])
    assert metrics.backlog_bytes == len(keyed)
    await wait_all_tasks_blocked()
    allow(fake, 10)
    await wait_all_tasks_blocked()
    assert fake.sent == ["0", "2", "3"], "what waited was conflated"
    assert metrics.conflated == 1
    assert metrics.backlog_bytes == 0
    wire.close(1001, "bye")
    await wait_all_tasks_blocked()
    assert fake.goodbyes == [(1001, "bye")]
    assert wire.scope.cancel_called
    await wire.finish()


async def test_asgi_closes_after_what_waits(nursery: trio.Nursery) -> None:
    wire, fake = on_asgi(nursery, Metrics())
    wire.send(text_frame(b"1"))
    await wait_all_tasks_blocked()
    wire.send(text_frame(b"2"))
    wire.close(4000, "gone")
    await wait_all_tasks_blocked()
    assert not fake.goodbyes
    allow(fake, 2)
    await wait_all_tasks_blocked()
    assert (fake.sent, fake.goodbyes) == (["1", "2"], [(4000, "gone")])


async def test_asgi_messages_come_in(nursery: trio.Nursery) -> None:
    wire, fake = on_asgi(nursery, Metrics())
    for message in ("é", b"\x00", "\ud800"):
        await fake.inbox.send(message)
    assert await wire.receive() == ["é".encode()]
    assert await wire.receive() == [None]
    (broken,) = await wire.receive()
    assert isinstance(broken, bytes)
    with pytest.raises(UnicodeDecodeError):
        broken.decode()
    wire.close(1001)
    await fake.inbox.send("late")
    assert await wire.receive() == []


@pytest.mark.parametrize("error", [RuntimeError("no context"), OSError(), KeyError("x")])
async def test_whatever_writing_raises_is_the_end_of_this_wire_alone(
    nursery: trio.Nursery, error: Exception
) -> None:
    wire, fake = on_asgi(nursery, Metrics())
    fake.fails = error
    with structlog.testing.capture_logs() as logged:
        wire.send(text_frame(b"1"))
        allow(fake, 1)
        await wait_all_tasks_blocked()
    assert wire.scope.cancel_called
    assert [one["event"] for one in logged] == (
        [] if isinstance(error, OSError) else ["connection.failed"]
    )
    assert nursery.cancel_scope.cancel_called is False
    with trio.fail_after(1):
        await wire.finish()
