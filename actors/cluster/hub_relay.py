"""Publications and frames for users and subscribers at other nodes.

- A changed **record** goes out as its noun and id. Each node loads it, and renders it for its own
  viewers (`actors/hub/update_feed.py`).
- **News** of an instance go out with their audience: only its host knows who may see them.
- **Frames for a user** go to the nodes where the user has sockets.

The bus may lose any of them. A changed record is in the next event about it; changes of users, of
owners and of rules about servers are also in the change feed, which loses nothing
(`actors/change_feed.py`). A node that was cut off asks again for what its users wait for: their
places in queues. Overflow policy: the bus refuses what it can't take; it is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec
import trio

from actors.cluster.facts import ClusterMember
from actors.cluster.gateway_sockets import RemoteSink
from actors.delivery.batch import Batch, Piece
from actors.delivery.sink import InstanceHandle, Sink
from actors.directory import Directory
from actors.hub.messages import Publish
from actors.hub.update_feed import Noun
from actors.resource_access import OpenSockets
from actors.server import LiveServer
from reileta.cluster.bus import BusError, BusMessage, Gap
from reileta.cluster.calls import pack, unpacked
from reileta.ids import at
from reileta.observability.metrics import Metrics
from reileta.protocol import events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.views.server import NoticeView
from reileta.rules.identity import Viewer
from reileta.rules.visibility import EVERYONE, Audience

HUB: Final = "hub"
TELL: Final = "tell"
"""The subject of frames for users; with a node's id, of those there."""

FrameKey: TypeAlias = list[str] | None
"""A frame's conflation key, as it goes over the bus."""
SendFrames: TypeAlias = Callable[[str, list[tuple[bytes, FrameKey]]], None]


