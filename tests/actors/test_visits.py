"""Visits: what another server is asked, and what of its answers is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
import trio

from actors.federation.visits import PROMPT_TURNS, SLOW_TURNS, Visits
from reileta.errors import (
    BadData,
    GuestNotAllowed,
    MalformedData,
    NoResponse,
    ReiletaError,
    ServerBlocked,
    TooManyRequests,
)
from reileta.federation.peers import PeerAnswer, PeerError, Peers
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.records import User, Visit
from reileta.site import Site
from reileta.store import Store
from tests.conftest import PATIENCE_S, ManualClock
from tests.reileta.store.records import a_user

HOME, FAR, NEAR = "home.example", "far.example:3032", "near.example"
SITE = Site(HOME, secure=True)
TOKEN = "ia_" + "x" * 43
HOUR_MS = 3_600_000


@dataclass
class PlayedPeers:
    """`Peers` whose answers a test gives, by server."""

    answers: dict[str, Callable[[str, Any], Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, str, Any]] = field(default_factory=list)

    askers: list[str] = field(default_factory=list)
    waiting: int = 0
    """So many servers have not answered."""
    most_waiting: int = 0

    @asynccontextmanager
    async def asking(self, user: str) -> AsyncIterator[None]:
        self.askers.append(user)
        yield

    async def ask(
        self,
        method: str,
        server: str,
        path: str,
        *,
        body: object = None,
        token: str = "",
        revocation: bool = False,
    ) -> PeerAnswer:
        assert token == "required"
        assert revocation is (method == "DELETE")
        self.asked.append((method, server, path, body))
        answer = self.answers[server](method, body)
        if isinstance(answer, ReiletaError):
            raise answer
        if isinstance(answer, PeerError):
            return PeerAnswer(403, None, answer)
        if answer is None:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            try:
                await trio.sleep_forever()
            finally:
                self.waiting -= 1
        return PeerAnswer(200, msgspec.Raw(msgspec.json.encode(answer)))


@pytest.fixture
def peers() -> PlayedPeers:
    return PlayedPeers()


@pytest.fixture
def visits(store: Store, clock: ManualClock, peers: PlayedPeers) -> Visits:
    return Visits(
        store=store,
        clock=clock,
        peers=cast(Peers, peers),
        address=HOME,
        activity=ActivityLog(clock),
        metrics=Metrics(),
    )


def issued(clock: ManualClock, whom: User, **other: object) -> dict[str, object]:
    return {
        "id": "v1",
        "user": f"{whom.id}@{HOME}",
        "token": TOKEN,
        "expires_at": clock.now_ms() + HOUR_MS,
        **other,
    }


async def test_a_user_is_introduced_with_whom_it_follows_there(
    store: Store, clock: ManualClock, visits: Visits, peers: PlayedPeers
) -> None:
    ada, bob = await a_user(store, "ada"), await a_user(store, "bob")
    session = await store.sessions.open(ada.id)
    there = "u_00000000-0000-4000-8000-00000000000{}@{}"
    for other in (bob.id, there.format(1, FAR), there.format(2, NEAR), there.format(3, FAR)):
        clock.advance(1)
        await store.follows.put(ada.id, other)
    peers.answers[FAR] = lambda *_: issued(clock, ada)
    begun = await visits.begin(ada, session.id, FAR, SITE)
    assert begun.token == TOKEN
    assert TOKEN not in repr(begun)
    ((method, _, path, body),) = peers.asked
    assert peers.askers == [ada.id]
    assert (method, path) == ("PUT", "/api/integrity")
    assert body == {
        "user": f"{ada.id}@{HOME}",
        "displayname": "ada",
        "follows": [there.format(1, FAR), there.format(3, FAR)],
    }
    page = await store.guests.visits(ada.id, limit=9, offset=0)
    assert page.items == (begun.visit,)


@pytest.mark.parametrize(
    "other",
    [
        {"user": f"u_00000000-0000-4000-8000-000000000001@{HOME}"},
        {"token": "ua_" + "x" * 43},
        {"token": "ia_"},
        {"token": "ia_" + "x" * 1000},
        {"token": "ia_x y\r\nSet-Cookie: a=b; aaaaaaaaaaaa"},
        {"token": 7},
        {"id": ""},
        {"id": "../../server"},
        {"id": "x" * 65},
        {"expires_at": 0},
        {"expires_at": 2**60},
        {"expires_at": "soon"},
    ],
)
async def test_an_answer_that_is_not_about_the_user_is_not_believed(
    store: Store, clock: ManualClock, visits: Visits, peers: PlayedPeers, other: dict[str, object]
) -> None:
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    peers.answers[FAR] = lambda *_: issued(clock, ada, **other)
    with pytest.raises(MalformedData):
        await visits.begin(ada, session.id, FAR, SITE)
    assert (await store.guests.visits(ada.id, limit=9, offset=0)).total == 0


async def test_a_token_that_is_valid_for_years_is_not_kept_for_years(
    store: Store, clock: ManualClock, visits: Visits, peers: PlayedPeers
) -> None:
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    peers.answers[FAR] = lambda *_: issued(clock, ada, expires_at=clock.now_ms() + 2**42)
    begun = await visits.begin(ada, session.id, FAR, SITE)
    assert begun.visit.expires_at == clock.now_ms() + 24 * HOUR_MS


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (129, GuestNotAllowed),
        (135, ServerBlocked),
        (102, TooManyRequests),
        (16, BadData),
        (3, BadData),
        (-1, BadData),
    ],
)
async def test_the_user_learns_why_it_was_refused_as_far_as_that_makes_sense(
    store: Store,
    visits: Visits,
    peers: PlayedPeers,
    code: int,
    error: type[ReiletaError],
) -> None:
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    peers.answers[FAR] = lambda *_: PeerError(code, "<script>")
    with pytest.raises(error) as raised:
        await visits.begin(ada, session.id, FAR, SITE)
    assert "script" not in str(raised.value)


async def begun(store: Store, clock: ManualClock, user: User, *visits: tuple[str, str]) -> None:
    """Visits of the user, a server and an id each, that are to be revoked."""
    session = await store.sessions.open(user.id)
    now = clock.now_ms()
    for server, id_ in visits:
        await store.guests.visit(Visit(id_, server, user.id, session.id, now, now + HOUR_MS))
    await store.sessions.end(session.id)


async def test_a_token_that_the_other_server_does_not_know_is_done(
    store: Store, clock: ManualClock, visits: Visits, peers: PlayedPeers
) -> None:
    await begun(store, clock, await a_user(store), (FAR, "v1"), (FAR, "v2"))
    peers.answers[FAR] = lambda *_: {} if len(peers.asked) == 1 else PeerError(35)
    await visits.revoke()
    assert [one[:3] for one in peers.asked] == [
        ("DELETE", FAR, "/api/integrity/v1"),
        ("DELETE", FAR, "/api/integrity/v2"),
    ]
    assert await store.guests.servers_to_ask(limit=9) == []
    await visits.revoke()
    assert len(peers.asked) == 2


async def test_a_server_that_is_away_is_asked_again_for_an_hour(
    store: Store, clock: ManualClock, visits: Visits, peers: PlayedPeers
) -> None:
    await begun(store, clock, await a_user(store), (FAR, "v1"), (FAR, "v2"), (NEAR, "v3"))
    for answer in (NoResponse(), PeerError(122), PeerError(16)):
        peers.asked.clear()
        peers.answers |= {FAR: lambda *_, answer=answer: answer, NEAR: lambda *_: {}}
        await visits.revoke()
        # One failure is enough of it; the other server does not wait for that.
        assert [one[1] for one in peers.asked].count(FAR) == 1
    assert await store.guests.servers_to_ask(limit=9) == [FAR]
    clock.advance(HOUR_MS)
    peers.asked.clear()
    await visits.revoke()
    assert peers.asked == []


async def test_slow_servers_keep_only_each_other_waiting(
    store: Store,
    clock: ManualClock,
    visits: Visits,
    peers: PlayedPeers,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many there are: once they are known to be slow, others are asked at once."""
    slow = [(f"slow{number}.example", "v") for number in range(PROMPT_TURNS + 2 * SLOW_TURNS)]
    ada = await a_user(store)
    await begun(store, clock, ada, *slow)
    peers.answers = {server: lambda *_: None for server, _ in slow} | {NEAR: lambda *_: {}}

    def asked() -> list[str]:
        return [server for _, server, _, _ in peers.asked]

    with trio.fail_after(PATIENCE_S):
        await visits.revoke()
    # As many turns as it takes, of two seconds each.
    assert peers.most_waiting == PROMPT_TURNS
    assert len(asked()) == len(set(asked())) == len(slow)
    monkeypatch.setattr("actors.federation.visits.SLOW_S", 2 * PATIENCE_S)
    nursery.start_soon(visits.run)
    peers.asked.clear()
    with trio.fail_after(PATIENCE_S):
        while len(peers.asked) < SLOW_TURNS:
            await trio.sleep(0.01)
    await begun(store, clock, ada, (NEAR, "v"))
    visits.look()
    with trio.fail_after(PATIENCE_S):
        while NEAR not in asked():
            await trio.sleep(0.01)
    assert len(asked()) == SLOW_TURNS + 1
    nursery.cancel_scope.cancel()


