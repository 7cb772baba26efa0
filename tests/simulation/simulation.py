"""Sessions on two nodes over one real database: the events, the faults, and the clients.

Each public method is one thing that can happen. See README.md in this folder.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import trio
import trio.testing
from trio.testing import MockClock

from actors.node import Node
from actors.resource.messages import Subscriber
from actors.runtime.errors import ActorStopped
from actors.runtime.mailbox import Ref
from actors.session.config import RENEW_S
from actors.session.messages import Attach, Detach, OpenSocket, PatchState, SessionMessage
from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    NotQueued,
    Overloaded,
    ReiletaError,
    ResourceHeld,
    ResourceNotAcquired,
    ResourceTaken,
    SessionNotFound,
)
from reileta.observability import log_events
from reileta.rules.identity import Claimant, Principal
from reileta.rules.resource.json_values import Json, same
from reileta.rules.resource.resource import ResourceKey
from reileta.settings import Settings
from reileta.store import Store
from tests.actors.session_clients import SessionClient, new_document, new_principal, open_node
from tests.conftest import ManualClock
from tests.simulation.call_scheduler import CallScheduler, Verdict
from tests.simulation.invariants import WATCH, Api, InvariantChecker, SimulatedClient

NODES: Final = (0, 1)
OUTSIDE: Final = -1
"""The node number of calls that come from no node: logins, tokens, documents."""
AWAY_S: Final = Settings().away_s
LARGE: Final = 40_000
"""Characters; a state has room for one such value, but not for two."""
STEP_S: Final = 5.0
"""The longest time by which the clocks advance at once."""
DEFECT: Final = "not a message"
"""A message that no actor knows, which crashes it."""
REFUSALS: Final = (
    AlreadyConnected,
    CredentialInvalid,
    NotQueued,
    Overloaded,
    ResourceHeld,
    ResourceNotAcquired,
    ResourceTaken,
    SessionNotFound,
)
"""Errors that a valid request may get, because it is late or another one was quicker."""

EMPTY_TABLES: Final = (
    "sessions",
    "recoveries",
    "sockets",
    "resources",
    "resource recoveries",
    "watching sockets",
    "watching sessions",
    "waiting sessions",
)
"""Tables of a node that are empty when all clients have gone."""
Fault = Literal["held", "failed", "unanswered"] | None
"""What happens to a node's next database call; None: it is carried out."""
Work = Callable[[SessionClient, ResourceKey], Awaitable[None]]
Logs = list[MutableMapping[str, Any]]


class _NodeAlone(Node):
    """A node without other servers, whose loops would make calls that nobody schedules."""

    def start_federation(self, nursery: trio.Nursery) -> None:
        return None


@dataclass
class RunningNode:
    """A node, and how it ends: in order by `stop`, or at once by cancelling `scope`."""

    node: Node
    scope: trio.CancelScope
    stop: trio.Event = field(default_factory=trio.Event)
    stopped: bool = False


