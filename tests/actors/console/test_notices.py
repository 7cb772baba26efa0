"""The server's notice: who gets it, and when."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.hub.actor import ANNOUNCED_AT_ONCE
from actors.hub.messages import Announcement
from reileta.protocol.frames import event
from reileta.records import Notice
from tests.actors.node_harness import Client, NodeHarness, settle
from tests.actors.sinks import FakeSink


def notice(harness: NodeHarness, text: str, for_s: float | None = None) -> Notice:
    now = harness.clock.now_ms()
    return Notice(text, "warning", now, None if for_s is None else now + int(for_s * 1000))


def texts(client: Client) -> list[str | None]:
    return [one["data"]["text"] for one in notices(client.sink.take())]


def notices(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in frames if one["command"] == "server-notice"]


async def test_everyone_gets_it_and_those_who_come_before_its_end(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    ada = await harness.connect(1)
    await harness.node.notices.announce(notice(harness, "Restart", 60))
    await settle()
    assert texts(ada) == ["Restart"]
    late = FakeSink()
    bob = await harness.connect(2, sink=late)
    assert texts(bob) == []  # it was taken with the greeting
    await trio.sleep(61)
    assert await harness.node.notices.current() is None


@pytest.mark.parametrize(("for_s", "greeted"), [(60.0, ["Restart"]), (None, [])])
async def test_a_socket_that_opens_gets_it_only_until_its_end(
    harness: NodeHarness, autojump_clock: MockClock, for_s: float | None, greeted: list[str]
) -> None:
    await harness.node.notices.announce(notice(harness, "Restart", for_s))
    await settle()
    seen: list[dict[str, Any]] = []

    class Greeted(FakeSink):
        def take(self) -> list[dict[str, Any]]:
            seen.extend(frames := super().take())
            return frames

    await harness.connect(1, sink=Greeted())
    assert [one["data"]["text"] for one in notices(seen)] == greeted
    await trio.sleep(61)
    seen.clear()
    await harness.connect(2, sink=Greeted())
    assert notices(seen) == []


async def test_it_is_taken_back(harness: NodeHarness, autojump_clock: MockClock) -> None:
    ada = await harness.connect(1)
    await harness.node.notices.announce(notice(harness, "Restart", 60))
    await harness.node.notices.withdraw()
    await settle()
    assert texts(ada) == ["Restart", None]
    assert await harness.node.notices.current() is None


async def test_a_restarted_server_still_has_it(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.store.identity.stored = notice(harness, "Moving", 60)
    ada = await harness.connect(1)
    await harness.node.notices.load()
    await harness.node.notices.load()  # it is known by now, and is not sent again
    await settle()
    assert texts(ada) == ["Moving"]


async def test_many_sockets_get_it_in_slices(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    clients = [await harness.connect(1, session=n) for n in range(ANNOUNCED_AT_ONCE + 3)]
    await harness.node.notices.announce(notice(harness, "Hello"))
    later = event("server-notice", None, b'{"text":"Later"}')
    harness.node.announced_elsewhere(Announcement(later))
    await trio.sleep(1)
    await settle()
    # The newest one reaches everybody, however many have had the one before.
    assert {texts(client)[-1] for client in clients} == {"Later"}
