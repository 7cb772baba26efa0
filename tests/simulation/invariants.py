"""Checks the simulation's invariants: what the database holds against what clients got.

Each answer, Ack and frame is checked against the database as it is given. A client's checks run
inside an actor, which would only crash and restart if they raised; so violations are collected, and
the simulation fails on them after each step.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
import trio

from actors.runtime.mailbox import Ref
from actors.session.messages import SessionMessage
from reileta.errors import ReiletaError
from reileta.protocol.frames import payload_of
from reileta.rules.identity import Principal
from reileta.rules.resource.json_values import Json, same
from reileta.rules.resource.merge_patch import apply_object
from reileta.store import Store
from reileta.store.leases import Leases
from reileta.store.resources import Resources
from tests.actors.session_clients import FakeSessionSink
from tests.conftest import ManualClock
from tests.simulation.call_scheduler import Call, name

WATCH: Final = "w"
"""What the ids of events begin with that begin a watch."""
SLACK_MS: Final = 20_000
"""The longest time for which a call can be held back after its times were chosen."""
Api = Literal["session", "registry"]
EXPIRING: Final = (name("leases", Leases.renew_all), name("leases", Leases.expire_one))
"""Calls that end leases of sessions that are away."""


class InvariantChecker:
    """An `Observer` of the `CallScheduler`."""

    def __init__(self, store: Store, clock: ManualClock, *, away_ms: int) -> None:
        self._database = store.database
        self._clock = clock
        self._away_ms = away_ms
        self.violations: list[str] = []
        self.documents: dict[int, tuple[int, frozenset[str]]] = {}
        """By number: the version, and the marks of the writes that are in it."""
        self.leases: dict[int, tuple[str | None, int]] = {}
        """By number: the session that holds the lease, or None, and the last fencing number."""
        self.acquired: dict[tuple[int, int], str] = {}
        """By number and fencing number: the session that acquired it."""
        self.sessions: dict[str, tuple[dict[str, Json], int]] = {}
        """The sessions that are alive: their state and its version."""
        self.history: dict[tuple[str, int], dict[str, Json]] = {}
        """By session and version: the state, as it was in the database or at a client."""
        self.versions: dict[tuple[int, int], Json] = {}
        """By document and version: the data, as it was in the database."""
        self.kept: dict[str, int] = {}
        """By session: when its lease was last renewed because it has a socket (ms)."""

    def expect(self, held: bool, invariant: str) -> None:
        if not held:
            self.violations.append(invariant)

    # What the database holds

    def watch_document(self, number: int) -> None:
        self.documents[number] = (1, frozenset())
        self.leases[number] = (None, 0)

    def watch_session(self, id_: str) -> None:
        self.sessions[id_] = ({}, 0)

    async def carried_out(self, call: Call) -> None:
        """Checks all rows, and whether that call may have changed what changed."""
        await self._check_sessions()
        await self._check_leases(call)
        await self._check_documents(call)
        if call.name == name("leases", Leases.renew_all):
            self.kept.update(dict.fromkeys(call.args[0], self._clock.now_ms()))

    async def _check_sessions(self) -> None:
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
            self.check_state(id_, version, state[0])

    async def _check_leases(self, call: Call) -> None:
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
                if call.name in EXPIRING and before[0] is not None:
                    since = self._clock.now_ms() - self.kept.get(before[0], 0)
                    self.expect(
                        since >= self._away_ms - SLACK_MS,
                        "a session that was connected a moment ago keeps its lease",
                    )
            else:
                self.expect(
                    call.name == name("leases", Leases.acquire),
                    "a lease gets a holder by an acquisition alone",
                )
                self.expect(before[0] is None, "a resource never has two holders")
                self.expect(fence > before[1], "fencing numbers grow")
                self.acquired[number, fence] = holder
        holders = [holder for holder, _ in self.leases.values() if holder is not None]
        self.expect(len(holders) == len(set(holders)), "a session never has two resources")
        self.expect(
            set(holders) <= set(self.sessions), "a session that has ended holds no resource"
        )

    async def _check_documents(self, call: Call) -> None:
        rows = await self._database.fetch(
            "SELECT number, version, data FROM resources WHERE number = ANY($1)",
            list(self.documents),
        )
        for row in rows:
            number, version = row["number"], row["version"]
            before = self.documents[number]
            now = self.documents[number] = version, marks(msgspec.json.decode(row["data"]))
            self.expect(before[1] <= now[1], "an acknowledged write stays")
            self.versions[number, version] = msgspec.json.decode(row["data"])
            if version != before[0]:
                self.expect(
                    call.name == name("resources", Resources.write_all),
                    "a document changes by a write alone",
                )
                by = {(write.who.session, write.fence) for write in call.args[1]}
                self.expect(
                    version == before[0] + len(now[1] - before[1]),
                    "each write adds one to the version",
                )
                self.expect(
                    by == {self.leases[number]}, "only the holder writes, by its fencing number"
                )

    # What clients got

    def check_state(self, id_: str, version: int, state: dict[str, Json]) -> None:
        """Every reader of that version must see this state."""
        newest = self.sessions[id_][1] if id_ in self.sessions else version
        self.expect(version <= newest, "clients get nothing that is not in the database")
        known = self.history.setdefault((id_, version), state)
        self.expect(same(known, state), "a version of a state is the same for all")

    def check_document(self, number: int, version: int, data: Json) -> None:
        """A watcher's copy of that version."""
        self.expect(
            version <= self.documents[number][0], "watchers hear of nothing that is not stored"
        )
        known = self.versions.get((number, version), data)
        self.expect(same(known, data), "a watcher's copy is what is stored")

    def check_ack(self, id_: str, mark: str) -> None:
        state, _ = self.sessions.get(id_, ({mark: 1}, 0))  # all is gone with the session
        self.expect(mark in state, "an Ack means that the change is in the database")

    def check_acquisition(self, number: int, fence: int, id_: str) -> None:
        self.expect(
            self.acquired.get((number, fence)) == id_,
            "a session that was told that it acquired a resource did",
        )

    def check_release(self, number: int, before: tuple[str | None, int], id_: str) -> None:
        """`before` is the lease as it was when the release was requested."""
        holder, fence = self.leases[number]
        self.expect(holder != id_ or fence > before[1], "a released resource is free")

    def check_write(self, number: int, mark: str) -> None:
        self.expect(mark in self.documents[number][1], "an acknowledged write is in the database")


