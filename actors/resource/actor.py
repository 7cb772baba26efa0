"""The resource actor: the order of all that is done with a resource, its watchers and its line.

It stands in front of the lease in the database (`reileta/store/leases.py`), which stays the
authority with its fencing token: every request asks the store, and is answered after the commit.
The actor carries out one operation after the other, in the order in which they came; writes that
wait together share a transaction, and reads a query. So the holder, the watchers and the waiting
sessions see one order.

When the resource is free and sessions wait, the first of them gets an offer before the next
operation is carried out, so nobody overtakes it.

A resource that nobody watches, waits for or uses has no actor: it ends after `IDLE_S`, and at once
if the resource does not exist.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, assert_never

import outcome

from actors.delivery.sink import Sink
from actors.resource.config import ResourceDeps
from actors.resource.messages import (
    Acquire,
    CatchUp,
    DeadlineReached,
    Delete,
    Idle,
    LeaveLine,
    LookAgain,
    MoveLineAway,
    Operation,
    Presence,
    Queue,
    Read,
    Release,
    ResourceMessage,
    Share,
    Tell,
    Unqueue,
    Unshare,
    Unwatch,
    UserChanged,
    Watch,
    WriteAll,
)
from actors.resource.operations import (
    Gone,
    NextInLine,
    Result,
    Seen,
    Turn,
    Unsure,
    carry_out,
    first_run,
    look,
    next_in_line,
)
from actors.resource.parts import ResourceParts
from actors.resource.recovery import ResourceRecovery
from actors.resource.snapshot import Snapshot
from actors.resource.waiting import Waiting
from actors.resource.watching import Watching
from actors.runtime.actor import Actor
from actors.runtime.timers import Timer
from reileta.errors import (
    Overloaded,
    ReiletaError,
    ResourceHeld,
    ResourceNotFound,
    SessionNotFound,
)
from reileta.rules.identity import Claimant
from reileta.rules.resource.waiting_line import LeaveReason, Place

IDLE_S: Final = 10.0
"""How long a resource that nobody uses stays in memory."""
AGAIN_S: Final = 1.0
"""How long it waits when the database is down."""
OPERATIONS: Final = 8192
"""Operations that may wait for the one under way; over it, `Overloaded`."""
WRITES: Final = 512
"""The same for writes, which can be large."""


class ResourceActor(Actor[ResourceMessage]):
    """One resource that is used, watched or waited for, or was a moment ago."""

    def __init__(self, number: int, recovery: ResourceRecovery, deps: ResourceDeps) -> None:
        self._number = number
        self._recovery = recovery
        self._deps = deps

    async def on_start(self) -> None:
        parts = ResourceParts(self._number, self._recovery, self._deps, self.context)
        self._watching = Watching(parts)
        self._waiting = Waiting(parts)
        self._operations: deque[Operation] = deque()
        self._run_now: Sequence[Operation] = ()
        """The operations that are being carried out."""
        self._begun: dict[Sink, list[Watch]] = {}
        """Those that wait or run; not those whose sockets have unwatched or closed meanwhile."""
        self._left: LeaveReason | None = None
        """Why the session whose `Queue` is being carried out can't wait: it happened meanwhile."""
        self._admins: dict[str, bool] = {}
        """The users of requests that wait or run who became admins meanwhile, or ceased to be."""
        self._running = False
        """Whether an operation or a look at the database is under way."""
        self._stale = False
        """Whether the resource may have changed since it was read."""
        self._pause: Timer | None = None
        """Until it asks a database again that was down."""
        self._idle: Timer | None = self.context.after(IDLE_S, Idle())
        self._recovery.asked = False
        if self._recovery.wanted:  # the incarnation before this one has crashed
            self._recovery.watchers.restart()
            self.context.ref.signal(LookAgain())

    async def receive(self, message: ResourceMessage) -> None:
        match message:
            case (
                Acquire()
                | Release()
                | WriteAll()
                | Delete()
                | Share()
                | Unshare()
                | Read()
                | Queue()
                | Unqueue()
                | Watch()
            ):
                limit = WRITES if isinstance(message, WriteAll) else OPERATIONS
                if len(self._operations) >= limit:
                    raise Overloaded
                message.defer()
                self._operations.append(message)
                self._recovery.asked = True
                if isinstance(message, Watch):
                    self._begun.setdefault(message.subscriber.sink, []).append(message)
            case Unwatch(sink=sink):
                self._unwatch(sink)
            case LookAgain():
                self._stale = True
                if self._pause is not None:
                    self._pause.cancel()
                    self._pause = None
            case UserChanged(user=user, admin=admin):
                if self._recovery.asked:
                    self._note_admin(user, admin=admin)
                self._watching.set_admin(user, admin=admin)
                self._waiting.set_admin(user, admin=admin)
            case Presence(session=session, present=present):
                self._waiting.set_presence(session, present=present)
            case LeaveLine(session=session, reason=reason):
                self._waiting.leave(session, reason)
                self._note_left(session, reason)
            case MoveLineAway():
                self._waiting.move_away()
            case DeadlineReached():
                if self._running:
                    self._waiting.postpone()
                else:
                    self._waiting.tick()
            case Tell():
                self._watching.paused()
            case CatchUp():
                self._watching.caught_up()
            case Idle():
                if self._idle is not None:
                    self._idle.cancel()
                    self._idle = None
                if not self._busy:
                    self.context.retire()
            case _:
                assert_never(message)

    async def flush(self) -> None:
        if not self._running:
            self._begin()
        if not (self._running or self._operations):
            self._recovery.asked = False
            self._admins.clear()
        self._watching.tell()
        self._waiting.flush(running=self._running)
        if not self._busy and self._idle is None:
            self._idle = self.context.after(IDLE_S, Idle())

    @property
    def _busy(self) -> bool:
        return bool(self._running or self._operations or self._recovery.wanted)

    # One thing at a time -----------------------------------------------------------------------

    def _begin(self) -> None:
        """Begins what is to be done next, if there is anything."""
        recovery, store = self._recovery, self._deps.store
        # These need no database, and can make room for an offer: so they come before it.
        while self._operations and self._withdraw(self._operations[0]):
            self._operations.popleft()
        name = recovery.name
        if name is not None and recovery.wanted and self._pause is None:
            known = recovery.known
            free = known is not None and known.resource.lease.session is None
            first = recovery.line.first
            if free and first is not None and recovery.line.offered is None:
                work = partial(next_in_line, name, first.session, store)
                self._run(work, partial(self._next_known, first.session))
                return
            if self._stale:
                self._stale = False
                self._run(partial(look, name, store), self._looked)
                return
        if self._operations:
            run = [self._operations.popleft() for _ in range(first_run(self._operations))]
            self._run_now = run
            turn = self._turn_against(run[0])
            self._run(
                partial(carry_out, run, store, turn=turn, wanted=recovery.wanted),
                partial(self._carried_out, run),
            )

    def _withdraw(self, operation: Operation) -> bool:
        """Lets a session leave the line, if it waits and that is what it asks for."""
        recovery = self._recovery
        if not isinstance(operation, Unqueue) or operation.name != recovery.name:
            return False
        session = operation.who.session
        if session not in recovery.line:
            return False
        self._waiting.leave(session, LeaveReason.WITHDRAWN)
        operation.reply(None)
        return True

    def _run(self, work: Any, then: Any) -> None:
        self._running = True
        self.context.run(work, then)

    def _turn_against(self, operation: Operation) -> Turn | None:
        """The session that has the turn, if the operation is an acquisition by another one."""
        line = self._recovery.line
        if not isinstance(operation, Acquire) or line.admits(operation.who.session):
            return None
        first = line.first
        return None if first is None else Turn(first)

    # What came of it ---------------------------------------------------------------------------

    def _looked(self, result: outcome.Outcome[Snapshot | Gone]) -> None:
        self._running = False
        try:
            seen = result.unwrap()
        except ReiletaError:
            self._look_later()
        else:
            self._see(seen)

    def _next_known(self, session: str, result: outcome.Outcome[NextInLine]) -> None:
        """Offers the resource to the first session, or finds that it can't get it."""
        self._running = False
        try:
            found = result.unwrap()
        except ReiletaError:
            self._look_later()
            return
        self._see(found.seen)
        line = self._recovery.line
        if session not in line or not isinstance(found.seen, Snapshot):
            return
        resource, claim = found.seen.resource, found.claim
        if claim is None:
            self._waiting.leave(session, LeaveReason.ENDED)
        elif not resource.may(claim.who):
            self._waiting.leave(session, LeaveReason.REFUSED)
        elif claim.holds is not None and claim.holds.number != self._number:
            self._waiting.leave(session, LeaveReason.HOLDS)
        elif resource.lease.session is None:  # it is still the first: others join behind it
            self._waiting.offer()

    def _carried_out(self, run: Sequence[Operation], result: outcome.Outcome[Result]) -> None:
        self._running = False
        self._run_now = ()
        try:
            done = result.unwrap()
        except ReiletaError as error:
            self._stale = True
            for operation in run:
                self._fail(operation, error)
        else:
            self._see(done.seen, run[0])
            for operation, answer in zip(run, done.answers, strict=True):
                if isinstance(answer, ReiletaError):
                    self._fail(operation, answer)
                else:
                    self._answer(operation, answer)
        self._left = None

    def _see(self, seen: Seen, operation: Operation | None = None) -> None:
        """Notes how the resource is now."""
        recovery = self._recovery
        match seen:
            case Snapshot():
                if operation is not None:
                    recovery.name = operation.name
                recovery.known = seen
                self._waiting.see(seen.resource)
            case Gone():
                recovery.known = None
                self._watching.tell_gone()
                self._waiting.see(None)
            case Unsure():
                self._stale = True
            case None:
                pass
            case _:
                assert_never(seen)

    def _look_later(self) -> None:
        """The database is down."""
        self._pause = self.context.after(AGAIN_S, LookAgain())

    # Answers -----------------------------------------------------------------------------------

    def _answer(self, operation: Operation, answer: Any) -> None:
        match operation:
            case Queue(who=who):
                try:
                    operation.reply(self._join(self._now(who)))
                except ReiletaError as error:
                    self._fail(operation, error)
            case Watch():
                if not self._wanted(operation):
                    self._fail(operation, SessionNotFound())
                    return
                try:
                    self._watching.add(operation, self._now(operation.who))
                except ReiletaError as error:
                    self._fail(operation, error)
                else:
                    self._finish(operation)
                    operation.reply(None)
            case _:
                operation.reply(answer)

    def _fail(self, operation: Operation, error: ReiletaError) -> None:
        interests, recovery = self._deps.interests, self._recovery
        if isinstance(operation, Watch):
            sink = operation.subscriber.sink
            if self._wanted(operation) and sink not in recovery.watchers:
                interests.remove_watch(sink, self._number)
            self._finish(operation)
        elif isinstance(operation, Queue) and operation.who.session not in recovery.line:
            interests.remove_wait(operation.who.session, self._number)
        if isinstance(error, ResourceNotFound):  # or actors for numbers made up would pile up
            self.context.ref.signal(Idle())
        operation.fail(error)

    def _unwatch(self, sink: Sink) -> None:
        """The socket does not watch any more, nor when what it asked for before is done.

        At once, because what waits here is lost in a crash.
        """
        self._watching.remove(sink)
        self._begun.pop(sink, None)

    def _wanted(self, watch: Watch) -> bool:
        """Whether the socket has neither unwatched nor closed since it asked."""
        return any(one is watch for one in self._begun.get(watch.subscriber.sink, ()))

    def _finish(self, watch: Watch) -> None:
        """The watch has begun, or has failed."""
        sink = watch.subscriber.sink
        others = [one for one in self._begun.pop(sink, ()) if one is not watch]
        if others:
            self._begun[sink] = others

    def _note_left(self, session: str, reason: LeaveReason) -> None:
        """The session can't wait any more, and is perhaps about to join the line."""
        if any(isinstance(one, Queue) and one.who.session == session for one in self._run_now):
            self._left = reason

    def _join(self, who: Claimant) -> Place:
        """The session waits from now on. Raises the error of what happened meanwhile."""
        known = self._recovery.known
        assert known is not None
        if self._left is LeaveReason.HOLDS:
            raise ResourceHeld
        if self._left is not None:
            raise SessionNotFound
        known.resource.ensure_may(who)
        return self._waiting.join(who)

    # Admins ------------------------------------------------------------------------------------

    def _note_admin(self, user: str, *, admin: bool) -> None:
        """The user may have become an admin, or may have ceased to be one, while its request
        waits."""
        requests = (*self._run_now, *self._operations)
        if any(isinstance(one, (Queue, Watch)) and one.who.user == user for one in requests):
            self._admins[user] = admin

    def _now(self, who: Claimant) -> Claimant:
        """The one who asked, as it is now."""
        return replace(who, admin=self._admins.get(who.user, who.admin))
