"""The link that a node keeps: connecting again, half-open links, going on, other gateways."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from reileta.instance_node import link as module
from reileta.instance_node.link import NodeLink, Refused
from reileta.instance_node.rooms import Rooms, Said
from reileta.protocol.node_link import (
    SUBPROTOCOL,
    Enter,
    Fan,
    Hello,
    Hold,
    Host,
    Ping,
    Pong,
    Say,
    Seat,
    Welcome,
    Window,
    from_node,
    messages_of,
)

ROOM = "i_1"
SEAT = Seat("p_1", "u_1@x", "Ada", "owner")


@dataclass
class End:
    """The gateway's end of one link, as a test plays it."""

    stream: trio.abc.Stream
    protocol: ServerProtocol
    at: float
    heard: list[Any] = field(default_factory=list)
    silent: bool = False
    news: trio.Event = field(default_factory=trio.Event)

    async def send(self, *items: object) -> None:
        for message in messages_of(items):
            self.protocol.send_binary(message)
        await self.flush()
        await wait_all_tasks_blocked()

    async def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                await self.stream.send_all(data)

    async def close(self, code: int) -> None:
        self.protocol.send_close(code, "")
        await self.flush()

    def take(self, kind: Any) -> list[Any]:
        found = [one for one in self.heard if isinstance(one, kind)]
        self.heard = [one for one in self.heard if not isinstance(one, kind)]
        return found

    async def get(self, kind: Any) -> Any:
        with trio.fail_after(60):
            while not (found := self.take(kind)):
                self.news = trio.Event()
                await self.news.wait()
        return found[0]


class Gateway:
    """Takes the links of a node. `answer` refuses an upgrade: a status and a body."""

    def __init__(self) -> None:
        self.ends: list[End] = []
        self.tried: list[tuple[str, int, str]] = []
        self.away = False
        self.answer: Callable[[str], tuple[int, bytes] | None] = lambda _: None
        self.nursery: trio.Nursery | None = None
        self.came = trio.Event()

    async def open(self, host: str, port: int) -> trio.abc.Stream:
        """In place of `trio.open_tcp_stream`."""
        await trio.lowlevel.checkpoint()
        self.tried.append((host, port, ""))
        if self.away:
            raise OSError("connection refused")
        here, there = memory_stream_pair()
        assert self.nursery is not None
        self.nursery.start_soon(self.serve, there, host)
        return here

    async def serve(self, stream: trio.abc.Stream, host: str = "") -> None:
        protocol = ServerProtocol(subprotocols=[Subprotocol(SUBPROTOCOL)])
        end = End(stream, protocol, trio.current_time())
        try:
            while True:
                data = await stream.receive_some()
                if not data:
                    return
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if isinstance(event, Request):
                        assert event.headers["Authorization"] == "Bearer na_token"
                        refusal = self.answer(host)
                        if refusal is None:
                            protocol.send_response(protocol.accept(event))
                            self.ends.append(end)
                            self.came.set()
                        else:
                            response = protocol.reject(refusal[0], "")
                            response.body = refusal[1]
                            del response.headers["Content-Length"]
                            response.headers["Content-Length"] = str(len(refusal[1]))
                            protocol.send_response(response)
                    elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                        items = from_node.decode(bytes(event.data))
                        end.heard += items
                        end.news.set()
                        for item in items:
                            if isinstance(item, Ping) and not end.silent:
                                await end.send(Pong(item.number))
                if not end.silent:
                    await end.flush()
                if protocol.state is State.CLOSED or refused(protocol):
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def next(self) -> End:
        """The next link, up to its hello."""
        with trio.fail_after(600):
            while not self.ends:
                self.came = trio.Event()
                await self.came.wait()
        end = self.ends.pop(0)
        await wait_all_tasks_blocked()
        return end

    async def linked(self, *goes_on: Hold) -> tuple[End, Hello]:
        end = await self.next()
        hello = await end.get(Hello)
        await end.send(Welcome("n_1", 1, "play.example.org", "key", goes_on=list(goes_on)))
        return end, hello


def refused(protocol: ServerProtocol) -> bool:
    return protocol.state is not State.OPEN and bool(protocol.eof_sent)


@pytest.fixture
async def gateway(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, autojump_clock: MockClock
) -> Gateway:
    gateway = Gateway()
    gateway.nursery = nursery
    monkeypatch.setattr(trio, "open_tcp_stream", gateway.open)
    return gateway


def link_of(random: Callable[[], float] = lambda: 1.0) -> NodeLink:
    return NodeLink("ws://one.example:3032", "na_token", Rooms(), random=random)


