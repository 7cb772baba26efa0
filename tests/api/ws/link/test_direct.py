"""Players who get data from the node itself: what the server does about them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.links.direct_proofs import DirectProofs
from actors.links.reachability import (
    AGAIN_S,
    CONFIRM_S,
    DOUBT_S,
    JITTER,
    PROVING,
    RETRY_S,
    Reachability,
)
from reileta.errors import NoResponse, NotImplementedHere, NotInInstance
from reileta.federation.client import GuardedClient, RemoteAnswer
from reileta.protocol.node_link import Direct, Fan, Host, Key, Leave, Ping, Pong, Return, Say
from reileta.records import DirectAddress
from reileta.rules.federation.networks import Networks
from reileta.rules.nodes.direct import proof
from reileta.security.server_key import ServerKey
from reileta.security.tickets import Ticket, read
from tests.actors.node_harness import ADDRESS, ROOM, Client, settle, user_at
from tests.api.ws.link.link_harness import NODE, LinkHarness, NodeEnd, open_links

WHERE = DirectAddress("attic.example", secure=True)
TOKEN = b"token"
DEEP = b"[" * 100_000


class Reachable:
    """`Proofs` of a test."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, DirectAddress]] = []
        self.there = True

    async def holds(self, node: str, direct: DirectAddress, token_hash: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        self.asked.append((trio.current_time(), direct))
        return self.there


@pytest.fixture
def proofs() -> Reachable:
    return Reachable()


@pytest.fixture
async def links(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, proofs: Reachable
) -> AsyncIterator[LinkHarness]:
    monkeypatch.setattr("actors.node.DirectProofs", lambda _: proofs)
    async with open_links(monkeypatch) as links:
        hosts = links.harness.store.host_nodes.hosts
        hosts[NODE] = replace(hosts[NODE], direct=WHERE)
        yield links


class Party:
    """A node that is reachable, and three players inside."""

    def __init__(self, links: LinkHarness, end: NodeEnd, clients: list[Client]) -> None:
        self.links, self.end, self.clients = links, end, clients
        self.host = end.take(Host)[-1]

    def player(self, number: int) -> str:
        return self.clients[number].sink.seats[ROOM].player

    async def direct(self, number: int, *, on: bool = True, ticket: bool = True) -> None:
        """The node says that it sends to the player itself, or does not any more. `ticket`: the
        player has got one for that."""
        if on and ticket:
            with suppress(NotImplementedHere):
                await ticket_of(self, number)
        fan = self.end.fan(self.host, self.player(number))
        item = Direct(fan.instance, fan.epoch, fan.number, self.player(number), on)
        await self.end.send(item)
        await settle()

    async def say(self, number: int, value: bytes, **more: Any) -> None:
        """What a player said directly, as the node tells it."""
        await self.end.send(self.end.fan(self.host, self.player(number), value, **more))
        await settle()

    async def wait(self, seconds: float) -> None:
        """Time passes, and the link lasts."""
        until = trio.current_time() + seconds
        while (left_s := until - trio.current_time()) > 0:
            self.end.transport.heard_at = trio.current_time()
            await trio.sleep(min(left_s, 10))

    def heard(self) -> list[list[Any]]:
        found = [list(each.sink.take()) for each in self.clients]
        return [
            [one["data"]["data"] for one in each if one["command"] == "instance-data"]
            for each in found
        ]

    def commands(self, number: int) -> list[str]:
        return [one["command"] for one in self.clients[number].sink.take()]


@pytest.fixture
async def party(links: LinkHarness, autojump_clock: MockClock) -> Party:
    end = await links.linked()
    await trio.sleep(0.1)
    clients = [await links.harness.joined(number) for number in (1, 2, 3)]
    await settle()
    for client in clients:
        client.sink.take()
    return Party(links, end, clients)


async def ticket_of(party: Party, number: int) -> Ticket:
    node = party.links.harness.node
    way = await node.instance_service.ticket(ROOM, party.clients[number].principal)
    assert (way.address, way.secure) == (WHERE.address, WHERE.secure)
    now_s = node.clock.now_ms() / 1000
    key = node.server.public_key
    ticket = read(way.ticket, key, server=ADDRESS, node=NODE, now_s=now_s)
    assert ticket.expires_at * 1000 == way.expires_at
    return ticket


async def test_a_ticket_names_its_player(party: Party, autojump_clock: MockClock) -> None:
    first, again = await ticket_of(party, 0), await ticket_of(party, 0)
    assert (first.instance, first.player, first.user) == (ROOM, party.player(0), user_at(1))
    assert first.id != again.id
    assert first.epoch == party.host.epoch
    stranger = await party.links.harness.connect(7)
    with pytest.raises(NotInInstance):
        await party.links.harness.node.instance_service.ticket(ROOM, stranger.principal)


async def test_a_join_says_that_there_is_a_way(party: Party, autojump_clock: MockClock) -> None:
    late = await party.links.harness.connect(5)
    await late.join()
    (welcome,) = [one for one in late.sink.take() if one["command"] == "instance-join"]
    assert welcome["data"]["direct"] is True


async def test_those_who_hear_the_node_don_t_hear_the_server(
    party: Party, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    (begun,) = party.clients[1].sink.take()
    assert (begun["command"], begun["data"]) == ("instance-direct", {"state": "begun"})
    await party.say(0, b"1")
    await party.say(1, b"2", key="k")
    await party.say(0, b"3", to=[party.player(1)])
    await party.say(0, b"4", to=[party.player(1), party.player(2)])
    assert party.heard() == [[2], [], [1, 2, 4]]
    # What it keeps is there for those who come.
    late = await party.links.harness.connect(5)
    await late.join()
    (welcome,) = [one for one in late.sink.take() if one["command"] == "instance-join"]
    assert [one["data"] for one in welcome["data"]["retained"]] == [2]
    # Events that are not data come over the server.
    assert "instance-joined" in party.commands(1)


async def test_after_its_connection_a_player_gets_a_snapshot(
    party: Party, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    await party.say(0, b"1", key="k")
    party.heard()
    await party.direct(1, on=False)
    await party.say(0, b"2")
    restored, told = party.clients[1].sink.take()
    assert restored["command"] == "instance-restored"
    assert [one["data"] for one in restored["data"]["retained"]] == [1]
    assert told["data"]["data"] == 2
    assert party.heard()[2] == [2]


async def test_another_socket_brings_the_player_back(
    party: Party, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    player = party.player(1)
    second = await party.links.harness.connect(2)
    await second.join()
    await settle()
    assert party.end.one(Return).player == player
    await party.say(0, b"1")
    assert party.heard()[1] == [1]
    assert [one["command"] for one in second.sink.take()][-1] == "instance-data"
    await party.direct(1)  # with two sockets
    assert party.end.one(Return).player == player
    with pytest.raises(NotImplementedHere):
        await ticket_of(party, 1)


async def test_to_join_again_ends_it(party: Party, autojump_clock: MockClock) -> None:
    await party.direct(1)
    await party.clients[1].join()
    await settle()
    assert party.end.one(Return).player == party.player(1)
    assert "instance-restored" not in party.commands(1)
    await party.say(0, b"1")
    assert party.heard()[1] == [1]


async def test_a_lost_socket_is_a_gap(party: Party, autojump_clock: MockClock) -> None:
    await party.direct(1)
    party.clients[1].lose()
    await settle()
    party.end.one(Return)
    back = await party.links.harness.connect(2)
    await back.join()
    (welcome,) = [one for one in back.sink.take() if one["command"] == "instance-join"]
    assert welcome["data"]["gap"] is True


async def test_a_pong_comes_after_all_that_was_said_before_the_ping(
    party: Party, autojump_clock: MockClock
) -> None:
    party.end.transport.stalled = True
    party.clients[0].say(b"1")
    await settle()
    party.links.harness.act(lambda instance: instance.moderate(user_at(2), "kick"))
    await settle()
    await party.end.send(Ping(1), Ping(2))
    party.end.transport.stalled = False
    await trio.sleep(0.1)
    party.end.read()
    order = [type(one) for one in party.end.heard if isinstance(one, Say | Leave | Pong)]
    assert order == [Say, Leave, Pong, Pong]


@pytest.mark.parametrize("how", ["kick", "ban"])
async def test_who_is_thrown_out_is_named_to_the_node(
    party: Party, how: Any, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    player = party.player(1)
    party.links.harness.act(lambda instance: instance.moderate(user_at(2), how))
    await settle()
    assert party.end.one(Leave).player == player
    await party.say(0, b"1")
    assert party.heard()[2] == [1]
    # It says something in the name of who has left, and that it hears it again.
    await party.end.send(party.end.fan(party.host, player, b"2"))
    fan: Fan = party.end.fan(party.host, player)
    await party.end.send(Direct(fan.instance, fan.epoch, fan.number, player, on=True))
    assert party.heard()[0] == []
    assert not party.end.code()


async def test_the_muted_don_t_speak_through_the_node(
    party: Party, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    party.links.harness.act(lambda instance: instance.moderate(user_at(2), "mute"))
    await settle()
    party.heard()
    await party.say(1, b"1")
    assert party.heard() == [[], [], []]


async def test_a_node_speaks_of_nobody_who_was_never_inside(
    party: Party, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        fan: Fan = party.end.fan(party.host, "p_nobody")
        await party.end.send(Direct(fan.instance, fan.epoch, fan.number, "p_nobody", on=True))
    assert party.end.code() == 4002


async def test_a_node_that_begins_anew_sends_to_nobody(
    party: Party, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    await party.end.lose()
    end = await party.links.linked()
    await trio.sleep(0.1)
    party.heard()
    host = end.one(Host)
    await end.send(end.fan(host, party.player(0), b"1"))
    assert party.heard()[1] == [1]


async def test_players_who_came_before_the_node_was_found_are_told(
    links: LinkHarness, proofs: Reachable, autojump_clock: MockClock
) -> None:
    proofs.there = False
    end = await links.linked()
    ada = await links.harness.joined(1)
    await trio.sleep(0.1)
    assert "instance-direct" not in [one["command"] for one in ada.sink.take()]
    party = Party(links, end, [ada])
    with pytest.raises(NotImplementedHere):
        await ticket_of(party, 0)
    await party.direct(0)  # nobody can have sent it there
    assert end.one(Return).player == party.player(0)
    proofs.there = True
    await trio.sleep(16)
    (told,) = [one for one in ada.sink.take() if one["command"] == "instance-direct"]
    assert told["data"] == {"state": "offered"}
    assert (await ticket_of(party, 0)).player == party.player(0)


async def offers(party: Party) -> bool:
    """Whether a client that joins now, and one that is inside, can go to the node."""
    late = await party.links.harness.connect(5)
    await late.join()
    (welcome,) = [one for one in late.sink.take() if one["command"] == "instance-join"]
    await late.leave()
    try:
        await ticket_of(party, 0)
    except NotImplementedHere:
        assert "direct" not in welcome["data"]
        return False
    return bool(welcome["data"]["direct"])


async def test_an_address_that_is_somebody_else_s_now_is_withdrawn(
    party: Party, proofs: Reachable, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    assert await offers(party)
    proofs.there = False
    await party.wait(AGAIN_S + CONFIRM_S + 1)
    assert not await offers(party)
    # Those who were there get data over the server again.
    assert party.end.one(Return).player == party.player(1)
    assert "instance-restored" in party.commands(1)
    await party.say(0, b"1")
    assert party.heard()[1] == [1]
    proofs.there = True
    await party.wait(AGAIN_S)
    assert await offers(party)
    assert party.commands(1).count("instance-direct") == 1
    await party.direct(1)
    await party.say(0, b"2")
    assert party.heard()[1] == []


async def test_one_proof_that_fails_changes_nothing(
    party: Party, proofs: Reachable, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    proofs.asked.clear()
    proofs.there = False
    while not proofs.asked:
        await party.wait(1)
    proofs.there = True
    await party.wait(CONFIRM_S + 1)
    assert await offers(party)
    assert not party.end.take(Return)


async def test_an_address_is_proved_again_and_again(
    proofs: Reachable, autojump_clock: MockClock
) -> None:
    reachability = Reachability(proofs, lambda node, direct: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reachability.run)
        reachability.follow(NODE, WHERE, TOKEN)
        await trio.sleep(10 * AGAIN_S)
        waits = [later - at for (at, _), (later, _) in pairwise(proofs.asked)]
        assert all(JITTER[0] * AGAIN_S <= wait <= JITTER[1] * AGAIN_S for wait in waits)
        assert len(waits) >= 9
        # Less and less often while it fails.
        proofs.there = False
        proofs.asked.clear()
        await trio.sleep(10 * AGAIN_S)
        waits = [later - at for (at, _), (later, _) in pairwise(proofs.asked)]
        assert waits[0] <= CONFIRM_S
        assert waits[1] <= RETRY_S
        assert waits[-1] >= JITTER[0] * AGAIN_S
        nursery.cancel_scope.cancel()


async def test_clients_that_don_t_reach_a_node_have_it_looked_at(
    party: Party, proofs: Reachable, autojump_clock: MockClock
) -> None:
    await party.wait(DOUBT_S)
    proofs.asked.clear()
    proofs.there = False
    await ticket_of(party, 1)
    await party.wait(1)
    assert not proofs.asked
    await ticket_of(party, 1)  # the first one did not lead there
    await party.wait(1)
    assert len(proofs.asked) == 1
    await party.wait(CONFIRM_S)
    assert not await offers(party)
    # A client that asks for nothing but tickets causes few proofs.
    proofs.there = True
    await party.wait(RETRY_S)
    proofs.asked.clear()
    for _ in range(100):
        await ticket_of(party, 1)
        await party.wait(0.1)
    assert len(proofs.asked) <= 10 / DOUBT_S + 1


async def test_an_address_that_its_owner_changes_is_proved_anew(
    party: Party, proofs: Reachable, autojump_clock: MockClock
) -> None:
    await party.direct(1)
    hosts = party.links.harness.store.host_nodes.hosts
    other = DirectAddress("other.example", secure=True)
    proofs.there = False
    hosts[NODE] = replace(hosts[NODE], direct=other)
    party.links.harness.node.host_links.refresh(NODE)
    await party.wait(1)
    assert proofs.asked[-1][1] == other
    assert not await offers(party)
    assert party.end.one(Return).player == party.player(1)
    hosts[NODE] = replace(hosts[NODE], direct=None)
    party.links.harness.node.host_links.refresh(NODE)
    await party.wait(1)
    proofs.asked.clear()
    await party.wait(2 * AGAIN_S)
    assert not proofs.asked


async def test_nodes_that_answer_nowhere_don_t_keep_others_from_being_looked_at(
    autojump_clock: MockClock,
) -> None:
    """`PROVING` of them are looked at all the time; each takes as long as a request may."""
    there, told = {"n_honest"}, dict[str, DirectAddress | None]()
    looked: list[float] = []

    class Slow:
        async def holds(self, node: str, direct: DirectAddress, token_hash: bytes) -> bool:
            if node != "n_honest":
                await trio.sleep(5)
            else:
                looked.append(trio.current_time())
            return node in there

    reachability = Reachability(Slow(), told.__setitem__)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reachability.run)
        reachability.follow("n_honest", WHERE, TOKEN)
        await trio.sleep(0.1)
        assert told == {"n_honest": WHERE}
        for number in range(20 * PROVING):
            reachability.follow(f"n_{number}", WHERE, TOKEN)
        await trio.sleep(AGAIN_S + 5)
        assert len(looked) == 2
        there.clear()
        await trio.sleep(AGAIN_S + CONFIRM_S + 10)
        assert told["n_honest"] is None
        assert reachability.address("n_honest") is None
        nursery.cancel_scope.cancel()


async def test_nodes_hear_of_another_key(party: Party, autojump_clock: MockClock) -> None:
    key = ServerKey.generate()
    party.links.harness.node.host_links.take_key(key.public_base64url)
    await settle()
    assert party.end.one(Key).public_key == key.public_base64url
    assert not party.end.take(Say)


async def test_a_node_can_t_take_players_who_asked_for_no_ticket(
    party: Party, autojump_clock: MockClock
) -> None:
    await party.direct(1, ticket=False)
    assert party.end.one(Return).player == party.player(1)
    await party.say(0, b"1")
    assert party.heard()[1] == [1]
    # A ticket is for once, and for its player.
    await party.direct(1)
    await party.direct(2, ticket=False)
    assert party.end.one(Return).player == party.player(2)
    await party.direct(1, on=False)
    for _ in range(100):
        await party.direct(1, ticket=False)
        await party.direct(1, on=False)
    assert len(party.end.take(Return)) == 100
    assert party.commands(1).count("instance-restored") == 1


class Web:
    """An `HttpClient` for one answer."""

    def __init__(self, answer: Any, *, secure: bool = True) -> None:
        self.answer = answer
        self._secure = secure

    def secure(self, server: str) -> bool:
        return self._secure

    async def request(self, method: str, server: str, path: str, **more: Any) -> RemoteAnswer:
        await trio.lowlevel.checkpoint()
        ((_, nonce),) = more["query"]
        body = self.answer(server, nonce)
        if body is None:
            raise NoResponse
        return RemoteAnswer(200, {}, body)


async def test_only_the_node_proves_that_it_is_there() -> None:
    def right(server: str, nonce: str) -> bytes:
        return b'{"proof": "%b"}' % proof(TOKEN, NODE, server, nonce).encode()

    assert await DirectProofs(Web(right)).holds(NODE, WHERE, TOKEN)
    assert not await DirectProofs(Web(right)).holds(NODE, WHERE, b"another token")
    assert not await DirectProofs(Web(right)).holds("n_other", WHERE, TOKEN)
    assert not await DirectProofs(Web(right, secure=False)).holds(NODE, WHERE, TOKEN)
    for answer in (b"", b"[]", b"{}", b'{"proof": 1}', b'{"proof": ""}', b"\xff", DEEP, None):
        assert not await DirectProofs(Web(lambda *_, a=answer: a)).holds(NODE, WHERE, TOKEN)


async def test_each_proof_looks_the_address_up_and_checks_it() -> None:
    resolved: list[list[str]] = [["203.0.112.7"], ["203.0.112.8"], ["127.0.0.1"]]
    reached: list[str] = []

    async def resolve(name: str) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [ip_address(one) for one in resolved.pop(0)]

    async with trio.open_nursery() as nursery:

        async def connect(ip: Any, port: int) -> trio.abc.Stream:
            reached.append(str(ip))
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, theirs)
            return ours

        async def serve(stream: Any) -> None:
            """The node: it would keep the connection."""
            with suppress(trio.BrokenResourceError):
                while head := await stream.receive_some():
                    nonce = re.findall(rb"nonce=(\S+)", head)[0].decode()
                    body = b'{"proof": "%b"}' % proof(TOKEN, NODE, plain, nonce).encode()
                    length = b"Content-Length: %d" % len(body)
                    await stream.send_all(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (length, body))

        plain = "attic.example:8080"
        async with GuardedClient(
            address=ADDRESS,
            own=lambda ip, port: False,
            allowed=Networks(),
            insecure=frozenset({plain}),
            resolve=resolve,
            connect=connect,
        ) as client:
            proofs = DirectProofs(client)
            where = DirectAddress(plain, secure=False)
            assert await proofs.holds(NODE, where, TOKEN)
            assert await proofs.holds(NODE, where, TOKEN)
            assert not await proofs.holds(NODE, where, TOKEN)  # it is this machine now
        nursery.cancel_scope.cancel()
    assert reached == ["203.0.112.7", "203.0.112.8"]
