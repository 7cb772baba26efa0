"""Nodes of two versions: the messages of one that the other does not know, or that lack a field."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from actors.cluster import wire
from reileta.cluster.calls import pack, unpacked
from tests.actors.cluster.cluster_harness import open_cluster
from tests.actors.cluster.test_faults import data_of
from tests.actors.node_harness import ROOM


async def test_messages_of_a_newer_version_are_ignored(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_cluster(monkeypatch, "a", "b") as cluster:
        cluster.prefer = "a"
        one = await cluster["a"].harness.joined(1)
        two = await cluster["b"].harness.joined(2)
        one.sink.take()
        for bus in (cluster["a"].bus, cluster["b"].bus):
            for subject in (f"i.{ROOM}.1", "n.a.in", "n.b.in"):
                bus.publish(f"avr.test.{subject}", pack([99, "new", {"of": "tomorrow"}]))
                bus.publish(f"avr.test.{subject}", b"\x02" + pack([1, 1, b""])[1:])
        one.say(b'"on"')
        two.say(b'"on"')
        await trio.sleep(1)
        assert data_of(one.sink.take()) == data_of(two.sink.take()) == ["on"]


def test_an_answer_of_an_older_gateway_is_not_taken_for_complete() -> None:
    older = msgspec.msgpack.encode([7, [], []])
    answer = msgspec.msgpack.decode(older, type=wire.Reseated)
    assert answer == wire.Reseated(7)
    assert not answer.complete


def test_an_older_host_hands_over_without_marks() -> None:
    older = msgspec.msgpack.encode([ROOM, 2, [[], {}, []], ["c_1"]])
    adopt = msgspec.msgpack.decode(older, type=wire.Adopt)
    assert adopt.last is None
    assert (adopt.taken, adopt.soft.seats) == ({}, [])


def test_a_tag_that_is_not_known_is_no_message() -> None:
    assert unpacked(pack([99, "new"]), wire.from_host) is None
    assert unpacked(pack([99, "new"]), wire.from_gateway) is None


async def test_a_message_to_a_gateway_whose_only_player_has_just_left_reaches_nobody(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_cluster(monkeypatch, "a", "b") as cluster:
        cluster.prefer = "a"
        one = await cluster["a"].harness.joined(1)
        two = await cluster["b"].harness.joined(2)
        await trio.sleep(0.1)
        one.sink.take(), two.sink.take()
        cluster.nats.hold()
        one.say(b'"on its way"')
        await trio.sleep(0.01)
        two.harness.node.sessions.end(two.principal.session_id)
        await trio.sleep(0.01)
        cluster.nats.release()
        await trio.sleep(20)
        assert data_of(two.sink.take()) == []
        assert [each["command"] for each in one.sink.take()] == ["instance-left"]
        assert cluster["b"].relay.debug_counts()["remote instances"] == 0
        three = await cluster["b"].harness.joined(3)
        one.say(b'"again"')
        await trio.sleep(0.1)
        assert data_of(three.sink.take()) == ["again"]