class Changed(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """A record changed. `among` as in `Publish`."""

    node: str
    noun: str
    id: str
    among: list[str] | None


class News(msgspec.Struct, frozen=True, array_like=True, tag="n"):
    """An event of an instance for subscribers. `audience`: the `UserIDAt`s who may see it; None:
    everyone. `inside`: sockets inside the instance have it already. `informed`: so have the sockets
    of these users, and `left`: those of these sessions, which have just left it."""

    node: str
    event: str
    id: str
    data: bytes
    audience: list[str] | None
    inside: bool
    informed: list[str]
    left: list[str] = []


class PeerChanged(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """Another server changed."""

    node: str
    address: str


class TellAgain(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """A node may have missed messages: tell its users their places in queues again."""

    node: str


class Announced(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """The server's notice changed."""

    node: str
    notice: NoticeView


class Frames(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """Frames for all sockets of a user, each with its key."""

    user: str
    frames: list[tuple[bytes, FrameKey]]


HubRelayed: TypeAlias = Changed | News | PeerChanged | TellAgain | Announced

_relayed: msgspec.msgpack.Decoder[HubRelayed] = msgspec.msgpack.Decoder(HubRelayed)
_frames: Final = msgspec.msgpack.Decoder(Frames)


class Receivers(Protocol):
    """What a node does with messages of other nodes (`actors.node.Node`)."""

    def changed_elsewhere(self, noun: Noun, id_: str, among: frozenset[str] | None) -> None:
        """Publishes a record that changed."""
        ...

    @property
    def server(self) -> LiveServer:
        """How clients reach this node."""
        ...

    def publish_here(self, message: Publish) -> None:
        """Publishes an event to the sockets here."""
        ...

    async def peer_changed_elsewhere(self, address: str) -> None:
        """Publishes a change of another server."""
        ...

    def sockets(self, session_id: str) -> OpenSockets:
        """The session's open sockets here."""
        ...

    def announced_elsewhere(self, notice: NoticeView) -> None:
        """Sends the server's notice to the sockets here."""
        ...

    async def look_for_notice(self) -> None:
        """Reads the server's notice, since a change of it may have been missed."""
        ...

    def tell_queues_again(self, users: Collection[str]) -> None:
        """Has the instances here tell these candidates their places."""
        ...


class SinkElsewhere(Sink):
    """All sockets of a user at other nodes. Equal for equal users."""

    def __init__(self, user: str, send: SendFrames) -> None:
        self.user = user
        self._send = send
        self.seats: dict[str, InstanceHandle] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SinkElsewhere) and other.user == self.user

    def __hash__(self) -> int:
        return hash((SinkElsewhere, self.user))

    @property
    def waiting_bytes(self) -> int:
        return 0

    @property
    def lost_frames(self) -> bool:
        return False

    @property
    def left(self) -> bool:
        return False

    @property
    def barred(self) -> bool:
        return False

    @property
    def vanished_at(self) -> float | None:
        return None

    async def responds(self) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    def write(self, pieces: Sequence[Piece]) -> None:
        self._send(self.user, [frame for piece in pieces for frame in _frames_of(piece)])

    def send(self, frame: bytes) -> None:
        self._send(self.user, [(frame, None)])

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Nothing: only its own node closes a socket."""


def _frames_of(piece: Piece) -> list[tuple[bytes, FrameKey]]:
    batch, start, end = piece
    frames: list[tuple[bytes, FrameKey]] = []
    for number, stop in enumerate(batch.ends):
        if start < stop <= end:
            key = None if batch.keys is None else batch.keys[number]
            texts = None if not isinstance(key, tuple) else [str(part) for part in key]
            frames.append((bytes(batch.view[start:stop]), texts))
            start = stop
    return frames


def _over(data: bytes, *, secure: bool) -> bytes:
    """An instance as clients of this node see it: its host may be reached in another way, or by no
    client at all."""
    view = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    view["secure"] = msgspec.Raw(b"true" if secure else b"false")
    return msgspec.json.encode(view)


class HubRelay:
    """Sends publications to other nodes, and receives theirs.

    `receivers` must be set before `run`.
    """

    receivers: Receivers

    def __init__(
        self, member: ClusterMember, directory: Directory, metrics: Metrics, address: str
    ) -> None:
        self._member = member
        self._directory = directory
        self._metrics = metrics
        self._address = address
        self._fallen = trio.Event()

    # To other nodes ----------------------------------------------------------------------------

    def changed(self, noun: Noun, id_: str, among: frozenset[str] | None) -> None:
        """A record was changed here."""
        concerned = None if among is None else sorted(among)
        self._publish(HUB, Changed(self._member.node, noun, id_, concerned))

    def peer_changed(self, address: str) -> None:
        """Another server changed."""
        self._publish(HUB, PeerChanged(self._member.node, address))

    def announced(self, notice: NoticeView) -> None:
        """The server's notice was changed here."""
        self._publish(HUB, Announced(self._member.node, notice))

    def news(
        self,
        event: str,
        instance_id: str,
        data: Callable[[], bytes],
        *,
        audience: Audience,
        inside: bool,
        informed: Collection[Sink],
    ) -> None:
        """An instance here publishes an event."""
        circles = audience.circles
        self._publish(
            HUB,
            News(
                self._member.node,
                event,
                instance_id,
                data(),
                None if circles is None else sorted(frozenset().union(*circles)),
                inside,
                [sink.user for sink in informed if isinstance(sink, SinkElsewhere)],
                list({sink.session for sink in informed if isinstance(sink, RemoteSink)}),
            ),
        )

    def sink_of(self, user: str) -> Sink:
        """All sockets of a user at other nodes."""
        return SinkElsewhere(user, self._send)

    def _send(self, user: str, frames: list[tuple[bytes, FrameKey]]) -> None:
        for node in tuple(self._directory.elsewhere.users.get(user, ())):
            self._publish((TELL, node), Frames(user, frames))

    def _publish(self, subject: str | tuple[str, ...], message: msgspec.Struct) -> None:
        parts = (subject,) if isinstance(subject, str) else subject
        try:
            self._member.bus.publish(self._member.subject(*parts), pack(message))
        except BusError:
            self._metrics.relay_refused += 1

    # MemberListener

    def fell(self, was: str) -> None:
        """This process has fallen, and has a new id as a node."""
        self._fallen.set()

    def reconnected(self) -> None:
        """Messages may be missing."""
        self._publish(HUB, TellAgain(self._member.node))

    # From other nodes --------------------------------------------------------------------------

    async def run(self) -> None:
        """Receives until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_frames)
            async with self._member.bus.subscribe(self._member.subject(HUB)) as subscription:
                while True:
                    for item in await subscription.receive():
                        if isinstance(item, BusMessage):
                            self._receive(item, nursery)
                        else:
                            self.reconnected()
                            nursery.start_soon(self.receivers.look_for_notice)

    async def _take_frames(self) -> None:
        """Takes frames for users here, under the node's present id."""
        while True:
            self._fallen = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_frames_as, self._member.node)
                await self._fallen.wait()
                nursery.cancel_scope.cancel()

    async def _take_frames_as(self, node: str) -> None:
        async with self._member.bus.subscribe(self._member.subject(TELL, node)) as subscription:
            while True:
                for item in await subscription.receive():
                    if isinstance(item, Gap):
                        self.reconnected()
                    elif (told := unpacked(item.data, _frames)) is not None:
                        self._tell(told)

    def _tell(self, told: Frames) -> None:
        frames = [frame for frame, _ in told.frames]
        keys = [None if key is None else tuple(key) for _, key in told.frames]
        if not frames:
            return
        batch = Batch(frames, keys)
        for sink in self._directory.sockets_here(told.user):
            sink.write([(batch, 0, len(batch))])

    def _receive(self, item: BusMessage, nursery: trio.Nursery) -> None:
        message = unpacked(item.data, _relayed)
        if message is None or message.node == self._member.node:
            return  # of another version, or the node's own
        match message:
            case Changed(noun=noun, id=id_, among=among):
                if noun in ("user", "world", "instance", "server", "service", "node"):
                    concerned = None if among is None else frozenset(among)
                    self.receivers.changed_elsewhere(noun, id_, concerned)  # type: ignore[arg-type]  # one of them
            case News():
                self.receivers.publish_here(self._publication(message))
            case PeerChanged(address=address):
                nursery.start_soon(self.receivers.peer_changed_elsewhere, address)
            case Announced(notice=notice):
                self.receivers.announced_elsewhere(notice)
            case TellAgain(node=node):
                users = self._directory.elsewhere.users
                waiting = self._directory.candidates()
                self.receivers.tell_queues_again(
                    [user for user in waiting if node in users.get(user, ())]
                )

    def _publication(self, news: News) -> Publish:
        audience = EVERYONE if news.audience is None else Audience((frozenset(news.audience),))
        data = news.data
        if news.event == events.UPDATE_INSTANCE:
            data = _over(data, secure=self.receivers.server.secure)

        def render(viewer: Viewer) -> bytes | None:
            shown = audience.admits(at(viewer.user, self._address), admin=viewer.admin)
            return data if shown else None

        informed = {sink for user in news.informed for sink in self._directory.sockets_here(user)}
        for session in news.left:
            informed.update(self.receivers.sockets(session).registry)
        inside = news.id if news.inside else None
        return Publish(news.event, news.id, render, inside, frozenset(informed))