class Simulation:
    """One course of events, on clocks that the simulation advances itself."""

    def __init__(self, store: Store, clock: ManualClock, mock: MockClock, logs: Logs) -> None:
        self._clock = clock
        self._mock = mock
        self._logs = logs
        self._marks = (f"m{number}" for number in itertools.count(1))
        self._requests = 0
        """Requests without an answer."""
        self.checker = InvariantChecker(store, clock, away_ms=int(AWAY_S * 1000))
        self.scheduler = CallScheduler(store, self.checker)
        self._store = self.scheduler.store(OUTSIDE)
        self._ended = trio.Event()
        self._refs: dict[tuple[int, str], Ref[SessionMessage]] = {}
        """The actors that a client of that node and session has used."""
        self.clients: list[SimulatedClient] = []
        self.tokens: list[list[Principal]] = []
        """For each session, the tokens that were ever issued."""
        self.documents: list[ResourceKey] = []
        self.nodes: list[RunningNode] = []

    async def run(self, *, task_status: trio.TaskStatus[Simulation]) -> None:
        """Runs the nodes until cancelled."""
        ada = await self._new_session()
        await self._new_session(user=ada.user.id)
        bob = await self._new_session()
        owner = Claimant(ada.session_id, ada.user.id)
        for _ in range(2):
            key = await new_document(self._store, owner)
            await self._store.resources.share(key, owner, bob.user.id)
            self.documents.append(key)
            self.checker.watch_document(key.number)
        try:
            async with trio.open_nursery() as self._nursery:
                for number in NODES:
                    self.nodes.append(await self._nursery.start(self._serve, number))
                task_status.started(self)
                await trio.sleep_forever()
        finally:
            self._ended.set()

    async def _new_session(self, *, user: str | None = None) -> Principal:
        """A session with two tokens."""
        principal = await new_principal(self._store, self._clock, user=user)
        self.tokens.append([principal, await self._new_token(principal)])
        self.checker.watch_session(principal.session_id)
        return principal

    async def _new_token(self, principal: Principal) -> Principal:
        return await new_principal(
            self._store, self._clock, session=principal.session_id, user=principal.user.id
        )

    async def close(self) -> None:
        self._nursery.cancel_scope.cancel()
        await self._ended.wait()

    async def _serve(self, number: int, *, task_status: trio.TaskStatus[RunningNode]) -> None:
        with trio.CancelScope() as scope:
            async with open_node(self.scheduler.store(number), self._clock, _NodeAlone) as node:
                running = RunningNode(node, scope)
                task_status.started(running)
                await running.stop.wait()
        running.stopped = True

    async def step(self, events: list[Callable[[], Awaitable[None]]]) -> None:
        """Lets the events happen with nothing in between, and then all that follows from them."""
        for event in events:
            await event()
        await self._settle()
        self._check()

    async def nothing(self) -> None:
        """Lets the events before it go on."""

    async def _settle(self) -> None:
        """Until each task waits: for a message, for time, or for a call that is held."""
        await trio.testing.wait_all_tasks_blocked()
        while closed := [client for client in self.clients if client.closed is not None]:
            for client in closed:
                self._lost(client)
            await trio.testing.wait_all_tasks_blocked()

    # Clients

    async def _valid(self, session: int, token: int) -> Principal | None:
        """The session's token, if the database accepts it."""
        principal = self.tokens[session][token % len(self.tokens[session])]
        found = await self._store.tokens.by_access(principal.token_hash)
        assert found is not None
        valid = found[0].killed_at is None and found[0].access_expires > self._clock.now_ms()
        return principal if valid and found[1].ended_at is None else None

    async def connect(self, node: int, session: int, token: int, api: Api) -> None:
        principal = await self._valid(session, token)
        if principal is not None:
            client = SimulatedClient(self.checker, node, principal, api)
            self.clients.append(client)
            self._nursery.start_soon(self._request, partial(self._open, client), client.scope)

    async def _open(self, client: SimulatedClient) -> None:
        """As the gateway does."""
        principal = client.principal
        try:
            for last in (False, True):
                client.ref = await self._session(client.node, principal)
                try:
                    if client.api == "session":
                        await client.ref.ask(
                            OpenSocket(client, principal.token_hash, principal.token_expires)
                        )
                    else:
                        await client.ref.ask(Attach(client, principal.token_hash))
                        client.version = max(client.version, 0)
                    return
                except ActorStopped:
                    if last:
                        raise
        except ReiletaError:
            client.close(1013)
            raise
        finally:
            if client not in self.clients:
                self._detach(client)

    async def _session(self, node: int, principal: Principal) -> Ref[SessionMessage]:
        ref = await self.nodes[node].node.sessions.live(principal)
        self._refs[node, principal.session_id] = ref
        return ref

    async def _request(
        self, work: Callable[[], Awaitable[None]], scope: trio.CancelScope | None = None
    ) -> None:
        self._requests += 1
        with scope or trio.CancelScope(), suppress(*REFUSALS):
            await work()
        self._requests -= 1

    async def disconnect(self, which: int) -> None:
        if self.clients:
            self._lost(self.clients[which % len(self.clients)])

    def _lost(self, client: SimulatedClient) -> None:
        """Its connection is lost, which cancels what is done for it."""
        self.clients.remove(client)
        client.close(1006)
        client.scope.cancel()
        self._detach(client)

    def _detach(self, client: SimulatedClient) -> None:
        self.nodes[client.node].node.resources.socket_closed(client)
        if client.ref is not None:
            client.ref.signal(Detach(client))

    async def patch(self, which: int, patch: dict[str, Json], fault: Fault) -> None:
        connected = [one for one in self.clients if one.open and one.api == "session"]
        if not connected:
            return
        client = connected[which % len(connected)]
        await self.set_fault(client.node, fault)
        assert client.ref is not None
        mark = next(self._marks)
        large = {name: "x" * LARGE for name, value in patch.items() if value == "large"}
        client.unanswered[mark] = {**patch, **large, mark: 1}
        try:
            client.ref.tell(PatchState(client, mark, client.unanswered[mark]))
        except Overloaded as error:
            client.refuse(mark, error)

    async def watch(self, which: int, document: int, watches: bool) -> None:
        """A client begins to watch a document, or ends that."""
        connected = [one for one in self.clients if one.open and one.api == "session"]
        if not connected:
            return
        client, key = connected[which % len(connected)], self.documents[document]
        resources = self.nodes[client.node].node.resources
        if not watches:
            if resources.unwatch(key, client):
                client.views.pop(key.number, None)
            return
        event_id = WATCH + next(self._marks)
        subscriber = Subscriber(client, session_sink=client, event_id=event_id)
        who = client.principal.as_claimant()
        self._nursery.start_soon(self._request, partial(resources.watch, key, who, subscriber))

    async def queue(self, node: int, session: int, document: int, waits: bool) -> None:
        """A session begins to wait for a document, or ends that."""
        principal = await self._valid(session, 0) or await self._valid(session, 1)
        if principal is None:
            return
        resources = self.nodes[node].node.resources
        ask = resources.queue if waits else resources.unqueue
        work: Any = partial(ask, self.documents[document], principal.as_claimant())
        self._nursery.start_soon(self._request, work)

    async def acquire(self, node: int, session: int, document: int) -> None:
        principal = await self._valid(session, 0) or await self._valid(session, 1)
        if principal is not None:
            self._start(self._acquire, node, principal, document)

    async def use(self, kind: str, node: int, session: int, document: int) -> None:
        """The document's holder writes or releases it; without a holder, that session tries."""
        holder, _ = self.checker.leases[self.documents[document].number]
        holders = [n for n, tokens in enumerate(self.tokens) if tokens[0].session_id == holder]
        number = holders[0] if holders else session
        principal = await self._valid(number, 0) or await self._valid(number, 1)
        if principal is not None:
            work = self._write if kind == "write" else self._release
            self._start(work, node, principal, document)

    def _start(self, work: Work, node: int, principal: Principal, document: int) -> None:
        client, key = SessionClient(self.nodes[node].node, principal), self.documents[document]

        async def start() -> None:
            await self._session(node, principal)
            await work(client, key)

        self._nursery.start_soon(self._request, start)

    async def _acquire(self, client: SessionClient, key: ResourceKey) -> None:
        fence = await client.acquire(key)
        self.checker.check_acquisition(key.number, fence, client.principal.session_id)

    async def _release(self, client: SessionClient, key: ResourceKey) -> None:
        before = self.checker.leases[key.number]
        await client.release(key)
        self.checker.check_release(key.number, before, client.principal.session_id)

    async def _write(self, client: SessionClient, key: ResourceKey) -> None:
        mark = next(self._marks)
        await client.write(key, data={mark: 1})
        self.checker.check_write(key.number, mark)

    # Tokens and sessions

    async def log_in(self, session: int) -> None:
        """Issues another token of the session; if it has ended, opens another one of its user."""
        principal = self.tokens[session][0]
        if principal.session_id in self.checker.sessions:
            self.tokens[session].append(await self._new_token(principal))
        else:
            await self._new_session(user=principal.user.id)
            self.tokens[session] = self.tokens.pop()

    async def kill(self, which: int, elsewhere: bool) -> None:
        """A client's token is revoked, by its node or by the other one."""
        if self.clients:
            node, principal = self._of(which, elsewhere)
            await self._store.tokens.kill(principal.token_hash, self._clock.now_ms())
            self.nodes[node].node.sessions.end_token(principal.token_hash)
            self._revoke(node, lambda one: one.token_hash == principal.token_hash)

    async def end(self, which: int, elsewhere: bool) -> None:
        """A client's session ends, by its node or by the other one."""
        if self.clients:
            node, principal = self._of(which, elsewhere)
            await self._store.sessions.end(principal.session_id)
            self.nodes[node].node.sessions.end(principal.session_id)
            self._revoke(node, lambda one: one.session_id == principal.session_id)

    def _of(self, which: int, elsewhere: bool) -> tuple[int, Principal]:
        client = self.clients[which % len(self.clients)]
        return (1 - client.node if elsewhere else client.node), client.principal

    def _revoke(self, node: int, whose: Callable[[Principal], bool]) -> None:
        for client in self.clients:
            if client.node == node and whose(client.principal):
                client.revoked = True

    # Accidents

    async def crash(self, which: int, elsewhere: bool) -> None:
        """The actor of a client's session crashes, at its node or at the other one."""
        if self.clients:
            node, principal = self._of(which, elsewhere)
            ref = self._refs.get((node, principal.session_id))
            if ref is not None:
                defect: Any = DEFECT
                with suppress(Overloaded):
                    ref.tell(defect)

    async def crash_document(self, node: int, document: int) -> None:
        """The actor of a document crashes."""
        number = self.documents[document].number
        ref = self.nodes[node].node.resources.running(number)
        if ref is not None:
            defect: Any = DEFECT
            with suppress(Overloaded):
                ref.tell(defect)

    async def restart(self, number: int, killed: bool) -> None:
        """A node stops in order or is killed, and another one takes its place."""
        running = self.nodes[number]
        if killed:
            running.scope.cancel()
            self.clients = [one for one in self.clients if one.node != number]
        else:
            for client in [one for one in self.clients if one.node == number]:
                self._lost(client)
            await self.release_all()
            running.stop.set()
            await self._recover()
        await trio.testing.wait_all_tasks_blocked()
        self.checker.expect(running.stopped, "a node stops")
        running.scope.cancel()
        self.nodes[number] = await self._nursery.start(self._serve, number)

    async def _recover(self) -> None:
        """Gives crashed actors the time to restart, also if they crash again."""
        for _ in range(3):
            await self.wait(1)

    async def wait(self, seconds: float) -> None:
        await self._settle()
        while seconds > 0:
            by = min(seconds, STEP_S)
            seconds -= by
            self._clock.advance(int(by * 1000))
            self._mock.jump(by)
            await self._settle()
            self.scheduler.expire()
            await self._settle()

    # The database

    async def set_fault(self, node: int, fault: Fault) -> None:
        """The fault of the node's next call; `held` holds all until the next release."""
        if fault == "held":
            self.scheduler.holding.add(node)
        elif fault is not None:
            self.scheduler.faults.setdefault(node, []).append(fault)

    async def release(self, which: int, verdict: Verdict) -> None:
        """Lets a held call go on; if there is none, carries out an abandoned one."""
        scheduler = self.scheduler
        if scheduler.held:
            scheduler.release(scheduler.held[which % len(scheduler.held)], verdict)
        elif scheduler.abandoned:
            call = scheduler.abandoned[which % len(scheduler.abandoned)]
            await scheduler.carry_out_abandoned(call)

    async def release_all(self) -> None:
        self.scheduler.holding.clear()
        while self.scheduler.held:
            self.scheduler.release(self.scheduler.held[0], "answered")
            await trio.testing.wait_all_tasks_blocked()

    # Invariants

    def _check(self) -> None:
        sockets: dict[tuple[int, str], list[SimulatedClient]] = {}
        for one in self.clients:
            if one.open and one.api == "session":
                sockets.setdefault((one.node, one.principal.session_id), []).append(one)
        for first, *others in sockets.values():
            for one in others:
                self.checker.expect(
                    first.version == one.version
                    and same(first.state, one.state)
                    and same(first.resource, one.resource),
                    "all sockets of a session at a node see the same",
                )
            tokens = [one.principal.token_hash for one in (first, *others)]
            self.checker.expect(len(tokens) == len(set(tokens)), "one session socket per token")
        for entry in self._logs:
            if entry["event"] in (log_events.HOOK_FAILED, log_events.SUPERVISOR_OVERDUE) or (
                entry["event"] == log_events.ACTOR_CRASHED and DEFECT not in str(entry["exc_info"])
            ):
                self.checker.violations.append(f"{entry['event']}: {entry.get('exc_info')!r}")
        self._logs.clear()
        assert not self.checker.violations, self.checker.violations

    def _check_resources(self) -> None:
        """Nobody waits for a document that is free, and all watchers have the newest."""
        for key in self.documents:
            holder, _ = self.checker.leases[key.number]
            for running in self.nodes:
                recovery = running.node.resources.recoveries.get(key.number)
                if recovery is not None and len(recovery.line):
                    offered = recovery.line.offered is not None
                    self.checker.expect(
                        offered == (holder is None), "a free document is offered, no other one"
                    )
                    self.checker.expect(holder not in recovery.line.sessions, "no holder waits")
            version, _ = self.checker.documents[key.number]
            for client in self.clients:
                if client.open and key.number in client.views:
                    seen = client.views[key.number]["version"]
                    self.checker.expect(seen == version, "a watcher has the newest version")

    async def rest(self) -> None:
        """All faults end: then no client waits for anything."""
        self.scheduler.faults.clear()
        await self.release_all()
        await self._recover()
        self.checker.expect(self._requests == 0, "each request is answered")
        self._check_resources()
        now = self._clock.now_ms()
        for one in self.clients:
            self.checker.expect(not one.revoked, "a revoked credential has no open socket")
            self.checker.expect(one.open, "each connecting client is let in or closed")
            self.checker.expect(not one.unanswered, "each event is answered")
            valid = one.api != "session" or one.principal.token_expires > now
            self.checker.expect(valid, "a session socket closes when its token expires")

    async def finish(self) -> None:
        """Connected sessions keep their resources; all others lose them; and nothing leaks."""
        await self.rest()
        await self.wait(RENEW_S + STEP_S)  # so that leases are renewed after the last fault
        connected = {one.principal.session_id for one in self.clients}
        held = {n: one for n, one in self.checker.leases.items() if one[0] in connected}
        await self.wait(AWAY_S + STEP_S)
        connected = {one.principal.session_id for one in self.clients} & set(self.checker.sessions)
        for number, one in held.items():
            kept = self.checker.leases[number] == one or one[0] not in connected
            self.checker.expect(kept, "a connected session keeps its resource")
        while self.clients:
            self._lost(self.clients[0])
        await self.wait(AWAY_S + 3 * RENEW_S)
        for holder, _ in self.checker.leases.values():
            self.checker.expect(holder is None, "a session that is away for too long loses it")
        for running in self.nodes:
            counts = running.node.debug_counts()
            for table in EMPTY_TABLES:
                self.checker.expect(not counts[table], f"nothing is left behind: {counts}")
