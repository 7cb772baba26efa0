"""A session's resource between its jobs and the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from actors.node import Node
from actors.session.messages import DeleteResource, Detach
from actors.session.resource_jobs import RESOURCE_REQUESTS
from reileta.errors import (
    Overloaded,
    PermissionDenied,
    ResourceHeld,
    ResourceNotAcquired,
    ResourceTaken,
)
from reileta.store import Store
from tests.actors.session_clients import log_in, open_node, second_token, until
from tests.conftest import PATIENCE_S, ManualClock


@pytest.fixture
async def node(store: Store, clock: ManualClock) -> AsyncIterator[Node]:
    async with open_node(store, clock) as node:
        yield node


async def test_all_lines_are_told_of_acquisition_writes_and_release(node: Node) -> None:
    ada = await log_in(node)
    twin = await second_token(ada)
    lines = [await ada.open(), await twin.open()]
    for line in lines:
        line.take()
    name = await ada.document()
    await ada.acquire(name)
    await twin.write(name, data={"width": 1})
    await ada.release(name)
    for line in lines:
        told = [one["resource"] for one in line.payloads()]
        assert [None if one is None else one["version"] for one in told] == [1, 2, None]
        assert "data" not in told[1], "the view has it"
        assert told[1]["owner"]["id"] == ada.principal.user.number


async def test_a_fencing_number_grows_with_each_acquisition(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    first = await ada.acquire(name)
    with pytest.raises(ResourceHeld):
        await ada.acquire(name)
    await ada.release(name)
    assert await ada.acquire(name) > first


async def test_of_those_who_ask_at_once_one_gets_it(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    rivals = [ada, *[await log_in(node, user=ada.principal.user.id) for _ in range(7)]]
    got: list[int] = []

    async def try_it(number: int) -> None:
        try:
            await rivals[number].acquire(name)
        except ResourceTaken:
            return
        got.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(try_it, number)
    assert len(got) == 1


async def test_who_lost_it_elsewhere_finds_out_and_can_not_write(node: Node) -> None:
    ada = await log_in(node)
    line = await ada.open()
    name = await ada.document()
    await ada.acquire(name)
    await node.store.leases.release(name, ada.claimant)  # as another server would
    line.take()
    with pytest.raises(ResourceNotAcquired):
        await ada.write(name, data=1)
    assert line.payloads() == [{"kind": "resource", "resource": None}]


async def test_who_lost_the_share_elsewhere_finds_out_and_can_not_write(node: Node) -> None:
    ada, bob = await log_in(node), await log_in(node)
    line = await bob.open()
    name = await ada.document()
    await node.store.resources.share(name, ada.claimant, bob.principal.user.id)
    await bob.acquire(name)
    # As another server would.
    await node.store.resources.unshare(name, ada.claimant, bob.principal.user.id)
    line.take()
    with pytest.raises(PermissionDenied):
        await bob.write(name, data=1)
    assert line.payloads() == [{"kind": "resource", "resource": None}]


async def test_a_refused_deletion_costs_nobody_what_it_has(node: Node) -> None:
    ada, bob = await log_in(node), await log_in(node)
    line = await bob.open()
    name = await ada.document()
    await node.store.resources.share(name, ada.claimant, bob.principal.user.id)
    await bob.acquire(name)
    line.take()
    with pytest.raises(PermissionDenied):
        await (await node.sessions.live(bob.principal)).ask(
            DeleteResource(name, bob.claimant, None)
        )
    assert line.payloads() == []
    await bob.write(name, data=1)


async def test_a_session_keeps_it_longer_with_a_socket_than_without(
    node: Node, clock: ManualClock
) -> None:
    ada = await log_in(node)
    name = await ada.document()
    await ada.acquire(name)
    leases = node.store.leases

    async def until_of() -> int:
        held = await leases.of_session(ada.principal.session_id)
        assert held is not None
        return held.until - clock.now_ms()

    assert await until_of() == 60_000
    line = await ada.open()
    with trio.fail_after(PATIENCE_S):
        while await until_of() != 80_000:
            await trio.sleep(0.002)
    (await node.sessions.live(ada.principal)).signal(Detach(line))
    with trio.fail_after(PATIENCE_S):
        while await until_of() != 60_000:
            await trio.sleep(0.002)


async def test_too_many_errands_are_refused(node: Node) -> None:
    ada = await log_in(node)
    name = await ada.document()
    await ada.acquire(name)
    refused = 0

    async def write() -> None:
        nonlocal refused
        try:
            await ada.write(name, data=1)
        except Overloaded:
            refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(2 * RESOURCE_REQUESTS):
            nursery.start_soon(write)
    assert 0 < refused < 2 * RESOURCE_REQUESTS
    await until(lambda: True)


async def test_a_resource_shows_its_owner_s_new_name_to_who_has_it(node: Node) -> None:
    ada, bob = await log_in(node), await log_in(node)
    name = await ada.document()
    await node.store.resources.share(name, ada.claimant, bob.principal.user.id)
    await bob.open()
    await bob.acquire(name)
    node.changed(
        "user", await node.store.users.update(ada.principal.user.id, displayname="Ada the First")
    )
    recovery = node.sessions.recoveries[bob.principal.session_id]
    assert recovery.resource_owner == ada.principal.user.id
    twin = await second_token(bob)

    async def shown() -> str:
        line = await twin.open()
        (hello,) = line.payloads()
        (await node.sessions.live(twin.principal)).signal(Detach(line))
        owner: str = hello["session"]["resource"]["owner"]["display_name"]
        return owner

    with trio.fail_after(PATIENCE_S):
        while await shown() != "Ada the First":
            await trio.sleep(0.005)
