"""A node whose database is a dictionary and whose clock is Trio's, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import trio
import trio.testing

import actors.instance.manager
import actors.node
from actors.hub.actor import Listeners
from actors.hub.messages import Subscribe, Unsubscribe
from actors.instance.actor import InstanceActor
from actors.instance.messages import InstanceMessage
from actors.node import Node
from actors.runtime.mailbox import Ref
from actors.runtime.message import Message
from actors.session.messages import Attach, Detach, Join, Leave, SessionMessage
from reileta.errors import DatabaseUnavailable, InstanceNotFound, ReiletaError
from reileta.ids import at
from reileta.observability.metrics import Metrics
from reileta.records import (
    Ban,
    HostNode,
    InstanceRecord,
    Moderation,
    ModerationWrite,
    MuteRecord,
    Notice,
    User,
)
from reileta.rules.identity import Principal, Visitor
from reileta.security.server_key import ServerKey
from reileta.settings import Settings
from reileta.store import Store
from tests.actors.fake_stores import (
    FakeFiles,
    FakeGuests,
    FakeProfiles,
    FakeSessions,
    FakeSoftStates,
    FakeTokens,
    FakeWorlds,
)
from tests.actors.frames import Frame
from tests.actors.sinks import FakeSink

ADDRESS = "play.example.org:3032"
EPOCH_MS = 1_790_000_000_000
ROOM = "i_00000000-0000-4000-8000-000000000001"


@dataclass
class TrioClock:
    """Trio's own clock, whose wall time tests may set."""

    set_ms: int = 0
    """By how much the wall time was set."""

    def now_ms(self) -> int:
        return self.steady_ms() + self.set_ms

    def steady_ms(self) -> int:
        return EPOCH_MS + round(trio.current_time() * 1000)


@dataclass
class FakeInstances:
    """`store.instances`, with what was written in `writes`."""

    records: dict[str, InstanceRecord] = field(default_factory=dict)
    empty_since: dict[str, int | None] = field(default_factory=dict)
    bans: dict[str, list[Ban]] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    away: bool = False
    gate: trio.Event | None = None
    """What a statement waits for, once it is set up."""

    async def reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise DatabaseUnavailable

    def over(self, queries: None) -> FakeInstances:
        return self

    async def get(self, ref: str) -> InstanceRecord | None:
        await self.reach()
        for record in self.records.values():
            if ref in (record.id, record.name):
                return record
        return None

    async def of(self, instance_id: str) -> list[Ban]:
        await self.reach()
        return self.bans.get(instance_id, [])

    async def update(self, id_: str, **changes: Any) -> InstanceRecord:
        await self.reach()
        if id_ not in self.records:
            raise InstanceNotFound
        self.writes.append(f"update {' '.join(sorted(changes))}")
        self.records[id_] = replace(self.records[id_], **changes)
        return self.records[id_]

    async def delete(self, id_: str) -> bool:
        await self.reach()
        self.writes.append("delete")
        self.empty_since.pop(id_, None)
        return self.records.pop(id_, None) is not None

    async def occupied(self, id_: str, since_ms: int | None, *, entered: bool) -> bool:
        await self.reach()
        self.writes.append("occupied" if since_ms is None else "empty")
        if id_ not in self.records:
            return False
        self.empty_since[id_] = since_ms
        record = self.records[id_]
        self.records[id_] = replace(record, entered=record.entered or entered)
        return True

    def _is_abandoned(self, id_: str, before_ms: int, unused_before_ms: int) -> bool:
        since = self.empty_since.get(id_)
        if since is None or since >= before_ms:
            return False
        record = self.records[id_]
        return record.entered or record.created_at < unused_before_ms

    async def abandoned(self, before_ms: int, unused_before_ms: int) -> list[InstanceRecord]:
        await self.reach()
        return [
            self.records[id_]
            for id_ in self.empty_since
            if self._is_abandoned(id_, before_ms, unused_before_ms)
        ]

    async def delete_abandoned(self, id_: str, before_ms: int, unused_before_ms: int) -> bool:
        await self.reach()
        return self._is_abandoned(id_, before_ms, unused_before_ms) and await self.delete(id_)

    async def in_use(self) -> list[str]:
        await self.reach()
        return [id_ for id_, since in self.empty_since.items() if since is None]

    async def mark_empty(self, id_: str, since_ms: int) -> None:
        await self.reach()
        if self.empty_since.get(id_, since_ms) is None:
            self.empty_since[id_] = since_ms


