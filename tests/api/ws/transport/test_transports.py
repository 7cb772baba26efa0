"""What ends a wire: whatever writing raises. How bytes come and go is in `test_wire.py`."""

from __future__ import annotations

import pytest
import structlog.testing
import trio
from trio.testing import wait_all_tasks_blocked
from websockets.protocol import State
from websockets.server import ServerProtocol

from api.ws.transport.base import Upgraded
from api.ws.transport.tls import StreamTransport
from reileta.observability.metrics import Metrics
from reileta.protocol.frames import text_frame


class Broken(trio.abc.Stream):
    """A stream that can't be written to."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise self._error

    async def wait_send_all_might_not_block(self) -> None: ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return b""

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (RuntimeError("a bug"), ["connection.failed"]),
        (KeyError("x"), ["connection.failed"]),
        (OSError(), []),
        (trio.BrokenResourceError(), []),
    ],
)
async def test_whatever_writing_raises_is_the_end_of_this_wire_alone(
    nursery: trio.Nursery, error: Exception, logged: list[str]
) -> None:
    metrics = Metrics()
    protocol = ServerProtocol(state=State.OPEN)
    wire = StreamTransport(
        Broken(error),
        Upgraded(protocol, nursery, metrics, backlog_limit_bytes=65_536, remote="192.0.2.1"),
    )
    with structlog.testing.capture_logs() as logs:
        wire.send(text_frame(b"1"))
        await wait_all_tasks_blocked()
    assert wire.scope.cancel_called
    assert [one["event"] for one in logs] == logged
    assert nursery.cancel_scope.cancel_called is False
    with trio.fail_after(1):
        await wire.finish()
