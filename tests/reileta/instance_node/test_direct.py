"""A node's direct connections: tickets, what clients send and get, and how they end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from reileta.instance_node import direct as module
from reileta.instance_node.direct import AUTHENTICATE_S, BACKLOG_BYTES, SILENT_S, DirectServer
from reileta.instance_node.rooms import Rooms
from reileta.protocol.node_link import (
    Change,
    Direct,
    End,
    Enter,
    Fan,
    Host,
    Key,
    Leave,
    Return,
    Say,
    Seat,
    Welcome,
    Window,
)
from reileta.rules.nodes.direct import proof
from reileta.security.server_key import ServerKey
from reileta.security.tickets import VALID_S, Ticket, issue, new_id
from tests.e2e.clients import BINARY, CLOSE, CONT, PING, TEXT, frame

NOW = 1_790_000_000
ROOM, SERVER, NODE = "i_1", "play.example.org", "n_1"
TOKEN_HASH = b"hash"
Json = dict[str, Any]


@dataclass
class Bench:
    """A node with one room, in which `p_1` to `p_4` are; its link is what a test says."""

    key: ServerKey
    rooms: Rooms = field(default_factory=Rooms)
    live: bool = True
    now_s: float = NOW
    epoch: int = 5
    numbers: int = 0

    def __post_init__(self) -> None:
        self.server = DirectServer(self, TOKEN_HASH, now_s=lambda: self.now_s)
        self.rooms.welcome(Welcome(NODE, 1, SERVER, self.key.public_base64url))
        self.begin(self.epoch)

    def begin(self, epoch: int) -> None:
        """The server has the node begin with the room."""
        self.epoch, self.numbers = epoch, 0
        self.rooms.hear([Host(ROOM, epoch, "w_1", "u_1@x", None, 8)])
        for number in (1, 2, 3, 4):
            self.tell(Enter, Seat(f"p_{number}", f"u_{number}@x", f"U{number}", "normal"))

    def stir(self) -> None:
        """The test looks by itself."""

    def tell(self, kind: Any, *fields: Any) -> list[Any]:
        """An item of the server; what the node sends then."""
        self.numbers += 1
        return self.rooms.hear([kind(ROOM, self.epoch, self.numbers, *fields)])

    def sent(self) -> list[Any]:
        return self.rooms.news()

    def said(self) -> list[tuple[str, bytes]]:
        return [(one.player, one.data) for one in self.sent() if isinstance(one, Fan)]

    def ticket(self, number: int = 1, **changes: Any) -> str:
        ticket = Ticket(
            server=SERVER,
            node=NODE,
            instance=ROOM,
            epoch=self.epoch,
            player=f"p_{number}",
            user=f"u_{number}@x",
            name="",
            role="normal",
            expires_at=int(self.now_s) + VALID_S,
            id=new_id(),
        )
        return issue(self.key, replace(ticket, **changes))

    @asynccontextmanager
    async def connected(self, path: str = "/api/ws") -> AsyncIterator[Guest]:
        here, there = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.serve, there)
            socket = await wrap_client_stream(nursery, cast(Any, here), "attic.example", path)
            yield Guest(socket)
            await here.aclose()
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def inside(self, number: int = 1) -> AsyncIterator[Guest]:
        async with self.connected() as guest:
            answer = await guest.ask("authenticate", {"ticket": self.ticket(number)})
            assert answer["data"] == {"instance": ROOM, "player": f"p_{number}"}
            await trio.testing.wait_all_tasks_blocked()
            yield guest


@dataclass
class Guest:
    """A client that others wrote."""

    socket: WebSocketConnection
    states: int = 0

    async def send(self, command: str, data: object = None, **more: Any) -> None:
        await self.socket.send_message(json.dumps({"command": command, "data": data, **more}))

    async def ask(self, command: str, data: object = None, **more: Any) -> Json:
        self.states += 1
        await self.send(command, data, state=self.states, **more)
        answer = await self.get()
        assert answer.pop("state") == self.states
        return answer

    async def get(self) -> Json:
        with trio.fail_after(60):
            message: Json = json.loads(await self.socket.get_message())
            return message

    async def closed(self) -> int:
        with trio.fail_after(60), suppress(ConnectionClosed):
            while True:
                await self.socket.get_message()
        assert self.socket.closed is not None
        return int(self.socket.closed.code)


@pytest.fixture
def bench(autojump_clock: MockClock) -> Bench:
    return Bench(ServerKey.generate())


def code(answer: Json) -> int:
    number: int = answer["error"]["code"]
    return number


async def test_players_hear_and_speak(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.inside(1) as ada, bench.inside(2) as bob:
        assert [one.player for one in bench.sent() if isinstance(one, Direct)] == ["p_1", "p_2"]
        told = await ada.ask("instance-data", {"x": 1}, subgroup=ROOM, key="pose", at=2.5)
        assert told == {"command": "instance-data", "subgroup": ROOM, "data": {}}
        event = {"player": "p_1", "key": "pose", "at": 2.5, "data": {"x": 1}}
        got = {"command": "instance-data", "subgroup": ROOM, "data": event}
        assert await bob.get() == got
        (fan,) = bench.sent()
        assert (fan.player, fan.key, fan.at, fan.data, fan.of) == (
            "p_1",
            "pose",
            2.5,
            b'{"x": 1}',
            0,
        )
        # From the server, to all and to some.
        bench.tell(Say, "p_3", b"1")
        bench.tell(Say, "p_3", b"2", None, None, ["p_2", "p_4"])
        bench.tell(Say, "p_2", b"3")
        assert [(await bob.get())["data"]["data"] for _ in range(2)] == [1, 2]
        assert [(await ada.get())["data"]["data"] for _ in range(2)] == [1, 3]
        assert (await ada.ask("ping"))["command"] == "ping"


async def test_a_ticket_is_taken_once(bench: Bench, autojump_clock: MockClock) -> None:
    ticket = bench.ticket()
    async with bench.connected() as first, bench.connected() as second:
        assert "error" not in await first.ask("authenticate", {"ticket": ticket})
        assert code(await second.ask("authenticate", {"ticket": ticket})) == 131
        assert await second.closed() == 4000


async def test_a_node_that_starts_again_takes_no_ticket_twice(
    bench: Bench, autojump_clock: MockClock
) -> None:
    used, unused = bench.ticket(1), bench.ticket(2)
    async with bench.connected() as guest:
        assert "error" not in await guest.ask("authenticate", {"ticket": used})
    again = Bench(bench.key, epoch=6)  # the same players are inside
    for ticket in (used, unused):
        async with again.connected() as guest:
            assert code(await guest.ask("authenticate", {"ticket": ticket})) == 131
            assert await guest.closed() == 4000
    async with again.inside(1):
        pass


async def test_no_ticket_is_taken_twice_while_a_node_starts_again(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """The server has not given it the instance anew yet."""
    old = bench.ticket(1)
    bench.rooms.welcome(Welcome(NODE, 2, SERVER, bench.key.public_base64url))
    async with bench.connected() as guest, bench.connected() as other:
        await guest.send("authenticate", {"ticket": old}, state=1)
        await other.send("authenticate", {"ticket": bench.ticket(2, epoch=6)}, state=1)
        await trio.sleep(1)
        bench.begin(6)
        assert code(await guest.get()) == 131
        assert "error" not in await other.get()


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 4},
        {"epoch": 6},
        {"node": "n_2"},
        {"server": "b.example"},
        {"instance": "i_2"},
        {"player": "p_9"},
        {"player": "p_2"},
        {"expires_at": NOW},
        {"expires_at": NOW + 3600},
    ],
)
async def test_a_wrong_ticket_is_refused(
    bench: Bench, changes: Json, autojump_clock: MockClock
) -> None:
    async with bench.connected() as guest:
        answer = await guest.ask("authenticate", {"ticket": bench.ticket(**changes)})
        assert code(answer) == 131
        assert await guest.closed() == 4000
    assert bench.sent() == []


async def test_a_key_that_was_replaced_does_not_count(
    bench: Bench, autojump_clock: MockClock
) -> None:
    old = bench.ticket()
    key = bench.key = ServerKey.generate()
    bench.rooms.hear([Key(key.public_base64url)])
    async with bench.connected() as guest:
        assert code(await guest.ask("authenticate", {"ticket": old})) == 131
    async with bench.inside():
        pass


async def test_the_ticket_may_be_faster_than_the_link(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.connected() as guest:
        ticket = bench.ticket(5)
        await guest.send("authenticate", {"ticket": ticket}, state=1)
        await trio.sleep(1)
        bench.tell(Enter, Seat("p_5", "u_5@x", "U5", "normal"))
        assert "error" not in await guest.get()


async def test_a_client_may_be_faster_than_the_first_answer_over_the_link(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.live = False
    async with bench.connected() as guest:
        await guest.send("authenticate", {"ticket": bench.ticket()}, state=1)
        await trio.sleep(1)
        bench.live = True
        assert "error" not in await guest.get()


async def test_who_shows_no_ticket_is_closed(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.connected() as guest:
        began = trio.current_time()
        assert code(await guest.ask("instance-data", 1, subgroup=ROOM)) == 39
        assert await guest.closed() == 4001
        assert AUTHENTICATE_S <= trio.current_time() - began < AUTHENTICATE_S + 3


@pytest.mark.parametrize(
    "end",
    [
        (Leave, "p_1", "kicked"),
        (Return, "p_1"),
    ],
)
async def test_the_server_ends_it(bench: Bench, end: Any, autojump_clock: MockClock) -> None:
    async with bench.inside(1) as ada, bench.inside(2) as bob:
        bench.sent()
        bench.tell(*end)
        assert await ada.closed() == 1001
        assert bench.sent() == []  # the server knows
        bench.tell(Say, "p_3", b"1")
        assert (await bob.get())["data"]["data"] == 1


@pytest.mark.parametrize("how", ["end", "anew", "forgotten"])
async def test_it_ends_with_the_instance(bench: Bench, how: str, autojump_clock: MockClock) -> None:
    async with bench.inside() as ada:
        if how == "end":
            bench.rooms.hear([End(ROOM, 5)])
        elif how == "anew":
            bench.rooms.hear([Host(ROOM, 6, "w_1", "u_1@x", None, 8)])
        else:
            bench.rooms.welcome(Welcome(NODE, 2, SERVER, bench.key.public_base64url))
        assert await ada.closed() == 1001


async def test_nothing_is_passed_on_while_the_link_is_silent(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.inside(1) as ada, bench.connected() as bob:
        bench.sent()
        bench.live = False
        assert code(await ada.ask("instance-data", 1, subgroup=ROOM)) == 122
        assert code(await bob.ask("authenticate", {"ticket": bench.ticket(2)})) == 122
        assert bench.sent() == []
        bench.live = True
        assert "error" not in await ada.ask("instance-data", 1, subgroup=ROOM)
        assert bench.said() == [("p_1", b"1")]


async def test_the_muted_are_refused(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.inside() as ada:
        bench.tell(Change, Seat("p_1", "u_1@x", "U1", "normal", muted=True))
        assert code(await ada.ask("instance-data", 1, subgroup=ROOM)) == 49


async def test_a_client_that_goes_is_told_to_the_server(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.inside():
        bench.sent()
    (item,) = bench.sent()
    assert (item.player, item.on) == ("p_1", False)


async def test_a_newer_connection_replaces_it(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.inside() as first, bench.inside() as second:
        assert await first.closed() == 1001
        on = [one.on for one in bench.sent() if isinstance(one, Direct)]
        assert on == [True, False, True]  # what the first one did not get is made up for
        assert "error" not in await second.ask("instance-data", 1, subgroup=ROOM)


async def test_a_full_window_conflates_and_refuses(bench: Bench, autojump_clock: MockClock) -> None:
    big = "x" * 60_000
    async with bench.inside(1) as ada:
        bench.sent()
        for _ in range(4):
            assert "error" not in await ada.ask("instance-data", big)
        assert code(await ada.ask("instance-data", big)) == 122
        await ada.send("instance-data", big, key="k", state=7)
        await ada.send("instance-data", "new", key="k", state=8)
        assert (await ada.get()) == {
            "state": 7,
            "command": "instance-data",
            "subgroup": ROOM,
            "data": {"dropped": True},
        }
        bench.rooms.hear([Window(ROOM, 5, 4)])
        assert (await ada.get())["state"] == 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "\ufeff{}",
        '{"command": "instance-data", "key": "\\ud800"}',
        '{"command": "instance-data", "to": ["\\ud800"]}',
        '{"command": "instance-data", "at": 1e999}',
        '{"command": 1}',
        '{"command": "instance-data", "at": "x"}',
        "\ud7ff[",
    ],
)
async def test_what_is_not_a_message_closes(
    bench: Bench, text: str, autojump_clock: MockClock
) -> None:
    async with bench.inside() as ada:
        await ada.socket.send_message(text)
        assert await ada.closed() == 4002


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"command": "instance-leave"}, 119),
        ({"subgroup": "i_2"}, 39),
        ({"key": ""}, 119),
        ({"key": "k" * 65}, 119),
        ({"to": ["p"] * 65}, 119),
        ({"data": [[[]]] * 30_000}, 1009),
    ],
)
async def test_what_does_not_fit_is_refused(
    bench: Bench, fields: Json, expected: int, autojump_clock: MockClock
) -> None:
    async with bench.inside() as ada:
        bench.sent()
        message = {"command": "instance-data", "data": 1, "subgroup": ROOM, "state": 1, **fields}
        await ada.socket.send_message(json.dumps(message))
        if expected == 1009:
            assert await ada.closed() == expected
        else:
            assert code(await ada.get()) == expected
            assert bench.said() == []


async def test_who_sends_too_much_is_refused(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.inside() as ada:
        answers = [await ada.ask("instance-data", 1, subgroup=ROOM) for _ in range(250)]
        assert code(answers[-1]) == 102
        await trio.sleep(1)
        assert "error" not in await ada.ask("instance-data", 1, subgroup=ROOM)


async def test_a_client_that_does_not_read_is_closed(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.inside():
        listener: Any = bench.rooms.rooms[ROOM].listeners["p_1"]
        listener.send(b"x" * (BACKLOG_BYTES - 100))
        listener.send(b"x" * 200)
        await trio.sleep(5)
        assert "p_1" not in bench.rooms.rooms[ROOM].listeners
    assert bench.server.connections == 0


async def test_a_silent_client_is_gone(bench: Bench, autojump_clock: MockClock) -> None:
    here, there = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.server.serve, there)
        await here.send_all(
            b"GET /api/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        text = json.dumps({"command": "authenticate", "data": {"ticket": bench.ticket()}}).encode()
        await here.send_all(b"\x81\xfe" + len(text).to_bytes(2) + b"\0\0\0\0" + text)
        await trio.sleep(SILENT_S - 2)
        assert bench.server.connections == 1
        await trio.sleep(4)
        assert bench.server.connections == 0
    assert [one.on for one in bench.sent()] == [True, False]


@pytest.mark.parametrize(
    "head",
    [
        b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/node?nonce=%ff&nonce=2 HTTP/1.1\r\nHost: \xff\r\nHost: y\r\n\r\n",
        b"GET /api/ws HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/ws HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 100,
        b"\x16\x03\x01" * 50,
        b"x" * 100_000,
        b"GET /\r\n\r\n",
    ],
)
async def test_what_is_not_a_websocket_ends(
    bench: Bench, head: bytes, autojump_clock: MockClock
) -> None:
    here, there = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.server.serve, there)
        await here.send_all(head)
        with trio.fail_after(30):
            while await here.receive_some():
                pass
        await trio.sleep(30)
    assert bench.server.connections == 0


async def test_it_proves_that_it_is_there(bench: Bench, autojump_clock: MockClock) -> None:
    here, there = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.server.serve, there)
        await here.send_all(b"GET /api/node?nonce=abc HTTP/1.1\r\nHost: attic.example\r\n\r\n")
        answer = b""
        while part := await here.receive_some():
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body) == {"proof": proof(TOKEN_HASH, NODE, "attic.example", "abc")}


HEAD = (
    b"GET /api/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SAID = b'{"command": "instance-data", "state": 1, "data": %b}'


class Hostile:
    """A client that sends any bytes, and reads when it likes."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.stream = stream

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))
        await trio.testing.wait_all_tasks_blocked()

    async def got(self) -> bytes:
        """All until the connection ends."""
        out = b""
        with trio.fail_after(60):
            while part := await self.stream.receive_some():
                out += part
        return out


