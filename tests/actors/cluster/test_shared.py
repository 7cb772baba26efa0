"""Two nodes over one database and one bus: what is done at one is known at the other."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from actors.change_feed import ChangeApplier
from actors.hub.messages import Subscribe
from actors.node import Node
from actors.session.messages import Attach, Detach, Join
from reileta.observability import log_events
from reileta.protocol.session_frames import iso
from reileta.records import ADMIN_TAG, InstanceRecord, Notice, World
from reileta.rules.identity import Principal
from reileta.security.credentials import digest
from reileta.settings import Settings
from reileta.store import Store, open_store
from tests.actors.cluster.fake_member import FakeMember
from tests.actors.session_clients import (
    FakeSessionSink,
    SessionClient,
    log_in,
    new_document,
    open_node,
    until,
)
from tests.actors.sinks import FakeSink
from tests.conftest import ManualClock
from tests.reileta.cluster.memory_bus import MemoryNats
from tests.reileta.store.test_guests import a_server, admit

_numbers = itertools.count(1)


@dataclass
class FakeCache:
    """What was forgotten of the authenticated."""

    forgotten: list[Any] = field(default_factory=list)

    def forget_user(self, user_id: str, /) -> None:
        self.forgotten.append(user_id)

    def forget_session(self, session_id: str, /) -> None:
        self.forgotten.append(session_id)

    def forget_token(self, token: bytes, /) -> None:
        self.forgotten.append(token)

    def forget_all(self) -> None:
        self.forgotten.append("all")


@dataclass
class Place:
    """One of the nodes."""

    node: Node
    member: FakeMember
    cache: FakeCache = field(default_factory=FakeCache)

    async def attach(self, who: Principal, *subscribed: str) -> FakeSink:
        """A socket of the registry API, which is subscribed to events."""
        sink = FakeSink(self.member.node)
        session = await self.node.sessions.live(who)
        await session.ask(Attach(sink, who.token_hash))
        if subscribed:
            await self.node.hub.ask(Subscribe(sink, frozenset(subscribed), None))
        sink.take()
        return sink

    def here(self, client: SessionClient) -> SessionClient:
        """The session's client at this node."""
        return SessionClient(self.node, client.principal)

    async def detach(self, who: Principal, sink: FakeSink) -> None:
        (await self.node.sessions.live(who)).signal(Detach(sink))


@dataclass
class Cluster:
    nats: MemoryNats
    one: Place
    two: Place

    async def agree(self) -> None:
        """Both nodes know both."""
        nodes = {place.member.node: None for place in (self.one, self.two)}
        for place in (self.one, self.two):
            place.member.peers = dict(nodes)

    async def met(self, client: SessionClient) -> None:
        """Both nodes know that the session is at both."""
        id_ = client.principal.session_id
        await until(
            lambda: all(
                place.node.directory.sessions_elsewhere(id_) for place in (self.one, self.two)
            )
        )


