"""The bus, over a real NATS server that is killed, paused and restarted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from nats.aio.client import Client

from reileta.cluster.bus import (
    QUEUE_MESSAGES,
    Bus,
    BusFull,
    BusMessage,
    BusTooLarge,
    BusUnavailable,
    Gap,
    NoResponders,
    Subscription,
    open_bus,
)
from reileta.startup import StartupError
from reileta.store.database import Loop
from tests.conftest import PATIENCE_S
from tests.nats_server import MAX_PAYLOAD_BYTES, NatsServer
from tests.reileta.cluster.conftest import OpenBus, connected, disconnected

pytestmark = pytest.mark.slow


async def received(subscription: Subscription, many: int) -> list[BusMessage | Gap]:
    items: list[BusMessage | Gap] = []
    with trio.fail_after(PATIENCE_S):
        while len(items) < many:
            items += await subscription.receive()
    return items


def datas(items: list[BusMessage | Gap]) -> list[bytes | None]:
    return [item.data if isinstance(item, BusMessage) else None for item in items]


async def answer(bus: Bus, subject: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Answers requests with their data, twice."""
    async with bus.subscribe(subject) as requests:
        task_status.started()
        while True:
            for item in await requests.receive():
                assert isinstance(item, BusMessage)
                assert item.reply is not None
                bus.publish(item.reply, item.data * 2, headers={"Answers": "twice"})


# Messages


async def test_messages_arrive_in_order_at_all_who_listen(bus: Bus, another_bus: OpenBus) -> None:
    async with another_bus() as other:
        await connected(other)
        async with other.subscribe("a.*.c") as first, bus.subscribe("a.>") as second:
            for number in range(1000):
                bus.publish("a.b.c", b"%d" % number)
            for subscription in (first, second):
                items = await received(subscription, 1000)
                assert datas(items) == [b"%d" % number for number in range(1000)]


async def test_one_of_a_group_gets_a_message(bus: Bus) -> None:
    async with (
        bus.subscribe("work", group="g") as one,
        bus.subscribe("work", group="g") as two,
        bus.subscribe("work") as all_,
    ):
        for _ in range(100):
            bus.publish("work", b"")
        await received(all_, 100)
        many = 0
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:

                async def count(subscription: Subscription) -> None:
                    nonlocal many
                    while many < 100:
                        items = await subscription.receive()
                        many += len(items)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(count, one)
                nursery.start_soon(count, two)
        assert many == 100


async def test_nothing_arrives_after_the_subscription(bus: Bus) -> None:
    async with bus.subscribe("a") as ended:
        pass
    async with bus.subscribe("a") as subscription:
        bus.publish("a", b"1")
        await received(subscription, 1)
    with trio.move_on_after(0) as scope:
        await ended.receive()
    assert scope.cancelled_caught


