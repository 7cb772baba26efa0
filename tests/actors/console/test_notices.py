"""The server's notice: who gets it, and when."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.hub.actor import ANNOUNCED_AT_ONCE
from actors.session.messages import Detach, OpenSocket
from reileta.protocol.session_frames import iso
from reileta.protocol.views.server import NoticeView
from reileta.records import Notice
from reileta.rules.identity import FOR_EVER
from tests.actors.node_harness import Client, NodeHarness, principal, settle
from tests.actors.session_clients import FakeSessionSink
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
    lines = [await session_socket(harness, 2, session=n) for n in range(3)]
    later = NoticeView(text="Later", level="info", created_at=harness.clock.now_ms())
    harness.node.announced_elsewhere(later)
    await trio.sleep(1)
    await settle()
    # The newest one reaches everybody, however many have had the one before.
    assert {texts(client)[-1] for client in clients} == {"Later"}
    assert {told(line)[-1]["text"] for line in lines} == {"Later"}


# In the session API -------------------------------------------------------------------------------


async def test_sockets_of_the_session_api_get_it_as_an_event_of_theirs(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    line = await session_socket(harness, 1)
    await harness.node.notices.announce(notice(harness, "Restart", 60))
    now = harness.clock.now_ms()
    await settle()
    (frame,) = line.take()
    assert (frame["type"], frame["status"]) == ("event", "ok")
    assert line.owed == [frame["id"]]  # the client must acknowledge it
    assert frame["payload"] == {
        "kind": "server-notice",
        "text": "Restart",
        "level": "warning",
        "created_at": iso(now),
        "until": iso(now + 60_000),
    }
    await harness.node.notices.withdraw()
    await settle()
    ((text, until),) = [(one["text"], one["until"]) for one in told(line)]
    assert (text, until) == (None, None)
    assert len(set(line.owed)) == 2


@pytest.mark.parametrize("for_s", [60.0, None])
async def test_a_socket_of_the_session_api_gets_it_after_hello_until_its_end(
    harness: NodeHarness, autojump_clock: MockClock, for_s: float | None
) -> None:
    await harness.node.notices.announce(notice(harness, "Restart", for_s))
    await settle()
    line = await session_socket(harness, 1, greeted=False)
    kinds = ["hello"] if for_s is None else ["hello", "server-notice"]
    assert [one["kind"] for one in line.payloads()] == kinds
    await trio.sleep(61)
    late = await session_socket(harness, 2, greeted=False)
    assert [one["kind"] for one in late.payloads()] == ["hello"]


async def test_a_closed_socket_of_the_session_api_is_forgotten(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    line = await session_socket(harness, 1)
    assert list(harness.listeners.session_sockets) == [line]
    session = harness.node.sessions.find(principal(1).session_id)
    assert session is not None
    session.signal(Detach(line))
    await settle()
    assert harness.listeners.session_sockets == {}
    await harness.node.notices.announce(notice(harness, "Restart"))
    await settle()
    assert line.take() == []


class OwingSink(FakeSessionSink):
    """A socket whose client acknowledges nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.owed: list[str] = []

    def send_event(self, event_id: str, frame: bytes) -> None:
        self.owed.append(event_id)
        super().send_event(event_id, frame)


async def session_socket(
    harness: NodeHarness, number: int, *, session: int = 0, greeted: bool = True
) -> OwingSink:
    """A socket of the session API; `greeted`: what it was greeted with is taken."""
    who = principal(number, session)
    line = OwingSink()
    ref = await harness.node.sessions.live(who)
    await ref.ask(OpenSocket(line, who.token_hash, FOR_EVER))
    await settle()
    if greeted:
        line.take()
        line.owed.clear()
    return line


def told(line: FakeSessionSink) -> list[dict[str, Any]]:
    return [one for one in line.payloads() if one["kind"] == "server-notice"]
