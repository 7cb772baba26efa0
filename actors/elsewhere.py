"""What the other nodes of a cluster have: users, sessions, instances, candidates.

It is read from the facts of other nodes (`reileta/rules/cluster/facts.py`), and is empty without a
cluster. The functions at the end of the file write a node's own facts. A fact that can't be read,
because it is of a newer version, counts as none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

import msgspec

from reileta.rules.cluster.facts import Change
from reileta.rules.visibility import EVERYONE, Audience

Fact: TypeAlias = tuple[str, bytes | None]
V = TypeVar("V")

_USER: Final = "user"
_SESSION: Final = "session"
_INSTANCE: Final = "instance"
_CANDIDATE: Final = "candidate"
_YES: Final = b"\xc3"


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How full an instance is, and who may see it.

    `connected`: players inside; `queued`: waiting candidates; `master`: its `UserIDAt`. `full`:
    there is no free seat. `by_friends`: a visitor's friends decide whether it may enter.
    `audience`: the `UserIDAt`s who may see the instance.
    """

    connected: int = 0
    queued: int = 0
    master: str | None = None
    full: bool = False
    by_friends: bool = False
    audience: Audience = EVERYONE


VACANT: Final = Occupancy()


@dataclass(frozen=True, slots=True)
class SessionElsewhere:
    """What a session has at one node.

    `user`: its id, of a guest its `UserIDAt`. `sockets`: how many are open. `players`: by instance;
    None: it is joining. `tokens`: those with a socket of the session API.
    """

    user: str
    sockets: int
    players: Mapping[str, str | None] = field(default_factory=dict)
    tokens: frozenset[bytes] = frozenset()


class _OccupancyFact(msgspec.Struct, array_like=True):
    connected: int
    queued: int
    master: str | None
    full: bool
    by_friends: bool
    audience: list[str] | None


class _SessionFact(msgspec.Struct, array_like=True):
    user: str
    sockets: int
    players: dict[str, str | None]
    tokens: list[bytes]


_encode: Final = msgspec.msgpack.Encoder().encode
_occupancy: Final = msgspec.msgpack.Decoder(_OccupancyFact)
_session: Final = msgspec.msgpack.Decoder(_SessionFact)


class Elsewhere:
    """The tables. They are only to be read; `learn` writes them."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, bool]] = {}
        """The nodes where a user has sockets."""
        self.sessions: dict[str, dict[str, SessionElsewhere]] = {}
        """What a session has, by node."""
        self.candidacies: dict[str, dict[str, dict[str, bool]]] = {}
        """The instances where a user waits, each with its nodes."""
        self._instances: dict[str, dict[str, Occupancy]] = {}

    def occupancy(self, instance_id: str) -> Occupancy | None:
        """How full an instance of another node is. If two nodes say that it is theirs, the later
        one had it last."""
        nodes = self._instances.get(instance_id)
        return None if nodes is None else nodes[next(reversed(nodes))]

    @property
    def instances(self) -> frozenset[str]:
        """The ids of the instances that run at other nodes."""
        return frozenset(self._instances)

    def full(self) -> frozenset[str]:
        """The ids of the instances at other nodes that have no free seat."""
        return frozenset(
            id_ for id_, nodes in self._instances.items() if nodes[next(reversed(nodes))].full
        )

    def sessions_of(self, user_id: str) -> dict[str, list[SessionElsewhere]]:
        """The user's sessions at other nodes."""
        return {
            id_: [one for one in nodes.values() if one.user == user_id]
            for id_, nodes in self.sessions.items()
            if any(one.user == user_id for one in nodes.values())
        }

    @staticmethod
    def concerned(changes: Iterable[Change]) -> frozenset[str]:
        """The users whose sockets changed."""
        keys = (change.key.partition("/") for change in changes)
        return frozenset(name for kind, _, name in keys if kind == _USER)

    def learn(self, changes: Iterable[Change]) -> bool:
        """Writes the tables; returns whether something changed that clients see."""
        seen = False
        for change in changes:
            kind, _, name = change.key.partition("/")
            node, there = change.node, None if change.after is None else True
            match kind:
                case "user":
                    _put(self.users, name, node, there)
                    seen = True
                case "session":
                    _put(self.sessions, name, node, _read_session(change.after))
                case "instance":
                    _put(self._instances, name, node, _read_occupancy(change.after))
                    seen = True
                case "candidate":
                    instance, _, user = name.partition("/")
                    instances = self.candidacies.setdefault(user, {})
                    _put(instances, instance, node, there)
                    if not instances:
                        del self.candidacies[user]
                case _:
                    pass  # a newer version knows it
        return seen

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "users elsewhere": len(self.users),
            "sessions elsewhere": len(self.sessions),
            "candidacies elsewhere": len(self.candidacies),
            "instances elsewhere": len(self._instances),
        }


def _set(table: dict[str, dict[str, V]], key: str, node: str, value: V) -> None:
    nodes = table.setdefault(key, {})
    nodes.pop(node, None)
    nodes[node] = value  # the last one


def _drop(table: dict[str, dict[str, V]], key: str, node: str) -> None:
    nodes = table.get(key, {})
    nodes.pop(node, None)
    if not nodes:
        table.pop(key, None)


def _put(table: dict[str, dict[str, V]], key: str, node: str, value: V | None) -> None:
    if value is None:
        _drop(table, key, node)
    else:
        _set(table, key, node, value)


def _read_session(fact: bytes | None) -> SessionElsewhere | None:
    if fact is None:
        return None
    try:
        read = _session.decode(fact)
    except msgspec.DecodeError:
        return None
    return SessionElsewhere(read.user, read.sockets, read.players, frozenset(read.tokens))


def _read_occupancy(fact: bytes | None) -> Occupancy | None:
    if fact is None:
        return None
    try:
        read = _occupancy.decode(fact)
    except msgspec.DecodeError:
        return None
    audience = EVERYONE if read.audience is None else Audience((frozenset(read.audience),))
    return Occupancy(read.connected, read.queued, read.master, read.full, read.by_friends, audience)


# The own facts


def lingers(key: str) -> bool:
    """Whether a fact outlives its node for a while: the users of a node that is gone are about to
    connect to another one."""
    return key.startswith(f"{_USER}/")


def user_fact(user_id: str, *, connected: bool) -> Fact:
    """A user has sockets here, or has not."""
    return f"{_USER}/{user_id}", _YES if connected else None


def candidate_fact(user_id: str, instance_id: str, *, waits: bool) -> Fact:
    """A user is a candidate of an instance here, or is not."""
    return f"{_CANDIDATE}/{instance_id}/{user_id}", _YES if waits else None


def session_fact(session_id: str, session: SessionElsewhere | None) -> Fact:
    """What a session has here."""
    key = f"{_SESSION}/{session_id}"
    if session is None:
        return key, None
    return key, _encode(
        _SessionFact(session.user, session.sockets, dict(session.players), sorted(session.tokens))
    )


def occupancy_fact(instance_id: str, occupancy: Occupancy | None) -> Fact:
    """How full an instance here is; None: it does not run here."""
    key = f"{_INSTANCE}/{instance_id}"
    if occupancy is None:
        return key, None
    circles = occupancy.audience.circles
    return key, _encode(
        _OccupancyFact(
            occupancy.connected,
            occupancy.queued,
            occupancy.master,
            occupancy.full,
            occupancy.by_friends,
            None if circles is None else sorted(frozenset().union(*circles)),
        )
    )
