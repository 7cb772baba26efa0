"""Hypothesis rules for sessions on two servers, over a model of the database.

`DatabaseModel` keeps states by compare-and-set, and applies the rules of resources one at a time.
`SessionServers` runs a `Session` for each server and session, with the clients at its sockets;
sessions crash at any time, and look at the clock as late as they like.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    SessionNotFound,
)
from reileta.records import HeldResource, Lease, ResourceRecord
from reileta.rules.resource.json_values import same
from reileta.rules.resource.merge_patch import apply_object
from reileta.rules.resource.resource import Resource, ResourceKey
from reileta.rules.resource.types import BUILT_IN
from reileta.rules.session.session import (
    AbsenceTimedOut,
    AllTokensExpired,
    Ended,
    PatchRefused,
    ResourceChanged,
    Save,
    Session,
    SessionEvent,
    SessionLimits,
    SocketClosed,
    State,
    StateChanged,
)

MACHINE = settings(max_examples=100, stateful_step_count=50, deadline=None)
LIMITS = SessionLimits(away_ms=60, state_bytes=400, waiting=4)
SESSIONS = ("s_0", "s_1")
RESOURCES = (0, 1)
SERVERS = (0, 1)

sessions = st.sampled_from(SESSIONS)
servers = st.sampled_from(SERVERS)
numbers = st.sampled_from(RESOURCES)


@dataclass
class DatabaseModel:
    """The database."""

    states: dict[str, tuple[State, int]] = field(
        default_factory=lambda: {one: ({}, 0) for one in SESSIONS}
    )
    resources: dict[int, Resource] = field(
        default_factory=lambda: {
            number: Resource(
                ResourceRecord(number, "document", "u_1", "Notes", {}, 1, 0, 0),
                Lease(),
                BUILT_IN["document"],
            )
            for number in RESOURCES
        }
    )
    tokens: dict[bytes, tuple[str, int]] = field(default_factory=dict)

    def apply(self, id_: str, save: Save) -> bool:
        if id_ not in self.states or self.states[id_][1] != save.base:
            return False
        self.states[id_] = (save.state, save.version)
        return True

    def has(self, id_: str) -> ResourceKey | None:
        for number, one in self.resources.items():
            if one.lease.session == id_:
                return ResourceKey("document", number)
        return None

    def held(self, id_: str) -> HeldResource | None:
        name = self.has(id_)
        if name is None:
            return None
        one = self.resources[name.number]
        return HeldResource(one.record, one.lease.fence, one.lease.until)

    def good(self, id_: str, now: int) -> dict[bytes, int]:
        return {
            token: expires
            for token, (of, expires) in self.tokens.items()
            if of == id_ and expires > now
        }

    def end(self, id_: str) -> None:
        self.states.pop(id_, None)
        for number, one in self.resources.items():
            if one.lease.session == id_:
                self.resources[number] = one.expire(10**9)


@dataclass
class ClientModel:
    """What the client behind a socket knows."""

    state: State
    version: int


@dataclass
class SessionOnServer:
    """A session's actor on one server, with its sockets."""

    session: Session
    views: dict[str, ClientModel] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    """The patches that nobody has heard of yet."""


