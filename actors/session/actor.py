"""The session actor: its sockets, its players, its state and its resource.

It has sockets of both APIs: of the registry API (`/api/ws`) and of the session API (`/ws/…`). The
rules decide (`reileta/rules/session/session.py`), the helpers return what happened, and `_apply`
does what follows from it.

A session outlives its connections: a socket that comes back within the grace period finds its
player where it was. After `IDLE_S` without sockets and players the actor ends; its durable state is
in the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, assert_never

import outcome

from actors.delivery.sink import Sink
from actors.hub.messages import AddSessionSocket, AddSocket
from actors.membership import (
    AddMember,
    InstanceMoved,
    InstanceRecipient,
    MemberSessionEnded,
    RemoveMember,
    SeatLost,
    SocketLost,
)
from actors.runtime.actor import Actor
from actors.runtime.ask import NESTED_ASK_TIMEOUT_S, ask_timeout
from actors.runtime.errors import AskTimedOut
from actors.runtime.jobs import SerialJobs
from actors.runtime.timers import Timer
from actors.session.config import SessionDeps
from actors.session.messages import (
    AcquireResource,
    Attach,
    DeadlineReached,
    DeleteResource,
    Detach,
    Idle,
    Join,
    LeaseRevoked,
    Leave,
    OpenSocket,
    OwnerChanged,
    PatchState,
    RefreshToken,
    ReleaseResource,
    ResourceMoved,
    ResourceRequest,
    SeenElsewhere,
    SessionEnded,
    SessionMessage,
    StateMoved,
    TokenKilled,
    UserChanged,
    WriteResource,
)
from actors.session.parts import SessionParts
from actors.session.presence import (
    notify_candidacies,
    notify_joined_of_admin,
    notify_joined_of_name,
    presence_of,
    publish_status,
    socket_closed,
)
from actors.session.recovery import JoinedInstance, SessionRecovery
from actors.session.resource_jobs import (
    CheckLease,
    ExpireLease,
    Job,
    JobResult,
    RenewLease,
    ResourceJobs,
)
from actors.session.state_sync import StateSync
from reileta import records
from reileta.errors import (
    CredentialInvalid,
    DatabaseUnavailable,
    InstanceNotFound,
    NotAllowed,
    NotInInstance,
    Overloaded,
    ReiletaError,
    SessionNotFound,
)
from reileta.ids import is_instance_name
from reileta.protocol import commands, events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import EMPTY, answer, encode, event
from reileta.protocol.views import registry
from reileta.rules.identity import Viewer, Visitor
from reileta.rules.instance.events import LeaveReason
from reileta.rules.resource.json_values import Json
from reileta.rules.session.session import (
    AbsenceTimedOut,
    AllTokensExpired,
    Ended,
    ResourceChanged,
    Session,
    SessionEvent,
    SocketClosed,
)
from reileta.rules.session.shared_state import PatchRefused, StateChanged

IDLE_S: Final = 30.0
"""How long a session without sockets and players stays in memory."""
WAITING_LIMIT: Final = 64
"""Messages that may wait until the rules are loaded; over it, `Overloaded`."""

_NeedsRules: TypeAlias = OpenSocket | ResourceRequest
_Loaded: TypeAlias = tuple[Session, records.User | None]
"""The rules, and the owner of the resource that the session has."""


class SessionActor(Actor[SessionMessage]):
    """One session that has an open socket, or had one a moment ago."""

    def __init__(self, id_: str, recovery: SessionRecovery, deps: SessionDeps) -> None:
        self._id = id_
        self._recovery = recovery
        self._deps = deps

    async def on_start(self) -> None:
        self._parts = SessionParts(self._id, self._recovery, self._deps)
        self._state = StateSync(self._parts)
        self._resource = ResourceJobs(self._parts)
        self._jobs = SerialJobs(self.context)
        self._deadline = self.context.deadline(DeadlineReached(), self._deps.clock)
        self._idle: Timer | None = None
        self._opening: set[Sink] = set()
        """Sockets of the session API that have asked to be opened, until they close."""
        self._waiting: list[_NeedsRules] = []
        """Messages that wait until the rules are loaded; empty if they are not being loaded."""
        self._reading_state = False
        """Whether the state of another node is being read; nothing is saved meanwhile."""
        self._start_idle_timer()  # the socket that started it may be gone before it sends a message

    async def receive(self, message: SessionMessage) -> None:
        match message:
            case Attach():
                self._attach(message)
            case Detach():
                self._detach(message.sink)
            case OpenSocket():
                self._ensure_valid(message.token_hash)
                self._opening.add(message.sink)
                self._when_loaded(message)
            case PatchState():
                self._state.patch(message)
            case AcquireResource() | ReleaseResource() | WriteResource() | DeleteResource():
                self._when_loaded(message)
            case LeaseRevoked(number=number, fence=fence):
                if self._parts.rules is not None:
                    self._apply(self._parts.rules.dropped(number, fence))
            case RefreshToken(token_hash=token, expires=expires):
                if self._parts.rules is not None:
                    self._parts.rules.admit(token, expires)
            case StateMoved(version=version):
                self._state_moved(version)
            case ResourceMoved():
                if self._parts.rules is not None:
                    self._add_job(CheckLease())
            case SeenElsewhere():
                self._meet()
            case DeadlineReached():
                self._deadline.fired()
                if self._parts.rules is not None:
                    self._apply(self._parts.rules.tick(self._parts.now()))
            case Join():
                # The next message must find the session inside, so this waits. An instance never
                # waits for a session, so there is no deadlock.
                join = partial(self._join, message)
                message.reply(await self._deps.instances.entered(message.instance, join))
            case Leave():
                await self._leave(message)
                message.reply(None)
            case SeatLost():
                self._seat_lost(message)
            case InstanceMoved():
                self._instance_moved(message)
            case UserChanged():
                self._change_user(message)
            case OwnerChanged(owner=owner):
                self._resource.owner_changed(owner)
            case TokenKilled(token_hash=token):
                if self._parts.rules is not None:
                    self._apply(self._parts.rules.kill(token, self._parts.now()))
                self._close_sockets(token)
            case SessionEnded(reason=reason):
                self._end(reason)
            case Idle():
                if not self._busy and not self.context.retire():
                    self._start_idle_timer()  # a message waits; the session may be idle after it
            case _:
                assert_never(message)

    async def flush(self) -> None:
        self._tell_presence()
        rules = self._parts.rules
        if rules is None:
            return
        save = None if rules.ended or self._reading_state else rules.save()
        if save is not None:
            work = partial(
                self._deps.store.states.apply,
                rules.id,
                base=save.base,
                version=save.version,
                text=save.text,
            )
            self.context.run(work, self._saved)
        self._state.flush()
        self._deadline.set(rules.next_deadline())

    def post_mortem(self, error: Exception) -> dict[str, object]:
        """Closes the sockets of the session API: a crash loses the events that they have not got.

        Their clients connect again, and get the session in a fresh `hello`.
        """
        for sink in self._recovery.session_sockets:
            sink.close(CloseCode.TRY_AGAIN_LATER, "the session failed")
        return {}

    # Sockets -----------------------------------------------------------------------------------

    def _ensure_valid(self, token: bytes) -> None:
        """Raises CredentialInvalid if the token or the session has just ended, or if the user's
        server was just blocked; ClientBlocked if the user was."""
        if token in self._deps.revocations or self._id in self._deps.revocations:
            raise CredentialInvalid
        if not self._deps.admits(self._recovery.user.id):
            raise CredentialInvalid
        self._deps.ensure_account(self._recovery.user.id)

    def _attach(self, message: Attach) -> None:
        """Adds a socket of the registry API, or changes the token of one."""
        self._ensure_valid(message.token_hash)
        sockets = self._recovery.sockets
        known = message.sink in sockets
        sockets[message.sink] = message.token_hash
        if not known:
            first = self._deps.directory.opened(self._recovery.user.id, message.sink)
            self._introduce(message)
            self._deps.hub.signal(AddSocket(message.sink, self._viewer()))
            self._connect_registry_socket(message.sink, message.token_hash)
            if first:
                self._come_online()
            self._deps.resources.session_present(self._id)
        else:
            self._introduce(message)
        message.reply(None)

    def _introduce(self, message: Attach) -> None:
        """Sends a socket its identity, before anything else."""
        user = self._recovery.user
        view = registry.user_me_view(
            user,
            user.status,
            self._deps.server.site,
            profile=self._recovery.profile,
        )
        identity = encode(registry.IdentityView(view, self._id))
        if message.state is not None:
            message.sink.send(answer(commands.AUTHENTICATE, message.state, None, identity))
        message.sink.send(event(events.AUTHENTICATED, None, identity))
        self.context.sent(1 if message.state is None else 2, 1)

    def _connect_registry_socket(self, sink: Sink, token: bytes) -> None:
        if self._state.connect_registry_socket(sink, token):
            self._renew_lease(present=True)

    def _open(self, message: OpenSocket) -> None:
        """Adds a socket of the session API, and greets it."""
        sink, token = message.sink, message.token_hash
        try:
            # The socket may have closed, or its token ended, while the rules were loaded.
            if sink not in self._opening:
                raise SessionNotFound
            self._ensure_valid(token)
            first = self._state.connect_session_socket(sink, token, message.expires)
        except ReiletaError as error:
            message.fail(error)
            return
        if first:
            self._renew_lease(present=True)
        self._recovery.session_sockets[sink] = sink
        self._recovery.sockets[sink] = token
        if self._deps.directory.opened(self._recovery.user.id, sink):
            self._come_online()
        self._state.send_hello(sink, self._resource.view(self._parts.loaded.held))
        self._deps.hub.signal(AddSessionSocket(sink))
        self._deps.resources.session_present(self._id)
        message.reply(None)

    def _registry_sockets(self) -> dict[Sink, bytes]:
        """The sockets of the registry API, with their tokens."""
        session_sockets = self._recovery.session_sockets
        sockets = self._recovery.sockets.items()
        return {sink: token for sink, token in sockets if sink not in session_sockets}

    def _detach(self, sink: Sink) -> None:
        """Removes a socket of either API."""
        self._opening.discard(sink)
        self._recovery.session_sockets.pop(sink, None)
        if self._state.disconnect(sink):
            elsewhere = self._deps.directory.sessions_elsewhere(self._id)
            self._renew_lease(present=any(one.sockets for one in elsewhere.values()))
        if self._recovery.sockets.pop(sink, None) is None:
            return
        if socket_closed(self._id, self._recovery, sink, self._deps):
            publish_status(self._id, self._recovery, self._deps)
        if not self._recovery.sockets and not any(
            one.sockets for one in self._deps.directory.sessions_elsewhere(self._id).values()
        ):
            self._deps.resources.session_absent(self._id)
        self._start_idle_timer()

    def _close_sockets(self, token: bytes | None = None) -> None:
        """Closes the sockets that authenticated with the token; None: all."""
        for sink, other in list(self._recovery.sockets.items()):
            if token in (None, other):
                if sink not in self._recovery.session_sockets:  # their close code says it
                    sink.send(event(events.UNAUTHENTICATED, None, EMPTY))
                sink.close(CloseCode.CREDENTIAL_GONE, "the credential is no longer valid")
                self._detach(sink)

    # The user ----------------------------------------------------------------------------------

    def _change_user(self, message: UserChanged) -> None:
        if message.user.suspended(self._deps.clock.now_ms()):
            self._found_ended()  # a suspension ends the sessions, but others can write a tag
            return
        admin_changed = self._recovery.user.admin != message.user.admin
        renamed = self._recovery.user.displayname != message.user.displayname
        self._recovery.user = message.user
        self._recovery.profile = message.profile
        if renamed:
            notify_joined_of_name(self._recovery, self._deps)
        if admin_changed:
            notify_joined_of_admin(self._recovery, self._deps)
        viewer = self._viewer()
        for sink in self._registry_sockets():
            self._deps.hub.signal(AddSocket(sink, viewer))

    def _come_online(self) -> None:
        """The user has its first socket."""
        publish_status(self._id, self._recovery, self._deps)
        notify_candidacies(self._recovery.user.id, self._deps, online=True)

    def _viewer(self) -> Viewer:
        return Viewer.of(self._recovery.user, self._recovery.profile)

    def _visitor(self, friends: frozenset[str] = frozenset()) -> Visitor:
        user = self._recovery.user
        return Visitor.of(user, self._id, self._deps.address, guest=user.guest, friends=friends)

    # The end -----------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        return bool(self._recovery.sockets or self._recovery.joined_instances)

    def _start_idle_timer(self) -> None:
        """Starts the timer that ends an idle session."""
        if not self._busy:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self.context.after(IDLE_S, Idle())

    def _end(self, reason: LeaveReason = "left") -> None:
        """The session has ended in the database, or its user may not be here any more. `reason`:
        why its players leave."""
        if self._parts.rules is not None:
            self._apply(self._parts.rules.end())
        self._jobs.refuse_waiting(SessionNotFound())
        self._close_sockets()
        for joined in self._recovery.joined_instances.values():
            joined.instance.signal(MemberSessionEnded(self._id, reason))
        self._recovery.joined_instances.clear()
        self.context.ref.drain()

    def _found_ended(self) -> None:
        """The database says that the session has ended."""
        self._deps.revocations.add(self._id)
        self._deps.resources.session_ended(self._id)
        self._end()

    # Other nodes -------------------------------------------------------------------------------

    def _tell_presence(self) -> None:
        """Tells other nodes what the session has here, if that has changed."""
        if self._deps.directory.in_cluster:
            there = presence_of(self._recovery) if self._busy else None
            self._deps.directory.note_session(self._id, there)

    def _meet(self) -> None:
        """Another node has sockets of the session, too: tells it what is known here."""
        self._close_second_sockets()
        nodes, rules = self._deps.nodes, self._parts.rules
        if nodes is not None and rules is not None and not rules.ended:
            nodes.tell_state(self._id, rules.version)
            nodes.tell_resource(self._id)

    def _close_second_sockets(self) -> None:
        """If a token has got sockets of the session API at two nodes at once, one of them keeps
        its."""
        nodes = self._deps.nodes
        if nodes is None:
            return
        elsewhere = self._deps.directory.sessions_elsewhere(self._id)
        taken = {
            token for node, one in elsewhere.items() if node < nodes.node for token in one.tokens
        }
        for sink in list(self._recovery.session_sockets):
            if self._recovery.sockets[sink] in taken:
                sink.close(CloseCode.TRY_AGAIN_LATER, "the token has a socket at another node")
                self._detach(sink)

    def _state_moved(self, version: int) -> None:
        """Reads the state that another node has written.

        While a write is in progress, that write finds it: it changes nothing then.
        """
        rules = self._parts.rules
        if rules is None or rules.ended or self._reading_state or rules.saving:
            return
        if version > rules.version:
            self._reading_state = True
            self.context.run(partial(self._deps.store.states.load, rules.id), self._state_read)

    def _state_read(self, result: outcome.Outcome[tuple[dict[str, Json], int]]) -> None:
        self._reading_state = False
        rules = self._parts.loaded
        if rules.ended:
            return
        try:
            state, version = result.unwrap()
        except SessionNotFound:
            self._found_ended()
        except ReiletaError:
            pass  # the next note, or the next write, reads it
        else:
            if version > rules.version:
                self._apply(rules.stale(state, version))

    # Rules, loaded when first needed -----------------------------------------------------------

    def _when_loaded(self, message: _NeedsRules) -> None:
        """Handles a message, once the rules are loaded. Raises Overloaded."""
        if self._parts.rules is not None:
            message.defer()
            self._handle_loaded(message)
        elif not self._waiting:
            message.defer()
            self._waiting = [message]
            self.context.run(self._load, self._load_done)
        elif len(self._waiting) >= WAITING_LIMIT:
            raise Overloaded
        else:
            message.defer()
            self._waiting.append(message)

    def _handle_loaded(self, message: _NeedsRules) -> None:
        if isinstance(message, OpenSocket):
            self._open(message)
            return
        try:
            self._resource.ensure_room()
        except Overloaded as error:
            message.fail(error)
            return
        if isinstance(message, WriteResource):
            writes = self._resource.batch(message)
            if writes is not None:
                self._add_job(writes)
        else:
            self._add_job(message)

    async def _load(self) -> _Loaded:
        store, id_ = self._deps.store, self._id
        state, version = await store.states.load(id_)
        held = await store.leases.of_session(id_)
        tokens = await store.tokens.of_session(id_)
        owner = None if held is None else await store.users.by_id(held.resource.owner)
        rules = Session(
            id_,
            autopilot=self._recovery.user.autopilot,
            state=state,
            version=version,
            held=held,
            tokens={token.id: max(token.access_expires, token.refresh_expires) for token in tokens},
            limits=self._deps.limits,
            now=self._parts.now(),
        )
        return rules, owner

    def _load_done(self, result: outcome.Outcome[_Loaded]) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            rules, owner = result.unwrap()
        except ReiletaError as error:
            for message in waiting:
                message.fail(error)
            return
        self._parts.rules = rules
        self._resource.set_owner(owner)
        for sink, token in self._registry_sockets().items():
            self._connect_registry_socket(sink, token)
        for message in waiting:
            self._handle_loaded(message)

    # Events of the rules -----------------------------------------------------------------------

    def _apply(self, domain_events: Sequence[SessionEvent]) -> None:
        """Does what follows from events of the rules, in order."""
        for domain_event in domain_events:
            match domain_event:
                case StateChanged() | PatchRefused():
                    self._state.send_change(domain_event)
                case ResourceChanged(held=held):
                    self._state.send_resource(self._resource.view(held))
                case SocketClosed(token=token):
                    self._state.flush()  # refusals go out before the close
                    self._close_sockets(token)
                case AbsenceTimedOut():
                    self._add_job(ExpireLease())
                case AllTokensExpired():
                    self.context.run(
                        partial(self._deps.store.sessions.expire, self._id), self._expired
                    )
                case Ended():
                    pass
                case _:
                    assert_never(domain_event)

    def _expired(self, result: outcome.Outcome[bool]) -> None:
        """Ends the session if the store has ended it; otherwise the rules ask again later."""
        if isinstance(result, outcome.Value) and result.value:
            self._found_ended()

    # Writes ------------------------------------------------------------------------------------

    def _saved(self, result: outcome.Outcome[bool]) -> None:
        """The state was written; or (False) the database has another version, loaded now."""
        rules = self._parts.loaded
        if rules.ended:
            return
        try:
            written = result.unwrap()
        except ReiletaError as error:
            self._apply(rules.abandon(error))
            return
        if written:
            self._apply(rules.saved())
            if self._deps.nodes is not None:
                self._deps.nodes.tell_state(self._id, rules.version)
        else:
            self.context.run(partial(self._deps.store.states.load, rules.id), self._reloaded)

    def _reloaded(self, result: outcome.Outcome[tuple[dict[str, Json], int]]) -> None:
        rules = self._parts.loaded
        if rules.ended:
            return
        try:
            state, version = result.unwrap()
        except SessionNotFound:
            self._found_ended()
        except ReiletaError as error:
            self._apply(rules.abandon(error))
        else:
            self._apply(rules.stale(state, version))

    def _renew_lease(self, *, present: bool) -> None:
        if self._parts.loaded.held is not None:
            self._add_job(RenewLease(present))

    def _add_job(self, job: Job) -> None:
        self._resource.added(job)
        self._jobs.add(partial(self._resource.do, job), partial(self._job_done, job))

    def _job_done(self, job: Job, result: outcome.Outcome[JobResult]) -> None:
        changes = self._resource.finish(job, result)
        self._apply(changes)
        if changes and self._deps.nodes is not None and not isinstance(job, CheckLease):
            self._deps.nodes.tell_resource(self._id)

    # Players -----------------------------------------------------------------------------------

    async def _join(self, message: Join) -> str:
        if message.sink not in self._recovery.sockets:
            raise NotInInstance  # the socket closed while the message waited
        instance_id, instance = await self._deps.instances.live(message.instance, self._visitor())
        joined_instances = self._recovery.joined_instances
        joined = joined_instances.get(instance_id)
        # Recorded before it asks: if this actor crashes, the player may be inside anyway.
        joined_instances[instance_id] = JoinedInstance(instance)
        seated = instance_id in message.sink.seats
        try:
            with ask_timeout(NESTED_ASK_TIMEOUT_S):
                player = await self._add_member(
                    message, instance_id, instance, known=joined is not None
                )
        except ReiletaError as error:
            if joined is None:
                del joined_instances[instance_id]
            else:
                joined_instances[instance_id] = joined
            if isinstance(error, AskTimedOut) and not seated:
                # The instance may still add the player, but its client gets an error.
                instance.signal(SocketLost(self._id, message.sink))
            raise
        joined_instances[instance_id] = JoinedInstance(instance, player)
        return player

    async def _add_member(
        self, message: Join, instance_id: str, instance: InstanceRecipient, *, known: bool
    ) -> str:
        """Enters the instance, with the user's friends if its access depends on them.

        If the database is down, those may enter who need no friends for it.
        """
        friends: frozenset[str] = frozenset()
        unavailable: DatabaseUnavailable | None = None
        if not known and self._deps.directory.occupancy(instance_id).by_friends:
            try:
                friends = await self._deps.friends(self._recovery.user)
            except DatabaseUnavailable as error:
                unavailable = error
        visitor = self._visitor(friends)
        request = AddMember(visitor, message.sink, self.context.ref, message.state)
        try:
            return await instance.ask(request)
        except NotAllowed:
            raise unavailable or NotAllowed from None

    async def _leave(self, message: Leave) -> None:
        joined_instances = self._recovery.joined_instances
        joined = joined_instances.get(message.instance)
        if joined is None and is_instance_name(message.instance):
            with suppress(InstanceNotFound):
                id_, _ = await self._deps.instances.live(message.instance, self._visitor())
                joined = joined_instances.get(id_)
        if joined is None:
            raise NotInInstance
        with ask_timeout(NESTED_ASK_TIMEOUT_S):
            await joined.instance.ask(RemoveMember(self._id, message.sink, message.state))

    def _instance_moved(self, message: InstanceMoved) -> None:
        """Goes on with the instance where it is now, and tells it what it may not know."""
        instance, recipient = message.instance, message.recipient
        joined = self._recovery.joined_instances.get(instance)
        if joined is None:
            recipient.signal(MemberSessionEnded(self._id))
            return
        joined.instance = recipient
        for sink in message.sinks:
            if sink not in self._recovery.sockets:
                recipient.signal(SocketLost(self._id, sink))

    def _seat_lost(self, message: SeatLost) -> None:
        """Forgets a player, unless the session has a newer player there."""
        joined = self._recovery.joined_instances.get(message.instance)
        if joined is not None and joined.player in (None, message.player):
            del self._recovery.joined_instances[message.instance]
            self._start_idle_timer()