@asynccontextmanager
async def hostile(bench: Bench, *, inside: bool = True) -> AsyncIterator[Hostile]:
    here, there = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.server.serve, there)
        client = Hostile(here)
        await client.send(HEAD)
        if inside:
            shown = {"command": "authenticate", "data": {"ticket": bench.ticket()}}
            await client.send(frame(TEXT, json.dumps(shown).encode()))
        yield client
        nursery.cancel_scope.cancel()


def closed_with(got: bytes, code: int) -> bool:
    """Whether it ends with a close frame of that code."""
    at = got.rfind(b"\x88")
    return got[at + 2 : at + 4] == code.to_bytes(2)


@pytest.mark.parametrize(
    "payload",
    [
        SAID % b'"\xff"',
        SAID % b'"\xed\xa0\x80"',
        SAID % b'1, "more": "\xff"',
        b'{"command": "\xff"}',
        b"\xff",
    ],
)
async def test_what_is_not_utf8_closes(
    bench: Bench, payload: bytes, autojump_clock: MockClock
) -> None:
    async with bench.inside(2) as bob, hostile(bench) as client:
        await client.send(frame(TEXT, payload))
        assert closed_with(await client.got(), 1007)
        assert bench.said() == []
        assert "error" not in await bob.ask("instance-data", 1, subgroup=ROOM)