@dataclass
class FakeDeeds:
    """`store.deeds`, as reachable as the instances."""

    instances: FakeInstances
    done: dict[str, bytes] = field(default_factory=dict)

    async def note(self, deed: str, answer: bytes) -> None:
        self.done.setdefault(deed, answer)

    async def first(self, deed: str | None) -> bool:
        """Notes the deed; whether it was not done before."""
        if deed is None:
            return True
        if deed in self.done:
            return False
        self.done[deed] = b""
        return True

    async def answer(self, deed: str) -> bytes | None:
        await self.instances.reach()
        return self.done.get(deed)


@dataclass
class FakeModerationStore:
    """`store.moderators`, `store.deeds` and `store.follows`, as reachable as the instances."""

    instances: FakeInstances
    moderators: dict[str, list[str]] = field(default_factory=dict)
    moderation_writes: list[ModerationWrite] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    friendships: set[frozenset[str]] = field(default_factory=set)
    admins: set[int] = field(default_factory=set)
    changed: dict[str, User] = field(default_factory=dict)
    """The accounts that are not as `account` makes them."""

    def __post_init__(self) -> None:
        self.deeds = FakeDeeds(self.instances)

    async def of(self, instance_id: str) -> list[str]:
        await self.instances.reach()
        return self.moderators.get(instance_id, [])

    async def write(
        self, moderation_writes: Sequence[ModerationWrite], first: object = None
    ) -> dict[int, ReiletaError]:
        await self.instances.reach()
        for write in moderation_writes:
            if not isinstance(write, Moderation) or await self.deeds.first(write.deed):
                self.moderation_writes.append(write)
        self.batches.append(len(moderation_writes))
        return {
            place: InstanceNotFound()
            for place, write in enumerate(moderation_writes)
            if write.instance_id not in self.instances.records
        }

    async def friends(self, user: str) -> frozenset[str]:
        await self.instances.reach()
        return frozenset(
            other for pair in self.friendships if user in pair for other in pair - {user}
        )

    async def by_id(self, id_: str) -> User | None:
        """Of the accounts, there are those below 1000."""
        await self.instances.reach()
        if id_ in self.changed:
            return self.changed[id_]
        if "@" in id_:
            return None
        number = int(id_[-12:], 16)
        return account(number, admin=number in self.admins) if number < 1000 else None

    async def many(self, ids: Collection[str]) -> dict[str, User]:
        found = [await self.by_id(id_) for id_ in ids]
        return {one.id: one for one in found if one is not None}

    async def last_kicks_in(self, instances: Collection[str]) -> dict[tuple[str, str], int]:
        await self.instances.reach()
        return {
            (one.instance_id, one.user): one.created_at
            for one in self.moderation_writes
            if isinstance(one, Moderation) and one.type == "kick" and one.instance_id in instances
        }

    async def by_name(self, name: str) -> User | None:
        await self.instances.reach()
        number = name.removeprefix("user")
        return account(int(number)) if number.isdigit() else None


@dataclass
class FakeMutes:
    """`store.mutes`, as reachable as the instances."""

    instances: FakeInstances
    mutes: dict[str, list[MuteRecord]] = field(default_factory=dict)

    async def of(self, instance_id: str) -> list[MuteRecord]:
        await self.instances.reach()
        return self.mutes.get(instance_id, [])


class FakeServers:
    """`store.servers` and `store.challenges`: no other server is known."""

    async def trim(self) -> None:
        await trio.lowlevel.checkpoint()

    async def count(self) -> int:
        await trio.lowlevel.checkpoint()
        return 0


class FakeClientRules:
    """`store.client_rules`: there are none."""

    async def all(self) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return []


