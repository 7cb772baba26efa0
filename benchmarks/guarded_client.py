"""What the client for other servers costs: requests, refusals, hostile answers.

    .venv/bin/python -m benchmarks.guarded_client

The client and the server it asks are tasks of this process, so a request includes what the server's
side of it costs. `stall` is the most CPU time for which a hostile answer held up the event loop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Final

import trio

from benchmarks.stats import Latency
from reileta.errors import RemoteError
from reileta.federation.client import GuardedClient
from reileta.rules.federation.networks import IPAddress, Networks

HOST: Final = "127.0.0.2"
_BODY: Final = b'{"data":"' + b"x" * 1000 + b'"}'
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_ANSWER: Final = _OK + b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_CHUNKED: Final = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
HOSTILE: Final = {
    "chunks of one byte": _CHUNKED + b"1\r\nx\r\n" * 50_000,
    "10,000 headers": _OK + b"a:\n" * 10_000 + b"\r\n",
    "interim answers": b"HTTP/1.1 100 \r\n\r\n" * 50_000,
    "a body of 2 MiB": _OK + b"\r\n" + bytes(2 << 20),
}

Work = Callable[[], Awaitable[object]]


async def _resolve(name: str) -> Sequence[IPAddress]:
    return [ip_address("10.0.0.1" if name == "internal.example" else HOST)]


async def _serve(answer: bytes, closing: bool, stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(65536):
            await stream.send_all(answer)
            if closing:
                return
    except trio.BrokenResourceError:
        pass  # the client had enough


async def _listen(nursery: trio.Nursery, answer: bytes, *, closing: bool = False) -> str:
    handler = partial(_serve, answer, closing)
    listeners: list[trio.SocketListener] = await nursery.start(
        partial(trio.serve_tcp, handler, 0, host=HOST)
    )
    return f"peer.example:{listeners[0].socket.getsockname()[1]}"


async def _measure(title: str, work: Work, count: int) -> None:
    times_ns = []
    for _ in range(count):
        started = time.perf_counter_ns()
        await work()
        times_ns.append(time.perf_counter_ns() - started)
    latency = Latency.of(times_ns)
    assert latency is not None
    print(f"{title:32} p50 {latency.p50_ms:7.2f} ms   p99 {latency.p99_ms:7.2f} ms")


async def _stall(title: str, work: Work) -> None:
    worst_ms = 0.0

    async def look() -> None:
        nonlocal worst_ms
        while True:
            # CPU time: other processes don't count.
            started = time.thread_time()
            await trio.lowlevel.checkpoint()
            worst_ms = max(worst_ms, (time.thread_time() - started) * 1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        started = time.perf_counter()
        await work()
        taken_ms = (time.perf_counter() - started) * 1000
        nursery.cancel_scope.cancel()
    print(f"{title:32} {taken_ms:11.2f} ms   stall {worst_ms:5.2f} ms")


async def _main(count: int) -> None:
    async with trio.open_nursery() as nursery:
        kept = await _listen(nursery, _ANSWER)
        last = _ANSWER.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        closed = await _listen(nursery, last, closing=True)
        hostile = {name: await _listen(nursery, text) for name, text in HOSTILE.items()}
        async with GuardedClient(
            address="own.example",
            own=lambda ip, port: False,
            allowed=Networks.parse("127.0.0.0/8"),
            insecure=frozenset({kept, closed, *hostile.values()}),
            resolve=_resolve,
        ) as client:

            async def ask(server: str) -> None:
                with suppress(RemoteError):
                    await client.request("GET", server, "/api/server")

            await _measure("a request, connection kept", partial(ask, kept), count)
            await _measure("a request, new connection", partial(ask, closed), count)
            await _measure("refused: an IP address", partial(ask, "10.0.0.1:8443"), count)
            await _measure("refused: an answer of DNS", partial(ask, "internal.example"), count)
            for name, server in hostile.items():
                await _stall(f"hostile: {name}", partial(ask, server))
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000, help="requests of each kind")
    trio.run(_main, parser.parse_args().count)


if __name__ == "__main__":
    main()