class SimulatedClient(FakeSessionSink):
    """A client at its socket, which keeps its own copy of the state.

    `api` is the API that it is connected to: `session`, or `registry`, which sends no state.
    """

    def __init__(
        self, checker: InvariantChecker, node: int, principal: Principal, api: Api
    ) -> None:
        super().__init__(f"{api} at {node}")
        self.node = node
        self.principal = principal
        self.api = api
        self.ref: Ref[SessionMessage] | None = None
        self.scope = trio.CancelScope()
        """The scope of its opening."""
        self.revoked = False
        """Whether its node was told that its credential is revoked."""
        self.state: dict[str, Json] = {}
        self.version = -1
        """-1 until the socket is open."""
        self.resource: Any = None
        self.unanswered: dict[str, dict[str, Json]] = {}
        self.views: dict[int, dict[str, Json]] = {}
        """The documents that it watches, by number, as it made them of what it was sent."""
        self.ended: set[int] = set()
        """Those whose watch ended."""
        self._checker = checker

    @property
    def open(self) -> bool:
        return self.version >= 0

    def send_event(self, event_id: str, frame: bytes) -> None:
        if self.closed is not None:
            return
        payload = msgspec.json.decode(payload_of(frame))["payload"]
        match payload["kind"]:
            case "hello":
                self._checker.expect(not self.open, "a socket opens once")
                self._checker.expect(not self.revoked, "a revoked credential opens no socket")
                session = payload["session"]
                self.resource = session["resource"]
                self._saw(payload["version"], session["state"])
            case "state":
                self._saw(payload["version"], apply_object(self.state, payload["patch"]))
            case "resource":
                self.resource = payload["resource"]
            case "resource-updated":
                self._watched(payload)
            case "resource-unwatched":
                self.views.pop(payload["id"], None)
                self.ended.add(payload["id"])

    def _watched(self, payload: dict[str, Any]) -> None:
        number = payload["id"]
        if "patch" in payload:
            view = self.views.get(number, {})
            self._checker.expect(
                payload["from"] == view.get("version"), "a patch can always be applied"
            )
            self.views[number] = apply_object(view, payload["patch"])
        else:
            self.views[number] = payload["view"]
        view = self.views[number]
        self._checker.expect(view["version"] == payload["version"], "a view has its version")
        self._checker.check_document(number, payload["version"], view["data"])

    def ack(self, event_id: str) -> None:
        if self.closed is None and not event_id.startswith(WATCH):
            patch = self._answered(event_id)
            self._checker.check_ack(self.principal.session_id, event_id)
            self._saw(self.version + 1, apply_object(self.state, patch))

    def refuse(self, event_id: str, error: ReiletaError) -> None:
        if self.closed is None:
            self._answered(event_id)

    def _answered(self, event_id: str) -> dict[str, Json]:
        self._checker.expect(event_id in self.unanswered, "each event is answered once")
        return self.unanswered.pop(event_id, {})

    def _saw(self, version: int, state: dict[str, Json]) -> None:
        self._checker.expect(version > self.version, "each change once, in one order")
        self.state, self.version = state, version
        self._checker.check_state(self.principal.session_id, version, state)


def marks(value: Json) -> frozenset[str]:
    """The marks in a state or a document; each change brings one of its own."""
    members = value if isinstance(value, dict) else {}
    return frozenset(name for name in members if name.startswith("m"))
