"""Clients that a rule refuses: what they have on a node ends at once."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from reileta.errors import ClientBlocked
from reileta.protocol.close_codes import CloseCode
from reileta.rules.client_rules import ClientRule
from tests.actors.frames import ROLES, left
from tests.actors.node_harness import NodeHarness, account, principal, settle


async def block(harness: NodeHarness, *accounts: int) -> None:
    """Puts rules in force that refuse these users, as the database would say."""

    async def rules() -> list[ClientRule]:
        return [ClientRule("account", account(number).id, "root", 0) for number in accounts]

    harness.store.client_rules.all = rules  # type: ignore[method-assign]
    clients = harness.node.clients
    if harness.node.exclude_accounts not in clients.listeners:
        clients.listeners.append(harness.node.exclude_accounts)
    await clients.apply()
    await settle()


async def test_the_seat_of_a_refused_client_is_free_at_once(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    second = await harness.joined(2)
    for client in (second, two):
        assert one.received(but=ROLES) == []  # the session still has a socket inside
        client.sink.barred = True  # as the gateway closes it
        client.lose()
        await settle()
    assert one.received(but=ROLES) == [left("left")]
    assert harness.leftovers().get("occupancies") == 1


async def test_an_account_that_is_refused_leaves_all_it_is_in(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room("i_00000000-0000-4000-8000-000000000777", capacity=1)
    full = "i_00000000-0000-4000-8000-000000000777"
    one, two = await harness.crowd(1, 2)
    gone = await harness.joined(2, session=1)
    gone.lose()  # within its grace
    await one.join(full)
    service = harness.node.instance_service
    await service.candidate(full, principal(2))
    await service.candidate(full, principal(3))
    await settle()
    one.sink.take()
    await block(harness, 2)
    assert two.sink.closed == (CloseCode.CREDENTIAL_GONE, "the credential is no longer valid")
    assert one.received(but={*ROLES, "instance-candidate", "instance-queue"}) == [
        left("left"),
        left("left"),
    ]
    queue = await service.queue(full, principal(0))
    assert queue.entries is not None
    assert [each.user.partition("@")[0] for each in queue.entries] == [account(3).id]
    # What was on its way is refused, too.
    with pytest.raises(ClientBlocked):
        await harness.connect(2)
    with pytest.raises(ClientBlocked):
        await service.candidate(full, principal(2))
    await harness.joined(3)
    # The session goes on when the rule has ended.
    await block(harness)
    again = await harness.joined(2)
    assert again.sink.closed is None