async def test_it_tries_again_with_pauses_that_grow_and_jitter(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway.away = True
    parts = iter([0.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, *[0.5] * 100])
    link = link_of(lambda: next(parts))
    nursery.start_soon(link.run)
    times = []
    for number in range(1, 9):
        with trio.fail_after(600):
            while len(gateway.tried) < number:
                await trio.sleep(0.01)
        times.append(trio.current_time())
    pauses = [round(after - before) for before, after in pairwise(times)]
    assert pauses == [0, 2, 2, 8, 16, 30, 30]
    gateway.away = False
    end, _ = await gateway.linked()
    assert link.links == 1
    # A link that has lasted makes the pauses short again.
    await trio.sleep(61)
    await end.close(1001)
    lost = trio.current_time()
    await gateway.next()
    assert trio.current_time() - lost < 1


async def test_a_link_that_is_lost_again_and_again_is_back_in_time_for_its_players(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(link_of(lambda: 1.0).run)
    end, _ = await gateway.linked()
    pauses = []
    for _ in range(8):
        await end.close(1001)
        lost = trio.current_time()
        end, _ = await gateway.linked()
        pauses.append(round(trio.current_time() - lost))
    assert pauses == [1, 2, 4, 8, 8, 8, 8, 8]


async def test_a_half_open_link_is_noticed(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    link = link_of()
    nursery.start_soon(link.run)
    end, _ = await gateway.linked()
    await trio.sleep(100)
    assert link.links == 1
    assert is_live(link)
    end.silent = True
    silent_at = trio.current_time()
    await trio.sleep(11)
    assert not is_live(link)  # those who are connected directly are not heard any more
    again, _ = await gateway.linked()
    assert 20 < trio.current_time() - silent_at < 30
    assert link.links == 2
    assert is_live(link)
    assert await again.get(Ping)


async def test_what_was_said_without_a_link_is_known_before_it_counts(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    link = link_of()
    nursery.start_soon(link.run)
    end = await gateway.next()
    end.silent = True  # it does not answer pings by itself
    await end.get(Hello)
    await end.send(Welcome("n_1", 1, "play.example.org", "key"))
    assert not is_live(link)
    (ping,) = end.take(Ping)
    await end.send(Pong(ping.number))
    assert is_live(link)


async def test_after_a_sleep_of_the_machine_a_link_does_not_count_until_it_is_answered(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Trio's clock stands still then; the server may have given the players up."""
    slept = 0.0
    link = NodeLink("ws://one.example:3032", "na_token", Rooms(), slept=lambda: slept)
    nursery.start_soon(link.run)
    end, _ = await gateway.linked()
    await trio.sleep(1)
    assert is_live(link)
    end.silent = True  # what comes after the sleep was said before it
    await trio.sleep(3.5)
    ping = await end.get(Ping)
    slept = 20.0
    assert not is_live(link)
    await end.send(Pong(ping.number))
    assert not is_live(link)
    end.silent = False
    await end.get(Ping)
    await wait_all_tasks_blocked()
    assert is_live(link)
    # The server has ended a link that was silent for longer.
    slept = 60.0
    await gateway.linked()
    assert link.links == 2
    assert is_live(link)


async def test_a_gateway_that_says_nothing_is_left(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(link_of().run)
    await gateway.next()  # it does not welcome the node
    began = trio.current_time()
    await gateway.linked()
    assert trio.current_time() - began < 15


async def test_it_goes_on_where_the_link_was_lost(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    link = link_of()
    nursery.start_soon(link.run)
    end, hello = await gateway.linked()
    assert hello.holds == []
    await end.send(Host(ROOM, 5, "w_1", "u_1@x", None, 8), Enter(ROOM, 5, 1, SEAT))
    await end.send(Say(ROOM, 5, 2, "p_1", b"1"), Say(ROOM, 5, 3, "p_1", b"2"))
    assert [one.of for one in end.take(Fan)] == [2, 3]
    await trio.aclose_forcefully(end.stream)
    # The server has heard of the first one only.
    again, hello = await gateway.linked(Hold(ROOM, 5, 1))
    assert hello.holds == [Hold(ROOM, 5, 3)]
    assert [one.of for one in again.take(Fan)] == [3]
    await again.send(Say(ROOM, 5, 3, "p_1", b"2"), Say(ROOM, 5, 4, "p_1", b"3"))
    assert [one.of for one in again.take(Fan)] == [4]
    assert again.take(Window)[-1].number == 4
    # What the next welcome does not name is forgotten.
    await trio.aclose_forcefully(again.stream)
    third, hello = await gateway.linked()
    assert hello.holds == [Hold(ROOM, 5, 4)]
    assert link.rooms.rooms == {}
    await third.send(Say(ROOM, 5, 5, "p_1", b"4"))
    assert third.take(Fan) == []


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_it_gives_up_without_a_valid_token(
    gateway: Gateway, status: int, autojump_clock: MockClock
) -> None:
    gateway.answer = lambda _: (status, b"")
    with trio.fail_after(60), pytest.raises(Refused, match=f"{status}: is the token right"):
        await link_of().run()
    gateway.answer = lambda _: (status, b'{"error": {"code": 7, "message": "Not allowed"}}')
    with trio.fail_after(60), pytest.raises(Refused, match=f"{status}: Not allowed"):
        await link_of().run()


def is_live(link: NodeLink) -> bool:
    return link.live


def sent_to(address: str, *, secure: bool = False) -> tuple[int, bytes]:
    redirect = {"secure": secure, "address": address}
    error = {"code": 10, "message": ""}
    return 307, json.dumps({"error": error, "redirect": redirect}).encode()


async def test_a_drained_gateway_sends_it_to_another_one(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway.answer = lambda host: sent_to("two.example:81") if host == "one.example" else None
    began = trio.current_time()
    nursery.start_soon(link_of().run)
    end, _ = await gateway.linked()
    assert trio.current_time() == began  # at once
    assert [one[:2] for one in gateway.tried] == [("one.example", 3032), ("two.example", 81)]
    # The next time, it asks at its own address again.
    gateway.answer = lambda _: None
    await trio.aclose_forcefully(end.stream)
    await gateway.linked()
    assert gateway.tried[-1][0] == "one.example"


NOWHERE = [
    b"",
    b"[]",
    b"{}",
    b'{"redirect": {"secure": 1, "address": 2}}',
    *(
        sent_to(address)[1]
        for address in (
            "two:99999",
            "two:x",
            "[::1",
            "",
            ":80",
            "a@two",
            "two?x",
            "a" * 64,
            "two\n",
        )
    ),
]


@pytest.mark.parametrize("body", NOWHERE)
async def test_an_answer_that_leads_nowhere_is_tried_again(
    gateway: Gateway, nursery: trio.Nursery, body: bytes, autojump_clock: MockClock
) -> None:
    answers = iter([(307, body)])
    gateway.answer = lambda _: next(answers, None)
    nursery.start_soon(link_of().run)
    await gateway.linked()
    assert len(gateway.tried) == 2


async def test_what_breaks_the_protocol_ends_the_link_only(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(link_of().run)
    with capture_logs() as logs:
        end, _ = await gateway.linked()
        await end.stream.send_all(b"\xff\xff")
        again, _ = await gateway.linked()
    assert again is not end
    (lost,) = (line for line in logs if line["event"] == "link.lost")
    assert lost["reason"].startswith("the server breaks the protocol: ")


@pytest.mark.parametrize("sent", [b"", b"\x82"])
async def test_a_connection_that_ends_breaks_no_protocol(
    gateway: Gateway, nursery: trio.Nursery, sent: bytes, autojump_clock: MockClock
) -> None:
    nursery.start_soon(link_of().run)
    with capture_logs() as logs:
        end, _ = await gateway.linked()
        if sent:
            await end.stream.send_all(sent)
        await end.stream.aclose()
        await gateway.linked()
    (lost,) = (line for line in logs if line["event"] == "link.lost")
    assert lost["reason"] == "the connection ended"


async def test_what_is_said_while_the_link_closes_is_said_over_the_next_one(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    link = link_of()
    nursery.start_soon(link.run)
    end, _ = await gateway.linked()
    await end.send(Host(ROOM, 5, "w_1", "u_1@x", None, 16, [SEAT]))
    room = link.rooms.rooms[ROOM]
    # The node hears of the end, and has more to say before its tasks have ended.
    await end.close(1001)
    for number in range(3):
        room.say(Said("p_1", b"%d" % number, None, None, None))
        link.stir()
        await trio.lowlevel.checkpoint()
    _, hello = await gateway.linked()
    assert [one.instance for one in hello.holds] == [ROOM]


async def test_gateways_that_send_it_around_are_asked_with_pauses(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    other = {"one.example": "two.example", "two.example": "one.example"}
    gateway.answer = lambda host: sent_to(other[host])
    nursery.start_soon(link_of().run)
    await trio.sleep(60)
    assert 4 <= len(gateway.tried) <= 16


async def test_it_sends_its_token_nowhere_without_tls_if_the_gateway_has_it(
    gateway: Gateway, autojump_clock: MockClock
) -> None:
    protocol: Any = None
    socket = module._Socket(memory_stream_pair()[0], protocol, "wss://one.example/api/nodes/link")  # noqa: SLF001
    response: Any = type("Response", (), {"status_code": 307, "body": sent_to("two.example")[1]})()
    socket._follow(response)  # noqa: SLF001
    response.body = sent_to("two.example", secure=True)[1]
    with pytest.raises(module.Redirected, match=r"wss://two\.example/api/nodes/link"):
        socket._follow(response)  # noqa: SLF001


async def test_over_a_real_socket() -> None:
    gateway = Gateway()
    async with trio.open_nursery() as nursery:
        gateway.nursery = nursery
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, gateway.serve, [listener])
        port = listener.socket.getsockname()[1]
        link = NodeLink(f"ws://127.0.0.1:{port}", "na_token", Rooms(), random=lambda: 0.0)
        nursery.start_soon(link.run)
        end, _ = await gateway.linked()
        await end.send(Host(ROOM, 5, "w_1", "u_1@x", None, 8), Enter(ROOM, 5, 1, SEAT))
        await end.send(Say(ROOM, 5, 2, "p_1", b'"' + b"x" * 60_000 + b'"'))
        fan = await end.get(Fan)
        assert (fan.of, len(fan.data)) == (2, 60_002)
        await trio.aclose_forcefully(end.stream)
        _, hello = await gateway.linked(Hold(ROOM, 5, 1))
        assert [hold.instance for hold in hello.holds] == [ROOM]
        nursery.cancel_scope.cancel()
