"""What a machine of sessions knows: what the database has had, and what clients were told of it.

Promises are held against it as they are made: an answer, an Ack or a frame that the database does
not bear out is a fault. What a client finds out is found out inside of an actor, which would only
crash of it; so faults are collected, for the test to fail of.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import trio

from actors.runtime.ref import Ref
from actors.session.messages import SessionMessage
from reileta.errors import ReiletaError
from reileta.protocol.frames import payload_of
from reileta.rules.identity import Principal
from reileta.rules.resource.json_values import Json, same
from reileta.rules.resource.merge_patch import apply_object
from reileta.store import Store
from tests.actors.lines import FakeLine
from tests.actors.turns import Call
from tests.conftest import ManualClock

SLACK_MS: Final = 20_000
"""How long a call can be held back after its times were chosen, generously."""
BY_TIME: Final = ("leases.tend", "leases.lose")


class Witness:
    """`Turns` has it look after each call."""

    def __init__(self, store: Store, clock: ManualClock, *, away_ms: int) -> None:
        self._database = store.database
        self._clock = clock
        self._away_ms = away_ms
        self.faults: list[str] = []
        self.documents: dict[int, tuple[int, frozenset[str]]] = {}
        """Of each: its version, and the marks of the writes that are in it."""
        self.leases: dict[int, tuple[str | None, int]] = {}
        """Who has it, or None, and the last fencing number."""
        self.acquired: dict[tuple[int, int], str] = {}
        """Every acquisition there was: of what, by which number, and whose."""
        self.sessions: dict[str, tuple[dict[str, Json], int]] = {}
        """Those that are alive: their state and its version."""
        self.history: dict[tuple[str, int], dict[str, Json]] = {}
        """Each version of each state that anybody has seen."""
        self.kept: dict[str, int] = {}
        """When the database was told last that a session has a socket."""

    def expect(self, held: bool, promise: str) -> None:
        if not held:
            self.faults.append(promise)

    # What the database says ---------------------------------------------------------------------

    def watch_document(self, number: int) -> None:
        self.documents[number] = (1, frozenset())
        self.leases[number] = (None, 0)

    def watch_session(self, id_: str) -> None:
        self.sessions[id_] = ({}, 0)

    async def carried_out(self, call: Call) -> None:
        """Looks at everything, and whether that call may have made it so."""
        await self._look_at_sessions()
        await self._look_at_leases(call)
        await self._look_at_documents(call)
        if call.name == "leases.tend":
            self.kept.update(dict.fromkeys(call.args[0], self._clock.now_ms()))

    async def _look_at_sessions(self) -> None:
        rows = await self._database.fetch(
            "SELECT id, state, version FROM sessions WHERE id = ANY($1) AND ended_at IS NULL",
            list(self.sessions),
        )
        before, self.sessions = self.sessions, {}
        for row in rows:
            id_, version = row["id"], row["version"]
            state = self.sessions[id_] = msgspec.json.decode(row["state"]), version
            self.expect(version >= before[id_][1], "the version of a state grows")
            self.expect(version == len(marks(state[0])), "a version is the number of changes")
            self.saw(id_, version, state[0])

    async def _look_at_leases(self, call: Call) -> None:
        rows = await self._database.fetch(
            "SELECT number, session_id, fence FROM leases WHERE number = ANY($1)", list(self.leases)
        )
        for row in rows:
            number, holder, fence = row["number"], row["session_id"], row["fence"]
            before, now = self.leases[number], (holder, fence)
            self.leases[number] = now
            if now == before:
                continue
            if holder is None:
                self.expect(fence == before[1], "a lease that ends keeps its number")
                if call.name in BY_TIME and before[0] is not None:
                    since = self._clock.now_ms() - self.kept.get(before[0], 0)
                    self.expect(
                        since >= self._away_ms - SLACK_MS, "who was there a moment ago keeps it"
                    )
            else:
                self.expect(call.name == "leases.acquire", "only who acquires gets a lease")
                self.expect(before[0] is None, "a resource never has two holders")
                self.expect(fence > before[1], "fencing numbers grow")
                self.acquired[number, fence] = holder
        holders = [holder for holder, _ in self.leases.values() if holder is not None]
        self.expect(len(holders) == len(set(holders)), "a session never has two resources")
        self.expect(set(holders) <= set(self.sessions), "who has ended has no resource")

    async def _look_at_documents(self, call: Call) -> None:
        rows = await self._database.fetch(
            "SELECT number, version, data FROM resources WHERE number = ANY($1)",
            list(self.documents),
        )
        for row in rows:
            number, version = row["number"], row["version"]
            before = self.documents[number]
            now = self.documents[number] = version, marks(msgspec.json.decode(row["data"]))
            self.expect(before[1] <= now[1], "what was written stays")
            if version != before[0]:
                by = (call.args[1].session, call.named["fence"])
                self.expect(version == before[0] + 1, "a version for each write")
                self.expect(by == self.leases[number], "only who has it, by that number, writes")

    # What clients are told ----------------------------------------------------------------------

    def saw(self, id_: str, version: int, state: dict[str, Json]) -> None:
        """A state has that version: for everybody, at any time, the same."""
        newest = self.sessions[id_][1] if id_ in self.sessions else version
        self.expect(version <= newest, "nothing is told that is not in the database")
        known = self.history.setdefault((id_, version), state)
        self.expect(same(known, state), "a version of a state is the same for all")

    def told_of_change(self, id_: str, mark: str) -> None:
        state, _ = self.sessions.get(id_, ({mark: 1}, 0))  # all is gone with the session
        self.expect(mark in state, "an Ack means that the change is in the database")

    def told_of_acquisition(self, number: int, fence: int, id_: str) -> None:
        self.expect(self.acquired.get((number, fence)) == id_, "who is told that it has it, had it")

    def told_of_release(self, number: int, before: tuple[str | None, int], id_: str) -> None:
        """`before` is how things stood when it was asked for."""
        holder, fence = self.leases[number]
        self.expect(holder != id_ or fence > before[1], "what was released is free")

    def told_of_write(self, number: int, mark: str) -> None:
        self.expect(mark in self.documents[number][1], "what was written is in the database")


class Client(FakeLine):
    """A client at its socket, which keeps its own copy of the state.

    `face` is where it is connected: a line of the session API, or `/api/ws`, where it is told
    nothing of the state.
    """

    def __init__(self, witness: Witness, node: int, principal: Principal, face: str) -> None:
        super().__init__(f"{face} at {node}")
        self.node = node
        self.principal = principal
        self.face = face
        self.ref: Ref[SessionMessage] | None = None
        self.scope = trio.CancelScope()
        """Of its being greeted."""
        self.revoked = False
        """Whether its credential was revoked at its node."""
        self.state: dict[str, Json] = {}
        self.version = -1
        """-1 until it was greeted."""
        self.resource: Any = None
        self.unanswered: dict[str, dict[str, Json]] = {}
        self._witness = witness

    @property
    def greeted(self) -> bool:
        return self.version >= 0

    def tell(self, event_id: str, frame: bytes) -> None:
        if self.closed is not None:
            return
        payload = msgspec.json.decode(payload_of(frame))["payload"]
        match payload["kind"]:
            case "hello":
                self._witness.expect(not self.greeted, "a socket is greeted once")
                self._witness.expect(not self.revoked, "a credential that is dead opens nothing")
                session = payload["session"]
                self.resource = session["resource"]
                self._saw(payload["version"], session["state"])
            case "state":
                self._saw(payload["version"], apply_object(self.state, payload["patch"]))
            case "resource":
                self.resource = payload["resource"]

    def ack(self, event_id: str) -> None:
        if self.closed is None:
            patch = self._answered(event_id)
            self._witness.told_of_change(self.principal.session_id, event_id)
            self._saw(self.version + 1, apply_object(self.state, patch))

    def refuse(self, event_id: str, error: ReiletaError) -> None:
        if self.closed is None:
            self._answered(event_id)

    def _answered(self, event_id: str) -> dict[str, Json]:
        self._witness.expect(event_id in self.unanswered, "each event is answered once")
        return self.unanswered.pop(event_id, {})

    def _saw(self, version: int, state: dict[str, Json]) -> None:
        self._witness.expect(version > self.version, "each change once, in one order")
        self.state, self.version = state, version
        self._witness.saw(self.principal.session_id, version, state)


def marks(value: Json) -> frozenset[str]:
    """The marks of the changes in a state or a document: each has one of its own."""
    members = value if isinstance(value, dict) else {}
    return frozenset(name for name in members if name.startswith("m"))
