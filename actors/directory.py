"""Occupancy of instances and presence of users, readable without asking an actor.

A table that all of a node shares. Each entry has one writer: an instance writes its occupancy and
its candidates, a session its user's sockets, the hub the observers. Everyone else reads. The
process derives all of it, and loses it when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from actors.delivery.sink import Sink
from reileta.observability.metrics import Metrics
from reileta.records import User
from reileta.rules.visibility import EVERYONE, Audience


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


VACANT = Occupancy()


class Directory:
    """The shared table of a node.

    It has the occupancy of instances by id, open sockets and candidacies by user (a bare id; a
    `UserIDAt` for users of other servers), and the sockets that observe the data of instances.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.occupancies: dict[str, Occupancy] = {}
        self._watchers: dict[str | None, dict[Sink, None]] = {}
        self._sockets: dict[str, dict[Sink, None]] = {}
        self._candidacies: dict[str, dict[str, None]] = {}
        self._metrics = metrics
        self.version = 0
        """Increases when an occupancy changes, or the set of connected users."""

    def occupancy(self, instance_id: str) -> Occupancy:
        return self.occupancies.get(instance_id, VACANT)

    def live(self, instance_id: str) -> Occupancy | None:
        """How full an instance is; None if it does not run here."""
        return self.occupancies.get(instance_id)

    def occupy(self, instance_id: str, occupancy: Occupancy | None) -> None:
        """Sets the occupancy of an instance; None: it has stopped."""
        previous = self.occupancies.pop(instance_id, None)
        if occupancy is not None:
            self.occupancies[instance_id] = occupancy
        if previous != occupancy:
            self.version += 1
        self._metrics.players += (occupancy or VACANT).connected - (previous or VACANT).connected
        self._metrics.instances = len(self.occupancies)

    def full(self) -> frozenset[str]:
        """The ids of the instances without a free seat."""
        return frozenset(id_ for id_, occupancy in self.occupancies.items() if occupancy.full)

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

    def connected(self, user_id: str) -> bool:
        """Whether the user has an open socket."""
        return user_id in self._sockets

    def status(self, user: User) -> str:
        """The user's status as clients see it: `offline` without an open socket."""
        return user.status if self.connected(user.id) else "offline"

    def sockets(self, user_id: str) -> tuple[Sink, ...]:
        """The user's open sockets, of all its sessions."""
        return tuple(self._sockets.get(user_id, ()))

    def opened(self, user_id: str, sink: Sink) -> bool:
        """Adds an open socket of the user; returns whether it is the first."""
        sockets = self._sockets.setdefault(user_id, {})
        sockets[sink] = None
        first = len(sockets) == 1
        self.version += first
        return first

    def closed(self, user_id: str, sink: Sink) -> bool:
        """Removes a socket of the user; returns whether it was the last."""
        sockets = self._sockets.get(user_id, {})
        sockets.pop(sink, None)
        last = not sockets and self._sockets.pop(user_id, None) is not None
        self.version += last
        return last

    def queue(self, user_id: str, instance_id: str) -> None:
        """Records that the user is a candidate of the instance."""
        self._candidacies.setdefault(user_id, {})[instance_id] = None

    def unqueue(self, user_id: str, instance_id: str) -> None:
        """Records that the user is no longer a candidate of the instance."""
        instances = self._candidacies.get(user_id, {})
        instances.pop(instance_id, None)
        if not instances:
            self._candidacies.pop(user_id, None)

    def candidacies(self, user_id: str) -> tuple[str, ...]:
        """The instances in which the user is a candidate."""
        return tuple(self._candidacies.get(user_id, ()))

    def candidates(self) -> tuple[str, ...]:
        """The users who are a candidate of an instance."""
        return tuple(self._candidacies)

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "occupancies": len(self.occupancies),
            "watchers": len(self._watchers),
            "sockets": len(self._sockets),
            "candidacies": len(self._candidacies),
        }
