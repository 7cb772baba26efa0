"""Who may see an instance, before its actor is asked and by the actor itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import GetPlayers
from actors.instance_service import InstanceService, ModerationRequest
from reileta.errors import (
    DatabaseUnavailable,
    InstanceNotFound,
    NotAllowed,
    PermissionDenied,
    ReiletaError,
)
from reileta.ids import at
from reileta.records import InstanceChanges
from reileta.rules.identity import Principal
from tests.actors.node_harness import (
    ADDRESS,
    ROOM,
    InspectableInstance,
    NodeHarness,
    account,
    principal,
    settle,
    user_at,
)

NOWHERE = ROOM[:-1] + "9"
PRIVATE = InstanceChanges(tags=frozenset({"avr:private"}))

ASKS: dict[str, Callable[[InstanceService, str, Principal], Awaitable[object]]] = {
    "candidate": lambda instance_service, id_, who: instance_service.candidate(id_, who),
    "withdraw": lambda instance_service, id_, who: instance_service.withdraw(id_, who),
    "admit": lambda instance_service, id_, who: instance_service.admit(id_, who, user_at(5)),
    "refuse": lambda instance_service, id_, who: instance_service.refuse(id_, who, user_at(5)),
    "bans": lambda instance_service, id_, who: instance_service.bans(id_, who),
    "mutes": lambda instance_service, id_, who: instance_service.mutes(id_, who),
    "kick": lambda instance_service, id_, who: instance_service.moderate(
        id_, who, ModerationRequest(user_at(0), "kick")
    ),
    "hug": lambda instance_service, id_, who: instance_service.moderate(
        id_, who, ModerationRequest(user_at(0), "hug")
    ),
    "hand over": lambda instance_service, id_, who: instance_service.transfer_master(
        id_, who, user_at(5)
    ),
    "name": lambda instance_service, id_, who: instance_service.add_moderator(id_, who, user_at(5)),
    "dismiss": lambda instance_service, id_, who: instance_service.remove_moderator(
        id_, who, user_at(5)
    ),
}


async def refusal(ask: Awaitable[object]) -> ReiletaError:
    with pytest.raises(ReiletaError) as refused:
        await ask
    return refused.value


@pytest.mark.parametrize("lives", [False, True])
@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_to_a_stranger_a_private_instance_is_as_one_that_is_not(
    harness: NodeHarness,
    autojump_clock: MockClock,
    ask: Callable[[InstanceService, str, Principal], Awaitable[object]],
    away: bool,
    lives: bool,
) -> None:
    """Also while the database is away."""
    harness.room(access="avr:private", capacity=1)
    if lives:
        await harness.joined(0)
    harness.store.instances.away = away
    instance_service = harness.node.instance_service
    found = await refusal(ask(instance_service, ROOM, principal(3)))
    missing = await refusal(ask(instance_service, NOWHERE, principal(3)))
    assert (type(found), found.details) == (type(missing), missing.details)
    assert type(found) is (DatabaseUnavailable if away else InstanceNotFound)
    assert harness.node.metrics.instances == lives, "nothing is started for a stranger"


async def test_a_question_that_waited_is_judged_by_what_is_so_now(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    """The stranger asked while the instance was public; the answer shows nothing any more."""
    await harness.joined(1)
    release = trio.Event()

    def close_up(one: InspectableInstance) -> None:
        by = principal(0).as_visitor(ADDRESS)
        one.parts.rules.update(by, PRIVATE, harness.node.clock.now_ms())

    harness.act(lambda _: release.wait())
    harness.act(close_up)
    async with trio.open_nursery() as nursery:
        answers: list[ReiletaError] = []

        async def ask() -> None:
            answers.append(await refusal(harness.node.instance_service.players(ROOM, principal(3))))

        nursery.start_soon(ask)
        await settle()
        release.set()
    assert [type(one) for one in answers] == [InstanceNotFound]


async def test_those_inside_and_moderators_see_it_until_they_are_not_any_more(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    instance_service, node = harness.node.instance_service, harness.node
    inside, banned = await harness.crowd(1, 2)
    await instance_service.add_moderator(ROOM, principal(0), user_at(4))
    record = await node.instance_service.update(ROOM, principal(0), PRIVATE)
    await settle()

    async def seers() -> set[int]:
        return {
            number for number in range(6) if await node.instances.shows(record, principal(number))
        }

    assert await seers() == {0, 1, 2, 4}
    assert await node.instances.shows(record, principal(5, admin=True))
    assert not await node.instances.shows(record, None)
    for number in (1, 2, 4):
        assert (
            type(
                await refusal(instance_service.transfer_master(ROOM, principal(number), user_at(1)))
            )
            is NotAllowed
        )
        assert (
            type(await refusal(node.instance_service.close(ROOM, principal(number))))
            is PermissionDenied
        )
    await instance_service.moderate(ROOM, principal(4), ModerationRequest(user_at(2), "ban"))
    await inside.leave()
    await instance_service.remove_moderator(ROOM, principal(0), user_at(4))
    await settle()
    assert await seers() == {0}
    for client in (inside, banned):
        with pytest.raises(InstanceNotFound):
            await client.join()


async def test_moderators_of_one_that_rests_are_those_in_the_database(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    record = harness.room(access="avr:private")
    harness.store.hosting.moderators[ROOM] = [account(4).id]
    assert [await harness.node.instances.shows(record, principal(one)) for one in (3, 4)] == [
        False,
        True,
    ]
    assert await harness.node.instance_service.bans(ROOM, principal(4)) == ()


async def test_a_ban_tells_nobody_of_an_instance_that_it_may_not_know(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(access="avr:private")
    stranger = await harness.connect(3)
    for measure in ("ban", "unban"):
        await harness.node.instance_service.moderate(
            ROOM, principal(0), ModerationRequest(user_at(3), measure)
        )
    await settle()
    assert stranger.sink.take() == []


async def test_who_is_put_out_of_a_private_instance_is_told(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    inside = await harness.joined(3)
    await harness.node.instance_service.update(ROOM, principal(0), PRIVATE)
    await settle()
    inside.sink.take()
    await harness.node.instance_service.moderate(
        ROOM, principal(0), ModerationRequest(user_at(3), "ban", "spam")
    )
    await settle()
    told = {message["command"] for message in inside.sink.take()}
    assert told >= {"instance-left", "instance-moderated"}


async def test_the_actor_judges_also_what_comes_to_it_directly(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(access="avr:private")
    await harness.joined(0)
    players = await harness.instance.ask(GetPlayers(principal(0).as_visitor(ADDRESS)))
    assert [player.user for player, _ in players] == [at(account(0).id, ADDRESS)]
    for nobody in (None, principal(3).as_visitor(ADDRESS)):
        with pytest.raises(InstanceNotFound):
            await harness.instance.ask(GetPlayers(nobody))
