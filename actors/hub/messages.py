"""What the hub is told: who listens to what, and what there is to hear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from actors.delivery.sink import Sink
from actors.runtime.message import Message, Request
from reileta.rules.identity import Viewer


@dataclass(frozen=True, slots=True)
class AddSocket(Message):
    """A socket is there, and for whom."""

    sink: Sink
    viewer: Viewer


@dataclass(frozen=True, slots=True)
class UpdateViewer(Message):
    """A user sees more or less than before, through whatever sockets it has."""

    viewer: Viewer


@dataclass(frozen=True, slots=True)
class RemoveSocket(Message):
    """A socket is gone, with its subscriptions."""

    sink: Sink


@dataclass(frozen=True, slots=True)
class Subscribe(Request[None]):
    """A socket wants events, of one object (its id) or of all."""

    sink: Sink
    events: frozenset[str]
    target: str | None


@dataclass(frozen=True, slots=True)
class Unsubscribe(Request[None]):
    sink: Sink
    events: frozenset[str]
    target: str | None


@dataclass(frozen=True, slots=True)
class Publish(Message):
    """Something happened to an object.

    `render` gives its JSON as a viewer may see it, None when it may not. Those who have a seat in
    `inside`, or are in `told`, are told by that instance itself.

    Of a user: `among` says that nothing has changed but what the user itself, admins and its
    friends see, and who else is to be told. Others would learn by the event that something had.
    """

    event: str
    id: str
    render: Callable[[Viewer], bytes | None]
    inside: str | None = None
    told: frozenset[Sink] = frozenset()
    among: frozenset[str] | None = None

    def concerns(self, viewer: Viewer) -> bool:
        """Whether the viewer is one of `among`."""
        return (
            self.among is None
            or viewer.admin
            or viewer.user == self.id
            or viewer.user in self.among
            or self.id in viewer.friends
        )


def intersection(
    among: frozenset[str] | None, other: frozenset[str] | None
) -> frozenset[str] | None:
    """`Publish.among` for two things that have changed."""
    return None if among is None or other is None else among | other


HubMessage: TypeAlias = AddSocket | UpdateViewer | RemoveSocket | Subscribe | Unsubscribe | Publish


@dataclass(frozen=True, slots=True)
class RefreshObserver(Message):
    """From the hub to an instance: look up in the directory whether a socket observes its data."""

    sink: Sink