async def test_binary_messages_are_refused(bench: Bench, autojump_clock: MockClock) -> None:
    async with hostile(bench) as client:
        await client.send(frame(BINARY, SAID % b"1"))
        await client.send(frame(BINARY, b"\xff", fin=False), frame(CONT, b"\xff"))
        await client.send(frame(TEXT, SAID % b"2", fin=False), frame(CONT, b""))
        assert bench.said() == [("p_1", b"2")]
        await client.send(frame(CLOSE))
        assert (await client.got()).count(b"must be text") == 2


@pytest.mark.parametrize("state", [0, -1, 2**70, "q1", 1.5, [1], {"a": None}, False])
async def test_the_state_is_any_json(bench: Bench, state: Any, autojump_clock: MockClock) -> None:
    async with bench.inside() as ada:
        await ada.send("instance-data", 1, subgroup=ROOM, state=state)
        assert (await ada.get())["state"] == state


@pytest.mark.parametrize(
    "flood",
    [frame(PING, b"x"), frame(CONT, b"", fin=False), frame(TEXT, b'{"command": "ping"}')],
    ids=["pings", "empty fragments", "refused messages"],  # a frame has another mask in each run
)
async def test_a_flood_of_frames_closes(
    bench: Bench, flood: bytes, autojump_clock: MockClock
) -> None:
    async with bench.inside(2) as bob, hostile(bench) as client:
        await client.send(frame(TEXT, b"", fin=False) if flood[0] == CONT else b"")
        await client.send(flood * (module.FRAMES_PER_S + 100))
        got = await client.got()
        assert closed_with(got, 1008)
        assert b'"code":102' in got
        assert "error" not in await bob.ask("instance-data", 1, subgroup=ROOM)


