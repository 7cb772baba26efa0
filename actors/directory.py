"""Occupancy of instances and presence of users, readable without asking an actor.

A table that all of a node shares. Each entry has one writer: an instance writes its occupancy and
its candidates, a session its user's sockets, the hub the observers. Everyone else reads. The
process derives all of it, and loses it when it ends.

In a cluster, the directory also knows what the other nodes have (`actors/elsewhere.py`), and tells
them what it has: so `connected`, `status`, `occupancy`, `live`, `full` and `candidacies` are the
same at every node, up to the time that a change takes to arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from actors.delivery.interest import InterestGroups
from actors.delivery.sink import Sink
from actors.elsewhere import (
    VACANT,
    Elsewhere,
    Occupancy,
    SessionElsewhere,
    candidate_fact,
    occupancy_fact,
    session_fact,
    user_fact,
)
from reileta.observability.metrics import Metrics
from reileta.records import User
from reileta.rules.cluster.facts import Change

__all__ = ["VACANT", "Directory", "Occupancy", "Told"]

Told: TypeAlias = Callable[[str, bytes | None], object]
"""Takes a fact for the other nodes; None: it is not one any more."""
SinkElsewhere: TypeAlias = Callable[[str], Sink]
"""A sink to all sockets that a user has at other nodes."""


class Directory:
    """The shared table of a node.

    It has the occupancy of instances by id, open sockets and candidacies by user (a bare id; a
    `UserIDAt` for users of other servers), and the sockets that observe the data of instances.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.occupancies: dict[str, Occupancy] = {}
        self.interests = InterestGroups(metrics)
        """The sockets that asked for fewer values of instances."""
        self.elsewhere = Elsewhere()
        """What other nodes have."""
        self._told: Told | None = None
        self._sink_elsewhere: SinkElsewhere | None = None
        self._session_facts: dict[str, bytes] = {}
        self._watchers: dict[str | None, dict[Sink, None]] = {}
        self._sockets: dict[str, dict[Sink, None]] = {}
        self._candidacies: dict[str, dict[str, None]] = {}
        self._metrics = metrics
        self.version = 0
        """Increases when an occupancy changes, or the set of connected users."""

    # The cluster -------------------------------------------------------------------------------

    def join_cluster(self, told: Told, sink_elsewhere: SinkElsewhere) -> None:
        """Tells other nodes what is here, now and whenever it changes."""
        self._told, self._sink_elsewhere = told, sink_elsewhere
        for instance_id, occupancy in self.occupancies.items():
            told(*occupancy_fact(instance_id, occupancy))
        for user_id in self._sockets:
            told(*user_fact(user_id, connected=True))
        for user_id, instances in self._candidacies.items():
            for instance_id in instances:
                told(*candidate_fact(user_id, instance_id, waits=True))

    @property
    def in_cluster(self) -> bool:
        """Whether there may be other nodes."""
        return self._told is not None

    def learn(self, changes: Iterable[Change]) -> frozenset[str]:
        """Other nodes have changed; returns the users who came online or went offline by it."""
        concerned = self.elsewhere.concerned(changes)
        before = {user for user in concerned if self.connected(user)}
        if self.elsewhere.learn(changes):
            self.version += 1
        return frozenset(user for user in concerned if self.connected(user) != (user in before))

    def note_session(self, session_id: str, session: SessionElsewhere | None) -> None:
        """Tells other nodes what a session has here; None: nothing."""
        if self._told is None:
            return
        key, fact = session_fact(session_id, session)
        if fact is None:
            if self._session_facts.pop(session_id, None) is not None:
                self._told(key, None)
        elif self._session_facts.get(session_id) != fact:
            self._session_facts[session_id] = fact
            self._told(key, fact)

    def sessions_elsewhere(self, session_id: str) -> Mapping[str, SessionElsewhere]:
        """What a session has at other nodes, by node."""
        return self.elsewhere.sessions.get(session_id, {})

    # Instances ---------------------------------------------------------------------------------

    def occupancy(self, instance_id: str) -> Occupancy:
        return self.live(instance_id) or VACANT

    def players_in(self, instance_ids: Iterable[str]) -> int:
        """How many players are inside these instances together."""
        return sum(self.occupancy(one).connected for one in instance_ids)

    def live(self, instance_id: str) -> Occupancy | None:
        """How full an instance is; None if it runs nowhere."""
        here = self.occupancies.get(instance_id)
        return self.elsewhere.occupancy(instance_id) if here is None else here

    def occupy(self, instance_id: str, occupancy: Occupancy | None) -> None:
        """Sets the occupancy of an instance; None: it has stopped."""
        previous = self.occupancies.pop(instance_id, None)
        if occupancy is not None:
            self.occupancies[instance_id] = occupancy
        if previous != occupancy:
            self.version += 1
            if self._told is not None:
                self._told(*occupancy_fact(instance_id, occupancy))
        self._metrics.players += (occupancy or VACANT).connected - (previous or VACANT).connected
        self._metrics.instances = len(self.occupancies)

    def full(self) -> frozenset[str]:
        """The ids of the instances without a free seat."""
        here = self.occupancies
        elsewhere = frozenset(id_ for id_ in self.elsewhere.full() if id_ not in here)
        return elsewhere.union(id_ for id_, occupancy in here.items() if occupancy.full)

    # Observers ---------------------------------------------------------------------------------

    def watch(self, sink: Sink, instance_id: str | None) -> None:
        """Adds an observer: the socket gets all data of that instance, or of all (None)."""
        self._watchers.setdefault(instance_id, {})[sink] = None

    def unwatch(self, sink: Sink, instance_id: str | None) -> None:
        """Removes exactly that observer."""
        sinks = self._watchers.get(instance_id, {})
        sinks.pop(sink, None)
        if not sinks:
            self._watchers.pop(instance_id, None)

    def watches(self, sink: Sink, instance_id: str) -> bool:
        """Whether the socket observes that instance's data."""
        return any(sink in self._watchers.get(target, ()) for target in (None, instance_id))

    def watchers(self, instance_id: str) -> Iterable[Sink]:
        """The sockets that observe that instance's data, each once."""
        return dict.fromkeys(
            sink for target in (None, instance_id) for sink in self._watchers.get(target, ())
        )

    @property
    def observed(self) -> bool:
        """Whether any socket here observes data."""
        return bool(self._watchers)

    def observed_elsewhere(self) -> list[str]:
        """The instances of other nodes that sockets here observe."""
        elsewhere = self.elsewhere.instances
        if None in self._watchers:
            return list(elsewhere)
        return [one for one in self._watchers if one is not None and one in elsewhere]

    # Users -------------------------------------------------------------------------------------

    def connected(self, user_id: str) -> bool:
        """Whether the user has an open socket."""
        return user_id in self._sockets or user_id in self.elsewhere.users

    def status(self, user: User) -> str:
        """The user's status as clients see it: `offline` without an open socket."""
        return user.status if self.connected(user.id) else "offline"

    def sockets(self, user_id: str) -> tuple[Sink, ...]:
        """The user's open sockets, of all its sessions. One sink stands for all sockets at other
        nodes."""
        here = self.sockets_here(user_id)
        if self._sink_elsewhere is not None and user_id in self.elsewhere.users:
            return (*here, self._sink_elsewhere(user_id))
        return here

    def sockets_here(self, user_id: str) -> tuple[Sink, ...]:
        """The user's open sockets at this node."""
        return tuple(self._sockets.get(user_id, ()))

    def opened(self, user_id: str, sink: Sink) -> bool:
        """Adds an open socket of the user; returns whether it is the first."""
        sockets = self._sockets.setdefault(user_id, {})
        sockets[sink] = None
        first = len(sockets) == 1
        if first and self._told is not None:
            self._told(*user_fact(user_id, connected=True))
        first = first and user_id not in self.elsewhere.users
        self.version += first
        return first

    def closed(self, user_id: str, sink: Sink) -> bool:
        """Removes a socket of the user; returns whether it was the last."""
        sockets = self._sockets.get(user_id, {})
        sockets.pop(sink, None)
        last = not sockets and self._sockets.pop(user_id, None) is not None
        if last and self._told is not None:
            self._told(*user_fact(user_id, connected=False))
        last = last and user_id not in self.elsewhere.users
        self.version += last
        return last

    # Candidates --------------------------------------------------------------------------------

    def queue(self, user_id: str, instance_id: str) -> None:
        """Records that the user is a candidate of the instance."""
        self._candidacies.setdefault(user_id, {})[instance_id] = None
        if self._told is not None:
            self._told(*candidate_fact(user_id, instance_id, waits=True))

    def unqueue(self, user_id: str, instance_id: str) -> None:
        """Records that the user is no longer a candidate of the instance."""
        instances = self._candidacies.get(user_id, {})
        instances.pop(instance_id, None)
        if not instances:
            self._candidacies.pop(user_id, None)
        if self._told is not None:
            self._told(*candidate_fact(user_id, instance_id, waits=False))

    def candidacies(self, user_id: str) -> tuple[str, ...]:
        """The instances in which the user is a candidate."""
        elsewhere = self.elsewhere.candidacies.get(user_id, ())
        return tuple(dict.fromkeys((*self._candidacies.get(user_id, ()), *elsewhere)))

    def candidates(self) -> tuple[str, ...]:
        """The users who are a candidate of an instance."""
        return tuple(dict.fromkeys((*self._candidacies, *self.elsewhere.candidacies)))

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "occupancies": len(self.occupancies),
            "watchers": len(self._watchers),
            "sockets": len(self._sockets),
            "candidacies": len(self._candidacies),
            "interests": len(self.interests.by_instance),
            **self.elsewhere.debug_counts(),
        }