class SessionServers(RuleBasedStateMachine):
    """What happens on the servers whatever sessions do: machines add that."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.names = itertools.count()
        self.database = DatabaseModel()
        self.running: dict[tuple[int, str], SessionOnServer] = {}
        self.saves: list[tuple[SessionOnServer, str, Save]] = []
        self.acknowledged: dict[str, set[str]] = {one: set() for one in SESSIONS}
        self.fences: list[tuple[str, int, int]] = []
        """Every acquisition there was: who, what, by which number."""
        for one in SESSIONS:
            self.issue(one, 10_000)

    # What the harness does for a server

    def actor(self, server: int, id_: str) -> SessionOnServer | None:
        """The session's actor there, started if it is not; None for a session that has ended."""
        if (server, id_) not in self.running:
            if id_ not in self.database.states:
                return None
            state, version = self.database.states[id_]
            made = Session(
                id_,
                autopilot=False,
                state=state,
                version=version,
                held=self.database.held(id_),
                tokens=self.database.good(id_, self.now),
                limits=LIMITS,
                now=self.now,
            )
            self.running[server, id_] = SessionOnServer(made)
        return self.running[server, id_]

    def hear(self, one: SessionOnServer, out: Sequence[SessionEvent]) -> None:
        session = one.session
        for each in out:
            match each:
                case StateChanged(version, patch, change):
                    for view in one.views.values():
                        assert version > view.version, "each change once, in one order"
                        view.state = apply_object(view.state, patch)
                        view.version = version
                    if change is not None:
                        mark = str(change.ref)
                        one.open.remove(mark)  # once
                        self.acknowledged[session.id].add(mark)
                        assert mark in self.database.states[session.id][0]
                case PatchRefused(change, _):
                    one.open.remove(str(change.ref))
                case SocketClosed(socket, _, _):
                    del one.views[socket]
                case AbsenceTimedOut(held):
                    self.lose(one, held)
                case AllTokensExpired():
                    if not self.database.good(session.id, self.now):
                        self.database.end(session.id)
                        self.hear(one, session.end())
                    else:  # another server knows better
                        for token, expires in self.database.good(session.id, self.now).items():
                            session.admit(token, expires)
                case ResourceChanged(held):
                    assert session.held == held
                case Ended():
                    assert one.open == set()
                    assert session.id not in self.database.states

    def lose(self, one: SessionOnServer, held: HeldResource) -> None:
        number = held.resource.number
        before = self.database.resources[number]
        if before.lease.session == one.session.id:
            after = before.expire(self.now)
            self.database.resources[number] = after
            if after.lease.session is not None:
                one.session.kept_until(after.lease.until)
                return
        self.hear(one, one.session.dropped(number, held.fence))

    def keep(self, id_: str, until: int) -> None:
        for number, one in self.database.resources.items():
            self.database.resources[number] = one.renew(id_, until)

    def flush(self, one: SessionOnServer) -> None:
        save = one.session.save()
        if save is not None:
            assert len(save.text.encode()) <= LIMITS.state_bytes
            self.saves.append((one, one.session.id, save))

    # Events

    def issue(self, id_: str, lives: int) -> bytes:
        token = b"%d" % next(self.names)
        self.database.tokens[token] = (id_, self.now + lives)
        return token

    @rule(server=servers, id_=sessions, lives=st.sampled_from([50, 5_000]))
    def log_in(self, server: int, id_: str, lives: int) -> None:
        if id_ in self.database.states:
            token = self.issue(id_, lives)
            one = self.running.get((server, id_))
            if one is not None:
                one.session.admit(token, self.now + lives)

    @rule(server=servers, id_=sessions, which=st.integers(0, 3))
    def log_out(self, server: int, id_: str, which: int) -> None:
        tokens = list(self.database.good(id_, self.now))
        if tokens:
            token = tokens[which % len(tokens)]
            del self.database.tokens[token]
            one = self.running.get((server, id_))
            if one is not None:
                self.hear(one, one.session.kill(token, self.now))

    @rule(server=servers, id_=sessions, which=st.integers(0, 3), exclusive=st.booleans())
    def connect(self, server: int, id_: str, which: int, exclusive: bool) -> None:
        one, tokens = self.actor(server, id_), list(self.database.good(id_, self.now))
        if one is None or not tokens:
            return
        socket = f"x{next(self.names)}"
        try:
            one.session.connect(socket, tokens[which % len(tokens)], self.now, exclusive=exclusive)
        except (AlreadyConnected, CredentialInvalid, SessionNotFound):
            return
        one.views[socket] = ClientModel(one.session.state, one.session.version)
        self.keep(id_, self.now + 80)

    @precondition(lambda self: any(one.views for one in self.running.values()))
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([one for one in self.running.values() if one.views]))
        socket = data.draw(st.sampled_from(sorted(one.views)))
        one.session.disconnect(socket, self.now)
        del one.views[socket]
        if not one.session.present:
            self.keep(one.session.id, self.now + LIMITS.away_ms)

    @rule(server=servers, id_=sessions)
    def crash(self, server: int, id_: str) -> None:
        """What it has under way may arrive all the same."""
        self.running.pop((server, id_), None)

    @rule(by=st.sampled_from([1, 30, 59, 60, 61, 300]))
    def wait(self, by: int) -> None:
        self.now += by

    @rule(server=servers)
    def tick(self, server: int) -> None:
        """A server looks at its clock, as late as it may be."""
        for (where, _), one in list(self.running.items()):
            if where == server:
                due = one.session.next_deadline()
                out = one.session.tick(self.now)
                assert out == [] or (due is not None and due <= self.now)
                self.hear(one, out)
                due = one.session.next_deadline()
                assert due is None or due > self.now

    @invariant()
    def all_sockets_of_a_server_have_seen_the_same(self) -> None:
        for (_, id_), one in self.running.items():
            session = one.session
            assert session.unsaved == len(one.open), "each is heard of, once"
            assert set(session.sockets) == set(one.views)
            for view in one.views.values():
                assert same(view.state, session.state)
                assert view.version == session.version
            if id_ in self.database.states and not session.ended:
                assert session.version <= self.database.states[id_][1]
            if session.version == self.database.states.get(id_, ({}, -1))[1]:
                assert same(session.state, self.database.states[id_][0])
