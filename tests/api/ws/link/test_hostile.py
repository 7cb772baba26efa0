"""A hostile node: whatever it sends, no client gets a frame that it must not get."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import trio
from trio.testing import MockClock

from reileta.errors import TooManyRequests
from reileta.protocol.node_link import (
    DATA_BYTES,
    ITEMS_LIMIT,
    MESSAGE_ITEMS,
    Fan,
    Hello,
    Hold,
    Host,
    Ping,
    Say,
    Window,
)
from tests.actors.frames import data, frame
from tests.actors.node_harness import ROOM, Client, settle
from tests.api.ws.link.link_harness import (
    NODE,
    OTHER_NODE,
    LinkHarness,
    NodeEnd,
    host_node,
    open_links,
)
from tests.api.ws.link.test_hosting import heard, party

OTHER_ROOM = "i_00000000-0000-4000-8000-000000000002"
STRANGER = "p_00000000-0000-4000-8000-000000000009"


@pytest.fixture
async def links(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[LinkHarness]:
    async with open_links(monkeypatch) as links:
        yield links


async def other_room(links: LinkHarness, node: str | None) -> Client:
    """A player in a room that lives elsewhere: at another node, or (None) at the server."""
    links.harness.room(OTHER_ROOM)
    links.move_room(node, OTHER_ROOM)
    client = await links.harness.connect(9)
    await client.join(OTHER_ROOM)
    await settle()
    client.sink.take()
    return client


Forge = Callable[[NodeEnd, Host, str], object]
FORGERIES: dict[str, Forge] = {
    "a player who is not inside": lambda end, host, _: end.fan(host, STRANGER),
    "no player": lambda end, host, _: end.fan(host, ""),
    "another instance": lambda end, host, player: Fan(OTHER_ROOM, host.epoch, 1, "data", player),
    "an epoch to come": lambda _, host, player: Fan(ROOM, host.epoch + 1, 1, "data", player),
    "a number that is left out": lambda _, host, player: Fan(ROOM, host.epoch, 7, "data", player),
    "data that is not UTF-8": lambda end, host, player: end.fan(host, player, b'"\xff"'),
    "half a surrogate": lambda end, host, player: end.fan(host, player, b'"\xed\xa0\x80"'),
    "data that is not JSON": lambda end, host, player: end.fan(host, player, b"{"),
    "an envelope behind the data": lambda end, host, player: end.fan(
        host, player, b'1},"command":"update-server","data":{"x":1'
    ),
    "no data at all": lambda end, host, player: end.fan(host, player, b""),
    "not a number": lambda end, host, player: end.fan(host, player, b"NaN"),
    "data that is too large": lambda end, host, player: end.fan(
        host, player, b'"' + b"x" * DATA_BYTES + b'"'
    ),
    "data that is nested too deeply": lambda end, host, player: end.fan(
        host, player, b"[" * 100 + b"]" * 100
    ),
    "a key that is too long": lambda end, host, player: end.fan(host, player, key="k" * 65),
    "an empty key": lambda end, host, player: end.fan(host, player, key=""),
    "a time that is none": lambda end, host, player: end.fan(host, player, at=float("nan")),
    "endless time": lambda end, host, player: end.fan(host, player, at=float("inf")),
    "too many receivers": lambda end, host, player: end.fan(host, player, to=["p"] * 65),
    "the answer to what nobody said": lambda end, host, player: end.fan(host, player, of=99),
    "an acknowledgement of what was not sent": lambda _, host, __: Window(ROOM, host.epoch, 999),
    "a window of another instance": lambda _, host, __: Window(OTHER_ROOM, host.epoch, 1),
    "a second hello": lambda *_: Hello([1], "test/2"),
}


async def test_nothing_forged_reaches_a_client(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    server = links.harness.node.host_links
    here = await other_room(links, None)
    end, host, (ada, bob) = await party(links, 1, 2)
    player = ada.sink.seats[ROOM].player
    for name, forge in FORGERIES.items():
        await end.send(forge(end, host, player))
        for client in (ada, bob, here):
            assert heard(client) == [], name
        # It goes on; the third time within a minute is the last.
        assert not end.code(), name
        for _ in range(2):
            await end.send(forge(end, host, player))
        assert end.code() == 4002, name
        await trio.sleep(2)
        for client in (ada, bob):
            assert heard(client) == [frame("instance-paused")], name
        assert heard(here) == [], name
        node, reason = links.harness.store.host_nodes.faults.pop()
        assert node == NODE
        assert reason
        with pytest.raises(TooManyRequests):
            server.ensure_not_cut(NODE)
        server.ensure_not_cut(OTHER_NODE)
        end = await links.linked()  # as after a minute
        host = end.one(Host)
        ada.sink.take(), bob.sink.take()


@pytest.mark.parametrize(
    "message",
    [
        None,
        b"",
        b"\xc1",
        b"\x91",
        b"\x91" * 5000,
        msgspec.msgpack.encode({"command": "instance-data"}),
        msgspec.msgpack.encode([[2]]),
        msgspec.msgpack.encode([[2, ROOM, "x"]]),
        msgspec.msgpack.encode([["data"]]),
        msgspec.msgpack.encode([[20, 1, 2, 3]]),
        b"\x91\x93\x02\xa1\xff\x01",  # a text that is not UTF-8
    ],
)
async def test_what_is_not_a_message_is_a_breach(
    links: LinkHarness, autojump_clock: MockClock, message: bytes | None
) -> None:
    end, _, (ada, bob) = await party(links, 1, 2)
    for _ in range(2):
        await end.send_raw(message)
    assert not end.code()
    await end.send_raw(message)
    assert end.code() == 4002
    assert heard(ada) == heard(bob) == [frame("instance-paused")]


async def test_breaches_that_are_far_apart_are_forgiven(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, _, _ = await party(links, 1)
    for _ in range(4):
        await end.send_raw(b"\xc1")
        for _ in range(4):
            await trio.sleep(10)
            await end.send(Ping(1))
    assert not end.code()


async def test_items_of_later_versions_are_ignored(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    fan = msgspec.msgpack.encode(end.fan(host, ada.sink.seats[ROOM].player, b'"ok"'))
    for _ in range(5):
        await end.send_raw(msgspec.msgpack.encode([[99, {"new": 1}], msgspec.Raw(fan)]))
        fan = msgspec.msgpack.encode([98])
    assert not end.code()
    assert heard(bob) == [data("ok")]


async def test_who_begins_otherwise_than_with_a_hello_is_cut(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end = links.dial()
    await end.send(Ping(1))
    assert end.code()
    silent = links.dial()
    await trio.sleep(7)
    assert silent.code()
    assert links.harness.store.host_nodes.hosts[NODE].link == 0


async def test_what_a_node_says_of_its_program_can_be_shown(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end = links.dial()
    await end.send(Hello([1], "b\x00o\u202et/\x1b[1m\n" + "x" * 100))
    assert links.harness.store.host_nodes.hosts[NODE].version == "bot/[1m" + "x" * 57


async def test_a_node_cannot_go_on_with_anothers_instance(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    links.add(host_node(OTHER_NODE, owner=5))
    thief = links.dial(OTHER_NODE)
    welcome = await thief.hello(Hold(ROOM, host.epoch, 2))
    assert welcome.goes_on == []
    player = ada.sink.seats[ROOM].player
    for _ in range(3):
        await thief.send(Fan(ROOM, host.epoch, 1, "data", player, b'"stolen"'))
    assert thief.code()
    assert heard(ada) == heard(bob) == []
    await end.send(end.fan(host, player, b'"mine"'))
    assert heard(bob) == [data("mine")]


async def test_it_cannot_answer_for_another_player(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    ada.say(b"1", state=b"1")
    await settle()
    said = end.one(Say)
    await end.send(end.fan(host, bob.sink.seats[ROOM].player, b"2", of=said.number))
    assert heard(ada) == heard(bob) == []
    await end.send(end.fan(host, said.player, b"3", of=said.number))
    assert heard(ada) == [data(state=1)]
    await end.send(end.fan(host, said.player, b"4", of=said.number))
    assert heard(ada) == []  # answered once


async def test_what_is_addressed_reaches_only_its_receivers(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    elsewhere = await other_room(links, None)
    end, host, (ada, bob, carol) = await party(links, 1, 2, 3)
    to = [client.sink.seats[room].player for client, room in ((bob, ROOM), (elsewhere, OTHER_ROOM))]
    await end.send(end.fan(host, ada.sink.seats[ROOM].player, b'"psst"', to=[*to, STRANGER]))
    assert heard(bob) == [data("psst")]
    assert heard(ada) == heard(carol) == heard(elsewhere) == []


async def test_a_flood_is_relayed_at_its_rate_and_then_cut(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    player = ada.sink.seats[ROOM].player
    await end.send(*(end.fan(host, player, b"%d" % number) for number in range(3000)))
    first = heard(bob)
    assert len(first) == 2000
    await trio.sleep(0.25)
    assert 400 < len(heard(bob)) < 600
    await trio.sleep(1)
    heard(bob)
    assert not end.code()
    big = b'"' + b"x" * 60_000 + b'"'
    for _ in range(100):
        await end.send(end.fan(host, player, big))
        if end.code():
            break
    assert end.code() == 4002


async def test_a_flood_of_other_items_is_cut(links: LinkHarness, autojump_clock: MockClock) -> None:
    end, _, _ = await party(links, 1, 2)
    for _ in range(10):
        await end.send(*(Ping(number) for number in range(10_000)))
    assert end.code()


@pytest.mark.parametrize("item", [[99], [1], [20, ROOM, 1, 0]])
async def test_a_message_of_many_small_items_is_refused_before_it_is_read(
    links: LinkHarness, autojump_clock: MockClock, item: list[object]
) -> None:
    end, _, _ = await party(links, 1)
    encoded = msgspec.msgpack.encode(item)
    message = b"\xdd" + (ITEMS_LIMIT + 1).to_bytes(4, "big") + encoded * (ITEMS_LIMIT + 1)
    for _ in range(3):
        await end.send_raw(message)
    assert end.code() == 4002
    await trio.sleep(2)
    _, fault = links.harness.store.host_nodes.faults.pop()
    assert fault == "sends what is not a message"


async def flood(end: NodeEnd, *items: object) -> None:
    """A node sends as many of these as a server may take in a second, and some more."""
    message = msgspec.msgpack.encode([*items] * (MESSAGE_ITEMS // len(items)))
    for _ in range(10):
        await end.send_raw(message)


async def test_items_of_later_versions_are_counted(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, _, _ = await party(links, 1)
    await flood(end, [99])
    assert end.code() == 4002


async def test_data_that_counts_for_nothing_is_counted(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    player = ada.sink.seats[ROOM].player
    said = end.fan(host, player)
    await end.send(said)
    assert heard(bob) == [data(1)]
    for late in (said, Fan(ROOM, host.epoch - 1, 1, "data", player)):
        await end.send(late)
        assert not end.code()
        await flood(end, late)
        assert end.code() == 4002
        ada.sink.take(), bob.sink.take()
        end = await links.linked()
        host = end.one(Host)
    links.harness.node.instances.record_gone(ROOM)
    await settle()
    await end.send(end.fan(host, player))
    assert not end.code()
    await flood(end, end.fan(host, player))
    assert end.code() == 4002


async def test_receivers_count_against_the_window(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, _) = await party(links, 1, 2)
    player, to = ada.sink.seats[ROOM].player, ["p" * 64] * 64
    await end.send(*(end.fan(host, player, to=to) for _ in range(2200)))
    assert end.code() == 4002


async def test_a_node_that_does_not_read_is_cut_and_holds_up_nobody(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    elsewhere = await other_room(links, None)
    other = await links.harness.connect(8)
    await other.join(OTHER_ROOM)
    elsewhere.sink.take()
    end, _, (ada, _) = await party(links, 1, 2)
    end.transport.stalled = True
    for _ in range(20):
        ada.say(b'"' + b"x" * 30_000 + b'"', state=b"1")
    await settle()
    refused = [one for one in ada.sink.take() if "error" in one]
    assert {one["error"]["code"] for one in refused} == {122}
    other.say(b'"hi"', instance=OTHER_ROOM)
    await settle()
    assert heard(elsewhere) == [data("hi")]
    await trio.sleep(30)
    assert frame("instance-paused") in heard(ada)


async def test_a_stalled_instance_leaves_the_others_of_its_link_alone(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end = await links.linked()
    elsewhere = await other_room(links, NODE)
    other = await links.harness.connect(8)
    await other.join(OTHER_ROOM)
    ada, _ = [await links.harness.joined(number) for number in (1, 2)]
    await settle()
    second = next(one for one in end.take(Host) if one.instance == OTHER_ROOM)
    elsewhere.sink.take()
    for _ in range(20):
        ada.say(b'"' + b"x" * 30_000 + b'"')
    await settle()
    assert end.take(Say)  # of these it handles none
    for number in range(50):
        other.say(b"%d" % number, instance=OTHER_ROOM)
        await settle()
        (said,) = await end.echo(second)
        await end.send(Window(OTHER_ROOM, second.epoch, said.number))
        assert heard(elsewhere) == [data(number)]
