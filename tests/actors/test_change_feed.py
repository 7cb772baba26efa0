"""What another process changes in the database reaches whom it concerns on a node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
import trio

from actors.change_feed import POLL_S, ChangeApplier
from actors.hub.messages import Subscribe
from actors.node import Node
from actors.session.messages import Attach, Join
from reileta.errors import DatabaseUnavailable
from reileta.records import ADMIN_TAG
from reileta.rules.identity import Principal
from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.change_feed import KEPT_S, Changed
from tests.actors.session_clients import SessionClient, log_in, open_node
from tests.actors.sinks import FakeSink
from tests.conftest import PATIENCE_S, ManualClock


@dataclass
class FakeAuthCache:
    """What is remembered of who was authenticated; what was forgotten of it."""

    users: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    tokens: list[bytes] = field(default_factory=list)

    def forget_user(self, user_id: str, /) -> None:
        self.users.append(user_id)

    def forget_session(self, session_id: str, /) -> None:
        self.sessions.append(session_id)

    def forget_token(self, token: bytes, /) -> None:
        self.tokens.append(token)


@pytest.fixture
async def other(database_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """Another process's store over the same database."""
    async with open_store(Settings(database=database_url), clock) as store:
        yield store


@pytest.fixture
async def node(store: Store, clock: ManualClock) -> AsyncIterator[Node]:
    async with open_node(store, clock) as node:
        await store.changes.begin()
        yield node


@pytest.fixture
def known() -> FakeAuthCache:
    return FakeAuthCache()


@pytest.fixture
def feed(store: Store, node: Node, known: FakeAuthCache) -> ChangeApplier:
    return ChangeApplier(store, node, known)


