from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import pytest
import trio
import trio.testing

from reileta.errors import NoResponse
from reileta.federation.resolver import ADDRESSES, THREADS, TIMEOUT_S, Resolver
from tests.conftest import PATIENCE_S


def entry(address: str) -> tuple[Any, ...]:
    """As `getaddrinfo` returns it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    name = (address, 0, 0, 0) if ":" in address else (address, 0)
    return (family, socket.SOCK_STREAM, 6, "", name)


async def test_all_addresses_are_returned_once_and_in_order() -> None:
    def getaddrinfo(name: str, port: None, **options: Any) -> Sequence[Any]:
        assert name == "peer.example"
        return [entry("2600::1"), entry("8.8.8.8"), entry("2600::1"), entry("1.1.1.1")]

    assert await Resolver(getaddrinfo)("peer.example") == [
        ip_address("2600::1"),
        ip_address("8.8.8.8"),
        ip_address("1.1.1.1"),
    ]


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]
)
async def test_a_name_without_addresses_is_no_answer(error: Exception) -> None:
    def getaddrinfo(name: str, port: None, **options: Any) -> Sequence[Any]:
        raise error

    with pytest.raises(NoResponse) as caught:
        await Resolver(getaddrinfo)("peer.example")
    assert caught.value.cause.startswith("DNS: ")


@pytest.mark.parametrize("count", [0, ADDRESSES + 1])
async def test_a_name_has_a_bounded_number_of_addresses(count: int) -> None:
    def getaddrinfo(name: str, port: None, **options: Any) -> Sequence[Any]:
        return [entry(f"8.8.{number // 256}.{number % 256}") for number in range(count)]

    with pytest.raises(NoResponse):
        await Resolver(getaddrinfo)("peer.example")


class SlowDns:
    """A resolver that does not answer for names that begin with "slow"."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[str] = []
        self.waiting = threading.Semaphore(0)
        """Released by each thread that waits."""
        self._lock = threading.Lock()

    def __call__(self, name: str, port: None, **options: Any) -> Sequence[Any]:
        with self._lock:
            self.asked.append(name)
        if name.startswith("slow"):
            self.waiting.release()
            self.released.wait(PATIENCE_S)
        return [entry("8.8.8.8")]


async def test_a_slow_name_is_no_answer_in_time(mock_clock: trio.testing.MockClock) -> None:
    dns = SlowDns()
    resolver = Resolver(dns)
    try:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(NoResponse) as caught:
                    await resolver("slow.example")
                assert "2 s" in caught.value.cause

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(TIMEOUT_S)
    finally:
        dns.released.set()


async def test_slow_names_take_few_threads_and_none_of_the_names_that_answered_before(
    mock_clock: trio.testing.MockClock,
) -> None:
    dns = SlowDns()
    resolver = Resolver(dns)
    known = [ip_address("8.8.8.8")]
    assert await resolver("known.example") == known
    try:
        async with trio.open_nursery() as nursery:

            async def ask(name: str) -> None:
                with pytest.raises(NoResponse):
                    await resolver(name)

            for number in range(20):
                nursery.start_soon(ask, f"slow{number}.example")
            for _ in range(THREADS):
                await trio.to_thread.run_sync(dns.waiting.acquire)
            assert await resolver("known.example") == known
            nursery.start_soon(ask, "other.example")
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(TIMEOUT_S)
        # The threads are still in use: the system's resolver can't be interrupted.
        slow = [name for name in dns.asked if name.startswith("slow")]
        assert len(slow) == THREADS
        assert "other.example" not in dns.asked
        assert await resolver("known.example") == known
    finally:
        dns.released.set()


async def test_a_name_that_becomes_slow_loses_its_place(mock_clock: trio.testing.MockClock) -> None:
    slow = threading.Event()
    released = threading.Event()
    asked = []

    def getaddrinfo(name: str, port: None, **options: Any) -> Sequence[Any]:
        asked.append(name)
        if slow.is_set() and name != "known.example":
            released.wait(PATIENCE_S)
        return [entry("8.8.8.8")]

    resolver = Resolver(getaddrinfo)
    names = [f"turncoat{number}.example" for number in range(THREADS - 1)]
    for name in [*names, "known.example"]:
        await resolver(name)
    slow.set()
    try:
        for _ in range(3):
            async with trio.open_nursery() as nursery:

                async def ask(name: str) -> None:
                    with pytest.raises(NoResponse):
                        await resolver(name)

                for name in names:
                    nursery.start_soon(ask, name)
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(TIMEOUT_S)
            assert await resolver("known.example") == [ip_address("8.8.8.8")]
    finally:
        released.set()
