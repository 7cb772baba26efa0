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
    Absent,
    Attach,
    Detach,
    Enter,
    Exit,
    Idle,
    InstanceMessage,
    Join,
    Leave,
    Present,
    SeatLost,
    SessionEnded,
    SessionMessage,
    SessionOver,
    SocketLost,
    TokenKilled,
    UserChanged,
)
from actors.ref import Ref
from actors.revoked import Revoked
from actors.sink import Sink
from actors.timer import Timer
from actors.topics import Forget, HubMessage, Listen, Publish, Viewer
from actors.updates import publish_user
from reileta import commands, events, views
from reileta.access import Visitor
from reileta.errors import (
    CredentialInvalid,
    DatabaseUnavailable,
    NotAllowed,
    NotInInstance,
    Overloaded,
    ReiletaError,
)
from reileta.frames import EMPTY, answer, encode, event
from reileta.ids import at
from reileta.records import NO_PROFILE, Profile, User

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
class Place:
    """An instance in which the session has a player: None while its id is not known."""

    instance: Ref[InstanceMessage]
    player: str | None = None


@dataclass(slots=True)
class Presence:
    """What of a session outlives a crash of its actor: whose it is, with what stands beside that
    user's record, its sockets with the SHA-256 of the credential they came with, and its places by
    instance."""

    user: User
    profile: Profile = NO_PROFILE
    sockets: dict[Sink, bytes] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionSurroundings:
    """What every session of a node shares.

    `instance` finds or starts an instance by id or name, `running` finds one by its id; `friends`
    are `UserIDAt`s, from the database.
    """

    address: str
    secure: bool
    directory: Directory
    hub: Ref[HubMessage]
    revoked: Revoked
    instance: Callable[[str], Awaitable[tuple[str, Ref[InstanceMessage]]]]
    running: Callable[[str], Ref[InstanceMessage] | None]
    friends: Callable[[User], Awaitable[frozenset[str]]]