async def until(condition: Callable[[], bool]) -> None:
    """Waits until the node's own tasks have done something."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.005)


async def attached(node: Node, who: Principal) -> FakeSink:
    sink = FakeSink()
    session = await node.sessions.live(who)
    await session.ask(Attach(sink, who.token_hash))
    sink.take()
    return sink


def is_admin(node: Node, one: SessionClient) -> bool:
    return node.sessions.recoveries[one.principal.session_id].user.admin


async def test_a_grant_and_its_revocation_reach_open_sessions(
    node: Node, feed: ChangeApplier, known: FakeAuthCache, other: Store
) -> None:
    ada = await log_in(node)
    sink = await attached(node, ada.principal)
    await other.users.grant(ada.principal.user.id, ADMIN_TAG)
    await feed.poll()
    assert known.users == [ada.principal.user.id]
    await until(lambda: is_admin(node, ada))
    await until(lambda: any(one.command == "update-user" for one in sink.received()))
    await other.users.revoke(ada.principal.user.id, ADMIN_TAG)
    await feed.poll()
    await until(lambda: not is_admin(node, ada))


async def test_a_session_that_begins_with_what_was_known_before_is_of_the_user_as_it_is(
    node: Node, feed: ChangeApplier, other: Store
) -> None:
    ada = await log_in(node)
    admin = await other.users.grant(ada.principal.user.id, ADMIN_TAG)
    before = Principal(
        admin, ada.principal.session_id, ada.principal.token_hash
    )  # authenticated before
    await other.users.revoke(admin.id, ADMIN_TAG)
    watching = await log_in(node, user=admin.id)
    await attached(node, watching.principal)
    await feed.poll()
    await until(lambda: node.debug_counts()["recent changes"] > 0)
    await attached(node, before)
    assert not is_admin(node, ada)


async def test_what_ends_elsewhere_closes_its_sockets_here(
    node: Node, feed: ChangeApplier, known: FakeAuthCache, other: Store, clock: ManualClock
) -> None:
    ada, bob = await log_in(node), await log_in(node)
    line, sink = await ada.open(), await attached(node, bob.principal)
    await other.tokens.kill(ada.principal.token_hash, clock.now_ms())
    await other.sessions.end(bob.principal.session_id)
    await feed.poll()
    await until(lambda: line.closed is not None and sink.closed is not None)
    assert known.sessions == [bob.principal.session_id]
    assert ada.principal.token_hash in known.tokens


async def test_a_user_that_is_deleted_elsewhere_is_gone_here(
    store: Store, node: Node, feed: ChangeApplier, other: Store
) -> None:
    async def unhashed(password: str) -> str:
        return "hash"

    await store.users.ensure_system_accounts(unhashed)
    ada, bob = await log_in(node), await log_in(node)
    hall = await store.instances.create(
        name="hall", title=None, description=None, world="w_1", owner=ada.principal.user.id,
        capacity=4, tags=frozenset({"avr:public"}),
    )  # fmt: skip
    sinks = [await attached(node, one.principal) for one in (ada, bob)]
    for one, sink in zip((ada, bob), sinks, strict=True):
        await (await node.sessions.live(one.principal)).ask(Join(sink, "hall", None))
    await node.hub.ask(Subscribe(sinks[1], frozenset({"update-instance"}), hall.id))
    await other.users.delete(ada.principal.user.id)
    await feed.poll()
    await until(lambda: sinks[0].closed is not None)
    heir = (await store.users.server_account()).id
    owned = f'"owner":"{heir}@'.encode()
    await until(lambda: any(owned in frame for frame in sinks[1].frames))


async def test_what_it_could_not_do_without_a_database_it_does_afterwards(
    node: Node, feed: ChangeApplier, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await log_in(node)
    await attached(node, ada.principal)
    await other.users.grant(ada.principal.user.id, ADMIN_TAG)
    there = type(store.users).many

    async def away(*_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(type(store.users), "many", away)
    with pytest.raises(DatabaseUnavailable):
        await feed.poll()
    monkeypatch.setattr(type(store.users), "many", there)
    await feed.poll()
    await until(lambda: is_admin(node, ada))


async def test_after_a_long_outage_all_that_is_here_is_looked_at(
    node: Node,
    feed: ChangeApplier,
    store: Store,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada, bob, eve = await log_in(node), await log_in(node), await log_in(node)
    sinks = [await attached(node, one.principal) for one in (ada, bob, eve)]
    # Changes of its own, of which it hears nothing: as those that were swept out meanwhile.
    await store.users.grant(ada.principal.user.id, ADMIN_TAG)
    await store.sessions.end(bob.principal.session_id)
    await store.tokens.kill(eve.principal.token_hash, clock.now_ms())
    await feed.poll()
    assert not any(sink.closed for sink in sinks)

    async def missed() -> Changed:
        return Changed(gap=True)

    monkeypatch.setattr(store.changes, "next", missed)
    await feed.poll()
    await until(lambda: is_admin(node, ada))
    await until(lambda: sinks[1].closed is not None and sinks[2].closed is not None)
    assert sinks[0].closed is None


async def test_after_a_long_outage_guests_with_a_valid_token_stay(
    store: Store, node: Node, known: FakeAuthCache, clock: ManualClock
) -> None:
    await store.servers.learn(
        "far.example",
        host="far.example",
        secure=True,
        public_key="key",
        key_since=0,
        gateway_http=None,
        gateway_ws=None,
        version=None,
    )

    async def come(number: int) -> tuple[str, FakeSink]:
        token = await store.guests.admit(
            f"u_00000000-0000-4000-8000-{number:012x}@far.example",
            "far.example",
            displayname="Ann",
            thumbnail=None,
            follows=(),
            token_hash=b"%d" % number,
            token_id=f"t{number}",
            expires_at=clock.now_ms() + 1000,
            new_per_hour=None,
        )
        guest, sink = token.guest, FakeSink(str(number))
        who = Principal(guest.as_user(), guest.session_id, token.token.hash, guest=True)
        session = await node.sessions.live(who)
        await session.ask(Attach(sink, who.token_hash))
        return token.token.id, sink

    async def lost() -> Changed:
        return Changed(gap=True)

    (_, ann), (id_, bea) = await come(1), await come(2)
    await store.guests.revoke(id_)
    applier = ChangeApplier(store, node, known)
    store.changes.next = lost  # type: ignore[method-assign]
    await applier.poll()
    with trio.fail_after(PATIENCE_S):
        while bea.closed is None:
            await trio.sleep(0.01)
    assert ann.closed is None
    assert len(node.sessions.recoveries) == 2


def test_it_is_asked_more_than_once_a_second_and_rows_are_kept_for_longer() -> None:
    assert POLL_S < 1 < KEPT_S
