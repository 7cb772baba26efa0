"""A session's state between its lines and the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio

from actors.node import Node
from actors.session.messages import Detach
from reileta.errors import AlreadyConnected, CredentialInvalid
from reileta.rules.resource.json_values import Json
from reileta.store import Store
from reileta.store.session_states import SessionStates
from tests.actors.session_clients import FakeSessionSink, log_in, open_node, second_token, until
from tests.conftest import ManualClock


@pytest.fixture
async def node(store: Store, clock: ManualClock) -> AsyncIterator[Node]:
    async with open_node(store, clock) as node:
        yield node


async def test_a_line_is_greeted_with_the_session(node: Node) -> None:
    ada = await log_in(node)
    (hello,) = (await ada.open()).payloads()
    assert hello["kind"] == "hello"
    assert hello["session"]["id"] == ada.principal.session_id
    assert (hello["version"], hello["session"]["state"]) == (0, {})
    assert hello["ack_timeout_ms"] == 10_000
    assert node.directory.status(ada.principal.user) == "online"


async def test_an_ack_means_that_the_change_is_in_the_database(node: Node) -> None:
    ada = await log_in(node)
    line = await ada.open()
    await ada.patch(line, "one", x=1)
    await until(lambda: line.acks)
    assert await node.store.states.load(ada.principal.session_id) == ({"x": 1}, 1)


async def test_every_other_socket_gets_each_change_once_in_one_order(node: Node) -> None:
    ada = await log_in(node)
    twin = await second_token(ada)
    one, two = await ada.open(), await twin.open()
    one.take(), two.take()
    for number in range(50):
        await ada.patch(one, f"a{number}", a=number)
        await twin.patch(two, f"b{number}", b=number)
    await until(lambda: len(one.acks) == len(two.acks) == 50)
    seen_by_one, seen_by_two = one.payloads(), two.payloads()
    assert [p["patch"]["b"] for p in seen_by_one] == list(range(50))
    assert [p["patch"]["a"] for p in seen_by_two] == list(range(50))
    versions = sorted(p["version"] for p in seen_by_one + seen_by_two)
    assert versions == list(range(1, 101))
    state = ({"a": 49, "b": 49}, 100)
    assert await node.store.states.load(ada.principal.session_id) == state


async def test_the_state_is_recovered_after_the_actors_crash(node: Node) -> None:
    ada = await log_in(node)
    line = await ada.open()
    await ada.patch(line, "one", x=1)
    await until(lambda: line.acks)
    ref = await node.sessions.live(ada.principal)
    ref.tell("no message")  # type: ignore[arg-type]
    await until(lambda: line.closed is not None)
    assert line.closed == (1013, "the session failed")
    ref.signal(Detach(line))
    again = FakeSessionSink()
    await until_open(ada, again)
    (hello,) = again.payloads()
    assert (hello["version"], hello["session"]["state"]) == (1, {"x": 1})


async def until_open(one: object, line: FakeSessionSink) -> None:
    await one.open(line)  # type: ignore[attr-defined]


async def test_what_another_server_wrote_is_told_and_built_upon(
    node: Node, store: Store, clock: ManualClock
) -> None:
    async with open_node(store, clock) as other:
        ada = await log_in(node)
        there = replace(await second_token(ada), node=other)
        one, two = await ada.open(), await there.open()
        one.take(), two.take()
        await there.patch(two, "there", y=2)
        await until(lambda: two.acks)
        await ada.patch(one, "here", x=1)
        await until(lambda: one.acks)
        assert await store.states.load(ada.principal.session_id) == ({"x": 1, "y": 2}, 2)
        (told,) = one.payloads()
        assert (told["version"], told["patch"]) == (1, {"y": 2})


async def test_one_line_per_token(node: Node) -> None:
    ada = await log_in(node)
    line = await ada.open()
    with pytest.raises(AlreadyConnected):
        await ada.open()
    (await node.sessions.live(ada.principal)).signal(Detach(line))
    await ada.open()


async def test_a_killed_token_closes_its_line_alone(node: Node) -> None:
    ada = await log_in(node)
    twin = await second_token(ada)
    one, two = await ada.open(), await twin.open()
    node.sessions.end_token(ada.principal.token_hash)
    await until(lambda: one.closed is not None)
    assert one.closed == (4000, "the credential is no longer valid")
    assert two.closed is None
    with pytest.raises(CredentialInvalid):
        await ada.open()


async def test_a_token_that_dies_while_its_line_is_opened_opens_none(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    loading, go_on = trio.Event(), trio.Event()
    load = SessionStates.load

    async def slowly(states: SessionStates, session_id: str) -> tuple[dict[str, Json], int]:
        loading.set()
        await go_on.wait()
        return await load(states, session_id)

    monkeypatch.setattr(SessionStates, "load", slowly)
    line = FakeSessionSink()

    async def opened() -> None:
        with pytest.raises(CredentialInvalid):
            await ada.open(line)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened)
        await loading.wait()
        await node.store.tokens.kill(ada.principal.token_hash, node.clock.now_ms())
        node.sessions.end_token(ada.principal.token_hash)
        go_on.set()
    assert line.payloads() == []


async def test_a_patch_that_is_refused_changes_nothing(node: Node) -> None:
    ada, pilot = await log_in(node), await log_in(node, autopilot=True)
    line, other = await ada.open(), await pilot.open()
    await ada.patch(line, "large", x="x" * 70_000)
    await pilot.patch(other, "any", x=1)
    await until(lambda: line.refused and other.refused)
    assert line.refused == [("large", 103)]
    assert other.refused == [("any", 4)]  # an autopilot's state is always {}
    assert line.acks == other.acks == []


async def test_the_end_of_the_session_closes_its_lines(node: Node) -> None:
    ada = await log_in(node)
    line = await ada.open()
    await node.store.sessions.end(ada.principal.session_id)
    node.sessions.end(ada.principal.session_id)
    await until(lambda: line.closed is not None)
    assert line.closed == (4000, "the credential is no longer valid")
    assert node.directory.status(ada.principal.user) == "offline"
