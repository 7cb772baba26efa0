"""The messages to the hub, and from the hub to instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from actors.delivery.sink import SessionSink, Sink
from actors.runtime.message import Message, Request
from reileta.protocol.views.server import NoticeView
from reileta.rules.identity import Viewer


@dataclass(frozen=True, slots=True)
class AddSocket(Message):
    """A socket opened, or its user changed."""

    sink: Sink
    viewer: Viewer


@dataclass(frozen=True, slots=True)
class AddSessionSocket(Message):
    """A socket of the session API opened. It gets announcements, and nothing else from the hub."""

    sink: SessionSink


@dataclass(frozen=True, slots=True)
class UpdateViewer(Message):
    """A user may see more or less than before, through all its sockets."""

    viewer: Viewer


@dataclass(frozen=True, slots=True)
class RemoveSocket(Message):
    """A socket of either API closed; its subscriptions end."""

    sink: Sink


@dataclass(frozen=True, slots=True)
class Subscribe(Request[None]):
    """A socket subscribes to events of one object (`target`: its id) or of all (None)."""

    sink: Sink
    events: frozenset[str]
    target: str | None


@dataclass(frozen=True, slots=True)
class Unsubscribe(Request[None]):
    """A socket ends subscriptions."""

    sink: Sink
    events: frozenset[str]
    target: str | None


@dataclass(frozen=True, slots=True)
class Publish(Message):
    """An event about an object.

    `render` returns its JSON as a viewer may see it; None: the viewer may not see it.
    `inside`, `informed`: the instance itself sends the event to the sockets that have a seat in
    `inside`, and to those in `informed`.
    `among`: a change of a user concerns only these users, its friends, itself and admins. Other
    viewers see no difference, and must not learn from an event that something changed. None: the
    change concerns all viewers.
    """

    event: str
    id: str
    render: Callable[[Viewer], bytes | None]
    inside: str | None = None
    informed: frozenset[Sink] = frozenset()
    among: frozenset[str] | None = None

    def concerns(self, viewer: Viewer) -> bool:
        """Whether `among` includes the viewer."""
        return (
            self.among is None
            or viewer.admin
            or viewer.user == self.id
            or viewer.user in self.among
            or self.id in viewer.friends
        )


def combined_audience(
    among: frozenset[str] | None, other: frozenset[str] | None
) -> frozenset[str] | None:
    """`Publish.among` for two changes of one object."""
    return None if among is None or other is None else among | other


@dataclass(frozen=True, slots=True)
class Announce(Message):
    """All sockets of both APIs get the event `server-notice`; those that open before its end, too.
    It replaces the last one."""

    notice: NoticeView


@dataclass(frozen=True, slots=True)
class ContinueAnnouncement(Message):
    """Sends the announcement to the next sockets."""


HubMessage: TypeAlias = (
    AddSocket
    | AddSessionSocket
    | UpdateViewer
    | RemoveSocket
    | Subscribe
    | Unsubscribe
    | Publish
    | Announce
    | ContinueAnnouncement
)


@dataclass(frozen=True, slots=True)
class RefreshObserver(Message):
    """From the hub to an instance: look up in the directory whether a socket observes its data."""

    sink: Sink
