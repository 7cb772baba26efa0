"""Moderation and roles: at once, in one order with the data, and answered when durable."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.instance_service import ModerationRequest
from reileta.errors import (
    Banned,
    DatabaseUnavailable,
    InstanceNotFound,
    NotAllowed,
    NotInInstance,
    PlayerNotFound,
    UserNotFound,
)
from reileta.records import (
    Ban,
    InstanceChanges,
    LiftBan,
    LiftMute,
    Moderation,
    ModeratorAddition,
    ModeratorRemoval,
    MuteRecord,
)
from tests.actors.frames import data, failed, left, moderated
from tests.actors.node_harness import (
    EPOCH_MS,
    ROOM,
    Client,
    NodeHarness,
    account,
    principal,
    settle,
    user_at,
)


def of(client: Client, command: str) -> list[Any]:
    return [one["data"] for one in client.sink.take() if one["command"] == command]


async def moderate(harness: NodeHarness, by: int, target: str, type_: str, **more: Any) -> None:
    await harness.node.instance_service.moderate(
        ROOM, principal(by), ModerationRequest(target, type_, **more)
    )


async def test_an_order_stands_in_one_line_with_the_data(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(0)
    one, two = await harness.joined(1), await harness.joined(2)
    one.sink.take(), two.sink.take()
    one.say(b'"before"')
    async with trio.open_nursery() as nursery:
        nursery.start_soon(moderate, harness, 0, user_at(1), "mute")
        await settle()
    one.say(b'"after"', state=b"7")
    await settle()
    assert two.received() == [data("before")]
    assert one.received() == [moderated(), failed("data", 49, state=7)]


async def test_the_answer_comes_when_it_is_durable_and_the_effect_before(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = (await harness.crowd(1))[0]
    await settle()
    gate = harness.store.instances.gate = trio.Event()
    answered: list[str] = []

    async def ban() -> None:
        await moderate(harness, 0, user_at(1), "ban", reason="rude", until=None)
        answered.append("banned")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ban)
        await settle()
        (left,) = of(one, "instance-left")
        assert (left["reason"], left["note"]) == ("banned", "rude")
        assert answered == []
        with pytest.raises(Banned):
            await one.join()
        gate.set()
    assert answered == ["banned"]
    now = harness.node.clock.now_ms()
    host, guest = account(0).id, account(1).id
    assert harness.store.hosting.moderation_writes == [
        Ban(ROOM, guest, None, "rude", host, now),
        Moderation(ROOM, host, "ban", guest, host, "rude", None, now),
    ]


async def test_what_gathers_goes_in_one_transaction_in_order(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(*range(1, 8))
    gate = harness.store.instances.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(1, 8):
            nursery.start_soon(moderate, harness, 0, user_at(number), "warn")
            await settle()
        gate.set()
    assert harness.store.hosting.batches == [1, 6]
    users = [one.user for one in harness.store.hosting.moderation_writes]
    assert users == [account(number).id for number in range(1, 8)]


async def test_without_a_database_it_holds_and_is_written_later(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = (await harness.crowd(1))[0]
    await settle()
    harness.store.instances.away = True
    with pytest.raises(DatabaseUnavailable):
        await moderate(harness, 0, user_at(1), "ban")
    with pytest.raises(Banned):
        await one.join()
    with pytest.raises(DatabaseUnavailable):
        await moderate(harness, 0, user_at(1), "ban")  # once more, to be sure
    assert harness.store.hosting.moderation_writes == []
    harness.store.instances.away = False
    await trio.sleep(5)
    kinds = [type(deed) for deed in harness.store.hosting.moderation_writes]
    assert kinds == [Ban, Moderation, Ban, Moderation]


async def test_an_order_that_changes_nothing_waits_for_what_did(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(1)
    await settle()
    await moderate(harness, 0, user_at(5), "unban")
    assert harness.store.hosting.moderation_writes == []
    harness.store.instances.away = True
    with pytest.raises(DatabaseUnavailable):
        await harness.node.instance_service.add_moderator(ROOM, principal(0), user_at(1))
    with pytest.raises(DatabaseUnavailable):
        await harness.node.instance_service.add_moderator(ROOM, principal(0), user_at(1))
    harness.store.instances.away = False
    await harness.node.instance_service.add_moderator(ROOM, principal(0), user_at(1))
    assert [type(deed) for deed in harness.store.hosting.moderation_writes] == [
        ModeratorAddition,
        Moderation,
    ]


async def test_deeds_that_a_crash_found_unwritten_are_written_by_the_next(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = (await harness.crowd(1))[0]
    await settle()
    harness.store.instances.away = True
    with pytest.raises(DatabaseUnavailable):
        await moderate(harness, 0, user_at(1), "ban")
    harness.crash()
    await trio.sleep(0.5)
    with pytest.raises(Banned):
        await one.join()
    harness.store.instances.away = False
    await trio.sleep(5)
    assert [type(deed) for deed in harness.store.hosting.moderation_writes] == [Ban, Moderation]


async def test_mutes_and_moderators_outlive_a_crash(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    await harness.node.instance_service.add_moderator(ROOM, principal(0), user_at(2))
    await moderate(harness, 0, user_at(1), "mute")
    harness.crash()
    await trio.sleep(0.5)
    one.sink.take(), two.sink.take()
    one.say(b"1", state=b"3")
    await settle()
    assert one.received() == [failed("data", 49, state=3)]
    roles = {
        player.user: role for player, role in await harness.node.instance_service.players(ROOM)
    }
    assert roles == {user_at(1): "master", user_at(2): "moderator"}


async def test_named_moderators_and_bans_come_from_the_database(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.store.hosting.moderators[ROOM] = [account(2).id]
    harness.store.instances.bans[ROOM] = [Ban(ROOM, account(3).id, None, None, account(0).id, 1)]
    await harness.crowd(1, 2)
    three = await harness.connect(3)
    with pytest.raises(Banned):
        await three.join()
    (ban,) = await harness.node.instance_service.bans(ROOM, principal(2))
    assert (ban.user, ban.by) == (user_at(3), user_at(0))
    with pytest.raises(NotAllowed):
        await harness.node.instance_service.bans(ROOM, principal(5))
    await moderate(harness, 2, user_at(3), "unban")
    await three.join()
    assert harness.store.hosting.moderation_writes[0] == LiftBan(ROOM, account(3).id)


async def test_mutes_come_from_the_database(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    guest = "u_00000000-0000-4000-8000-000000000009@elsewhere.example"
    mute = MuteRecord(ROOM, account(1).id, None, "loud", account(0).id, 1)
    over = MuteRecord(ROOM, account(3).id, EPOCH_MS - 1, None, account(0).id, 2)
    abroad = MuteRecord(ROOM, guest, None, None, account(0).id, 3)
    harness.store.mutes.mutes[ROOM] = [mute, over, abroad]
    one, three = await harness.crowd(1, 3)
    one.sink.take(), three.sink.take()
    one.say(b"1", state=b"3")
    three.say(b"1", state=b"3")
    await settle()
    assert failed("data", 49, state=3) in one.received()
    assert failed("data", 49, state=3) not in three.received()
    listed = await harness.node.instance_service.mutes(ROOM, principal(0))
    assert [(one.user, one.reason, one.by, one.created_at) for one in listed] == [
        (user_at(1), "loud", user_at(0), 1),
        (guest, None, user_at(0), 3),
    ]
    with pytest.raises(NotAllowed):
        await harness.node.instance_service.mutes(ROOM, principal(3))
    await moderate(harness, 0, guest, "unmute")
    writes = harness.store.hosting.moderation_writes
    assert [write for write in writes if isinstance(write, LiftMute)] == [
        LiftMute(ROOM, account(3).id),  # it was over
        LiftMute(ROOM, guest),
    ]


async def test_a_mute_is_answered_when_it_is_durable(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(1)
    await settle()
    harness.store.instances.away = True
    with pytest.raises(DatabaseUnavailable):
        await moderate(harness, 0, user_at(1), "mute")
    assert harness.store.hosting.moderation_writes == []
    harness.store.instances.away = False
    await trio.sleep(5)
    mute, entry = harness.store.hosting.moderation_writes
    assert isinstance(entry, Moderation)
    assert mute == MuteRecord(ROOM, account(1).id, None, None, account(0).id, entry.created_at)


async def test_roles_are_told_to_everyone_inside(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two, three = await harness.crowd(1, 2, 3)
    instance_service = harness.node.instance_service
    await instance_service.transfer_master(ROOM, principal(0), three.sink.seats[ROOM].player)
    await settle()
    expected = [
        {"user": user_at(1), "role": "normal"},
        {"user": user_at(3), "role": "master"},
    ]
    assert of(two, "instance-role") == expected
    await instance_service.add_moderator(ROOM, principal(0), "user2")
    assert of(two, "instance-role") == [{"user": user_at(2), "role": "moderator"}]
    outside = await harness.connect(9)
    await instance_service.add_moderator(ROOM, principal(0), user_at(9))
    assert of(outside, "instance-role") == [{"user": user_at(9), "role": "moderator"}]
    await instance_service.remove_moderator(ROOM, principal(0), user_at(9))
    assert of(outside, "instance-role") == [{"user": user_at(9), "role": "normal"}]
    assert ModeratorRemoval(ROOM, account(9).id) in harness.store.hosting.moderation_writes
    one.sink.take()
    await three.leave()
    await settle()
    assert of(one, "instance-role") == [{"user": user_at(1), "role": "master"}]
    types = [
        one.type for one in harness.store.hosting.moderation_writes if isinstance(one, Moderation)
    ]
    assert types == ["master", "moderator", "moderator", "unmoderator"]


async def test_only_the_owner_gives_roles(harness: NodeHarness, autojump_clock: MockClock) -> None:
    await harness.crowd(1, 2)
    instance_service = harness.node.instance_service
    for number in (1, 5):
        with pytest.raises(NotAllowed):
            await instance_service.transfer_master(ROOM, principal(number), user_at(2))
        with pytest.raises(NotAllowed):
            await instance_service.add_moderator(ROOM, principal(number), user_at(2))
        with pytest.raises(NotAllowed):
            await instance_service.remove_moderator(ROOM, principal(number), user_at(2))
    with pytest.raises(PlayerNotFound):
        await instance_service.transfer_master(ROOM, principal(0), user_at(5))
    with pytest.raises(UserNotFound):
        await instance_service.add_moderator(ROOM, principal(0), "nobody")


async def test_measures_are_told_to_those_concerned(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    master, one, two = await harness.crowd(1, 2, 3)
    until = harness.node.clock.now_ms() + 60_000
    await moderate(harness, 1, user_at(2), "warn", reason="please")
    assert of(one, "instance-moderated") == [
        {"type": "warn", "user": user_at(2), "by": user_at(1), "reason": "please"}
    ]
    assert of(master, "instance-moderated") == []
    await moderate(harness, 1, one.sink.seats[ROOM].player, "mute", until=until)
    muted = {"type": "mute", "user": user_at(2), "by": user_at(1), "until": until}
    assert of(one, "instance-moderated") == of(master, "instance-moderated") == [muted]
    await trio.sleep(61)
    unmuted = {"type": "unmute", "user": user_at(2)}
    assert of(one, "instance-moderated") == of(master, "instance-moderated") == [unmuted]
    await moderate(harness, 1, user_at(2), "ban")
    assert [said["type"] for said in of(master, "instance-moderated")] == ["ban"]
    assert of(two, "instance-moderated") == []


async def test_who_is_banned_from_without_is_told_too(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(1)
    outside, other = await harness.connect(2), await harness.connect(3)
    for type_ in ("ban", "unban"):
        await moderate(harness, 1, user_at(2), type_)
        assert [said["type"] for said in of(outside, "instance-moderated")] == [type_]
    assert of(other, "instance-moderated") == []


async def test_an_admin_outside_is_as_far_above_as_inside(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(1)
    harness.store.hosting.admins.add(2)
    with pytest.raises(NotAllowed):
        await moderate(harness, 1, user_at(2), "ban")
    await moderate(harness, 0, user_at(2), "ban")  # by the owner


async def test_who_does_not_exist_can_not_be_moderated(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.crowd(1)
    with pytest.raises(UserNotFound):
        await moderate(harness, 1, user_at(1000), "ban")
    await moderate(harness, 1, "u_00000000-0000-4000-8000-000000000000@elsewhere.example", "ban")


async def test_who_may_not_is_refused(harness: NodeHarness, autojump_clock: MockClock) -> None:
    await harness.crowd(1, 2, 3)
    with pytest.raises(NotInInstance):
        await moderate(harness, 5, user_at(1), "kick")
    with pytest.raises(NotAllowed):
        await moderate(harness, 2, user_at(3), "kick")
    with pytest.raises(NotAllowed):
        await moderate(harness, 1, user_at(0), "ban")
    await harness.node.instance_service.moderate(
        ROOM, principal(7, admin=True), ModerationRequest(user_at(1), "kick")
    )
    assert harness.node.directory.occupancy(ROOM).connected == 2


async def test_an_order_on_a_socket_is_answered_there(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    measure = ModerationRequest(user_at(2), "kick", "rude")
    await harness.node.instance_service.moderate(
        ROOM, one.principal, measure, sink=one.sink, state=b"9"
    )
    await settle()
    frames = one.sink.take()
    answers = [frame for frame in frames if "state" in frame]
    assert answers == [{"state": 9, "command": "instance-moderate", "subgroup": ROOM, "data": {}}]
    assert frames[0]["command"] == "instance-left"
    assert of(two, "instance-left")[0]["note"] == "rude"


async def test_friends_are_asked_for_where_they_matter(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(access="avr:friends_only")
    harness.store.hosting.friendships.add(frozenset({account(0).id, account(1).id}))
    friend, stranger = await harness.connect(1), await harness.connect(2)
    await friend.join()
    with pytest.raises(NotAllowed):
        await stranger.join()
    harness.store.instances.away = True
    with pytest.raises(DatabaseUnavailable):
        await stranger.join()
    friend.lose()
    await settle()
    back = await harness.connect(1)
    await back.join()  # in its grace, for which no database is needed
    owner = await harness.connect(0)
    await owner.join()


@pytest.mark.parametrize("type_", ["ban", "kick", "mute", "warn", "add", "remove"])
async def test_nothing_is_acknowledged_once_the_record_is_gone(
    harness: NodeHarness, autojump_clock: MockClock, type_: str
) -> None:
    owner, one = await harness.joined(0), await harness.joined(1)
    service = harness.node.instance_service
    await service.add_moderator(ROOM, principal(0), account(2).id)
    harness.store.instances.records.clear()

    async def act() -> None:
        match type_:
            case "add":
                await service.add_moderator(ROOM, principal(0), account(1).id)
            case "remove":
                await service.remove_moderator(ROOM, principal(0), account(2).id)
            case _:
                await moderate(harness, 0, user_at(1), type_)

    with pytest.raises(InstanceNotFound):
        await act()
    await settle()
    assert owner.sink.take()[-1]["command"] == "instance-left", "the instance has closed"
    assert one.sink.seats == owner.sink.seats == {}
    assert harness.node.metrics.instances == 0


async def test_a_change_of_a_record_that_is_gone_closes_the_instance(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    harness.store.instances.records.clear()
    with pytest.raises(InstanceNotFound):
        await harness.node.instance_service.update(ROOM, principal(0), InstanceChanges(title="New"))
    await settle()
    assert one.received() == [left("closed")]


async def test_each_entry_of_the_log_has_a_time_of_its_own(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    """The log would take two of the same moment for one."""
    await harness.crowd(0, 1)
    async with trio.open_nursery() as nursery:
        for reason in ("first", "second", "third"):
            request = ModerationRequest(user_at(1), "warn", reason)
            nursery.start_soon(harness.node.instance_service.moderate, ROOM, principal(0), request)
    entries = [
        one for one in harness.store.hosting.moderation_writes if isinstance(one, Moderation)
    ]
    assert {one.reason for one in entries} == {"first", "second", "third"}
    assert len({one.created_at for one in entries}) == 3
