"""Facts between nodes that lose messages, restart and fall: after a heartbeat, all agree."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reileta.rules.cluster.facts import Beat, Change, Delta, FactsMap, OwnFacts

NODES = 3
KEYS = tuple("abcdef")
LIMIT_BYTES = 64
"""Small, so that deltas and whole parts come in several messages."""

Message: TypeAlias = Delta | Beat


@dataclass
class Node:
    """One node: its own facts, its map, what it made of the changes, and its inboxes by sender."""

    own: OwnFacts
    known: FactsMap = field(default_factory=FactsMap)
    seen: dict[tuple[str, str], bytes] = field(default_factory=dict)
    inbox: dict[int, deque[Message]] = field(default_factory=dict)

    def note(self, changes: list[Change]) -> None:
        for one in changes:
            assert self.seen.get((one.node, one.key)) == one.before
            assert one.before != one.after
            if one.after is None:
                del self.seen[one.node, one.key]
            else:
                self.seen[one.node, one.key] = one.after


class FactsMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.starts = 0
        self.nodes = [self.new_node() for _ in range(NODES)]

    def new_node(self) -> Node:
        self.starts += 1
        return Node(OwnFacts(f"c_{self.starts}"))

    def send(self, sender: int, message: Message) -> None:
        for receiver, node in enumerate(self.nodes):
            if receiver != sender:
                node.inbox.setdefault(sender, deque()).append(message)

    # The world

    @rule(at=st.integers(0, NODES - 1), key=st.sampled_from(KEYS), value=st.none() | st.binary())
    def put(self, at: int, key: str, value: bytes | None) -> None:
        self.nodes[at].own.put(key, value)

    @rule(at=st.integers(0, NODES - 1))
    def tell(self, at: int) -> None:
        for delta in self.nodes[at].own.deltas(LIMIT_BYTES):
            self.send(at, delta)

    @rule(at=st.integers(0, NODES - 1))
    def beat(self, at: int) -> None:
        self.send(at, self.nodes[at].own.beat())

    @rule(at=st.integers(0, NODES - 1), sender=st.integers(0, NODES - 1), lost=st.booleans())
    def deliver(self, at: int, sender: int, lost: bool) -> None:
        inbox = self.nodes[at].inbox.get(sender)
        if inbox:
            message = inbox.popleft()
            if not lost:
                self.receive(self.nodes[at], message)

    def receive(self, node: Node, message: Message) -> None:
        if isinstance(message, Delta):
            node.note(node.known.take(message))
        else:
            node.known.hear(message)

    @rule(at=st.integers(0, NODES - 1))
    def pull(self, at: int) -> None:
        """A whole part overtakes deltas that are on their way."""
        node = self.nodes[at]
        for other in self.nodes:
            if other.own.node in node.known.wanted():
                facts: dict[str, bytes] = {}
                pieces = other.own.whole(LIMIT_BYTES)
                for piece in pieces:
                    facts |= piece.facts
                assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
                node.note(node.known.replace(other.own.node, pieces[0].clock, facts))

    @rule(at=st.integers(0, NODES - 1))
    def reconnect(self, at: int) -> None:
        node = self.nodes[at]
        node.inbox.clear()
        node.known.doubt()

    @rule(at=st.integers(0, NODES - 1), restarts=st.booleans())
    def fall(self, at: int, restarts: bool) -> None:
        """Goes on under another id, with its facts, or as a new process without any."""
        fallen = self.nodes[at].own
        if restarts:
            self.nodes[at] = self.new_node()
        else:
            self.nodes[at].own = OwnFacts(self.new_node().own.node, fallen.facts)
        for node in self.nodes:
            node.note(node.known.gone(fallen.node, 0.0))
            assert not node.known.facts_of(fallen.node)
            node.note(node.known.follow_time((), 100.0))
            assert fallen.node not in node.known.nodes()

    @rule()
    def settle(self) -> None:
        """Nothing is lost for a heartbeat and an answer."""
        for at in range(NODES):
            self.tell(at)
            self.beat(at)
        for node in self.nodes:
            for inbox in node.inbox.values():
                while inbox:
                    self.receive(node, inbox.popleft())
        for at in range(NODES):
            self.pull(at)
        for node in self.nodes:
            assert node.known.wanted() == ()
            for other in self.nodes:
                if other is not node:
                    assert node.known.facts_of(other.own.node) == other.own.facts

    @invariant()
    def changes_tell_the_map(self) -> None:
        for node in self.nodes if hasattr(self, "nodes") else ():
            known = {
                (other, key): value
                for other in node.known.nodes()
                for key, value in node.known.facts_of(other).items()
            }
            assert node.seen == known
            assert node.own.node not in node.known.nodes()


TestFacts = FactsMachine.TestCase
TestFacts.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
