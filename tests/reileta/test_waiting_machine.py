"""Sessions wait for resources, acquire and release them, in any sequence of events.

The lines decide who may acquire a resource that is free, and the rules of the lease decide the
rest, as a resource's actor does. A model that only appends to lists and removes from them checks
both: first come, first served; offers run out; nobody waits for ever.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reileta.errors import ReiletaError, ResourceHeld, ResourceTaken
from reileta.records import Lease, ResourceRecord
from reileta.rules.identity import Claimant
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.merge_patch import apply_object, diff
from reileta.rules.resource.resource import Resource, ResourceKey
from reileta.rules.resource.types import Document
from reileta.rules.resource.waiting_line import LeaveReason, LeftLine, Place, WaitingLine
from reileta.rules.resource.watchers import Owed, Watchers

OFFER_MS, GRACE_MS, AWAY_MS = 30, 60, 50
numbers = st.sampled_from([1, 2])
sessions = st.sampled_from(["a", "b", "c", "d"])


class WaitingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.resources = {number: _resource(number) for number in (1, 2)}
        self.lines = {
            number: WaitingLine(offer_ms=OFFER_MS, grace_ms=GRACE_MS) for number in (1, 2)
        }
        self.model: dict[int, list[str]] = {1: [], 2: []}
        """Who waits, in the order in which they came."""
        self.offers: dict[int, tuple[str, int]] = {}
        """Who was offered the resource, and when."""
        self.away: set[str] = set()
        self.absent: dict[tuple[int, str], int] = {}
        """Since when a session that waits has been away."""
        self.places: dict[tuple[int, str], Place] = {}
        """What each session was told last."""
        self.fences: list[tuple[str, int, int]] = []
        self.watchers: dict[int, Watchers[str]] = {1: Watchers(), 2: Watchers()}
        self.told = dict(self.resources)
        self.copies: dict[tuple[int, str], tuple[int, Json]] = {}
        """By resource and watcher: the version and the data that it has made of its events."""
        self.slow: set[str] = set()

    # What the actor does after each event

    def after(self, number: int, left: list[LeftLine]) -> None:
        line, lease = self.lines[number], self.resources[number].lease
        self.left(number, left)
        if lease.session is not None and (line.offered is not None or lease.session in line):
            self.left(number, line.taken(lease.session))
        if lease.session is None:
            line.offer(self.now)
        offered = line.offered
        if offered is None:
            self.offers.pop(number, None)
        else:
            assert offered.session == self.model[number][0], "not the first was offered it"
            since = self.offers.get(number, ("", 0))
            if since[0] != offered.session:
                self.offers[number] = (offered.session, self.now)
        for change in line.changes():
            self.places[number, change.session] = change.place

    def left(self, number: int, left: list[LeftLine]) -> None:
        for one in left:
            assert one.session in self.model[number], "left without having waited"
            if one.reason is LeaveReason.ACQUIRED:
                assert self.resources[number].lease.session == one.session
                assert self.model[number][0] == one.session, "out of turn"
            if one.reason is LeaveReason.EXPIRED:
                session, since = self.offers[number]
                assert session == one.session
                assert self.now >= since + OFFER_MS, "an offer ran out too early"
            if one.reason is LeaveReason.AWAY:
                assert self.now >= self.absent[number, one.session] + GRACE_MS
            self.model[number].remove(one.session)
            self.absent.pop((number, one.session), None)
            self.places.pop((number, one.session), None)
            if self.offers.get(number, ("", 0))[0] == one.session:
                del self.offers[number]

    def holds(self, session: str) -> ResourceKey | None:
        for resource in self.resources.values():
            if resource.lease.session == session:
                return ResourceKey("document", resource.record.number)
        return None

    # Events

    @rule(number=numbers, session=sessions)
    def queue(self, number: int, session: str) -> None:
        if self.holds(session) is not None:
            return
        self.lines[number].join(_who(session), self.now, present=session not in self.away)
        if session not in self.model[number]:
            self.model[number].append(session)
            if session in self.away:
                self.absent[number, session] = self.now
        self.after(number, [])

    @rule(number=numbers, session=sessions)
    def unqueue(self, number: int, session: str) -> None:
        self.after(number, self.lines[number].leave(session, LeaveReason.WITHDRAWN))

    @rule(number=numbers, session=sessions)
    def acquire(self, number: int, session: str) -> None:
        before, waits = self.resources[number], self.model[number]
        offered = self.offers.get(number, ("", 0))[0]
        if not self.lines[number].admits(session):
            assert waits, "refused for no one's sake"
            assert offered != session, "refused with an offer"
            return
        try:
            after = before.acquire(_who(session), self.holds(session), self.now + AWAY_MS)
        except ResourceHeld:
            assert self.holds(session) is not None
            return
        except ResourceTaken:
            assert before.lease.session is not None
            return
        assert before.lease.session is None, "two holders"
        assert not waits or waits[0] == session, "acquired past the line"
        self.resources[number] = after
        self.fences.append((session, number, after.lease.fence))
        self.after(number, [])
        for other in (1, 2):
            if other != number:
                self.after(other, self.lines[other].leave(session, LeaveReason.HOLDS))

    @rule(number=numbers, session=sessions)
    def release(self, number: int, session: str) -> None:
        try:
            self.resources[number] = self.resources[number].release(_who(session))
        except ResourceTaken:
            return
        self.after(number, [])

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        if not self.fences:
            return
        session, number, fence = data.draw(st.sampled_from(self.fences))
        before = self.resources[number]
        has = (before.lease.session, before.lease.fence) == (session, fence)
        try:
            after = before.write(
                _who(session), fence, {"data": {session: {str(self.now): fence}}}, None, self.now
            )
        except ReiletaError:
            assert not has
            return
        assert has, "a write with an old fencing number"
        self.resources[number] = after

    @rule(session=sessions, present=st.booleans())
    def presence(self, session: str, present: bool) -> None:
        if present:
            self.away.discard(session)
        else:
            self.away.add(session)
        for number, line in self.lines.items():
            if present:
                line.present(session)
                self.absent.pop((number, session), None)
            else:
                line.absent(session, self.now)
                if session in line:
                    self.absent.setdefault((number, session), self.now)
            self.after(number, [])

    @rule(session=sessions)
    def end(self, session: str) -> None:
        for number, resource in self.resources.items():
            if resource.lease.session == session:
                self.resources[number] = resource.release(_who(session))
            self.after(number, self.lines[number].leave(session, LeaveReason.ENDED))

    @rule(ms=st.sampled_from([1, 10, 29, 30, 31, 60]))
    def wait(self, ms: int) -> None:
        """Time passes; holders that are away lose their resources."""
        self.now += ms
        for number, resource in self.resources.items():
            if resource.lease.session in self.away:
                self.resources[number] = resource.expire(self.now)
            self.after(number, self.lines[number].tick(self.now))

    @rule(number=numbers, session=sessions, watches=st.booleans())
    def watch(self, number: int, session: str, watches: bool) -> None:
        watchers = self.watchers[number]
        if not watches:
            watchers.remove(session)
            self.copies.pop((number, session), None)
            return
        assert watchers.add(session, _who(session), self.told[number]) is Owed.VIEW
        self.sent(number, Owed.VIEW, session, self.told[number])

    @rule(session=sessions, slow=st.booleans())
    def slow_down(self, session: str, slow: bool) -> None:
        self.slow = self.slow | {session} if slow else self.slow - {session}

    @rule(number=numbers)
    def tell(self, number: int) -> None:
        """The end of a drain."""
        watchers, before, after = self.watchers[number], self.told[number], self.resources[number]
        for changes in (
            watchers.change(before, after, self.slow.__contains__),
            watchers.catch_up(self.slow.__contains__),
        ):
            assert not changes.ended
            for owed, keys in changes.owed.items():
                for key in keys:
                    self.sent(number, owed, key, after)
        self.told[number] = after

    def sent(self, number: int, owed: Owed, key: str, after: Resource) -> None:
        if owed is Owed.PATCH:
            version, copy = self.copies[number, key]
            assert version == self.told[number].record.version, "a patch that can't be applied"
            last = self.told[number].record.data
            assert isinstance(copy, dict)
            assert isinstance(last, dict)
            assert isinstance(after.record.data, dict)
            patched = apply_object(copy, diff(last, after.record.data))
            self.copies[number, key] = (after.record.version, patched)
        else:
            self.copies[number, key] = (after.record.version, after.record.data)

    # What must hold

    @invariant()
    def first_come_first_served(self) -> None:
        for number, line in self.lines.items():
            assert list(line.sessions) == self.model[number]

    @invariant()
    def a_session_never_has_two_resources(self) -> None:
        holders = [one.lease.session for one in self.resources.values() if one.lease.session]
        assert len(holders) == len(set(holders))

    @invariant()
    def a_free_resource_is_offered_to_the_first(self) -> None:
        for number, line in self.lines.items():
            held = self.resources[number].lease.session is not None
            assert (line.offered is not None) == (not held and len(line) > 0)
            assert (self.resources[number].lease.session or "") not in line

    @invariant()
    def offers_and_absences_run_out(self) -> None:
        for number, line in self.lines.items():
            if number in self.offers:
                assert self.now < self.offers[number][1] + OFFER_MS
            for session in line.sessions:
                if (number, session) in self.absent:
                    assert self.now < self.absent[number, session] + GRACE_MS
            deadline = line.next_deadline
            assert deadline is None or deadline > self.now

    @invariant()
    def every_session_knows_its_place(self) -> None:
        for number, line in self.lines.items():
            for session in line.sessions:
                assert self.places[number, session] == line.place(session)

    @invariant()
    def a_watcher_that_keeps_up_has_the_newest(self) -> None:
        for (number, key), (version, data) in self.copies.items():
            told = self.told[number].record
            if key not in self.slow and not self.watchers[number].lagging():
                assert (version, data) == (told.version, told.data)


def _resource(number: int) -> Resource:
    record = ResourceRecord(number, "document", "u_1", "Door", {}, 1, 0, 0)
    return Resource(record, Lease(), Document())


def _who(session: str) -> Claimant:
    return Claimant(session, "u_1")


TestWaitingMachine = WaitingMachine.TestCase
TestWaitingMachine.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True
)
