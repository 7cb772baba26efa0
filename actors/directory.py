"""What anyone on this node may know of its actors without asking them.

Actors write their own entries at the end of a drain; everyone else reads. All of it is derived, and
gone with the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from actors.delivery.sink import Sink
from reileta.observability.metrics import Metrics
from reileta.rules.visibility import EVERYONE, Audience


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How full an instance is: players inside, candidates waiting, the master's `UserIDAt`; and
    whether one must know a visitor's friends to judge whether it may enter. `audience`: the
    `UserIDAt`s who may see it."""

    connected: int = 0
    queued: int = 0
    master: str | None = None
    full: bool = False
    by_friends: bool = False
    audience: Audience = EVERYONE


VACANT = Occupancy()


class Directory:
    """Instances' occupancy by id; open sockets and candidacies by user (the id; a `UserIDAt` for
    another server's); sockets that watch instances' data."""

    def __init__(self, metrics: Metrics) -> None:
        self.occupancies: dict[str, Occupancy] = {}
        self._watchers: dict[str | None, dict[Sink, None]] = {}
        self._sockets: dict[str, dict[Sink, None]] = {}
        self._candidacies: dict[str, dict[str, None]] = {}
        self._metrics = metrics
        self.version = 0
        """Grows with each change of an occupancy, and of who is connected."""

    def occupancy(self, instance_id: str) -> Occupancy:
        return self.occupancies.get(instance_id, VACANT)

    def live(self, instance_id: str) -> Occupancy | None:
        """How full an instance is; None: it does not live here."""
        return self.occupancies.get(instance_id)

    def occupy(self, instance_id: str, occupancy: Occupancy | None) -> None:
        """An instance is this full now; None: it no longer lives."""
        before = self.occupancies.pop(instance_id, None)
        if occupancy is not None:
            self.occupancies[instance_id] = occupancy
        if before != occupancy:
            self.version += 1
        self._metrics.players += (occupancy or VACANT).connected - (before or VACANT).connected
        self._metrics.instances = len(self.occupancies)

    def full(self) -> frozenset[str]:
        """The instances without a free seat."""
        return frozenset(id_ for id_, one in self.occupancies.items() if one.full)

    def watch(self, sink: Sink, instance_id: str | None) -> None:
        """The socket is to get all data of that instance, or of every instance (None)."""
        self._watchers.setdefault(instance_id, {})[sink] = None

    def unwatch(self, sink: Sink, instance_id: str | None) -> None:
        """Takes exactly that back."""
        sinks = self._watchers.get(instance_id, {})
        sinks.pop(sink, None)
        if not sinks:
            self._watchers.pop(instance_id, None)

    def watches(self, sink: Sink, instance_id: str) -> bool:
        """Whether the socket is to get that instance's data."""
        return any(sink in self._watchers.get(one, ()) for one in (None, instance_id))

    def watchers(self, instance_id: str) -> Iterable[Sink]:
        """The sockets that are to get that instance's data, each once."""
        return dict.fromkeys(
            sink for one in (None, instance_id) for sink in self._watchers.get(one, ())
        )

    def connected(self, user_id: str) -> bool:
        """Whether the user has an open socket."""
        return user_id in self._sockets

    def sockets(self, user_id: str) -> tuple[Sink, ...]:
        """The user's open sockets, of all its sessions."""
        return tuple(self._sockets.get(user_id, ()))

    def opened(self, user_id: str, sink: Sink) -> bool:
        """A socket of the user opened; whether it is the first."""
        sockets = self._sockets.setdefault(user_id, {})
        sockets[sink] = None
        first = len(sockets) == 1
        self.version += first
        return first

    def closed(self, user_id: str, sink: Sink) -> bool:
        """A socket of the user closed; whether it was the last."""
        sockets = self._sockets.get(user_id, {})
        sockets.pop(sink, None)
        last = not sockets and self._sockets.pop(user_id, None) is not None
        self.version += last
        return last

    def queue(self, user_id: str, instance_id: str) -> None:
        """The user is a candidate there."""
        self._candidacies.setdefault(user_id, {})[instance_id] = None

    def unqueue(self, user_id: str, instance_id: str) -> None:
        """The user is a candidate there no more."""
        places = self._candidacies.get(user_id, {})
        places.pop(instance_id, None)
        if not places:
            self._candidacies.pop(user_id, None)

    def candidacies(self, user_id: str) -> tuple[str, ...]:
        """The instances in which the user is a candidate."""
        return tuple(self._candidacies.get(user_id, ()))