async def test_a_server_that_is_quick_again_is_not_slow(
    store: Store,
    clock: ManualClock,
    visits: Visits,
    peers: PlayedPeers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada = await a_user(store)
    await begun(store, clock, ada, (FAR, "v1"))
    peers.answers = {FAR: lambda *_: None}
    await visits.revoke()
    peers.answers = {FAR: lambda *_: {}}
    await visits.revoke()
    assert await store.guests.servers_to_ask(limit=9) == []
    slow = [(f"slow{number}.example", "v") for number in range(SLOW_TURNS)]
    peers.answers |= {server: lambda *_: None for server, _ in slow}
    await begun(store, clock, ada, *slow)
    await visits.revoke()
    await begun(store, clock, ada, (FAR, "v2"))
    monkeypatch.setattr("actors.federation.visits.SLOW_S", 2 * PATIENCE_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visits.revoke)
        with trio.fail_after(PATIENCE_S):
            while FAR in await store.guests.servers_to_ask(limit=9):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_what_ended_is_revoked_at_once(
    store: Store,
    clock: ManualClock,
    visits: Visits,
    peers: PlayedPeers,
    nursery: trio.Nursery,
) -> None:
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    peers.answers[FAR] = lambda method, _: issued(clock, ada) if method == "PUT" else {}
    await visits.begin(ada, session.id, FAR, SITE)
    nursery.start_soon(visits.run)
    assert not await visits.end("v1", user_id="u_other")
    assert await visits.end("v1", user_id=ada.id)
    with trio.fail_after(PATIENCE_S):
        while len(peers.asked) < 2:
            await trio.sleep(0.01)
    nursery.cancel_scope.cancel()


async def test_while_nobody_is_away_hardly_anything_is_asked_of_the_database(
    store: Store,
    clock: ManualClock,
    visits: Visits,
    peers: PlayedPeers,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.federation.visits.REVOKE_S", 0.01)
    monkeypatch.setattr("actors.federation.visits.AWAY_S", 2 * PATIENCE_S)
    looks, ask = 0, store.guests.servers_to_ask

    async def counted(*, limit: int, without: Collection[str] = ()) -> list[str]:
        nonlocal looks
        looks += 1
        return await ask(limit=limit, without=without)

    monkeypatch.setattr(store.guests, "servers_to_ask", counted)
    nursery.start_soon(visits.run)
    await trio.sleep(0.5)
    assert looks <= 1
    monkeypatch.setattr("actors.federation.visits.AWAY_S", 1.0)
    ada = await a_user(store)
    session = await store.sessions.open(ada.id)
    peers.answers[FAR] = lambda method, _: issued(clock, ada) if method == "PUT" else {}
    await visits.begin(ada, session.id, FAR, SITE)
    with trio.fail_after(PATIENCE_S):
        while looks < 10:
            await trio.sleep(0.01)
    clock.advance(2 * HOUR_MS)  # the token has expired
    before = -1
    with trio.fail_after(PATIENCE_S):
        while looks != before:
            before = looks
            await trio.sleep(0.3)
    nursery.cancel_scope.cancel()
