"""What can happen to sessions on two nodes over one real database; and what must hold then."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, cast

import trio
from trio.testing import MockClock

from actors.node import Node
from actors.runtime.errors import ActorStopped
from actors.session.config import RENEW_S
from actors.session.messages import Attach, Detach, OpenSocket, PatchState
from reileta.errors import Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.rules.identity import Principal
from reileta.rules.resource.json_values import Json, same
from reileta.rules.resource.resource import ResourceKey
from reileta.settings import Settings
from reileta.store import Store
from tests.actors.lines import Someone, open_node, sibling, someone
from tests.actors.stage import REFUSALS, Beside, Running
from tests.actors.turns import Turns, Verdict
from tests.actors.witness import Client, Witness
from tests.conftest import ManualClock

NODES: Final = (0, 1)
BESIDE: Final = -1
"""What clients ask of the database themselves, beside the nodes."""
AWAY_S: Final = Settings().away_s
LARGE: Final = 40_000
"""Of what a state holds one, but not two."""
STEP_S: Final = 5.0
"""How far time goes at once."""
Course = Literal["held", "failed", "unanswered"] | None
"""What becomes of what a node asks the database: nothing special, if None."""
Errand = Callable[[Someone, ResourceKey], Awaitable[None]]
Logs = list[MutableMapping[str, Any]]


class Play:
    """One course of events. Its methods are what can happen."""

    def __init__(self, store: Store, clock: ManualClock, mock: MockClock, logs: Logs) -> None:
        self._clock = clock
        self._mock = mock
        self._logs = logs
        self._marks = (f"m{number}" for number in itertools.count(1))
        self._asking = 0
        self.witness = Witness(store, clock, away_ms=int(AWAY_S * 1000))
        self.turns = Turns(store, self.witness)
        self._store = self.turns.store(BESIDE)
        self._beside = cast(Node, Beside(self._store, clock))
        self._ended = trio.Event()
        self.clients: list[Client] = []
        self.tokens: list[list[Principal]] = []
        """Of each session, those that were ever issued."""
        self.documents: list[ResourceKey] = []
        self.nodes: list[Running] = []

    async def run(self, *, task_status: trio.TaskStatus[Play]) -> None:
        """Plays until cancelled."""
        beside = self._beside
        ada = await someone(beside)
        bob = await someone(beside)
        for one in (ada, await someone(beside, user=ada.principal.user.id), bob):
            self.tokens.append([one.principal, (await sibling(one)).principal])
            self.witness.watch_session(one.principal.session_id)
        for _ in range(2):
            name = await ada.document()
            await self._store.resources.share(name, ada.claimant, bob.principal.user.id)
            self.documents.append(name)
            self.witness.watch_document(name.number)
        try:
            async with trio.open_nursery() as self._nursery:
                for number in NODES:
                    self.nodes.append(await self._nursery.start(self._serve, number))
                task_status.started(self)
                await trio.sleep_forever()
        finally:
            self._ended.set()

    async def close(self) -> None:
        self._nursery.cancel_scope.cancel()
        await self._ended.wait()

    async def _serve(self, number: int, *, task_status: trio.TaskStatus[Running]) -> None:
        with trio.CancelScope() as scope:
            async with open_node(self.turns.store(number), self._clock) as node:
                running = Running(node, scope)
                task_status.started(running)
                await running.stop.wait()
        running.stopped = True

    async def step(self, acts: list[Callable[[], Awaitable[None]]]) -> None:
        """Something happens, one thing right after the other, and what follows from it."""
        for act in acts:
            await act()
        await self._settle()
        self._check()

    async def nothing(self) -> None:
        """Time for what was hurried."""

    async def _settle(self) -> None:
        await self.turns.settle()
        while gone := [one for one in self.clients if one.closed is not None]:
            for client in gone:
                self._gone(client)
            await self.turns.settle()

    # Clients

    async def _judged(self, session: int, token: int) -> Principal | None:
        """Someone comes with a credential: who it is, if that is good."""
        principal = self.tokens[session][token % len(self.tokens[session])]
        found = await self._store.tokens.by_access(principal.token_hash)
        assert found is not None
        good = found[0].killed_at is None and found[0].access_expires > self._clock.now_ms()
        return principal if good and found[1].ended_at is None else None

    async def connect(self, node: int, session: int, token: int, face: str) -> None:
        principal = await self._judged(session, token)
        if principal is not None:
            client = Client(self.witness, node, principal, face)
            self.clients.append(client)
            self._nursery.start_soon(self._ask, partial(self._greet, client), client.scope)

    async def _greet(self, client: Client) -> None:
        """As the gateway does."""
        principal, node = client.principal, self.nodes[client.node].node
        try:
            for last in (False, True):
                client.ref = await node.sessions.live(principal)
                try:
                    if client.face == "line":
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

    async def _ask(
        self, work: Callable[[], Awaitable[None]], scope: trio.CancelScope | None = None
    ) -> None:
        self._asking += 1
        with scope or trio.CancelScope(), suppress(*REFUSALS):
            await work()
        self._asking -= 1

    async def disconnect(self, which: int) -> None:
        if self.clients:
            self._gone(self.clients[which % len(self.clients)])

    def _gone(self, client: Client) -> None:
        """Its socket is gone, and with it whatever was done for it."""
        self.clients.remove(client)
        client.close(1006)
        client.scope.cancel()
        self._detach(client)

    def _detach(self, client: Client) -> None:
        if client.ref is not None:
            client.ref.signal(Detach(client))

    async def patch(self, which: int, patch: dict[str, Json], course: Course) -> None:
        lines = [one for one in self.clients if one.greeted and one.face == "line"]
        if not lines:
            return
        line = lines[which % len(lines)]
        await self.set_course(line.node, course)
        assert line.ref is not None
        mark = next(self._marks)
        large = {name: "x" * LARGE for name, value in patch.items() if value == "large"}
        line.unanswered[mark] = {**patch, **large, mark: 1}
        try:
            line.ref.tell(PatchState(line, mark, line.unanswered[mark]))
        except Overloaded as error:
            line.refuse(mark, error)

    async def acquire(self, node: int, session: int, document: int) -> None:
        principal = await self._judged(session, 0) or await self._judged(session, 1)
        if principal is not None:
            self._errand(self._acquire, node, principal, document)

    async def use(self, kind: str, node: int, session: int, document: int) -> None:
        """Someone writes or releases: who has the document, or else whoever."""
        holder, _ = self.witness.leases[self.documents[document].number]
        askers = [each for each in self.tokens if each[0].session_id == holder]
        number = self.tokens.index(askers[0]) if askers else session
        principal = await self._judged(number, 0) or await self._judged(number, 1)
        if principal is not None:
            self._errand(
                self._write if kind == "write" else self._release, node, principal, document
            )

    def _errand(self, errand: Errand, node: int, principal: Principal, document: int) -> None:
        one = Someone(self.nodes[node].node, principal)
        self._nursery.start_soon(self._ask, partial(errand, one, self.documents[document]))

    async def _acquire(self, one: Someone, name: ResourceKey) -> None:
        fence = await one.acquire(name)
        self.witness.told_of_acquisition(name.number, fence, one.principal.session_id)

    async def _release(self, one: Someone, name: ResourceKey) -> None:
        before = self.witness.leases[name.number]
        await one.release(name)
        self.witness.told_of_release(name.number, before, one.principal.session_id)

    async def _write(self, one: Someone, name: ResourceKey) -> None:
        mark = next(self._marks)
        await one.write(name, data={mark: 1})
        self.witness.told_of_write(name.number, mark)

    # Tokens and sessions

    async def log_in(self, session: int) -> None:
        """Another token of the session; if it has ended, another session of the same user."""
        principal = self.tokens[session][0]
        if principal.session_id in self.witness.sessions:
            made = await sibling(Someone(self._beside, principal))
            self.tokens[session].append(made.principal)
        else:
            made = await someone(self._beside, user=principal.user.id)
            self.tokens[session] = [made.principal, (await sibling(made)).principal]
            self.witness.watch_session(made.principal.session_id)

    async def kill(self, which: int, elsewhere: bool) -> None:
        """A client's token dies, by the doing of its node, or of the other one."""
        if self.clients:
            node, principal = self._of(which, elsewhere)
            await self._store.tokens.kill(principal.token_hash, self._clock.now_ms())
            self.nodes[node].node.sessions.end_token(principal.token_hash)
            self._revoke(node, lambda one: one.token_hash == principal.token_hash)

    async def end(self, which: int, elsewhere: bool) -> None:
        """A client's session ends."""
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
        """The actor of a client's session fails."""
        if self.clients:
            node, principal = self._of(which, elsewhere)
            ref = self.nodes[node].node.sessions.find(principal.session_id)
            if ref is not None:
                with suppress(Overloaded):
                    ref.tell(cast(Any, "no message"))

    async def restart(self, number: int, killed: bool) -> None:
        running = self.nodes[number]
        if killed:
            running.scope.cancel()
            self.clients = [one for one in self.clients if one.node != number]
        else:
            for client in [one for one in self.clients if one.node == number]:
                self._gone(client)
            await self.let_all_go()
            running.stop.set()
            await self._restarts()
        await self.turns.settle()
        self.witness.expect(running.stopped, "a node stops")
        running.scope.cancel()
        self.nodes[number] = await self._nursery.start(self._serve, number)

    async def _restarts(self) -> None:
        """Gives those that crashed the time to come back, also if they crash again."""
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
            self.turns.forget_overdue()
            await self._settle()

    # The database

    async def set_course(self, node: int, course: Course) -> None:
        """What becomes of what the node asks next."""
        if course == "held":
            self.turns.holding.add(node)
        elif course is not None:
            self.turns.faults.setdefault(node, []).append(course)

    async def let_go(self, which: int, verdict: Verdict) -> None:
        turns = self.turns
        if turns.held:
            turns.let_go(turns.held[which % len(turns.held)], verdict)
        elif turns.strays:
            await turns.straggle(turns.strays[which % len(turns.strays)])

    async def let_all_go(self) -> None:
        self.turns.holding.clear()
        while self.turns.held:
            self.turns.let_go(self.turns.held[0], "answered")
            await self.turns.settle()

    # What must hold

    def _check(self) -> None:
        groups: dict[tuple[int, str], list[Client]] = {}
        for one in self.clients:
            if one.greeted and one.face == "line":
                groups.setdefault((one.node, one.principal.session_id), []).append(one)
        for first, *others in groups.values():
            for one in others:
                self.witness.expect(
                    first.version == one.version
                    and same(first.state, one.state)
                    and same(first.resource, one.resource),
                    "all sockets of a session at a node see the same",
                )
            tokens = [one.principal.token_hash for one in (first, *others)]
            self.witness.expect(len(tokens) == len(set(tokens)), "one line per token")
        for entry in self._logs:
            if entry["event"] in (log_events.HOOK_FAILED, log_events.SUPERVISOR_OVERDUE) or (
                entry["event"] == log_events.ACTOR_CRASHED
                and "no message" not in str(entry["exc_info"])
            ):
                self.witness.faults.append(f"{entry['event']}: {entry.get('exc_info')!r}")
        self._logs.clear()
        assert self.witness.faults == []

    async def rest(self) -> None:
        """All comes to rest: nobody waits for anything."""
        self.turns.faults.clear()
        await self.let_all_go()
        await self._restarts()
        self.witness.expect(self._asking == 0, "whoever asks is answered")
        now = self._clock.now_ms()
        for one in self.clients:
            self.witness.expect(not one.revoked, "a credential that is dead has no socket")
            self.witness.expect(one.greeted, "who comes is greeted, or sent away")
            self.witness.expect(not one.unanswered, "each event is answered")
            good = one.face != "line" or one.principal.token_expires > now
            self.witness.expect(good, "a line closes with its token")

    async def finish(self) -> None:
        """Who is there keeps its resource; who is away for too long loses it, and is forgotten."""
        await self.rest()
        await self.wait(RENEW_S + STEP_S)  # the database was away, maybe, for all who are there
        there = {one.principal.session_id for one in self.clients}
        held = {number: one for number, one in self.witness.leases.items() if one[0] in there}
        await self.wait(AWAY_S + STEP_S)
        there = {one.principal.session_id for one in self.clients} & set(self.witness.sessions)
        for number, one in held.items():
            kept = self.witness.leases[number] == one or one[0] not in there
            self.witness.expect(kept, "who is there keeps its resource")
        while self.clients:
            self._gone(self.clients[0])
        await self.wait(AWAY_S + 3 * RENEW_S)
        for holder, _ in self.witness.leases.values():
            self.witness.expect(holder is None, "who is away for too long loses its resource")
        for running in self.nodes:
            node = running.node
            counts = node.debug_counts()
            left = [counts[name] for name in ("sessions", "recoveries", "sockets")]
            self.witness.expect(not any(left), f"nothing is left behind: {left}")
