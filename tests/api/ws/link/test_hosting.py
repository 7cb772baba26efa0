"""Instances that live on a node: joining, speaking, leaving, moderation; the link lost and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.instance.manager import LINKED_AGAIN_MAX_S, LINKED_S
from reileta.errors import InstanceAway
from reileta.protocol.node_link import (
    Change,
    Enter,
    Hold,
    Host,
    Leave,
    Ping,
    Pong,
    Say,
    Window,
)
from tests.actors.frames import data, failed, frame, join, joined, left, restored
from tests.actors.node_harness import ROOM, Client, settle, user_at
from tests.api.ws.link.link_harness import LinkHarness, NodeEnd, host_node, open_links

QUIET = ("instance-role", "update-instance", "update-node")


@pytest.fixture
async def links(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[LinkHarness]:
    async with open_links(monkeypatch) as links:
        yield links


async def party(links: LinkHarness, *numbers: int) -> tuple[NodeEnd, Host, list[Client]]:
    """A linked node that hosts the room, with these users inside."""
    end = await links.linked()
    clients = [await links.harness.joined(number) for number in numbers]
    await settle()
    host = end.one(Host)
    for client in clients:
        client.sink.take()
    return end, host, clients


def heard(client: Client) -> list[Any]:
    return client.received(but=QUIET)


async def test_players_meet_on_a_node(links: LinkHarness, autojump_clock: MockClock) -> None:
    end = await links.linked()
    ada = await links.harness.connect(1)
    player = await ada.join()
    await settle()
    host, enter = end.one(Host), end.one(Enter)
    assert (host.instance, host.players) == (ROOM, [])
    assert (enter.epoch, enter.number) == (host.epoch, 1)
    assert (enter.seat.player, enter.seat.user, enter.seat.name) == (player, user_at(1), "U1")
    assert heard(ada) == [join("U1", state=1)]
    bob = await links.harness.connect(2)
    await bob.join()
    await settle()
    assert heard(ada) == [joined("U2")]
    assert heard(bob) == [join("U1", "U2", state=1)]
    ada.sink.take(), bob.sink.take()
    end.take(Enter)
    ada.say(b'{"x": 1}', key="pose", at=2.0, state=b"7")
    await settle()
    assert heard(bob) == heard(ada) == []  # the node decides
    (said,) = await end.echo(host)
    assert (said.player, said.data, said.key, said.at) == (player, b'{"x": 1}', "pose", 2.0)
    await settle()
    assert heard(bob) == [data({"x": 1})]
    assert heard(ada) == [data(state=7)]
    await bob.leave()
    await settle()
    assert heard(ada) == [left("left")]
    assert end.one(Leave).reason == "left"
    third = await links.harness.connect(3)
    await third.join()
    (welcome,) = [one for one in third.sink.take() if one["command"] == "instance-join"]
    assert [one["data"] for one in welcome["data"]["retained"]] == [{"x": 1}]


async def test_the_node_decides_about_order_and_content(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    ada.say(b"1", state=b"1")
    ada.say(b"2", state=b"2")
    ada.say(b"3", state=b"3")
    await settle()
    first, second, third = end.take(Say)
    await end.send(
        end.fan(host, second.player, b'"two"', of=second.number),
        end.fan(host, first.player, kind="dropped", of=first.number),
        end.fan(host, third.player, kind="refused", of=third.number),
        end.fan(host, bob.sink.seats[ROOM].player, b'"by itself"'),
    )
    assert heard(bob) == [data("two")]
    got = [one for one in ada.sink.take() if one["command"] == "instance-data"]
    assert [one.get("state") for one in got] == [2, 1, 3, None]
    assert got[1]["data"] == {"dropped": True}
    assert got[2]["error"]["code"] == 122
    assert got[3]["data"]["data"] == "by itself"


async def test_an_end_that_no_actor_uses_changes_nothing(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    await links.harness.node.host_links.port(ROOM, host_node().id)
    ada.say(b"1")
    await settle()
    await end.echo(host)
    assert heard(bob) == [data(1)]
    assert not end.code()


async def test_what_is_handled_is_told(links: LinkHarness, autojump_clock: MockClock) -> None:
    end, host, (ada, _) = await party(links, 1, 2)
    ada.say(b"1")
    await settle()
    await end.echo(host)
    assert end.take(Window)[-1].number == 1


async def test_a_kick_takes_effect_without_the_node(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    player = bob.sink.seats[ROOM].player
    links.harness.act(lambda instance: instance.moderate(user_at(2), "kick"))
    await settle()
    assert heard(bob) == [left("kicked")]
    assert heard(ada) == [left("kicked")]
    assert end.one(Leave).player == player
    # A node that "forgets" to remove the player.
    await end.send(end.fan(host, player, b'"still here"'))
    assert heard(ada) == heard(bob) == []
    assert not end.code()


async def test_the_muted_are_refused_by_the_server(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    player = ada.sink.seats[ROOM].player
    links.harness.act(lambda instance: instance.moderate(user_at(1), "mute"))
    await settle()
    ada.sink.take()
    assert end.take(Change)[-1].seat.muted
    ada.say(b"1", state=b"1")
    await settle()
    assert heard(ada) == [failed("data", 49, state=1)]
    assert end.take(Say) == []
    bob.sink.take()
    await end.send(end.fan(host, player, b'"in its name"'))
    assert heard(bob) == []


async def test_without_a_link_nobody_enters_and_moderation_works(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    ada = await links.harness.connect(1)
    with pytest.raises(InstanceAway) as away:
        await ada.join()
    assert away.value.code == 128
    assert away.value.retry_after_s == 5.0
    links.harness.act(lambda instance: instance.moderate(user_at(1), "ban"))
    await settle()
    assert len(links.harness.store.hosting.moderation_writes) > 0
    await links.linked()
    bob = await links.harness.connect(2)
    await bob.join()


class SlowDatabase:
    """The answer of the database to a new link waits for the test; others see the link already."""

    def __init__(self, links: LinkHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = trio.Event()
        self._link = links.harness.store.host_nodes.link
        monkeypatch.setattr(links.harness.store.host_nodes, "link", self.link)

    async def link(self, *args: Any, **more: Any) -> Any:
        linked = await self._link(*args, **more)
        await self.answers.wait()
        return linked


async def test_a_join_waits_for_a_link_that_others_know_of(
    links: LinkHarness, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    slow, node = SlowDatabase(links, monkeypatch), links.harness.node
    ada, bob = await links.harness.connect(1), await links.harness.connect(2)
    done: list[str] = []

    async def join() -> None:
        await ada.join()
        done.append("join")

    async def candidate() -> None:
        await node.instance_service.candidate(ROOM, bob.principal)
        done.append("candidate")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(links.linked)
        await settle()
        assert links.harness.store.host_nodes.hosts[host_node().id].status == "online"
        nursery.start_soon(join)
        nursery.start_soon(candidate)
        await trio.sleep(1)
        assert done == []
        slow.answers.set()
    assert sorted(done) == ["candidate", "join"]


async def test_a_join_does_not_wait_for_ever(
    links: LinkHarness, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    ada = await links.harness.connect(1)
    began = trio.current_time()
    with pytest.raises(InstanceAway):
        await ada.join()
    assert trio.current_time() - began < 0.1  # nobody knows of a link
    hosts = links.harness.store.host_nodes.hosts
    hosts[host_node().id] = replace(host_node(), status="online", server="gone")
    with pytest.raises(InstanceAway):
        await ada.join()
    assert LINKED_S - LINKED_AGAIN_MAX_S <= trio.current_time() - began <= LINKED_S + 0.1
    hosts[host_node().id] = replace(host_node(), status="draining", server="gone")
    began = trio.current_time()
    with pytest.raises(InstanceAway):
        await ada.join()
    assert trio.current_time() - began < 0.1


async def test_a_short_cut_loses_nothing(links: LinkHarness, autojump_clock: MockClock) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    ada.say(b'"before"', state=b"1")
    await settle()
    said = end.take(Say)
    await end.lose()
    for client in (ada, bob):
        (paused,) = [one for one in client.sink.take() if one["command"] == "instance-paused"]
        assert paused["data"]["until"] == links.harness.clock.now_ms() + 30_000
    ada.say(b'"meanwhile"', state=b"2")
    await settle()
    assert heard(ada) == [failed("data", 122, state=2)]
    carol = await links.harness.connect(3)
    with pytest.raises(InstanceAway):
        await carol.join()
    again = links.dial()
    welcome = await again.hello(Hold(ROOM, host.epoch, heard=said[0].number))
    assert [(one.instance, one.epoch, one.heard) for one in welcome.goes_on] == [
        (ROOM, host.epoch, 0)
    ]
    assert again.take(Host) == []
    await again.send(again.fan(host, said[0].player, said[0].data, of=said[0].number))
    assert heard(bob) == [frame("instance-resumed"), data("before")]
    assert heard(ada) == [frame("instance-resumed"), data(state=1)]
    await carol.join()


async def test_what_was_not_heard_comes_again(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    bob_player = bob.sink.seats[ROOM].player
    await end.lose()
    await bob.leave()
    again = links.dial()
    await again.hello(Hold(ROOM, host.epoch, heard=1))  # only ada's entering
    assert again.one(Enter).seat.user == user_at(2)
    assert again.one(Leave).player == bob_player
    assert ada.sink.closed is None


async def test_a_node_that_forgot_begins_anew(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    ada.say(b"1", key="pose", state=b"1")
    await settle()
    await end.lose()
    again = links.dial()
    assert (await again.hello()).goes_on == []
    await settle()
    anew = again.one(Host)
    assert anew.epoch > host.epoch
    assert sorted(one.user for one in anew.players) == [user_at(1), user_at(2)]
    frames = heard(bob)
    assert frames == [frame("instance-paused"), restored("U1", "U2")]
    assert heard(ada)[1] == failed("data", 16, state=1)  # nobody knows whether it went out
    await again.send(again.fan(anew, anew.players[0].player, b'"hi"'))


async def test_after_the_grace_everybody_leaves_and_the_record_stays(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, _, (ada, bob) = await party(links, 1, 2)
    await end.lose()
    heard(ada), heard(bob)
    await trio.sleep(29)
    assert heard(ada) == []
    await trio.sleep(2)
    assert left("host-lost") in heard(ada)
    assert left("host-lost") in heard(bob)
    assert ROOM in links.harness.store.instances.records
    again = await links.linked()
    await ada.join()
    await settle()
    assert again.one(Host).instance == ROOM


async def test_a_silent_link_is_noticed_in_time(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, _, (ada, _) = await party(links, 1, 2)
    begun = trio.current_time()
    while frame("instance-paused") not in heard(ada):
        await trio.sleep(0.5)
    assert trio.current_time() - begun <= 26.5
    assert end.take(Ping)


async def test_a_newer_link_replaces_the_one_before(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    again = links.dial()
    await again.hello(Hold(ROOM, host.epoch, heard=2))
    assert end.code() == 4009
    heard(ada), heard(bob)
    player = ada.sink.seats[ROOM].player
    await end.send(end.fan(host, player, b'"late"'))
    assert heard(bob) == []
    await again.send(again.fan(host, player, b'"now"'))
    assert heard(bob) == [data("now")]


async def test_a_slow_node_conflates_and_refuses(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    end, host, (ada, bob) = await party(links, 1, 2)
    big = b'"' + b"x" * 60_000 + b'"'
    rest = b'"' + b"x" * 21_500 + b'"'
    for data_ in (big, big, big, big, rest):
        ada.say(data_)
    ada.say(big, state=b"1")
    for number in range(3):
        ada.say(b'"%d%s"' % (number, b"y" * 500), key="pose", state=b"%d" % (number + 10))
    ada.say(big, key="pose")
    await settle()
    assert failed("data", 122, state=1) in heard(ada)
    said = end.take(Say)
    assert [one.key for one in said] == [None] * 5
    await end.send(Window(ROOM, host.epoch, said[-1].number))
    (kept,) = end.take(Say)
    assert (kept.key, kept.data) == ("pose", big)
    assert bob.sink.closed is None


async def test_a_dedicated_nodes_instance_goes_on_here(
    links: LinkHarness, autojump_clock: MockClock
) -> None:
    links.add(host_node(kind="dedicated"))
    end, _, (ada, bob) = await party(links, 1, 2)
    await end.lose()
    heard(ada), heard(bob)
    await trio.sleep(31)
    assert restored("U1", "U2") in heard(ada)
    heard(bob)
    ada.say(b'"here"')
    await settle()
    assert heard(bob) == [data("here")]
    again = await links.linked()
    assert len(again.one(Host).players) == 2
    ada.say(b'"there"')
    await settle()
    assert heard(bob) == []
    assert again.one(Say).data == b'"there"'


async def test_links_are_counted(links: LinkHarness, autojump_clock: MockClock) -> None:
    metrics = links.harness.node.metrics
    end, host, (ada, _) = await party(links, 1, 2)
    assert (metrics.links, metrics.linked_instances) == (1, 1)
    ada.say(b"1")
    await settle()
    await end.echo(host)
    assert (metrics.link_items_out > 0, metrics.link_items_in) == (True, 1)
    await trio.sleep(11)
    await end.send(Pong(end.take(Ping)[-1].number))
    assert sum(metrics.link_round_trip.counts) == 1
    await links.linked()
    assert metrics.links == 1
    assert metrics.links_ended == {"replaced": 1}
    await end.lose()
    assert (metrics.links, metrics.links_ended) == (1, {"replaced": 1})


async def test_ninety_nine_go_on_beside_one_that_stalls(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """By windows: the node says nothing of one instance any more, and handles nothing of it."""
    rooms = [f"i_00000000-0000-4000-8000-0000000001{number:02d}" for number in range(100)]
    async with open_links(monkeypatch) as links:
        for room in rooms:
            links.harness.room(room)
            links.move_room(room=room)
        end = await links.linked()
        pairs = {}
        for room in rooms:
            ada, bob = await links.harness.connect(1), await links.harness.connect(2)
            await ada.join(room)
            await bob.join(room)
            pairs[room] = (ada, bob)
        await settle()
        hosts = {host.instance: host for host in end.take(Host)}
        stalled, others = rooms[0], rooms[1:]
        big = b'"' + b"x" * 60_000 + b'"'
        for _ in range(10):
            pairs[stalled][0].say(big, instance=stalled, state=b"1")
        await settle()
        pairs[stalled][0].sink.take()
        for turn in range(3):
            for room in others:
                pairs[room][1].sink.take()
                pairs[room][0].say(str(turn).encode(), instance=room)
            await settle()
            for said in end.take(Say):
                if said.instance != stalled:
                    host = hosts[said.instance]
                    more = {"of": said.number}
                    await end.send(
                        end.fan(host, said.player, said.data, **more),
                        Window(host.instance, host.epoch, said.number),
                    )
            for room in others:
                heard = [one for one in pairs[room][1].sink.take() if "player" in one["data"]]
                assert [one["data"].get("data") for one in heard] == [turn]
        # Its own sender is told, and the link is whole.
        pairs[stalled][0].say(big, instance=stalled, state=b"2")
        await settle()
        assert pairs[stalled][0].sink.take()[-1]["error"]["code"] == 122
        assert not end.code()
        assert links.harness.node.metrics.link_refused > 0