class SessionActor(Actor[SessionMessage]):
    """One session, of which at least one socket is open, or was a moment ago."""

    def __init__(self, id_: str, presence: Presence, around: SessionSurroundings) -> None:
        self._id = id_
        self._presence = presence
        self._around = around
        self._idle: Timer | None = None

    async def on_start(self) -> None:
        self._rest_if_idle()  # who had it started may be gone before it said anything

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
                self._seat_lost(message)
            case UserChanged():
                self._presence.user = message.user
                self._presence.profile = message.profile
                viewer = self._viewer()
                for sink in self._presence.sockets:
                    self._around.hub.signal(Listen(sink, viewer))
            case TokenKilled():
                self._close_sockets(lambda token: token == message.token_hash)
            case SessionEnded():
                self._end()
            case Idle():
                if not self._busy and not self.context.retire():
                    self._rest_if_idle()  # something waits; should it come to nothing, later
            case _:
                assert_never(message)

    # Sockets -----------------------------------------------------------------------------------

    def _attach(self, message: Attach) -> None:
        sockets, revoked = self._presence.sockets, self._around.revoked
        if message.token_hash in revoked or self._id in revoked:
            raise CredentialInvalid
        known = message.sink in sockets
        sockets[message.sink] = message.token_hash
        if not known:
            first = self._around.directory.opened(self._presence.user.id, message.sink)
            self._introduce(message)
            self._around.hub.signal(Listen(message.sink, self._viewer()))
            if first:
                self._publish()
                tell_candidacies(self._presence.user, self._around, present=True)
        else:
            self._introduce(message)
        message.reply(None)

    def _introduce(self, message: Attach) -> None:
        """Tells a socket whom it speaks for, before it is told anything else."""
        user = self._presence.user
        view = views.user_me_view(
            user,
            user.status,
            self._around.address,
            secure=self._around.secure,
            profile=self._presence.profile,
        )
        identity = encode(IdentityView(view, self._id))
        if message.state is not None:
            message.sink.send(answer(commands.AUTHENTICATE, message.state, None, identity))
        message.sink.send(event(events.AUTHENTICATED, None, identity))
        self.context.sent(1 if message.state is None else 2, 1)

    def _detach(self, sink: Sink) -> None:
        if self._presence.sockets.pop(sink, None) is None:
            return
        if let_go(self._id, self._presence, sink, self._around):
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
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self.context.after(IDLE_S, Idle())

    def _end(self) -> None:
        self._close_sockets(lambda _: True)
        for place in self._presence.places.values():
            place.instance.signal(SessionOver(self._id))
        self._presence.places.clear()
        self.context.ref.drain()

    # Players -----------------------------------------------------------------------------------

    async def _join(self, message: Join) -> str:
        if message.sink not in self._presence.sockets:
            raise NotInInstance  # the socket went while this waited
        instance_id, ref = await self._around.instance(message.instance)
        places = self._presence.places
        before = places.get(instance_id)
        # Before it is asked: should this crash, the player may be there all the same.
        places[instance_id] = Place(ref)
        seated = instance_id in message.sink.seats
        try:
            with trio.fail_after(ENTER_TIMEOUT_S):
                player = await self._enter(message, instance_id, ref, known=before is not None)
        except (ReiletaError, trio.TooSlowError) as error:
            if before is None:
                del places[instance_id]
            else:
                places[instance_id] = before
            if isinstance(error, ReiletaError):
                raise
            if not seated:  # it may come in yet, and must go then: its client is told otherwise
                ref.signal(SocketLost(self._id, message.sink))
            raise Overloaded from None
        places[instance_id] = Place(ref, player)
        return player

    async def _enter(
        self, message: Join, instance_id: str, ref: Ref[InstanceMessage], *, known: bool
    ) -> str:
        """Goes in, with the user's friends where they matter. Without a database, who needs none
        comes in all the same."""
        friends: frozenset[str] = frozenset()
        away: DatabaseUnavailable | None = None
        if not known and self._around.directory.occupancy(instance_id).by_friends:
            try:
                friends = await self._around.friends(self._presence.user)
            except DatabaseUnavailable as error:
                away = error
        visitor = self._visitor(friends)
        try:
            return await ref.ask(Enter(visitor, message.sink, self.context.ref, message.state))
        except NotAllowed:
            raise away or NotAllowed from None

    async def _leave(self, message: Leave) -> None:
        place = self._presence.places.get(message.instance)
        if place is None:
            raise NotInInstance
        try:
            with trio.fail_after(ENTER_TIMEOUT_S):
                await place.instance.ask(Exit(self._id, message.sink, message.state))
        except trio.TooSlowError:
            raise Overloaded from None

    def _seat_lost(self, message: SeatLost) -> None:
        """The news may be older than the session's return as another player."""
        place = self._presence.places.get(message.instance)
        if place is not None and place.player in (None, message.player):
            del self._presence.places[message.instance]
            self._rest_if_idle()

    def _visitor(self, friends: frozenset[str]) -> Visitor:
        user = self._presence.user
        return Visitor(
            session=self._id,
            user=at(user.id, self._around.address),
            displayname=user.displayname,
            admin=user.admin,
            friends=friends,
        )

    # Presence ----------------------------------------------------------------------------------

    def _viewer(self) -> Viewer:
        user = self._presence.user
        return Viewer(user.id, user.admin, self._presence.profile.friends)

    def _publish(self) -> None:
        """Tells those who watch the user that its status is another."""
        try:
            self._around.hub.tell(status_update(self._presence, self._around))
        except Overloaded:
            _log.warning("hub.full", session=self._id)


def let_go(id_: str, presence: Presence, sink: Sink, around: SessionSurroundings) -> bool:
    """A socket of the session is gone; tells whom it concerns. Whether it was the user's last."""
    for place in presence.places.values():
        place.instance.signal(SocketLost(id_, sink))
    around.hub.signal(Forget(sink))
    last = around.directory.closed(presence.user.id, sink)
    if last:
        tell_candidacies(presence.user, around, present=False)
    return last


def tell_candidacies(user: User, around: SessionSurroundings, *, present: bool) -> None:
    """Tells the instances in which the user is a candidate that it came, or went."""
    name = at(user.id, around.address)
    for instance_id in around.directory.candidacies(user.id):
        instance = around.running(instance_id)
        if instance is not None:
            instance.signal(Present(name) if present else Absent(name))


def status_update(presence: Presence, around: SessionSurroundings) -> Publish:
    """`update-user` of the session's user, as it was when it changed last."""
    return publish_user(
        presence.user,
        presence.profile,
        around.directory,
        address=around.address,
        secure=around.secure,
    )
