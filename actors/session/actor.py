"""A session as an actor: its sockets, its players and its estate (S "Session", PROTOCOL §4).

Both faces' sockets are here: those of `/api/ws`, and those of the session API, its lines.

It outlives its connections: a socket that comes back within the grace finds its player where it
was. When nobody has been connected for a while the actor is put away; what is durable of a session
is in the database.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, assert_never

import structlog
from msgspec import Struct

from actors.delivery.sink import Sink
from actors.hub.messages import AddSocket, Viewer
from actors.membership import (
    AddMember,
    InstanceRecipient,
    MemberSessionEnded,
    RemoveMember,
    SeatLost,
    SocketLost,
)
from actors.runtime.actor import Actor
from actors.runtime.ask import NESTED_ASK_TIMEOUT_S, ask_timeout
from actors.runtime.errors import AskTimedOut
from actors.runtime.timers import Timer
from actors.session.config import SessionDeps
from actors.session.messages import (
    AcquireResource,
    Attach,
    DeadlineReached,
    DeleteResource,
    Detach,
    Idle,
    JobDone,
    Join,
    LeaseRevoked,
    Leave,
    OpenSocket,
    PatchState,
    RefreshToken,
    ReleaseResource,
    SessionEnded,
    SessionMessage,
    TokenKilled,
    UserChanged,
    WriteResource,
)
from actors.session.presence import (
    notify_candidacies,
    notify_joined_of_admin,
    publish_status,
    socket_closed,
)
from actors.session.recovery import JoinedInstance, SessionRecovery
from actors.session.state_sync import SessionCallbacks, StateSync
from reileta.errors import (
    CredentialInvalid,
    DatabaseUnavailable,
    InstanceNotFound,
    NotAllowed,
    NotInInstance,
    ReiletaError,
    SessionNotFound,
)
from reileta.ids import at, is_instance_name
from reileta.protocol import commands, events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import EMPTY, answer, encode, event
from reileta.protocol.views import registry
from reileta.rules.instance.access import Visitor

IDLE_S: Final = 30.0
"""How long a session without sockets and players stays in memory."""

_log = structlog.get_logger()


class IdentityView(Struct):
    """Who a socket speaks for."""

    user: registry.UserMeView
    session: str


class SessionActor(Actor[SessionMessage]):
    """One session, of which at least one socket is open, or was a moment ago."""

    def __init__(self, id_: str, recovery: SessionRecovery, deps: SessionDeps) -> None:
        self._id = id_
        self._recovery = recovery
        self._deps = deps
        self._idle: Timer | None = None
        self._opening: set[Sink] = set()

    async def on_start(self) -> None:
        self._state_sync = StateSync(
            SessionCallbacks(
                self._id, lambda: self._recovery.user, self._players, self._hang_up, self._over
            ),
            self._deps,
            self.context,
        )
        self._rest_if_idle()  # who had it started may be gone before it said anything

    async def receive(self, message: SessionMessage) -> None:
        match message:
            case Attach():
                self._attach(message)
            case Detach():
                self._detach(message.sink)
            case OpenSocket():
                self._open(message)
            case PatchState():
                self._state_sync.patch(message)
            case AcquireResource() | ReleaseResource() | WriteResource() | DeleteResource():
                self._state_sync.run(message)
            case LeaseRevoked(number=number, fence=fence):
                self._state_sync.taken(number, fence)
            case RefreshToken(token_hash=token, expires=expires):
                self._state_sync.admit(token, expires)
            case DeadlineReached():
                self._state_sync.due()
            case JobDone(result=result, then=then):
                then(result)
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
                ranked = self._recovery.user.admin != message.user.admin
                self._recovery.user = message.user
                self._recovery.profile = message.profile
                if ranked:
                    notify_joined_of_admin(self._recovery, self._deps)
                viewer = self._viewer()
                for sink in self._players():
                    self._deps.hub.signal(AddSocket(sink, viewer))
            case TokenKilled():
                self._state_sync.kill(message.token_hash)
                self._close_sockets(lambda token: token == message.token_hash)
            case SessionEnded():
                self._end()
            case Idle():
                if not self._busy and not self.context.retire():
                    self._rest_if_idle()  # something waits; should it come to nothing, later
            case _:
                assert_never(message)

    async def flush(self) -> None:
        self._state_sync.flush()

    def post_mortem(self, error: Exception) -> dict[str, object]:
        """What they are owed is lost with the incarnation: they are to come back and look."""
        for line in self._recovery.session_sockets:
            line.close(CloseCode.TRY_AGAIN_LATER, "the session failed")
        return {}

    # Sockets -----------------------------------------------------------------------------------

    def _open(self, message: OpenSocket) -> None:
        self._ensure_good(message.token_hash)
        line = message.line
        self._opening.add(line)

        def ensure_wanted() -> None:
            """While it waited for the rules, its socket may have gone, or its token died."""
            if line not in self._opening:
                raise SessionNotFound
            self._ensure_good(message.token_hash)

        def opened() -> None:
            self._recovery.session_sockets.add(line)
            self._welcome(line, message.token_hash)

        self._state_sync.open(message, ensure_wanted, opened)

    def _ensure_good(self, token: bytes) -> None:
        """Raises CredentialInvalid if the token or the session has ended."""
        if token in self._deps.revocations or self._id in self._deps.revocations:
            raise CredentialInvalid

    def _welcome(self, sink: Sink, token: bytes) -> None:
        """A new socket counts from here on."""
        self._recovery.sockets[sink] = token
        if self._deps.directory.opened(self._recovery.user.id, sink):
            publish_status(self._id, self._recovery, self._deps)
            notify_candidacies(self._recovery.user, self._deps, online=True)

    def _players(self) -> dict[Sink, bytes]:
        """The sockets of `/api/ws`, with their tokens."""
        lines = self._recovery.session_sockets
        return {sink: one for sink, one in self._recovery.sockets.items() if sink not in lines}

    def _hang_up(self, token: bytes) -> None:
        self._close_sockets(lambda one: one == token)

    def _over(self) -> None:
        """The store says that the session has ended."""
        self._deps.revocations.add(self._id)
        self._end()

    def _attach(self, message: Attach) -> None:
        self._ensure_good(message.token_hash)
        sockets = self._recovery.sockets
        known = message.sink in sockets
        sockets[message.sink] = message.token_hash
        if not known:
            first = self._deps.directory.opened(self._recovery.user.id, message.sink)
            self._introduce(message)
            self._deps.hub.signal(AddSocket(message.sink, self._viewer()))
            self._state_sync.came(message.sink, message.token_hash)
            if first:
                publish_status(self._id, self._recovery, self._deps)
                notify_candidacies(self._recovery.user, self._deps, online=True)
        else:
            self._introduce(message)
        message.reply(None)

    def _introduce(self, message: Attach) -> None:
        """Tells a socket whom it speaks for, before it is told anything else."""
        user = self._recovery.user
        view = registry.user_me_view(
            user,
            user.status,
            self._deps.address,
            secure=self._deps.secure,
            profile=self._recovery.profile,
        )
        identity = encode(IdentityView(view, self._id))
        if message.state is not None:
            message.sink.send(answer(commands.AUTHENTICATE, message.state, None, identity))
        message.sink.send(event(events.AUTHENTICATED, None, identity))
        self.context.sent(1 if message.state is None else 2, 1)

    def _detach(self, sink: Sink) -> None:
        self._opening.discard(sink)
        self._recovery.session_sockets.discard(sink)
        self._state_sync.gone(sink)
        if self._recovery.sockets.pop(sink, None) is None:
            return
        if socket_closed(self._id, self._recovery, sink, self._deps):
            publish_status(self._id, self._recovery, self._deps)
        self._rest_if_idle()

    def _close_sockets(self, chosen: Callable[[bytes], bool]) -> None:
        for sink, token in list(self._recovery.sockets.items()):
            if chosen(token):
                if sink not in self._recovery.session_sockets:  # which say so themselves
                    sink.send(event(events.UNAUTHENTICATED, None, EMPTY))
                sink.close(CloseCode.CREDENTIAL_GONE, "the credential is no longer valid")
                self._detach(sink)

    @property
    def _busy(self) -> bool:
        return bool(self._recovery.sockets or self._recovery.joined_instances)

    def _rest_if_idle(self) -> None:
        if not self._busy:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self.context.after(IDLE_S, Idle())

    def _end(self) -> None:
        self._state_sync.end()
        self._close_sockets(lambda _: True)
        for place in self._recovery.joined_instances.values():
            place.instance.signal(MemberSessionEnded(self._id))
        self._recovery.joined_instances.clear()
        self.context.ref.drain()

    # Players -----------------------------------------------------------------------------------

    async def _join(self, message: Join) -> str:
        if message.sink not in self._recovery.sockets:
            raise NotInInstance  # the socket went while this waited
        instance_id, ref = await self._deps.instances.live(message.instance, self._visitor())
        joined_instances = self._recovery.joined_instances
        before = joined_instances.get(instance_id)
        # Before it is asked: should this crash, the player may be there all the same.
        joined_instances[instance_id] = JoinedInstance(ref)
        seated = instance_id in message.sink.seats
        try:
            with ask_timeout(NESTED_ASK_TIMEOUT_S):
                player = await self._enter(message, instance_id, ref, known=before is not None)
        except ReiletaError as error:
            if before is None:
                del joined_instances[instance_id]
            else:
                joined_instances[instance_id] = before
            if isinstance(error, AskTimedOut) and not seated:
                # The instance may still add the player, whose client is told that it is not inside.
                ref.signal(SocketLost(self._id, message.sink))
            raise
        joined_instances[instance_id] = JoinedInstance(ref, player)
        return player

    async def _enter(
        self, message: Join, instance_id: str, ref: InstanceRecipient, *, known: bool
    ) -> str:
        """Goes in, with the user's friends where they matter. Without a database, who needs none
        comes in all the same."""
        friends: frozenset[str] = frozenset()
        away: DatabaseUnavailable | None = None
        if not known and self._deps.directory.occupancy(instance_id).by_friends:
            try:
                friends = await self._deps.friends(self._recovery.user)
            except DatabaseUnavailable as error:
                away = error
        visitor = self._visitor(friends)
        try:
            return await ref.ask(AddMember(visitor, message.sink, self.context.ref, message.state))
        except NotAllowed:
            raise away or NotAllowed from None

    async def _leave(self, message: Leave) -> None:
        joined_instances = self._recovery.joined_instances
        place = joined_instances.get(message.instance)
        if place is None and is_instance_name(message.instance):
            with suppress(InstanceNotFound):
                found = await self._deps.instances.live(message.instance, self._visitor())
                place = joined_instances.get(found[0])
        if place is None:
            raise NotInInstance
        with ask_timeout(NESTED_ASK_TIMEOUT_S):
            await place.instance.ask(RemoveMember(self._id, message.sink, message.state))

    def _seat_lost(self, message: SeatLost) -> None:
        """The news may be older than the session's return as another player."""
        place = self._recovery.joined_instances.get(message.instance)
        if place is not None and place.player in (None, message.player):
            del self._recovery.joined_instances[message.instance]
            self._rest_if_idle()

    def _visitor(self, friends: frozenset[str] = frozenset()) -> Visitor:
        user = self._recovery.user
        return Visitor(
            session=self._id,
            user=at(user.id, self._deps.address),
            displayname=user.displayname,
            admin=user.admin,
            friends=friends,
        )

    # Presence ----------------------------------------------------------------------------------

    def _viewer(self) -> Viewer:
        user = self._recovery.user
        return Viewer(user.id, user.admin, self._recovery.profile.friends)