async def test_a_connection_may_end_while_a_subscription_begins(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe = Client.subscribe
    ended = 0

    async def end(client: Client, subject: str, **options: Any) -> Any:
        nonlocal ended
        begun = await subscribe(client, subject, **options)
        if subject == "a" and not ended:
            ended += 1
            await client.close()
            while bus.connection == 1:
                await asyncio.sleep(0)
        return begun

    monkeypatch.setattr(Client, "subscribe", end)
    with trio.fail_after(PATIENCE_S):
        async with bus.subscribe("a") as subscription:
            await bus.changed_from(1)
            await connected(bus)
            bus.publish("a", b"1")
            assert b"1" in datas(await received(subscription, 2))
    assert ended == 1


@pytest.mark.parametrize(
    "subject", ["", "a b", "a..b", ".a", "a.", "a.*", "a.>", "a\r\nPUB b", "é"]
)
async def test_what_is_no_subject_is_not_sent(bus: Bus, subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        bus.publish(subject, b"")
    with pytest.raises(ValueError, match="subject"):
        await bus.request(subject, b"")


@pytest.mark.parametrize("subject", ["", "a b", "a..b", "a.>.b", "a\r\nSUB b 1"])
async def test_what_is_no_subject_is_not_listened_on(bus: Bus, subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        async with bus.subscribe(subject):
            pass


@pytest.mark.parametrize("headers", [{"a": "1\r\nb: 2"}, {"a:": "1"}, {"": "1"}, {"a\r\n": "1"}])
async def test_what_is_no_header_is_not_sent(bus: Bus, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        bus.publish("a", b"", headers=headers)


# Requests


async def test_a_request_is_answered(bus: Bus, another_bus: OpenBus) -> None:
    async with another_bus() as other, trio.open_nursery() as nursery:
        await connected(other)
        await nursery.start(answer, other, "double")
        with trio.fail_after(PATIENCE_S):
            reply = await bus.request("double", b"ab", headers={"Asks": "1"})
        assert reply.data == b"abab"
        assert reply.headers == {"Answers": "twice"}
        nursery.cancel_scope.cancel()


async def test_that_nobody_listens_is_known_at_once(bus: Bus) -> None:
    with trio.fail_after(PATIENCE_S):
        with pytest.raises(NoResponders):
            await bus.request("nobody", b"")
        with pytest.raises(NoResponders):
            await bus.request_all("nobody", b"", lambda _: True)


async def test_a_request_can_be_cancelled(bus: Bus) -> None:
    async with bus.subscribe("silent") as requests:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bus.request, "silent", b"")
            await received(requests, 1)
            nursery.cancel_scope.cancel()
        bus.publish("silent", b"goes on")
        assert datas(await received(requests, 1)) == [b"goes on"]


async def test_a_subscription_that_nobody_waits_for_leaves_the_connection_as_it_is(
    bus: Bus, nats: NatsServer
) -> None:
    before = bus.connection
    await nats.pause()
    with trio.move_on_after(0.05):
        async with bus.subscribe("given.up"):
            raise AssertionError("the server answered")
    nats.resume()
    async with bus.subscribe("kept") as kept:
        bus.publish("kept", b"heard")
        with trio.fail_after(PATIENCE_S):
            (message,) = await kept.receive()
    assert isinstance(message, BusMessage)
    assert bus.connection == before


async def test_a_request_for_another_connection_is_not_sent(bus: Bus, nats: NatsServer) -> None:
    before = bus.connection
    async with bus.subscribe("a") as requests:
        await nats.kill()
        await disconnected(bus)
        with pytest.raises(BusUnavailable):
            await bus.request("a", b"1", connection=before)
        await nats.start()
        await connected(bus, before)
        with pytest.raises(BusUnavailable):
            await bus.request("a", b"1", connection=before)
        bus.publish("a", b"2")
        assert datas(await received(requests, 2)) == [None, b"2"]


# Bounds


async def test_a_message_that_is_too_large_is_refused_and_the_connection_lives(bus: Bus) -> None:
    before = bus.connection
    assert bus.max_data_bytes == MAX_PAYLOAD_BYTES
    async with bus.subscribe("a") as subscription:
        largest = bytes(MAX_PAYLOAD_BYTES)
        with pytest.raises(BusTooLarge):
            bus.publish("a", largest + b"1")
        with pytest.raises(BusTooLarge):
            await bus.request("a", largest + b"1")
        headers = {"Name": "value"}
        room = MAX_PAYLOAD_BYTES - len("NATS/1.0\r\nName: value\r\n\r\n")
        with pytest.raises(BusTooLarge):
            bus.publish("a", bytes(room + 1), headers=headers)
        bus.publish("a", largest)
        bus.publish("a", bytes(room), headers=headers)
        assert [len(one or b"") for one in datas(await received(subscription, 2))] == [
            MAX_PAYLOAD_BYTES,
            room,
        ]
    assert bus.connection == before


async def test_a_slow_receiver_finds_a_gap_and_slows_nobody(bus: Bus) -> None:
    async with (
        bus.subscribe("a", limit_messages=10) as slow,
        bus.subscribe("a", limit_bytes=2_000) as small,
        bus.subscribe("a") as fast,
    ):
        for number in range(1000):
            bus.publish("a", b"%03d" % number)
        assert len(await received(fast, 1000)) == 1000
        for subscription in (slow, small):
            counted, gaps = 0, 0
            while counted < 1000:
                for item in await received(subscription, 1):
                    lost = item.lost if isinstance(item, Gap) else 1
                    assert lost is not None
                    counted += lost
                    gaps += isinstance(item, Gap)
            assert counted == 1000
            assert gaps
        bus.publish("a", b"later")
        assert datas(await received(slow, 1)) == [b"later"]


async def test_publications_for_a_server_that_takes_none_are_bounded(
    bus: Bus, nats: NatsServer
) -> None:
    def fill() -> None:
        for _ in range(10_000):
            bus.publish("a", bytes(MAX_PAYLOAD_BYTES))

    await nats.pause()
    with pytest.raises(BusFull):
        fill()
    nats.resume()


# Connections


async def test_a_killed_server_is_noticed_and_found_again(bus: Bus, nats: NatsServer) -> None:
    async with bus.subscribe("a", limit_messages=QUEUE_MESSAGES) as subscription:
        bus.publish("a", b"before")
        assert datas(await received(subscription, 1)) == [b"before"]
        before = bus.connection
        await nats.kill()
        await disconnected(bus)
        with pytest.raises(BusUnavailable):
            bus.publish("a", b"nobody gets it, also not later")
        with pytest.raises(BusUnavailable):
            _ = bus.max_data_bytes
        await nats.start()
        assert await connected(bus) != before
        bus.publish("a", b"after")
        assert await received(subscription, 2) == [Gap(None), BusMessage("a", b"after")]


async def test_a_request_ends_with_its_connection(bus: Bus, nats: NatsServer) -> None:
    async with bus.subscribe("silent") as requests, trio.open_nursery() as nursery:

        async def ask() -> None:
            with trio.fail_after(PATIENCE_S), pytest.raises(BusUnavailable):
                await bus.request("silent", b"")

        nursery.start_soon(ask)
        await received(requests, 1)
        await nats.kill()


async def test_a_paused_server_is_given_up_and_used_again(bus: Bus, nats: NatsServer) -> None:
    async with bus.subscribe("a") as subscription:
        before = bus.connection
        await nats.pause()
        bus.publish("a", bytes(MAX_PAYLOAD_BYTES))
        await disconnected(bus)
        nats.resume()
        await connected(bus, before)
        bus.publish("a", b"after")
        items: list[BusMessage | Gap] = []
        while b"after" not in datas(items):
            items += await received(subscription, 1)
        # The first publication may have arrived, too, or have been lost.
        assert items[0] == Gap(None) or items[1] == Gap(None)


async def test_a_subscription_without_a_connection_begins_with_the_next(
    bus: Bus, nats: NatsServer
) -> None:
    await nats.kill()
    await disconnected(bus)
    async with bus.subscribe("a") as subscription:
        await nats.start()
        await connected(bus)
        bus.publish("a", b"1")
        assert datas(await received(subscription, 2)) == [None, b"1"]


async def test_subscriptions_come_and_go_while_the_bus_connects(
    nats: NatsServer, another_bus: OpenBus
) -> None:
    """At each step of an attempt: one that begins, and one that ends."""
    for steps in range(0, 60, 3):
        async with another_bus() as bus, AsyncExitStack() as stack:
            ended = AsyncExitStack()
            await ended.enter_async_context(bus.subscribe("a"))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            begun = await stack.enter_async_context(bus.subscribe("b"))
            await ended.aclose()
            await connected(bus)
            bus.publish("b", b"1")
            items: list[BusMessage | Gap] = []
            while BusMessage("b", b"1") not in items:
                items += await received(begun, 1)
            assert items in ([BusMessage("b", b"1")], [Gap(None), BusMessage("b", b"1")])


async def test_a_bus_waits_for_a_server_that_is_not_there_yet(
    nats: NatsServer, another_bus: OpenBus
) -> None:
    await nats.kill()
    async with another_bus() as bus:
        with pytest.raises(BusUnavailable):
            bus.publish("a", b"")
        await nats.start()
        await connected(bus)


async def test_a_bus_can_end_at_each_step_of_an_attempt_to_connect(another_bus: OpenBus) -> None:
    for steps in range(30):
        async with another_bus():
            for _ in range(steps):
                await trio.lowlevel.checkpoint()


async def test_one_of_several_servers_is_enough(nats: NatsServer, loop: Loop) -> None:
    async with open_bus(("nats://127.0.0.1:1", nats.url), "test", loop) as bus:
        await connected(bus)


async def test_a_bus_that_ends_while_its_server_hangs_leaves_nothing_behind(
    nats: NatsServer, another_bus: OpenBus, loop: Loop
) -> None:
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    before = await loop.run_aio_coroutine(tasks())
    for _ in range(3):
        async with another_bus() as bus, bus.subscribe("a"):
            await connected(bus)
            for _ in range(50):
                bus.publish("a", bytes(MAX_PAYLOAD_BYTES))
            await nats.pause()
        nats.resume()
    assert await loop.run_aio_coroutine(tasks()) == before


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://localhost", "nats://", "nats://a:b", "ws://localhost"]
)
async def test_a_wrong_url_is_refused_without_showing_it(loop: Loop, url: str) -> None:
    with pytest.raises(StartupError, match="nats://localhost:4222"):
        async with open_bus((url,), "test", loop):
            pass


async def test_without_the_optional_package_the_operator_is_told_what_to_install(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    with pytest.raises(StartupError, match="pip install"):
        async with open_bus(("nats://localhost",), "test", loop):
            pass


def test_the_package_is_imported_only_when_a_bus_is_opened() -> None:
    code = "import sys, reileta.main, reileta.cluster.bus; sys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