class FakeHostNodes:
    """`store.host_nodes`: the nodes of `hosts`, each with its token."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostNode] = {}
        self.tokens: dict[str, bytes] = {}
        self.faults: list[tuple[str, str]] = []

    async def get(self, id_: str) -> HostNode | None:
        await trio.lowlevel.checkpoint()
        return self.hosts.get(id_)

    async def link(
        self, id_: str, token_hash: bytes, *, server: str, version: str
    ) -> HostNode | None:
        host = await self.get(id_)
        if host is None or self.tokens[id_] != token_hash:
            return None
        linked = replace(host, link=host.link + 1, server=server, version=version, status="online")
        self.hosts[id_] = linked
        return linked

    async def seen(self, id_: str, token_hash: bytes, *, link: int, server: str) -> bool:
        host = await self.get(id_)
        if host is None or host.link != link or self.tokens[id_] != token_hash:
            return False
        self.hosts[id_] = replace(host, server=server, status="online")
        return True

    async def unlink(self, id_: str, *, link: int) -> HostNode | None:
        host = await self.get(id_)
        if host is None or host.link != link:
            return None
        self.hosts[id_] = replace(host, server=None, status="offline")
        return self.hosts[id_]

    async def note_fault(self, id_: str, fault: str) -> HostNode | None:
        self.faults.append((id_, fault))
        return await self.get(id_)


class FakeTransactions:
    """`store.database`, as far as a node of a cluster uses it: every tenure holds."""

    statements = 0
    available = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeTransactions]:
        yield self

    async def fetch_one(self, sql: str, *args: object) -> object:
        return ("held",)

    async def value(self, sql: str, *args: object) -> bool:
        return False  # another node sweeps


@dataclass
class FakeIdentity:
    """`store.identity`, as far as notices use it."""

    stored: Notice | None = None

    async def notice(self) -> Notice | None:
        await trio.lowlevel.checkpoint()
        return self.stored

    async def set_notice(self, notice: Notice | None) -> None:
        await trio.lowlevel.checkpoint()
        self.stored = notice


class FakeLock:
    superseded = False

    async def held(self) -> bool:
        return True

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def alone(self, chore: str) -> AsyncIterator[bool]:
        yield True


@dataclass
class FakeDatabase:
    instances: FakeInstances = field(default_factory=FakeInstances)

    def __post_init__(self) -> None:
        self.bans = self.instances
        self.mutes = FakeMutes(self.instances)
        self.lock = FakeLock()
        self.hosting = FakeModerationStore(self.instances)
        self.moderators = self.moderation_writes = self.follows = self.users = self.hosting
        self.moderations = self.hosting
        self.deeds = self.hosting.deeds
        self.states = self.leases = self.sessions = FakeSessions()
        self.tokens = FakeTokens()
        self.soft_states = FakeSoftStates()
        self.assets = self.images = FakeFiles()
        self.worlds = FakeWorlds()
        self.profiles = FakeProfiles()
        self.guests = FakeGuests()
        self.servers: Any = FakeServers()
        self.challenges = self.servers
        self.database = FakeTransactions()
        self.identity = FakeIdentity()
        self.client_rules = FakeClientRules()
        self.host_nodes = FakeHostNodes()


@dataclass(frozen=True, slots=True)
class RunInActor(Message):
    """What a test has an instance's actor do."""

    act: Callable[[InspectableInstance], object]


class InspectableInstance(InstanceActor):
    """An instance to whose inside tests have a door."""

    async def receive(self, message: InstanceMessage | RunInActor) -> None:
        if isinstance(message, RunInActor):
            done = message.act(self)
            if isinstance(done, Awaitable):
                await done
        else:
            await super().receive(message)

    def moderate(self, target: str, type_: str) -> None:
        """As an admin of the server would."""
        by = Visitor("s_admin", f"u_admin@{ADDRESS}", "admin", admin=True)
        now = self.parts.now()
        self._apply(self.parts.rules.moderate(by, target, type_, "rude", None, now))


def account(number: int, *, admin: bool = False) -> User:
    """A user; number 0 owns the instances that `NodeHarness.room` makes."""
    return User(
        id=f"u_00000000-0000-4000-8000-{number:012x}",
        number=number,
        username=f"user{number}",
        displayname=f"U{number}",
        description=None,
        email=None,
        status="online",
        tags=frozenset({"avr:admin"} if admin else ()),
        autopilot=False,
        home=None,
        created_at=EPOCH_MS,
        updated_at=EPOCH_MS,
    )


def principal(number: int, session: int = 0, *, admin: bool = False, token: int = 0) -> Principal:
    """A session of a user, through one of its credentials."""
    return Principal(
        account(number, admin=admin), f"s_{number}.{session}", b"%d.%d" % (number, token)
    )


@dataclass
class Client:
    """A socket of a session."""

    harness: NodeHarness
    principal: Principal
    session: Ref[SessionMessage]
    sink: FakeSink

    async def join(self, instance: str = ROOM, state: bytes | None = b"1") -> str:
        return await self.session.ask(Join(self.sink, instance, state))

    async def leave(self, instance: str = ROOM, state: bytes | None = b"2") -> None:
        await self.session.ask(Leave(self.sink, instance, state))

    def say(
        self,
        data: bytes,
        *,
        key: str | None = None,
        at: float | None = None,
        to: tuple[str, ...] | None = None,
        state: bytes | None = None,
        instance: str = ROOM,
    ) -> None:
        seat = self.sink.seats[instance]
        seat.send_data(self.sink, data, key, at, to, state)

    def lose(self) -> None:
        """The connection is gone."""
        self.session.signal(Detach(self.sink))

    async def subscribe(self, *events: str, target: str | None = None) -> None:
        await self.harness.node.hub.ask(Subscribe(self.sink, frozenset(events), target))

    async def unsubscribe(self, *events: str, target: str | None = None) -> None:
        await self.harness.node.hub.ask(Unsubscribe(self.sink, frozenset(events), target))

    def received(self, *, but: Collection[str] = ()) -> list[Frame]:
        return self.sink.received(but=but)


