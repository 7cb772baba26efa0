"""A session's state under any sequence of events, on two servers that crash as they like.

Statements that are under way can be carried out late, in any order, or never; their answers can be
lost, or come to nobody. Every patch that was acknowledged is in the state after any crash, and all
sockets of a server see each change once, in one order.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from reileta.errors import DatabaseUnavailable, Overloaded, PayloadTooLarge
from reileta.rules.resource.json_values import Json, encode
from tests.reileta.session_servers import LIMITS, MACHINE, SERVERS, SessionServers


class StateMachine(SessionServers):
    @initialize()
    def two_servers_have_a_socket_of_one_session(self) -> None:
        for server in SERVERS:
            self.connect(server=server, id_="s_0", which=0, exclusive=True)

    @precondition(lambda self: any(one.views for one in self.running.values()))
    @rule(
        data=st.data(),
        patch=st.dictionaries(
            st.sampled_from("ab"),
            st.none() | st.integers(0, 3) | st.just({"c": 1}) | st.just("x" * 60),
            max_size=2,
        ),
        flushed=st.booleans(),
    )
    def patch(self, data: st.DataObject, patch: dict[str, Json], flushed: bool) -> None:
        one = data.draw(st.sampled_from([one for one in self.running.values() if one.views]))
        socket = data.draw(st.sampled_from(sorted(one.views)))
        mark = f"m{next(self.names)}"
        try:
            one.session.change({**patch, mark: 1}, socket, mark)
        except (Overloaded, PayloadTooLarge):
            return
        one.open.add(mark)
        if flushed:
            self.flush(one)

    @precondition(lambda self: any(one.open for one in self.running.values()))
    @rule(data=st.data())
    def flush_later(self, data: st.DataObject) -> None:
        self.flush(data.draw(st.sampled_from([one for one in self.running.values() if one.open])))

    @precondition(lambda self: self.saves)
    @rule(data=st.data(), course=st.sampled_from(["answered", "answered", "unanswered", "failed"]))
    def write_state(self, data: st.DataObject, course: str) -> None:
        """The database gets to one of the statements that are under way, or never does."""
        which = data.draw(st.integers(0, len(self.saves) - 1))
        one, id_, save = self.saves.pop(which)
        written = course != "failed" and self.database.apply(id_, save)
        if one not in self.running.values():
            return  # nobody waits for it any more
        if one.session.ended:
            return
        if course != "answered":
            self.hear(one, one.session.abandon(DatabaseUnavailable()))
        elif written:
            self.hear(one, one.session.saved())
        elif id_ in self.database.states:
            self.hear(one, one.session.stale(*self.database.states[id_]))
        else:
            self.hear(one, one.session.end())

    # What must hold

    @invariant()
    def what_was_acknowledged_is_in_the_state(self) -> None:
        for id_, (state, _) in self.database.states.items():
            assert self.acknowledged[id_] <= state.keys()
            assert len(encode(state)) <= LIMITS.state_bytes


TestStateMachine = StateMachine.TestCase
TestStateMachine.settings = MACHINE
