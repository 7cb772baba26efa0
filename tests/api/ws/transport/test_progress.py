"""Clients that read nothing, or slowly, but answer every ping."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair
from websockets.frames import Opcode

from actors.delivery.batch import Batch
from api.listen.timeouts import PROGRESS_BYTES, PROGRESS_S
from api.ws.gateway import Gateway
from api.ws.transport.base import CLOSE_TIMEOUT_S, TransportState, Upgraded
from api.ws.transport.tls import StreamTransport
from reileta.observability.metrics import Metrics
from reileta.protocol.frames import text_frame
from tests.api.ws.fake_transport import FakeNode, auth, port, principal
from tests.api.ws.transport.test_base import MakeTransportPair, TransportPair, on_socket, spoken

KIB = 1024
LIMIT = 1024 * KIB


def on_lockstep(
    nursery: trio.Nursery, metrics: Metrics, *, early: bytes = b"", limit: int = LIMIT
) -> TransportPair:
    """A stream that takes nothing before the client reads it, as TLS does in the end."""
    near, far = lockstep_stream_pair()
    return TransportPair(
        StreamTransport(near, Upgraded(spoken(), nursery, metrics, limit, "192.0.2.1", early)), far
    )


both = pytest.mark.parametrize("pair_of", [on_socket, on_lockstep], ids=["socket", "stream"])


class ServedConnection:
    """A wire that the gateway serves, whose client says something every few seconds."""

    def __init__(self, nursery: trio.Nursery, pair: TransportPair) -> None:
        self.pair = pair
        self._nursery = nursery
        self.gateway = Gateway(port(FakeNode()), auth())
        nursery.start_soon(self.gateway.watch)
        nursery.start_soon(self.gateway.serve, pair.wire, principal())
        nursery.start_soon(self._answer_pings)

    def is_open(self) -> bool:
        return self.pair.wire.state is TransportState.OPEN

    async def end(self) -> None:
        self._nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(self.pair.far)

    async def _answer_pings(self) -> None:
        try:
            while True:
                await self.pair.say(self.pair.masked(Opcode.PONG, b""))
                await trio.sleep(5)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def snapshot(size: int) -> Batch:
    return Batch([text_frame(b"x" * size)], snapshot=True)


@both
@pytest.mark.parametrize("size", [20 * KIB, 200 * KIB, 4 * LIMIT])
async def test_one_that_reads_nothing_is_closed_and_its_memory_freed(
    nursery: trio.Nursery, autojump_clock: MockClock, pair_of: MakeTransportPair, size: int
) -> None:
    metrics = Metrics()
    served = ServedConnection(nursery, pair_of(nursery, metrics))
    wire = served.pair.wire
    await trio.sleep(1)
    batch = snapshot(size)
    wire.write([(batch, 0, len(batch))])
    await trio.sleep(PROGRESS_S - 2)
    assert served.is_open()
    await trio.sleep(4)
    assert not served.is_open()
    assert metrics.too_slow == 1
    await trio.sleep(3 * CLOSE_TIMEOUT_S)
    assert len(served.gateway) == 0
    assert metrics.backlog_bytes == 0
    await served.end()


@both
async def test_one_that_reads_slowly_is_not(
    nursery: trio.Nursery, autojump_clock: MockClock, pair_of: MakeTransportPair
) -> None:
    served = ServedConnection(nursery, pair_of(nursery, Metrics()))
    wire = served.pair.wire
    await trio.sleep(1)
    batch = snapshot(4 * PROGRESS_BYTES)
    wire.write([(batch, 0, len(batch))])
    got = 0
    while got < len(batch):
        got += len(await served.pair.far.receive_some(4 * KIB))
        await trio.sleep(3)
        assert served.is_open()
    await trio.sleep(2 * PROGRESS_S)
    assert served.is_open()
    assert wire.progress_by is None
    await served.end()