@dataclass
class NodeHarness:
    """The node, its database, and how to get at it."""

    node: Node
    store: FakeDatabase
    listeners: Listeners
    """The hub's subscriptions."""
    clock: TrioClock

    def room(
        self, id_: str = ROOM, *tags: str, capacity: int = 8, access: str = "avr:public"
    ) -> InstanceRecord:
        """An instance in the database."""
        record = InstanceRecord(
            id=id_,
            name=f"room-{id_[-3:]}",
            title=None,
            description=None,
            world="w_00000000-0000-4000-8000-000000000001",
            owner=account(0).id,
            capacity=capacity,
            tags=frozenset({access, *tags}),
            created_at=EPOCH_MS,
            updated_at=EPOCH_MS,
        )
        self.store.instances.records[id_] = record
        self.store.instances.empty_since[id_] = self.node.clock.now_ms()
        return record

    async def connect(
        self,
        number: int,
        session: int = 0,
        *,
        admin: bool = False,
        token: int = 0,
        sink: FakeSink | None = None,
    ) -> Client:
        """A socket, attached; what it was greeted with is taken."""
        who = principal(number, session, admin=admin, token=token)
        ref = await self.node.sessions.live(who)
        sink = sink or FakeSink(f"{number}.{session}")
        await ref.ask(Attach(sink, who.token_hash))
        await settle()
        sink.take()
        return Client(self, who, ref, sink)

    async def joined(self, number: int, session: int = 0, **more: Any) -> Client:
        """A socket that is inside; what it was told by then is taken."""
        client = await self.connect(number, session, **more)
        await client.join()
        await settle()
        client.sink.take()
        return client

    async def crowd(self, *numbers: int) -> list[Client]:
        """Users inside, each of whom knows of all."""
        clients = [await self.joined(number) for number in numbers]
        for client in clients:
            client.sink.take()
        return clients

    async def change_user(self, user: User) -> None:
        """Changes an account in the database, as an endpoint does."""
        self.store.hosting.changed[user.id] = user
        self.node.changed("user", user)
        await settle()

    @property
    def instance(self) -> Ref[InstanceMessage]:
        return self.instance_of(ROOM)

    def instance_of(self, id_: str) -> Ref[InstanceMessage]:
        ref = self.node.instances.running(id_)
        assert isinstance(ref, Ref)
        return ref

    def act(self, act: Callable[[InspectableInstance], object]) -> None:
        """Has the instance do something."""
        self.instance.tell(cast(InstanceMessage, RunInActor(act)))

    def crash(self) -> None:
        """Has the instance fail."""
        self.act(fail)

    def leftovers(self) -> dict[str, int]:
        """The sizes of the node's tables that are not empty."""
        counts = self.node.debug_counts()
        del counts["recent changes"]  # forgotten by and by
        return {name: count for name, count in counts.items() if count}


class Boom(Exception):
    """What a failing actor raises."""


def fail(_: object) -> None:
    raise Boom


async def settle() -> None:
    """Until everyone waits."""
    await trio.testing.wait_all_tasks_blocked()


def user_at(number: int) -> str:
    return at(account(number).id, ADDRESS)


@asynccontextmanager
async def open_harness(
    monkeypatch: pytest.MonkeyPatch, store: FakeDatabase | None = None, **settings: Any
) -> AsyncIterator[NodeHarness]:
    """A node for the block, with one room in its database."""
    monkeypatch.setattr(actors.instance.manager, "InstanceActor", InspectableInstance)
    listeners = Listeners()
    monkeypatch.setattr(actors.node, "Listeners", lambda: listeners)
    store, metrics, clock = store or FakeDatabase(), Metrics(), TrioClock()
    async with Node.open(
        settings=Settings(**settings),
        store=cast(Store, store),
        clock=clock,
        metrics=metrics,
        instruments=metrics,
        address=ADDRESS,
        key=ServerKey.generate(),
    ) as node:
        harness = NodeHarness(node, store, listeners, clock)
        harness.room()
        yield harness
