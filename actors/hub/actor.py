"""The hub actor: subscriptions of sockets, and the publications that they get.

Data inside instances does not pass here; it goes from an instance to its sockets. Sockets of the
session API get only the server's notice. Overflow policy: a publication that a full mailbox refuses
is dropped and counted; the next one about the same object has the whole object again. Within a
drain, only the newest `update-*` of each object is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, assert_never

from msgspec import UNSET

from actors.delivery.sink import SessionSink, Sink
from actors.directory import Directory
from actors.hub.messages import (
    AddSessionSocket,
    AddSocket,
    Announce,
    ContinueAnnouncement,
    HubMessage,
    Publish,
    RefreshObserver,
    RemoveSocket,
    Subscribe,
    Unsubscribe,
    UpdateViewer,
    combined_audience,
)
from actors.hub.notice_frame import NoticeFrame
from actors.runtime.actor import Actor
from actors.runtime.mailbox import Recipient
from reileta.clock import Clock
from reileta.errors import EventUnknown, PermissionDenied
from reileta.protocol import events
from reileta.protocol.frames import event
from reileta.protocol.views.server import NoticeView
from reileta.rules.identity import Viewer

SUBSCRIPTIONS: Final = 512
"""How many subscriptions a socket may have: events times targets."""
ANNOUNCED_AT_ONCE: Final = 256
"""How many sockets get an announcement in one drain, so that others get their turn."""


@dataclass(slots=True)
class Listener:
    """A socket's viewer and its subscriptions: (event, target); target None: all objects."""

    viewer: Viewer
    topics: set[tuple[str, str | None]] = field(default_factory=set)


@dataclass(slots=True)
class Listeners:
    """The subscriptions of a node; they survive a crash of the hub."""

    of: dict[Sink, Listener] = field(default_factory=dict)
    by_topic: dict[tuple[str, str | None], dict[Sink, None]] = field(default_factory=dict)
    by_user: dict[str, dict[Sink, None]] = field(default_factory=dict)
    session_sockets: dict[Sink, SessionSink] = field(default_factory=dict)
    """The sockets of the session API."""
    notice: NoticeView | None = None
    """The last one; sockets that open before its end get it."""

    def hear_of(self, user_id: str) -> bool:
        """Whether a socket may get `update-user` about the user."""
        return (
            user_id in self.by_user
            or (events.UPDATE_USER, None) in self.by_topic
            or (events.UPDATE_USER, user_id) in self.by_topic
        )


class RunningInstances(Protocol):
    """The instances of a node that run (a `Registry` of them)."""

    def running(self) -> Mapping[str, Recipient[RefreshObserver]]: ...


