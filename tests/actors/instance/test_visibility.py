"""Who may see an instance, before its actor is asked and by the actor itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import TellPlayers
from actors.instance_service import Desk, Measure, visitor
from reileta.errors import (
    DatabaseUnavailable,
    InstanceNotFound,
    NotAllowed,
    PermissionDenied,
    ReiletaError,
)
from reileta.ids import at
from reileta.records import InstanceChanges
from reileta.rules.instance.access import Asker
from tests.actors.nodes import (
    ADDRESS,
    ROOM,
    OpenInstance,
    World,
    account,
    asker,
    settle,
    user_at,
)

NOWHERE = ROOM[:-1] + "9"
PRIVATE = InstanceChanges(tags=frozenset({"avr:private"}))

ASKS: dict[str, Callable[[Desk, str, Asker], Awaitable[object]]] = {
    "candidate": lambda desk, id_, who: desk.candidate(id_, who),
    "withdraw": lambda desk, id_, who: desk.withdraw(id_, who),
    "admit": lambda desk, id_, who: desk.admit(id_, who, user_at(5)),
    "refuse": lambda desk, id_, who: desk.refuse(id_, who, user_at(5)),
    "bans": lambda desk, id_, who: desk.bans(id_, who),
    "kick": lambda desk, id_, who: desk.moderate(id_, who, Measure(user_at(0), "kick")),
    "hug": lambda desk, id_, who: desk.moderate(id_, who, Measure(user_at(0), "hug")),
    "hand over": lambda desk, id_, who: desk.hand_over(id_, who, user_at(5)),
    "name": lambda desk, id_, who: desk.name_moderator(id_, who, user_at(5)),
    "dismiss": lambda desk, id_, who: desk.dismiss_moderator(id_, who, user_at(5)),
}


async def refusal(ask: Awaitable[object]) -> ReiletaError:
    with pytest.raises(ReiletaError) as refused:
        await ask
    return refused.value


@pytest.mark.parametrize("lives", [False, True])
@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_to_a_stranger_a_private_instance_is_as_one_that_is_not(
    world: World,
    autojump_clock: MockClock,
    ask: Callable[[Desk, str, Asker], Awaitable[object]],
    away: bool,
    lives: bool,
) -> None:
    """Also while the database is away."""
    world.room(access="avr:private", capacity=1)
    if lives:
        await world.joined(0)
    world.store.instances.away = away
    desk = world.node.desk
    found = await refusal(ask(desk, ROOM, asker(3)))
    missing = await refusal(ask(desk, NOWHERE, asker(3)))
    assert (type(found), found.details) == (type(missing), missing.details)
    assert type(found) is (DatabaseUnavailable if away else InstanceNotFound)
    assert world.node.metrics.instances == lives, "nothing is started for a stranger"


async def test_a_question_that_waited_is_judged_by_what_is_so_now(
    world: World, autojump_clock: MockClock
) -> None:
    """The stranger asked while the instance was public; the answer shows nothing any more."""
    await world.joined(1)
    release = trio.Event()

    def close_up(one: OpenInstance) -> None:
        by = visitor(asker(0), ADDRESS)
        one._rules.update(by, PRIVATE, world.node.clock.now_ms())

    world.act(lambda _: release.wait())
    world.act(close_up)
    async with trio.open_nursery() as nursery:
        answers: list[ReiletaError] = []

        async def ask() -> None:
            answers.append(await refusal(world.node.desk.players(ROOM, asker(3))))

        nursery.start_soon(ask)
        await settle()
        release.set()
    assert [type(one) for one in answers] == [InstanceNotFound]


async def test_those_inside_and_moderators_see_it_until_they_are_not_any_more(
    world: World, autojump_clock: MockClock
) -> None:
    desk, node = world.node.desk, world.node
    inside, banned = await world.crowd(1, 2)
    await desk.name_moderator(ROOM, asker(0), user_at(4))
    record = await node.update_instance(ROOM, asker(0), PRIVATE)
    await settle()

    async def seers() -> set[int]:
        return {number for number in range(6) if await node.shows(record, asker(number))}

    assert await seers() == {0, 1, 2, 4}
    assert await node.shows(record, asker(5, admin=True))
    assert not await node.shows(record, None)
    for number in (1, 2, 4):
        assert type(await refusal(desk.hand_over(ROOM, asker(number), user_at(1)))) is NotAllowed
        assert type(await refusal(node.close_instance(ROOM, asker(number)))) is PermissionDenied
    await desk.moderate(ROOM, asker(4), Measure(user_at(2), "ban"))
    await inside.leave()
    await desk.dismiss_moderator(ROOM, asker(0), user_at(4))
    await settle()
    assert await seers() == {0}
    for client in (inside, banned):
        with pytest.raises(InstanceNotFound):
            await client.join()


async def test_moderators_of_one_that_rests_are_those_in_the_database(
    world: World, autojump_clock: MockClock
) -> None:
    record = world.room(access="avr:private")
    world.store.hosting.moderators[ROOM] = [account(4).id]
    assert [await world.node.shows(record, asker(one)) for one in (3, 4)] == [False, True]
    assert await world.node.desk.bans(ROOM, asker(4)) == ()


async def test_a_ban_tells_nobody_of_an_instance_that_it_may_not_know(
    world: World, autojump_clock: MockClock
) -> None:
    world.room(access="avr:private")
    stranger = await world.connect(3)
    for measure in ("ban", "unban"):
        await world.node.desk.moderate(ROOM, asker(0), Measure(user_at(3), measure))
    await settle()
    assert stranger.sink.take() == []


async def test_who_is_put_out_of_a_private_instance_is_told(
    world: World, autojump_clock: MockClock
) -> None:
    inside = await world.joined(3)
    await world.node.update_instance(ROOM, asker(0), PRIVATE)
    await settle()
    inside.sink.take()
    await world.node.desk.moderate(ROOM, asker(0), Measure(user_at(3), "ban", "spam"))
    await settle()
    told = {message["command"] for message in inside.sink.take()}
    assert told >= {"instance-left", "instance-moderated"}


async def test_the_actor_judges_also_what_comes_to_it_directly(
    world: World, autojump_clock: MockClock
) -> None:
    world.room(access="avr:private")
    await world.joined(0)
    players = await world.instance.ask(TellPlayers(visitor(asker(0), ADDRESS)))
    assert [player.user for player, _ in players] == [at(account(0).id, ADDRESS)]
    for nobody in (None, visitor(asker(3), ADDRESS)):
        with pytest.raises(InstanceNotFound):
            await world.instance.ask(TellPlayers(nobody))
