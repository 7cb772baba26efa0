"""Guests on a node: inside instances, in queues, and out when their server is blocked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from trio.testing import MockClock

from actors.instance_service import ModerationRequest
from actors.session.messages import Attach, Detach
from reileta.errors import CredentialInvalid, GuestNotAllowed, ModerationInvalid, NotAllowed
from reileta.protocol.close_codes import CloseCode
from reileta.records import Ban, Moderation, User
from reileta.rules.federation.server_rules import Rule
from reileta.rules.identity import Principal
from tests.actors.node_harness import (
    ADDRESS,
    EPOCH_MS,
    ROOM,
    Client,
    NodeHarness,
    account,
    principal,
    settle,
    user_at,
)
from tests.actors.sinks import FakeSink

FAR = "far.example:3032"


def guest_user(number: int, server: str = FAR, name: str = "Ann") -> User:
    id_ = f"u_00000000-0000-4000-8000-{number:012x}@{server}"
    return replace(account(number), id=id_, number=0, username="", displayname=name)


def guest(number: int, server: str = FAR, *, token: int = 0) -> Principal:
    return Principal(
        guest_user(number, server), f"s_{number}@{server}", b"%d.%d" % (number, token), guest=True
    )


async def connect(harness: NodeHarness, who: Principal) -> Client:
    ref = await harness.node.sessions.live(who)
    sink = FakeSink(who.session_id)
    await ref.ask(Attach(sink, who.token_hash))
    await settle()
    sink.take()
    return Client(harness, who, ref, sink)


async def joined(harness: NodeHarness, who: Principal) -> Client:
    client = await connect(harness, who)
    await client.join()
    await settle()
    client.sink.take()
    return client


async def block(harness: NodeHarness, *patterns: str) -> None:
    """Puts rules in force that block these, as the database would say."""

    async def rules() -> list[Rule]:
        return [Rule(pattern, "block", "u_admin", 0) for pattern in patterns]

    servers = harness.node.servers
    harness.store.servers = SimpleNamespace(rules=rules)
    await servers.load()
    for listener in servers.listeners:
        await listener.server_blocked(servers.is_blocked)
    await settle()


def left(client: Client) -> list[tuple[str, str]]:
    frames = [one for one in client.sink.take() if one.get("command") == "instance-left"]
    return [(one["data"]["user"], one["data"]["reason"]) for one in frames]


async def test_a_guest_appears_with_its_server(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    host = await harness.joined(1)
    ann = await joined(harness, guest(7))
    frame = next(one for one in host.sink.take() if one["command"] == "instance-joined")
    assert frame["data"]["user"] == guest_user(7).id
    assert frame["data"]["displayname"] == "Ann"
    ann.say(b'"hi"')
    await settle()
    assert [one.data for one in host.received()] == ["hi"]


async def test_a_guest_with_a_new_token_comes_back_as_the_same_player(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    host = await harness.joined(1)
    ann = await connect(harness, guest(7))
    player = await ann.join()
    host.sink.take()
    ann.session.signal(Detach(ann.sink))  # the token has expired, and the gateway closed it
    await settle()
    again = await connect(harness, guest(7, token=1))
    assert await again.join() == player
    assert host.sink.take() == []


async def test_a_guest_is_kicked_banned_and_muted_by_its_name(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    host = principal(0)
    ann = await joined(harness, guest(7))
    name = guest_user(7).id
    service = harness.node.instance_service
    for measure in ("mute", "kick"):
        await service.moderate(ROOM, host, ModerationRequest(name, measure))
    await settle()
    assert left(ann) == [(name, "kicked")]
    await service.moderate(ROOM, host, ModerationRequest(name, "ban"))
    ban = next(one for one in harness.store.hosting.moderation_writes if isinstance(one, Ban))
    assert ban.user == name
    # Spelled otherwise, it is the same user.
    spelled = name.replace("far.example", "FAR.example.")
    await service.moderate(ROOM, host, ModerationRequest(spelled, "unban"))
    await ann.join()


async def test_a_server_is_banned_from_an_instance(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    host = await harness.joined(0)
    ann = await joined(harness, guest(7))
    host.sink.take()
    service = harness.node.instance_service
    await service.moderate(ROOM, principal(0), ModerationRequest("*@far.example", "ban", "rude"))
    await settle()
    assert left(ann) == [(guest_user(7).id, "banned")]
    told = next(one for one in host.sink.take() if one.get("command") == "instance-moderated")
    assert told["data"] == {
        "type": "ban",
        "server": "far.example",
        "by": user_at(0),
        "reason": "rude",
    }
    written = harness.store.hosting.moderation_writes
    assert [one.user for one in written if isinstance(one, Ban | Moderation)] == [
        "*@far.example",
        "*@far.example",
    ]
    (ban,) = await service.bans(ROOM, principal(0))
    assert ban.user == "*@far.example"


@pytest.mark.parametrize("server", [ADDRESS.partition(":")[0], "example.org"])
async def test_this_server_itself_is_not_banned(
    harness: NodeHarness, server: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(ModerationInvalid):
        await harness.node.instance_service.moderate(
            ROOM, principal(0), ModerationRequest(f"*@{server}", "ban")
        )


async def test_a_guest_is_not_made_a_moderator_and_does_not_oversee(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(0)
    await joined(harness, guest(7))
    service = harness.node.instance_service
    with pytest.raises(GuestNotAllowed):
        await service.add_moderator(ROOM, principal(0), guest_user(7).id)
    with pytest.raises(GuestNotAllowed):
        await service.bans(ROOM, guest(7))
    assert (await service.queue(ROOM, guest(7))).entries is None


async def test_an_earlier_appointment_of_a_guest_does_not_count(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.store.hosting.moderators[ROOM] = [guest_user(7).id, account(2).id]
    await harness.joined(0)
    await joined(harness, guest(7))
    await harness.joined(2)
    roles = {
        player.user: role for player, role in await harness.node.instance_service.players(ROOM)
    }
    assert roles[guest_user(7).id] == "normal"
    assert roles[user_at(2)] == "moderator"


async def test_all_guests_of_a_server_leave_when_it_is_blocked(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=3)
    host = await harness.joined(0)
    ann, bea = await joined(harness, guest(7)), await joined(harness, guest(8, "near.example"))
    cat = await connect(harness, guest(9))
    await harness.node.instance_service.candidate(ROOM, cat.principal)
    await settle()
    for client in (host, ann, bea, cat):
        client.sink.take()
    await block(harness, "far.example")
    # It is told why before its socket is closed.
    assert left(ann) == [(guest_user(7).id, "server-blocked")]
    closed = [one.sink.closed for one in (ann, cat)]
    assert [one and one[0] for one in closed] == [CloseCode.CREDENTIAL_GONE] * 2
    assert bea.sink.closed is None
    assert left(host) == [(guest_user(7).id, "server-blocked")]
    inside = await harness.node.instance_service.players(ROOM)
    assert [player.user for player, _ in inside] == [user_at(0), guest_user(8, "near.example").id]
    queue = await harness.node.instance_service.queue(ROOM, principal(0))
    assert queue.entries == ()


async def test_who_was_on_its_way_when_its_server_was_blocked_does_not_come_in(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(0)
    who = guest(7)
    ann = await connect(harness, who)
    await block(harness, "far.example")
    ref = await harness.node.sessions.live(who)  # authenticated before the block
    with pytest.raises(CredentialInvalid):
        await ref.ask(Attach(FakeSink("late"), who.token_hash))
    with pytest.raises(CredentialInvalid):
        await harness.node.instance_service.candidate(ROOM, who)
    assert ann.sink.closed is not None


async def test_a_block_that_is_lifted_lets_the_guest_come_back_at_once(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(0)
    await joined(harness, guest(7))
    await block(harness, "far.example")
    await block(harness)
    again = await joined(harness, guest(7, token=1))
    assert again.sink.closed is None


async def test_an_instance_that_shuts_guests_out_says_so(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(ROOM, "avr:no_guests")
    ann = await connect(harness, guest(7))
    with pytest.raises(GuestNotAllowed):
        await ann.join()
    with pytest.raises(GuestNotAllowed):
        await harness.node.instance_service.candidate(ROOM, guest(7))


async def test_a_friend_of_another_server_enters_an_instance_of_friends(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(access="avr:friends_only")
    host = await harness.joined(0)
    ann = await connect(harness, guest(7))
    with pytest.raises(NotAllowed):
        await ann.join()
    harness.store.hosting.friendships.add(frozenset({account(0).id, guest_user(7).id}))
    await ann.join()
    assert host.sink.closed is None


async def test_a_guest_that_has_another_name_is_renamed_inside(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    host = await harness.joined(1)
    await joined(harness, guest(7))
    host.sink.take()
    renamed = replace(guest_user(7, name="Anne"), updated_at=EPOCH_MS + 1)
    harness.node.changed("user", renamed)
    await settle()
    frame = next(one for one in host.sink.take() if one.get("command") == "player-updated")
    assert frame["data"]["displayname"] == "Anne"