class HubActor(Actor[HubMessage]):
    """The hub of a node. `instances` are notified when observers of their data change."""

    def __init__(
        self,
        listeners: Listeners,
        directory: Directory,
        instances: RunningInstances,
        clock: Clock,
    ) -> None:
        self._listeners = listeners
        self._directory = directory
        self._instances = instances
        self._clock = clock
        self._unannounced: list[Sink] = []
        """Sockets of both APIs that have not got the last notice."""
        self._updates: dict[tuple[str, str], Publish] = {}

    async def receive(self, message: HubMessage) -> None:
        match message:
            case AddSocket(sink=sink, viewer=viewer):
                if sink not in self._listeners.of:
                    self._greet(sink, None)
                self._set_viewer(sink, viewer)
            case AddSessionSocket(sink=sink):
                if sink not in self._listeners.session_sockets:
                    self._greet(sink, sink)
                self._listeners.session_sockets[sink] = sink
            case UpdateViewer(viewer=viewer):
                for sink in tuple(self._listeners.by_user.get(viewer.user, ())):
                    self._set_viewer(sink, viewer)
            case RemoveSocket(sink=sink):
                self._remove_socket(sink)
            case Subscribe():
                self._subscribe(message)
                message.reply(None)
            case Unsubscribe():
                listener = self._listeners.of.get(message.sink)
                if listener is not None:
                    for name in message.events:
                        self._drop(message.sink, listener, (name, message.target))
                message.reply(None)
            case Publish():
                if message.event.startswith("update-"):
                    earlier = self._updates.pop((message.event, message.id), message)
                    among = combined_audience(earlier.among, message.among)
                    self._updates[message.event, message.id] = replace(message, among=among)
                else:
                    sent = self._publish(message)
                    self.context.sent(sent, sent)
            case Announce(notice=notice):
                self._listeners.notice = notice
                begun = bool(self._unannounced)
                self._unannounced = [*self._listeners.of, *self._listeners.session_sockets]
                if not begun:
                    self._announce()
            case ContinueAnnouncement():
                self._announce()
            case _:
                assert_never(message)

    async def flush(self) -> None:
        updates, self._updates = self._updates, {}
        sent = sum(map(self._publish, updates.values()))
        self.context.sent(sent, sent)

    # Publications ------------------------------------------------------------------------------

    def _publish(self, message: Publish) -> int:
        """Sends the event to its receivers; returns to how many sockets."""
        sent = 0
        rendered: dict[bytes, bytes] = {}
        for sink in self._receivers(message):
            listener = self._listeners.of.get(sink)
            if listener is None or sink in message.informed:
                continue
            if message.inside is not None and message.inside in sink.seats:
                continue
            if not message.concerns(listener.viewer):
                continue
            data = message.render(listener.viewer)
            if data is None:
                continue
            frame = rendered.get(data)
            if frame is None:
                frame = rendered[data] = event(message.event, message.id, data)
            sink.send(frame)
            sent += 1
        return sent

    def _receivers(self, message: Publish) -> Iterator[Sink]:
        """The sockets subscribed to all such events or to this object, and a user's own."""
        by_topic = self._listeners.by_topic
        everything = by_topic.get((message.event, None), {})
        object_ = by_topic.get((message.event, message.id), {})
        own: dict[Sink, None] = {}
        if message.event == events.UPDATE_USER:
            own = self._listeners.by_user.get(message.id, {})
        if not object_ and not own:
            return iter(tuple(everything))
        return iter(dict.fromkeys((*everything, *object_, *own)))

    # Announcements -----------------------------------------------------------------------------

    def _greet(self, sink: Sink, session_sink: SessionSink | None) -> None:
        """Sends a socket that opens the last notice, unless it is over."""
        last = self._listeners.notice
        if last is not None and last.until is not UNSET and self._clock.now_ms() < last.until:
            NoticeFrame(last, self._clock).send(sink, session_sink)

    def _announce(self) -> None:
        """Sends the notice to the next sockets, and goes on after other messages."""
        last, waiting = self._listeners.notice, self._unannounced
        assert last is not None
        frame = NoticeFrame(last, self._clock)
        for sink in waiting[-ANNOUNCED_AT_ONCE:]:
            session_sink = self._listeners.session_sockets.get(sink)
            if session_sink is not None or sink in self._listeners.of:
                frame.send(sink, session_sink)
        del waiting[-ANNOUNCED_AT_ONCE:]
        if waiting:
            self.context.after(0, ContinueAnnouncement())

    # Subscriptions -----------------------------------------------------------------------------

    def _set_viewer(self, sink: Sink, viewer: Viewer) -> None:
        """Adds a socket, or changes what its user may see."""
        listener = self._listeners.of.get(sink)
        if listener is None:
            self._listeners.of[sink] = Listener(viewer)
            self._listeners.by_user.setdefault(viewer.user, {})[sink] = None
            return
        listener.viewer = viewer
        if not viewer.admin:
            for topic in tuple(listener.topics):
                if topic[0] == events.INSTANCE_DATA:
                    self._drop(sink, listener, topic)

    def _subscribe(self, message: Subscribe) -> None:
        listener = self._listeners.of.get(message.sink)
        if listener is None:
            return  # the socket has closed meanwhile
        names = message.events
        if events.INSTANCE_DATA in names and not listener.viewer.admin:
            if len(names) == 1:
                raise PermissionDenied
            names -= {events.INSTANCE_DATA}  # the rest of the group is allowed
        topics = {(name, message.target) for name in names} - listener.topics
        if len(listener.topics) + len(topics) > SUBSCRIPTIONS:
            raise EventUnknown.field("target", f"no more than {SUBSCRIPTIONS} subscriptions")
        for topic in topics:
            listener.topics.add(topic)
            self._listeners.by_topic.setdefault(topic, {})[message.sink] = None
            if topic[0] == events.INSTANCE_DATA:
                self._directory.watch(message.sink, message.target)
                self._refresh_observer(message.sink, message.target)

    def _drop(self, sink: Sink, listener: Listener, topic: tuple[str, str | None]) -> None:
        if topic not in listener.topics:
            return
        listener.topics.discard(topic)
        sinks = self._listeners.by_topic[topic]
        sinks.pop(sink, None)
        if not sinks:
            del self._listeners.by_topic[topic]
        if topic[0] == events.INSTANCE_DATA:
            self._directory.unwatch(sink, topic[1])
            self._refresh_observer(sink, topic[1])

    def _remove_socket(self, sink: Sink) -> None:
        self._listeners.session_sockets.pop(sink, None)
        listener = self._listeners.of.get(sink)
        if listener is None:
            return
        for topic in tuple(listener.topics):
            self._drop(sink, listener, topic)
        del self._listeners.of[sink]
        sinks = self._listeners.by_user[listener.viewer.user]
        sinks.pop(sink, None)
        if not sinks:
            del self._listeners.by_user[listener.viewer.user]

    def _refresh_observer(self, sink: Sink, target: str | None) -> None:
        """Has the instances concerned look the observer up in the directory.

        They send their data to it themselves, in order.
        """
        for id_, ref in self._instances.running().items():
            if target in (None, id_):
                ref.signal(RefreshObserver(sink))
