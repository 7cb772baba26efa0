"""A session as an actor: it owns its sockets and its players (S "Session", PROTOCOL §4).

It outlives its connections: a socket that comes back within the grace finds its player where it
was. When nobody has been connected for a while the actor is put away; what is durable of a session
is in the database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog
import trio
from msgspec import Struct

from actors.actor import Actor
from actors.directory import Directory
from actors.messages import (
    Attach,
    Detach,
    Enter,
    Exit,
    Forget,
    HubMessage,
    Idle,
    InstanceMessage,
    Join,
    Leave,
    Listen,
    Publish,
    SeatLost,
    SessionEnded,
    SessionMessage,
    SessionOver,
    SocketLost,
    TokenKilled,
    UserChanged,
    Viewer,
)
from actors.ref import Ref
from actors.sink import Sink
from reileta import commands, events, views
from reileta.access import Visitor
from reileta.errors import NotInInstance, Overloaded, ReiletaError
from reileta.frames import EMPTY, answer, encode, event
from reileta.ids import at
from reileta.records import User

ENTER_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 30.0
"""How long a session without sockets and players stays in memory."""
CREDENTIAL_GONE: Final = 4000

_log = structlog.get_logger()


class IdentityView(Struct):
    """Who a socket speaks for."""

    user: views.UserMeView
    session: str


@dataclass(slots=True)
class Presence:
    """What of a session outlives a crash of its actor: whose it is, its sockets by the SHA-256 of
    the credential they came with, and the instances in which it has a player."""

    user: User
    sockets: dict[Sink, bytes] = field(default_factory=dict)
    places: dict[str, Ref[InstanceMessage]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionSurroundings:
    """What every session of a node shares. `instance` finds or starts an instance by id or name."""

    address: str
    directory: Directory
    hub: Ref[HubMessage]
    instance: Callable[[str], Awaitable[tuple[str, Ref[InstanceMessage]]]]


class SessionActor(Actor[SessionMessage]):
    """One session, of which at least one socket is open, or was a moment ago."""

    def __init__(self, id_: str, presence: Presence, around: SessionSurroundings) -> None:
        self._id = id_
        self._presence = presence
        self._around = around
        self._idle_at = 0.0

    async def receive(self, message: SessionMessage) -> None:
        match message:
            case Attach():
                self._attach(message)
            case Detach():
                self._detach(message.sink)
            case Join():
                # The session's next message must find it inside, so this waits. Instances only
                # ever signal sessions, so the two can't wait for each other.
                message.reply(await self._join(message))
            case Leave():
                await self._leave(message)
                message.reply(None)
            case SeatLost():
                self._presence.places.pop(message.instance, None)
                self._rest_if_idle()
            case UserChanged():
                self._presence.user = message.user
                self._publish()
            case TokenKilled():
                self._close_sockets(lambda token: token == message.token_hash)
            case SessionEnded():
                self._end()
            case Idle():
                if not self._busy and trio.current_time() >= self._idle_at:
                    self.context.retire()
            case _:
                assert_never(message)

    # Sockets -----------------------------------------------------------------------------------

    def _attach(self, message: Attach) -> None:
        sockets = self._presence.sockets
        known = message.sink in sockets
        sockets[message.sink] = message.token_hash
        if not known:
            first = self._around.directory.opened(self._presence.user.id)
            self._introduce(message)
            user = self._presence.user
            self._around.hub.signal(Listen(message.sink, Viewer(user.id, user.admin)))
            if first:
                self._publish()
        else:
            self._introduce(message)
        message.reply(None)

    def _introduce(self, message: Attach) -> None:
        """Tells a socket whom it speaks for, before it is told anything else."""
        user = self._presence.user
        view = views.user_me_view(user, user.status, self._around.address)
        identity = encode(IdentityView(view, self._id))
        if message.state is not None:
            message.sink.send(answer(commands.AUTHENTICATE, message.state, None, identity))
        message.sink.send(event(events.AUTHENTICATED, None, identity))

    def _detach(self, sink: Sink) -> None:
        if self._presence.sockets.pop(sink, None) is None:
            return
        for place in self._presence.places.values():
            place.signal(SocketLost(self._id, sink))
        self._around.hub.signal(Forget(sink))
        if self._around.directory.closed(self._presence.user.id):
            self._publish()
        self._rest_if_idle()

    def _close_sockets(self, chosen: Callable[[bytes], bool]) -> None:
        for sink, token in list(self._presence.sockets.items()):
            if chosen(token):
                sink.send(event(events.UNAUTHENTICATED, None, EMPTY))
                sink.close(CREDENTIAL_GONE, "the credential is no longer valid")
                self._detach(sink)

    @property
    def _busy(self) -> bool:
        return bool(self._presence.sockets or self._presence.places)

    def _rest_if_idle(self) -> None:
        if not self._busy:
            self._idle_at = trio.current_time() + IDLE_S
            self.context.after(IDLE_S, Idle())

    def _end(self) -> None:
        self._close_sockets(lambda _: True)
        for place in self._presence.places.values():
            place.signal(SessionOver(self._id))
        self._presence.places.clear()
        self.context.ref.drain()

    # Players -----------------------------------------------------------------------------------

    async def _join(self, message: Join) -> str:
        if message.sink not in self._presence.sockets:
            raise NotInInstance  # the socket went while this waited
        instance_id, ref = await self._around.instance(message.instance)
        known = instance_id in self._presence.places
        # Before it is asked: should the answer not come in time, the player is there all the same.
        self._presence.places[instance_id] = ref
        enter = Enter(self._visitor(), message.sink, self.context.ref, message.state)
        try:
            with trio.fail_after(ENTER_TIMEOUT_S):
                return await ref.ask(enter)
        except ReiletaError:
            if not known:
                self._presence.places.pop(instance_id, None)
            raise
        except trio.TooSlowError:
            raise Overloaded from None

    async def _leave(self, message: Leave) -> None:
        ref = self._presence.places.get(message.instance)
        if ref is None:
            raise NotInInstance
        try:
            with trio.fail_after(ENTER_TIMEOUT_S):
                await ref.ask(Exit(self._id, message.sink, message.state))
        except trio.TooSlowError:
            raise Overloaded from None

    def _visitor(self) -> Visitor:
        user = self._presence.user
        return Visitor(
            session=self._id,
            user=at(user.id, self._around.address),
            displayname=user.displayname,
            admin=user.admin,
        )

    # Presence ----------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Tells those who watch the user that its status is another."""
        try:
            self._around.hub.tell(
                publish_user(self._presence.user, self._around.directory, self._around.address)
            )
        except Overloaded:
            _log.warning("hub.full", session=self._id)


def publish_user(user: User, directory: Directory, address: str) -> Publish:
    """`update-user`, as each viewer may see the user (PROTOCOL §7)."""

    def render(viewer: Viewer) -> bytes:
        status = user.status if directory.connected(user.id) else "offline"
        if viewer.user == user.id:
            return encode(views.user_me_view(user, status, address))
        return encode(views.user_view(user, status, None, address))

    return Publish(events.UPDATE_USER, user.id, render)
