"""Sessions fight for resources, under any sequence of events, on two servers that crash.

A resource never has two holders, a session never two resources, and no write with an old fencing
number succeeds; who has been away for too long, or has ended, has none.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from reileta.errors import ReiletaError, ResourceHeld, ResourceNotAcquired, ResourceTaken
from reileta.records import HeldResource
from reileta.rules.identity import Claimant
from tests.reileta.session_servers import (
    LIMITS,
    MACHINE,
    SessionServers,
    numbers,
    servers,
    sessions,
)


class LeaseMachine(SessionServers):
    @rule(server=servers, id_=sessions, number=numbers, told=st.sampled_from([True, True, False]))
    def acquire(self, server: int, id_: str, number: int, told: bool) -> None:
        one, before = self.actor(server, id_), self.database.resources[number]
        if one is None or one.session.ended or id_ not in self.database.states:
            return
        try:
            after = before.acquire(
                Claimant(id_, "u_1"), self.database.has(id_), self.now + LIMITS.away_ms
            )
        except (ResourceHeld, ResourceTaken):
            return
        assert before.lease.session is None, "two holders"
        assert after.lease.fence > before.lease.fence
        self.database.resources[number] = after
        self.fences.append((id_, number, after.lease.fence))
        if told:
            held = HeldResource(after.record, after.lease.fence, after.lease.until)
            self.hear(one, one.session.took(held, self.now))

    @precondition(lambda self: any(one.session.held for one in self.running.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Someone releases what it believes that it has."""
        one = data.draw(st.sampled_from([one for one in self.running.values() if one.session.held]))
        id_ = one.session.id
        assert one.session.held is not None
        number, fence = one.session.held.resource.number, one.session.held.fence
        try:
            after = self.database.resources[number].release(Claimant(id_, "u_1"))
            self.database.resources[number] = after
        except ResourceTaken:
            pass
        self.hear(one, one.session.dropped(number, fence))

    @precondition(lambda self: self.fences)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Someone who once had a resource writes, whoever has it now."""
        id_, number, fence = data.draw(st.sampled_from(self.fences))
        before = self.database.resources[number]
        has = (before.lease.session, before.lease.fence) == (id_, fence)
        try:
            after = before.write(
                Claimant(id_, "u_1"), fence, {"data": {"by": fence}}, None, self.now
            )
        except (ResourceNotAcquired, ResourceTaken) as error:
            assert not has
            taken = before.lease.session not in (None, id_)
            self.check_refusal(error, taken=taken)
            return
        assert has, "a write with an old fencing number"
        self.database.resources[number] = after
        for (_, whose), one in self.running.items():
            if whose == id_ and one.session.held is not None:
                held = HeldResource(after.record, fence, after.lease.until)
                self.hear(one, one.session.took(held, self.now))

    def check_refusal(self, error: ReiletaError, *, taken: bool) -> None:
        assert isinstance(error, ResourceTaken) is taken

    # What must hold

    @invariant()
    def a_session_never_has_two_resources(self) -> None:
        holders = [one.lease.session for one in self.database.resources.values()]
        holding = [one for one in holders if one is not None]
        assert len(holding) == len(set(holding))
        assert all(one in self.database.states for one in holding)

    @invariant()
    def each_acquisition_is_ones_own(self) -> None:
        keys = [(number, fence) for _, number, fence in self.fences]
        assert len(keys) == len(set(keys))


TestLeaseMachine = LeaseMachine.TestCase
TestLeaseMachine.settings = MACHINE