async def test_errors_that_are_not_read_are_bounded(
    bench: Bench, autojump_clock: MockClock
) -> None:
    echoed = json.dumps({"command": "x" * 60_000}).encode()
    async with hostile(bench) as client:
        await client.send(*[frame(TEXT, echoed)] * 100)
        got = await client.got()
        assert len(got) < BACKLOG_BYTES + 100_000
        assert closed_with(got, 4008)


async def test_those_without_a_ticket_make_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(module, "WAITING", 3)
    async with (
        bench.inside(1) as ada,
        hostile(bench, inside=False) as oldest,
        hostile(bench, inside=False),
        hostile(bench, inside=False),
    ):
        assert bench.server.connections == 4
        async with bench.inside(2) as bob:
            assert (await oldest.got()).startswith(b"HTTP/1.1 101")
            for one in (ada, bob):
                assert "error" not in await one.ask("ping")
            assert bench.server.connections == 4


async def test_nobody_enters_over_a_connection_that_ends(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.inside(1) as ada, bench.connected() as late:
        bench.sent()
        await trio.sleep(AUTHENTICATE_S - 0.5)
        await late.send("authenticate", {"ticket": bench.ticket(5)}, state=1)
        await trio.sleep(1.7)
        bench.tell(Enter, Seat("p_5", "u_5@x", "U5", "normal"))
        assert await late.closed() == 4001
        assert bench.sent() == []
        assert "error" not in await ada.ask("ping")