@pytest.fixture
async def other(database_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    async with open_store(Settings(database=database_url), clock) as store:
        yield store


@pytest.fixture
async def cluster(store: Store, other: Store, clock: ManualClock) -> AsyncIterator[Cluster]:
    nats = MemoryNats()
    members = [FakeMember(name, nats.bus(name)) for name in ("c_1", "c_2")]
    async with (
        open_node(store, clock, member=members[0]) as one,
        open_node(other, clock, member=members[1]) as two,
    ):
        cluster = Cluster(nats, Place(one, members[0]), Place(two, members[1]))
        await cluster.agree()
        for place in (cluster.one, cluster.two):
            assert place.node.shared is not None
            place.node.shared.use(place.cache)
            await place.node.store.changes.begin()
        yield cluster


async def new_world(node: Node, owner: Principal, *tags: str) -> World:
    return await node.store.worlds.create(
        title="Door", description=None, capacity=8, owner=owner.user.id, tags=frozenset(tags)
    )


async def new_instance(
    node: Node, owner: Principal, *tags: str, capacity: int = 8
) -> InstanceRecord:
    world = await new_world(node, owner)
    return await node.store.instances.create(
        name=f"room-{next(_numbers)}",
        title=None,
        description=None,
        world=world.id,
        owner=owner.user.id,
        capacity=capacity,
        tags=frozenset(tags or {"avr:public"}),
    )


async def told(sink: FakeSink, command: str, target: str | None = None, **data: Any) -> Any:
    """The data of the first event of that kind; those before it are dropped."""
    found: list[Any] = []

    def arrived() -> bool:
        found.extend(
            one["data"]
            for one in sink.take()
            if one["command"] == command
            and target in (None, one.get("subgroup"))
            and all(one["data"].get(name) == value for name, value in data.items())
        )
        return bool(found)

    await until(arrived)
    return found[0]


# Presence -----------------------------------------------------------------------------------------


async def test_a_user_is_online_wherever_its_socket_is(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(two.node)
    user = ada.principal.user
    watching = await two.attach(ben.principal, "update-user")
    await one.node.store.follows.put(user.id, ben.principal.user.id)
    await one.node.store.follows.put(ben.principal.user.id, user.id)
    for client in (ada, ben):
        one.node.changed("user", client.principal.user)
    await told(watching, "update-user", id=ben.principal.user.id)
    sink = await one.attach(ada.principal)
    await told(watching, "update-user", id=user.id, status="online")
    assert two.node.directory.status(user) == "online"
    await one.detach(ada.principal, sink)
    await told(watching, "update-user", id=user.id, status="offline")
    assert two.node.directory.status(user) == "offline"


async def test_whereabouts_and_busy_sessions_are_those_of_all_nodes(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    instance = await new_instance(one.node, ada.principal)
    sink = await one.attach(ada.principal)
    await (await one.node.sessions.live(ada.principal)).ask(Join(sink, instance.id, None))
    await two.attach(ada.principal)
    await cluster.met(ada)
    user_id = ada.principal.user.id
    await until(lambda: two.node.sessions.presence(user_id)[0].players)
    (presence,) = two.node.sessions.presence(user_id)
    assert (presence.session, presence.sockets) == (ada.principal.session_id, 2)
    assert presence.players.keys() == {instance.id}
    for place in (one, two):
        assert place.node.sessions.connected_of(user_id) == {ada.principal.session_id}


# Publications -------------------------------------------------------------------------------------


async def test_a_changed_record_is_published_at_every_node_for_its_own_viewers(
    cluster: Cluster,
) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(two.node)
    names = ("update-world", "update-service", "update-server", "update-user")
    watching = await two.attach(ben.principal, *names)
    store = one.node.store
    private = await new_world(one.node, ada.principal, "avr:private")
    world = await new_world(one.node, ada.principal)
    one.node.changed("world", private)
    one.node.changed("world", world)
    assert (await told(watching, "update-world"))["id"] == world.id
    one.node.changed("server", await store.identity.update(title="Ours"))
    await told(watching, "update-server", title="Ours")
    renamed = await store.users.update(ada.principal.user.id, displayname="Ada L.")
    one.node.changed("user", renamed)
    await told(watching, "update-user", displayname="Ada L.")
    assert ada.principal.user.id in two.cache.forgotten


async def test_a_change_that_concerns_few_is_told_to_these_alone(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada, ben, cy = [await log_in(place.node) for place in (one, two, two)]
    concerned = await two.attach(ben.principal, "update-user")
    others = await two.attach(cy.principal, "update-user")
    await until(lambda: one.node.directory.connected(cy.principal.user.id))
    one.node.changed("user", ada.principal.user, frozenset({ben.principal.user.id}))
    await told(concerned, "update-user", id=ada.principal.user.id)
    one.node.changed("user", cy.principal.user)
    got: list[Any] = []

    def heard() -> bool:
        got.extend(one["data"]["id"] for one in others.take())
        return cy.principal.user.id in got

    await until(heard)
    assert ada.principal.user.id not in got


async def test_the_change_feed_does_not_repeat_what_the_bus_has_told(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(two.node)
    await two.node.store.changes.next()
    watching = await two.attach(ben.principal, "update-user")
    renamed = await one.node.store.users.update(ada.principal.user.id, displayname="Ada L.")
    one.node.changed("user", renamed)
    await told(watching, "update-user", id=renamed.id)
    feed = ChangeApplier(two.node.store, two.node, two.cache)
    await feed.poll()
    # Without the bus, the feed alone tells.
    cluster.nats.loses = lambda *_: True
    again = await one.node.store.users.update(ada.principal.user.id, displayname="Ada K.")
    one.node.changed("user", again)
    await feed.poll()
    await told(watching, "update-user", id=again.id, displayname="Ada K.")
    assert watching.take() == []


async def test_news_of_an_instance_reach_those_who_may_see_it(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(two.node)
    public = await new_instance(one.node, ada.principal)
    secret = await new_instance(one.node, ada.principal, "avr:private")
    names = ("update-instance", "instance-joined")
    watching = await two.attach(ben.principal, *names)
    own = await two.attach(ada.principal, *names)
    await until(lambda: one.node.directory.connected(ben.principal.user.id))
    sink = await one.attach(ada.principal)
    session = await one.node.sessions.live(ada.principal)
    await session.ask(Join(sink, secret.id, None))
    await session.ask(Join(sink, public.id, None))
    await told(own, "instance-joined", secret.id)
    got: list[Any] = []

    def heard() -> bool:
        got.extend(watching.take())
        return any(one["command"] == "instance-joined" for one in got)

    await until(heard)
    assert {one["subgroup"] for one in got} == {public.id}
    await until(lambda: two.node.directory.occupancy(public.id).connected == 1)
    assert two.node.directory.full() == frozenset()


async def hashed(password: str) -> str:
    return "no hash"


async def test_a_server_that_is_blocked_at_one_node_is_so_at_all_and_admins_are_told(
    cluster: Cluster,
) -> None:
    one, two = cluster.one, cluster.two
    root = await log_in(two.node)
    await two.node.store.users.grant(root.principal.user.id, ADMIN_TAG)
    admin = await two.node.store.users.by_id(root.principal.user.id)
    assert admin is not None
    watching = await two.attach(replace(root.principal, user=admin), "update-peer")
    address = "far.example:3032"
    servers = one.node.store.servers
    await servers.learn(
        address,
        host="far.example",
        secure=True,
        public_key="key",
        key_since=0,
        gateway_http=None,
        gateway_ws=None,
        version=None,
    )
    expires = one.node.clock.now_ms() + 10**9
    await servers.issue_token(address, digest(address), expires)
    await one.node.servers.block("far.example", by="u_root")
    news = await told(watching, "update-peer")
    assert news["decision"] == "block", news
    assert two.node.servers.is_blocked(address)


# Revocation ---------------------------------------------------------------------------------------


async def test_what_ends_at_one_node_closes_sockets_at_the_other(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(one.node)
    first, second = await two.attach(ada.principal), await two.attach(ben.principal)
    await one.node.store.tokens.kill(ada.principal.token_hash, one.node.clock.now_ms())
    one.node.sessions.end_token(ada.principal.token_hash)
    await until(lambda: first.closed is not None)
    assert second.closed is None
    await one.node.store.sessions.end(ben.principal.session_id)
    one.node.sessions.end(ben.principal.session_id)
    await until(lambda: second.closed is not None)
    assert {ada.principal.token_hash, ben.principal.session_id} <= set(two.cache.forgotten)


@pytest.mark.parametrize("what", ["token", "session", "user"])
async def test_a_lost_revocation_is_found_by_the_check(cluster: Cluster, what: str) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(one.node)
    ending, staying = await two.attach(ada.principal), await two.attach(ben.principal)
    store, now = one.node.store, one.node.clock.now_ms()
    cluster.nats.loses = lambda *_: True
    if what == "token":
        await store.tokens.kill(ada.principal.token_hash, now)
        one.node.sessions.end_token(ada.principal.token_hash)
    elif what == "session":
        await store.sessions.end(ada.principal.session_id)
        one.node.sessions.end(ada.principal.session_id)
    else:
        await store.users.ensure_system_accounts(hashed)
        await one.node.user_deleted(await store.users.delete(ada.principal.user.id))
    assert two.node.shared is not None
    await two.node.shared.revocations.check()
    await until(lambda: ending.closed is not None)
    assert staying.closed is None


@pytest.mark.parametrize("told", [True, False])
async def test_the_guests_of_a_server_that_is_forgotten_leave_at_every_node(
    cluster: Cluster, clock: ManualClock, told: bool
) -> None:
    one, two = cluster.one, cluster.two
    store, sinks = one.node.store, {}
    for server in ("far.example:3032", "near.example:3032"):
        await a_server(store, server)
        user = f"u_00000000-0000-4000-8000-0000000000af@{server}"
        admitted = await admit(store, clock, user, server=server)
        who = Principal(
            admitted.guest.as_user(), admitted.guest.session_id, admitted.token.hash, guest=True
        )
        sinks[server] = [await place.attach(who) for place in (one, two)]
    if not told:
        cluster.nats.loses = lambda *_: True
    assert await one.node.guests.forget("far.example:3032", by="u_root") is not None
    if not told:
        assert two.node.shared is not None
        await two.node.shared.revocations.check()
    for sink in sinks["far.example:3032"]:
        await until(lambda sink=sink: sink.closed is not None)  # type: ignore[misc]
    assert [sink.closed for sink in sinks["near.example:3032"]] == [None, None]


async def test_a_reconnect_forgets_what_is_cached_and_checks_at_once(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    sink = await two.attach(ada.principal)
    assert two.node.shared is not None
    await until(lambda: two.node.shared is not None and two.node.shared.revocations.checks > 0)
    two.member.bus.cut()
    await one.node.store.tokens.kill(ada.principal.token_hash, one.node.clock.now_ms())
    one.node.sessions.end_token(ada.principal.token_hash)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert sink.closed is None
    two.member.bus.mend()
    await until(lambda: sink.closed is not None)
    assert "all" in two.cache.forgotten


# One session at two nodes -------------------------------------------------------------------------


async def test_a_state_is_one_at_all_nodes(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    again = await log_in(two.node, session=ada.principal.session_id, user=ada.principal.user.id)
    here, there = await ada.open(), await again.open()
    await cluster.met(ada)
    here.take(), there.take()
    await ada.patch(here, "e_1", door="open")
    await until(lambda: here.acks == ["e_1"])
    states: list[dict[str, Any]] = []

    def heard() -> bool:
        states.extend(one for one in there.payloads() if one["kind"] == "state")
        return bool(states)

    await until(heard)
    assert states[-1]["patch"] == {"door": "open"}
    version = states[-1]["version"]
    await again.patch(there, "e_2", light="on")
    await until(lambda: there.acks == ["e_2"])
    await until(lambda: any(one.get("version", 0) > version for one in here.payloads()))


async def test_patches_at_both_nodes_at_once_are_all_kept(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    again = await log_in(two.node, session=ada.principal.session_id, user=ada.principal.user.id)
    sinks = [await ada.open(), await again.open()]
    await cluster.met(ada)
    for number in range(10):
        await ada.patch(sinks[0], f"a{number}", **{f"a{number}": number})
        await again.patch(sinks[1], f"b{number}", **{f"b{number}": number})
    await until(lambda: all(len(sink.acks) == 10 for sink in sinks))
    wanted = {f"{side}{number}": number for side in "ab" for number in range(10)}
    state, _ = await one.node.store.states.load(ada.principal.session_id)
    assert state == wanted
    seen: list[dict[str, Any]] = [{}, {}]

    def both_know() -> bool:
        for known, sink, own in zip(seen, sinks, "ab", strict=True):
            for payload in sink.payloads():
                if payload["kind"] == "state":
                    known.update(payload["patch"])
            known.update({name: value for name, value in wanted.items() if name[0] == own})
        return all(known == wanted for known in seen)

    await until(both_know)


async def test_a_lost_note_is_made_up_for_by_the_check(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    again = await log_in(two.node, session=ada.principal.session_id, user=ada.principal.user.id)
    here, there = await ada.open(), await again.open()
    await cluster.met(ada)
    there.take()
    cluster.nats.loses = lambda _, message: ".s." in message.subject
    await ada.patch(here, "e_1", door="open")
    await until(lambda: here.acks == ["e_1"])
    assert two.node.shared is not None
    await two.node.shared.revocations.check()
    await until(lambda: any(one["kind"] == "state" for one in there.payloads()))


async def test_a_resource_that_is_acquired_at_one_node_is_the_sessions_at_all(
    cluster: Cluster,
) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    again = await log_in(two.node, session=ada.principal.session_id, user=ada.principal.user.id)
    document = await new_document(one.node.store, ada.claimant)
    await ada.open()
    there = await again.open()
    await cluster.met(ada)
    there.take()
    await ada.acquire(document)
    resources: list[Any] = []

    def heard() -> bool:
        resources.extend(one["resource"] for one in there.payloads() if one["kind"] == "resource")
        return bool(resources)

    await until(heard)
    assert resources[-1] is not None
    written = await again.write(document, title="Door 2")
    assert written.title == "Door 2"
    await ada.release(document)
    await until(lambda: heard() and resources[-1] is None)


async def test_a_socket_at_any_node_keeps_the_resource(
    cluster: Cluster, clock: ManualClock
) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    again = await log_in(two.node, session=ada.principal.session_id, user=ada.principal.user.id)
    document = await new_document(one.node.store, ada.claimant)
    here, _ = await ada.open(), await again.open()
    await cluster.met(ada)
    await ada.acquire(document)
    session_id = ada.principal.session_id
    (await one.node.sessions.live(ada.principal)).signal(Detach(here))
    await until(lambda: not one.node.sessions.recoveries[session_id].sockets)
    await two.node.lease_renewer.renew()
    held = await one.node.store.leases.of_session(session_id)
    assert held is not None
    assert held.until > clock.now_ms() + one.node.settings.away_s * 1000


async def test_of_two_sockets_of_a_token_that_open_at_once_one_stays(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    one.member.bus.cut()
    sinks = [await ada.open(), await two.here(ada).open()]
    assert [sink.closed for sink in sinks] == [None, None]
    one.member.bus.mend()
    assert one.node.shared is not None
    one.node.shared.reconnected()
    await until(lambda: sinks[1].closed is not None)
    assert sinks[0].closed is None


async def test_what_another_node_did_is_not_logged_as_a_command(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    audit = one.node.store.audit
    by = ada.principal.user
    await audit.begin("suspend_user", via="http", by_id=by.id, by_name=by.username)
    feed = ChangeApplier(two.node.store, two.node, two.cache)
    with capture_logs() as logs:
        await feed.poll()
    assert [entry for entry in logs if entry["event"] == log_events.COMMAND_RUN] == []


async def test_an_instance_with_another_owner_is_published_once_at_each_node(
    cluster: Cluster,
) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(two.node)
    instance = await new_instance(one.node, ada.principal)
    watching = await two.attach(ben.principal, "update-instance")
    await until(lambda: one.node.directory.connected(ben.principal.user.id))
    cluster.nats.published.clear()
    changed = await one.node.store.instances.get(instance.id)
    assert changed is not None
    two.node.owner_changed_elsewhere(changed)
    await told(watching, "update-instance", id=instance.id)
    assert [subject for _, subject, _ in cluster.nats.published if subject.endswith(".hub")] == []


async def test_a_token_that_is_refreshed_at_one_node_keeps_its_sockets_at_the_other(
    cluster: Cluster, clock: ManualClock
) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(one.node)
    sink = FakeSessionSink()
    await two.here(ada).open(sink)
    id_, token = ada.principal.session_id, ada.principal.token_hash
    await until(lambda: one.node.directory.sessions_elsewhere(id_))
    later = ada.principal.token_expires + 3_600_000
    one.node.sessions.refresh_token(id_, token, later)
    await trio.testing.wait_all_tasks_blocked(0.05)
    clock.advance(ada.principal.token_expires - clock.now_ms() + 1000)
    await two.here(ada).patch(sink, "e_1", door="open")
    await until(lambda: sink.acks == ["e_1"])
    assert sink.closed is None


# The notice ---------------------------------------------------------------------------------------


async def test_a_notice_reaches_the_sockets_of_both_apis_at_all_nodes(
    cluster: Cluster, clock: ManualClock
) -> None:
    one, two = cluster.one, cluster.two
    ada = await log_in(two.node)
    sink, line = await two.attach(ada.principal), await two.here(ada).open()
    line.take()
    now = clock.now_ms()
    await one.node.notices.announce(Notice("Restart", "critical", now, now + 60_000))
    there = await told(sink, "server-notice")
    assert there == {
        "text": "Restart",
        "level": "critical",
        "created_at": now,
        "until": now + 60_000,
    }
    await until(lambda: line.frames)
    (payload,) = line.payloads()
    assert payload["kind"] == "server-notice"
    assert (payload["text"], payload["level"]) == ("Restart", "critical")
    assert (payload["created_at"], payload["until"]) == (iso(now), iso(now + 60_000))
    await one.node.notices.withdraw()
    await until(lambda: line.frames)
    assert [one["text"] for one in line.payloads()] == [None]


# Queues -------------------------------------------------------------------------------------------


async def test_a_candidate_is_told_its_place_at_the_node_where_it_is(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    ada, ben = await log_in(one.node), await log_in(two.node)
    instance = await new_instance(one.node, ada.principal, capacity=1)
    sink = await one.attach(ada.principal)
    session = await one.node.sessions.live(ada.principal)
    await session.ask(Join(sink, instance.id, None))
    waiting = await two.attach(ben.principal)
    await until(lambda: one.node.directory.connected(ben.principal.user.id))
    await one.node.instance_service.candidate(instance.id, ben.principal)
    await told(waiting, "instance-candidate")
    user_id = ben.principal.user.id
    await until(lambda: two.node.directory.candidacies(user_id) == (instance.id,))
    # The frame that tells it of its seat is lost with the connection: it is told again.
    two.member.bus.cut()
    two.member.bus.mend()
    await told(waiting, "instance-queue")
    await two.detach(ben.principal, waiting)
    await until(lambda: not one.node.directory.connected(user_id))
